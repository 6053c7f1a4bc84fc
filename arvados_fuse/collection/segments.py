"""The content of one file: segments in order, found by bisect.

Used by `content`. A segment is a range of a source: a block in Keep (its locator), unsaved bytes (a `Spool`),
or the zeros of a sparse file. Segments are immutable and the bytes that a segment points to never change, so
a list taken from `locate` may be read after the lock is gone.

Threads: the owner of a `Segments` guards it with its own lock.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple, TypeAlias

from arvados_fuse.collection.spool import Spool

BLOCK_SIZE = 1 << 26
"""Largest block in bytes (Arvados: 64 MiB)."""

ZERO_BLOCK = "7f614da9329cd3aebf59b91aadc30bf0+67108864"
"""The block of 64 MiB of zeros, which all sparse files share; the SDK pads with the same block."""


class Zeros:
    """The source of zeros that were never written: endless repetitions of the block of zeros."""

    def read(self, offset: int, size: int) -> bytes:
        """`size` zero bytes."""
        return bytes(size)


ZEROS = Zeros()

Source: TypeAlias = str | Spool | Zeros
"""A block's locator, or where unsaved bytes are, or `ZEROS`."""


class Segment(NamedTuple):
    """`size` bytes of `source` from `offset`."""

    source: Source
    offset: int
    size: int

    @property
    def is_unsaved(self) -> bool:
        """Whether the bytes are only in a spool."""
        return not isinstance(self.source, str | Zeros)


class Segments:
    """A sequence of segments; `size` is the sum of theirs in bytes."""

    __slots__ = ("_items", "_starts", "size")

    def __init__(self, segments: Iterable[Segment] = ()) -> None:
        self._items = list(joined(segments))
        *self._starts, self.size = accumulate([segment.size for segment in self._items], initial=0)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def items(self) -> tuple[Segment, ...]:
        """All segments, as a snapshot."""
        return tuple(self._items)

    def append(self, segment: Segment) -> None:
        """Add at the end; grows the last segment when the two are neighbours in one source."""
        if not segment.size:
            return
        if self._items:
            joined = _join(self._items[-1], segment)
            if joined is not None:
                self._items[-1] = joined
                self.size += segment.size
                return
        self._items.append(segment)
        self._starts.append(self.size)
        self.size += segment.size

    def extend(self, size: int) -> None:
        """Make the file `size` bytes long with zeros at the end."""
        if size > self.size:
            self.append(Segment(ZEROS, 0, size - self.size))

    def locate(self, offset: int, size: int) -> list[Segment]:
        """The parts of segments that hold a range; ends early at the end of the file."""
        stop = min(offset + size, self.size)
        if offset >= stop:
            return []
        at = bisect_right(self._starts, offset) - 1
        item, skip = self._items[at], offset - self._starts[at]
        if stop - offset <= item.size - skip:  # in one segment, as nearly always
            return [Segment(item.source, item.offset + skip, stop - offset)]
        found = []
        while offset < stop:
            item = self._items[at]
            skip = offset - self._starts[at]
            length = min(item.size - skip, stop - offset)
            found.append(Segment(item.source, item.offset + skip, length))
            offset += length
            at += 1
        return found

    def in_one_block(self, offset: int, size: int) -> tuple[str, int, int] | None:
        """The part of one block (not that of zeros) that holds a range, which ends at the end of the file at
        the latest: locator, offset, size; None when there is no such part."""
        length = min(size, self.size - offset)
        if offset < 0 or length <= 0:
            return None
        at = bisect_right(self._starts, offset) - 1
        source, begin, whole = self._items[at]
        skip = offset - self._starts[at]
        if length > whole - skip or not isinstance(source, str) or source.startswith(ZERO_BLOCK):
            return None
        return source, begin + skip, length

    def replace(self, offset: int, new: Segment) -> None:
        """Put `new` over what is at `offset`, at most at the end of the file."""
        if offset == self.size:
            self.append(new)
            return
        stop = offset + new.size
        first = bisect_right(self._starts, offset) - 1
        last = bisect_left(self._starts, stop, first)
        fresh: list[Segment] = []
        start = self._starts[first]
        if offset > start:
            fresh.append(self._items[first]._replace(size=offset - start))
        fresh.append(new)
        tail = self._items[last - 1]
        end = self._starts[last - 1] + tail.size
        if stop < end:
            keep = end - stop
            fresh.append(Segment(tail.source, tail.offset + tail.size - keep, keep))
        # Neighbours join, so that writing piece by piece does not leave a segment for every piece.
        if first and offset == start:
            first -= 1
            fresh.insert(0, self._items[first])
        if last < len(self._items) and stop == end:
            fresh.append(self._items[last])
            last += 1
        self._splice(first, last, fresh)
        self.size = max(self.size, stop)

    def _splice(self, first: int, last: int, fresh: list[Segment]) -> None:
        start = self._starts[first]
        items: list[Segment] = []
        starts: list[int] = []
        for segment in fresh:
            joined = _join(items[-1], segment) if items else None
            if joined is None:
                items.append(segment)
                starts.append(start)
            else:
                items[-1] = joined
            start += segment.size
        self._items[first:last] = items
        self._starts[first:last] = starts

    def cut(self, size: int) -> None:
        """Forget everything from `size` on."""
        if size >= self.size:
            return
        count = bisect_left(self._starts, size)
        del self._items[count:]
        del self._starts[count:]
        if count:
            self._items[-1] = self._items[-1]._replace(size=size - self._starts[-1])
        self.size = size

    def check(self) -> None:
        """Assert the invariants (for tests)."""
        position = 0
        for start, item in zip(self._starts, self._items, strict=True):
            assert start == position
            assert item.size > 0
            assert item.offset >= 0
            position += item.size
        assert position == self.size
        for left, right in zip(self._items, self._items[1:], strict=False):
            assert _join(left, right) is None


def joined(segments: Iterable[Segment]) -> Iterator[Segment]:
    """The same bytes in as few segments as can be: neighbours in one source are one, empty ones go."""
    last, end = None, -1
    for segment in segments:
        source, offset, size = segment
        if offset == end and last is not None and last.source == source:
            last = Segment(source, last.offset, last.size + size)
        elif size:
            if last is not None:
                yield last
            last = segment
        else:
            continue
        end = offset + size
    if last is not None:
        yield last


def _join(left: Segment, right: Segment) -> Segment | None:
    if left.offset + left.size == right.offset and left.source == right.source:
        return Segment(left.source, left.offset, left.size + right.size)
    return None
