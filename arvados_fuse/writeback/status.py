"""How it stands: limits that were set, and what is unsaved, as frozen values.

Used by everybody above. Sizes are bytes, times are seconds.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from arvados_fuse.writeback.states import State


@dataclass(frozen=True)
class Limits:
    """When changes are saved, and how much may wait.

    quiet, longest: a commit begins after so long without a change, or so long after the first one.
    commits: collections that are saved at one time. blocks: blocks on their way at one time, each with a
    buffer of up to 64 MiB.
    spool: bytes of unsaved data on the local disk beyond which writers wait, 0 for what fits the disk.
    patience: how long they wait.
    first_pause, longest_pause: between two attempts to save what the server refused. longest_outage_pause:
    when it did not answer.
    """

    quiet: float = 0.5
    longest: float = 5.0
    commits: int = 3
    blocks: int = 2
    spool: int = 0
    patience: float = 120.0
    first_pause: float = 1.0
    longest_pause: float = 60.0
    longest_outage_pause: float = 5.0


class Saved(NamedTuple):
    """One successful save.

    record: the collection's record as the API gave it after the update, with its manifest_text.
    conflicts: paths (`a/b`) under which other people's versions of the saved paths are kept.
    committed: the paths that were saved, and what they are there.
    """

    uuid: str
    record: dict[str, Any]
    conflicts: list[str]
    committed: dict[str, State]


class Sink(Protocol):
    """Takes what was saved: a `queue.SimpleQueue[Saved]`, for example."""

    def put(self, item: Saved) -> None: ...


@dataclass(frozen=True)
class Unsaved:
    """What one collection waits for.

    paths: changed and not yet saved. bytes: of them, in no block yet. error: why the last attempt failed, or
    "". refused: whether the server said no, so that waiting alone will not help. since: seconds since 1970 of
    the oldest change.
    """

    uuid: str
    paths: int
    bytes: int
    error: str
    refused: bool
    since: float


@dataclass(frozen=True)
class Status:
    """All that is unsaved. spool: bytes on the local disk, those of files that are still open too."""

    files: int
    bytes: int
    spool: int
    collections: tuple[Unsaved, ...]

    def is_clean(self) -> bool:
        """Whether everything that was recorded is saved."""
        return not self.files
