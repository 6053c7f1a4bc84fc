"""What is at a path of a collection: nothing, an empty directory, or a file of these segments.

Used by the whole room, and by the tree to say what changed. A collection is taken as a table of such states:
a directory that holds something needs no entry of its own, it is there through what it holds.

Pure values and functions.
"""

import enum
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from arvados_fuse.collection.content import Content
from arvados_fuse.collection.manifest import stripped
from arvados_fuse.collection.manifest.changes import bare
from arvados_fuse.collection.segments import BLOCK_SIZE, ZERO_BLOCK, ZEROS, Segment, Zeros, joined
from arvados_fuse.collection.spool import Spool
from arvados_fuse.errors import ManifestError
from arvados_fuse.writeback.spool import DiskSpool


class Mark(enum.Enum):
    """The states that are neither a file nor nothing."""

    DIRECTORY = "directory"


DIRECTORY: Final = Mark.DIRECTORY
"""An empty directory."""

State: TypeAlias = tuple[Segment, ...] | Literal[Mark.DIRECTORY] | None
"""None: nothing, or a directory that holds something. `()` is an empty file."""


class PathChange(NamedTuple):
    """One path of one collection (`a/b`), as far as it is closed.

    before: what the server has there, as far as the caller knows; used when the path has no unsaved change
    yet.
    content: the live content, whose segments are pointed to blocks once the bytes are in blocks.

    The changes that one caller records are the difference between two tables of states: who unlinks the last
    file of a directory that stays says so too (None to DIRECTORY), and who puts the first file into an empty
    directory (DIRECTORY to None). A directory that nothing holds any more and that is not said to be
    DIRECTORY is removed.
    """

    path: str
    before: State
    after: State
    content: Content | None = None


def same(one: State, other: State) -> bool:
    """Whether two states are the same data in the same blocks, whatever the signatures."""
    if not isinstance(one, tuple) or not isinstance(other, tuple):
        return one is other
    # Only as far as they are the same: what was changed here and there is often so at its beginning.
    return one is other or all(mine == theirs for mine, theirs in zip_longest(_joined(one), _joined(other)))


def _joined(segments: Iterable[Segment]) -> Iterator[Segment]:
    return joined(bare(_without_zeros(segments)))


def _without_zeros(segments: Iterable[Segment]) -> Iterator[Segment]:
    """Zeros as parts of the block that stands for them in a manifest."""
    for segment in segments:
        source, offset, size = segment
        if isinstance(source, Zeros):
            while size:
                start = offset % BLOCK_SIZE
                part = min(size, BLOCK_SIZE - start)
                yield Segment(ZERO_BLOCK, start, part)
                offset, size = offset + part, size - part
        else:
            yield segment


def unsaved(state: State) -> list[Segment]:
    """The segments that are in no block yet."""
    if not isinstance(state, tuple):
        return []
    return [segment for segment in state if not isinstance(segment.source, str | Zeros)]


def unsaved_bytes(state: State) -> int:
    """Bytes of a state that are in no block yet."""
    return sum(segment.size for segment in unsaved(state))


def spools(state: State) -> set[Spool]:
    """The spools that a state needs."""
    if not isinstance(state, tuple):
        return set()
    return {segment.source for segment in state if not isinstance(segment.source, str | Zeros)}


def is_whole(state: State) -> bool:
    """Whether all bytes that a state needs of spools are in their files."""
    return all(
        segment.offset + segment.size <= segment.source.size()
        for segment in unsaved(state)
        if isinstance(segment.source, DiskSpool)
    )


def blocks_of(state: State) -> set[str]:
    """The blocks of a state, without hints."""
    if not isinstance(state, tuple):
        return set()
    return {stripped(source) for source in {source for source, _, _ in state} if isinstance(source, str)}


_NOTHING, _EMPTY = "-", "d"


def encode(state: State) -> Any:
    """A state as plain JSON: "-", "d", or a flat list of source, offset, size.

    Sources: a locator, "0" for zeros, "@" and the name of a spool's file.
    """
    if state is None:
        return _NOTHING
    if not isinstance(state, tuple):
        return _EMPTY
    flat: list[str | int] = []
    for source, offset, size in state:
        if isinstance(source, str):
            flat += [source, offset, size]
        elif isinstance(source, Zeros):
            flat += ["0", offset, size]
        else:
            assert isinstance(source, DiskSpool)
            flat += ["@" + source.name, offset, size]
    return flat


def decode(value: Any, spool: Callable[[str], Spool]) -> State:
    """The state that `encode` wrote; `spool` gives the spool of a file's name.

    Raises ManifestError when it is none.
    """
    if value == _NOTHING:
        return None
    if value == _EMPTY:
        return DIRECTORY
    if not isinstance(value, list) or len(value) % 3:
        raise ManifestError("the journal has a row of another form")
    found = []
    for at in range(0, len(value), 3):
        source, offset, size = value[at : at + 3]
        if not (isinstance(source, str) and isinstance(offset, int) and isinstance(size, int)):
            raise ManifestError("the journal has a row of another form")
        if source == "0":
            found.append(Segment(ZEROS, offset, size))
        else:
            found.append(Segment(spool(source[1:]) if source.startswith("@") else source, offset, size))
    return tuple(found)
