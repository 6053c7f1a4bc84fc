"""Bringing unsaved bytes into blocks: what goes into which block, and where it is afterwards.

Used by `content` (blocks of one file), `manifests` (many small files in shared blocks) and write-back. Pure
data, except that `store_block` and `pack` read spools and store blocks.

Threads: a `Moves` belongs to one caller at a time.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from arvados_fuse.collection.failures import ReadFailed
from arvados_fuse.collection.segments import BLOCK_SIZE, Segment, Source
from arvados_fuse.collection.spool import Spool
from arvados_fuse.collection.stores import BlockStore


class Moves:
    """For ranges of spools: the segment that holds the same bytes now."""

    __slots__ = ("_ranges", "_starts")

    def __init__(self) -> None:
        self._starts: dict[Source, list[int]] = {}
        self._ranges: dict[Source, list[Segment]] = {}

    def add(self, old: Segment, new: Segment) -> None:
        """The bytes of `old`, a range of a spool, are at `new`."""
        assert old.size == new.size
        assert old.is_unsaved
        spool = _spool(old)
        starts = self._starts.setdefault(spool, [])
        at = bisect_right(starts, old.offset)
        starts.insert(at, old.offset)
        self._ranges.setdefault(spool, []).insert(at, new)

    def add_all(self, spool: Spool, moved: Sequence[tuple[int, Segment]]) -> None:
        """Ranges of a spool of which none was added: where each begins, in order, and where its bytes are."""
        if moved:
            self._starts[spool] = [start for start, _ in moved]
            self._ranges[spool] = [new for _, new in moved]

    def translate(self, segments: Iterable[Segment]) -> Iterator[Segment]:
        """The same bytes, with every range that was moved replaced."""
        for segment in segments:
            source, offset, size = segment
            starts = self._starts.get(source)
            if starts is None:
                yield segment
                continue
            at = bisect_right(starts, offset) - 1
            new = self._ranges[source][at]
            if at >= 0 and starts[at] == offset and new.size == size:  # as nearly always
                yield new
            else:
                yield from self._parts(segment, at)

    def _parts(self, segment: Segment, at: int) -> Iterator[Segment]:
        """A segment whose ranges are in several places. at: the last range that begins before it, or -1."""
        spool = segment.source
        starts, ranges = self._starts[spool], self._ranges[spool]
        position, stop = segment.offset, segment.offset + segment.size
        while position < stop:
            if at >= 0 and position < starts[at] + ranges[at].size:
                new = ranges[at]
                skip = position - starts[at]
                length = min(new.size - skip, stop - position)
                yield Segment(new.source, new.offset + skip, length)
            else:
                length = (starts[at + 1] if at + 1 < len(starts) else stop) - position
                length = min(length, stop - position)
                yield Segment(spool, position, length)
            position += length
            while at + 1 < len(starts) and position >= starts[at + 1]:
                at += 1

    def missing(self, segments: Iterable[Segment]) -> list[Segment]:
        """The unsaved ranges that were not moved."""
        return [segment for segment in self.translate(segments) if segment.is_unsaved]

    def copy(self, segments: Iterable[Segment], target: Spool) -> None:
        """Copy ranges into another spool."""
        for segment in segments:
            done = 0
            while done < segment.size:
                part = Segment(segment.source, segment.offset + done, min(_PART, segment.size - done))
                self.add(part, Segment(target, target.append(_bytes(part)), part.size))
                done += part.size


_PART = 1 << 20
"""Bytes copied at a time."""


def _spool(segment: Segment) -> Spool:
    assert segment.is_unsaved
    return segment.source  # type: ignore[return-value]


def _bytes(segment: Segment) -> bytes | memoryview:
    return _spool(segment).read(segment.offset, segment.size)


def store_block(
    blocks: BlockStore, segments: Sequence[Segment], moves: Moves, storage_classes: Sequence[str] = ()
) -> None:
    """Store unsaved segments, together at most 64 MiB, as one block.

    Raises what the block store raises; nothing is noted in `moves` then.
    """
    parts = [_bytes(segment) for segment in segments]
    locator = blocks.put(parts[0] if len(parts) == 1 else b"".join(parts), storage_classes=storage_classes)
    offset = 0
    for segment in segments:
        moves.add(segment, Segment(locator, offset, segment.size))
        offset += segment.size


def pack(
    blocks: BlockStore, files: Iterable[Sequence[Segment]], moves: Moves, storage_classes: Sequence[str] = ()
) -> None:
    """Store the unsaved segments of many files, each group of `groups` as a block."""
    for group in groups(files, moves):
        store_block(blocks, group, moves, storage_classes)


def groups(files: Iterable[Sequence[Segment]], moves: Moves) -> list[list[Segment]]:
    """What goes into which block: as few as keep a small file in one block.

    Ranges that `moves` has already are left out; so is what several files share after the first time.
    """
    planned = Moves()
    done: list[list[Segment]] = []
    waiting: list[Segment] = []
    size = 0
    for segments in files:
        fresh = in_written_order(planned.missing(moves.missing(segments)))
        more = sum(segment.size for segment in fresh)
        if waiting and size + more > BLOCK_SIZE:
            done.append(waiting)
            waiting, size = [], 0
        for segment in fresh:
            planned.add(segment, Segment("planned", 0, segment.size))
        waiting += fresh
        size += more
        while size >= BLOCK_SIZE:
            block, waiting = split(waiting, BLOCK_SIZE)
            done.append(block)
            size -= BLOCK_SIZE
    return [*done, waiting] if waiting else done


def split(segments: Sequence[Segment], size: int) -> tuple[list[Segment], list[Segment]]:
    """The first `size` bytes of segments, and the rest."""
    first: list[Segment] = []
    rest: list[Segment] = []
    for segment in segments:
        part = min(size, segment.size)
        if part:
            first.append(segment._replace(size=part))
        if part < segment.size:
            rest.append(Segment(segment.source, segment.offset + part, segment.size - part))
        size -= part
    return first, rest


def in_written_order(segments: list[Segment]) -> list[Segment]:
    """Unsaved segments of one file in the order of a spool without garbage, else in that of the file.

    The SDK does the same, so that equal writes give equal manifests.
    """
    spools = {_spool(segment) for segment in segments}
    if len(spools) == 1:
        ordered = sorted(segments, key=lambda segment: segment.offset)
        position = 0
        for segment in ordered:
            if segment.offset != position:
                return segments
            position += segment.size
        if position == next(iter(spools)).size():
            return ordered
    return segments


class HashesOnly:
    """Says what a block store would call a block, without storing it."""

    def put(
        self, data: bytes | memoryview, *, storage_classes: Sequence[str] = (), file: str | None = None
    ) -> str:
        """The locator that `data` would have, unsigned."""
        return f"{hashlib.md5(data, usedforsecurity=False).hexdigest()}+{len(data)}"

    def read(self, locator: str, offset: int, size: int) -> bytes | memoryview:
        """Raises ReadFailed."""
        raise ReadFailed("nothing is stored here", subject=locator)


def hashed(segments: Sequence[Segment]) -> list[Segment]:
    """The segments of one file with unsaved ones under the blocks they would be stored in."""
    moves = Moves()
    pack(HashesOnly(), [[segment for segment in segments if segment.is_unsaved]], moves)
    return list(moves.translate(segments))
