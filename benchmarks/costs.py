"""What a mount cost while it was measured: CPU, memory, API requests, blocks and bytes.

`Meter` looks at one mount from outside: /proc, the log of the embedded server, the block files that came into
the mount's cache directory (fetched) and into the server's (stored). Used by `Bench.mounted`; the driver adds
up the mounts of a workload's turn. Values are `Spent`.
"""

import contextlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.processes import cpu_seconds, memory
from benchmarks.rows import rounded


class Spent(NamedTuple):
    """cpu: seconds; memory: the most MB; requests: of the API; blocks fetched and stored, and MB of them."""

    cpu: float = 0.0
    memory: float = 0.0
    requests: float = 0.0
    fetched: float = 0.0
    fetched_mb: float = 0.0
    stored: float = 0.0
    stored_mb: float = 0.0

    def __add__(self, other: object) -> "Spent":
        """Of two mounts, one after the other."""
        if not isinstance(other, Spent):
            return NotImplemented
        sums = [mine + theirs for mine, theirs in zip(self, other, strict=True)]
        return Spent(*sums)._replace(memory=max(self.memory, other.memory))

    def as_json(self) -> dict[str, Any]:
        """Few digits."""
        return {name: rounded(value) for name, value in self._asdict().items()}


NOTHING = Spent()


def median(turns: Sequence[Spent]) -> Spent:
    """Of each figure by itself."""
    return Spent(*(statistics.median(values) for values in zip(*turns, strict=True)))


class Block(NamedTuple):
    """A block's file. A block that is stored again is a new file of the same name."""

    size: int
    identity: tuple[int, int]


def blocks(directory: Path) -> dict[str, Block]:
    """The blocks by hash in a mount's cache directory, or in that of an embedded Keep service: both have them
    two levels down, in directories named by the first three digits."""
    found = {}
    for below in directory.glob("[0-9a-f][0-9a-f][0-9a-f]"):
        for path in below.iterdir():
            name, _, kind = path.name.partition(".")
            if kind in ("", "keepcacheblock"):
                with contextlib.suppress(FileNotFoundError):  # evicted meanwhile
                    status = path.stat()
                    found[name] = Block(status.st_size, (status.st_ino, status.st_mtime_ns))
    return found


def new_blocks(directory: Path, before: Mapping[str, Block]) -> dict[str, Block]:
    """Those that came since `before` was what `blocks` gave, or came again."""
    return {name: block for name, block in blocks(directory).items() if before.get(name) != block}


def megabytes(found: Mapping[str, Block]) -> float:
    """Of all of them."""
    return sum(block.size for block in found.values()) / 1e6


class Meter:
    """From its making to `read`. requests: tells how many requests the API has had since then."""

    def __init__(self, requests: Callable[[], int | None], cache: Path, keep: Path) -> None:
        self._requests = requests
        self._places = cache, keep
        self._before = [blocks(place) for place in self._places]

    def read(self, pid: int) -> Spent:
        """What the process has cost so far. What it stored may be in its cache without being fetched."""
        fetched, stored = map(new_blocks, self._places, self._before)
        fetched = {name: block for name, block in fetched.items() if name not in stored}
        return Spent(
            cpu_seconds(pid),
            memory(pid)["peak"] / 1e6,
            self._requests() or 0,
            len(fetched),
            megabytes(fetched),
            len(stored),
            megabytes(stored),
        )
