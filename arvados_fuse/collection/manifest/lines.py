"""Writing normalized manifest lines.

Used by `plan`, `commit` and write-back. Pure functions. A normalized line has its files sorted, every block
once in the order of first use, and neighbouring ranges of a file joined: byte for byte what the SDK's
`Collection.manifest_text(normalize=True)` writes.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress, islice
from operator import add, le, not_
from typing import NamedTuple

from arvados_fuse.collection.manifest.index import ManifestIndex, stripped
from arvados_fuse.collection.manifest.listing import Listing
from arvados_fuse.collection.manifest.names import escape
from arvados_fuse.collection.manifest.tokens import BlockTable, Line
from arvados_fuse.collection.segments import BLOCK_SIZE, Segment, Zeros

EMPTY_BLOCK = "d41d8cd98f00b204e9800998ecf8427e+0"
"""The locator that stands in a line without data (Arvados manifest format)."""

WORTH_IT = 32
"""Files from which on it is worth the trouble to look for text that can be used again."""


class Range(NamedTuple):
    """`size` bytes from `offset` of a block of `block_size` bytes."""

    locator: str
    block_size: int
    offset: int
    size: int


def empty_line(path: str) -> bytes:
    """The line that keeps an empty directory."""
    return f"{escape(path)} {EMPTY_BLOCK} 0:0:\\056\n".encode()


def located(segments: Iterable[Segment], zero_block: str) -> Iterator[Range]:
    """Saved segments as ranges of blocks; zeros become ranges of the padding block."""
    known, block_size = None, 0
    for source, offset, size in segments:
        if isinstance(source, str):
            if source is not known:
                known, block_size = source, int(stripped(source)[33:])
            yield Range(source, block_size, offset, size)
            continue
        assert isinstance(source, Zeros)
        while size:
            start = offset % BLOCK_SIZE
            part = min(size, BLOCK_SIZE - start)
            yield Range(zero_block, BLOCK_SIZE, start, part)
            offset += part
            size -= part


class LineWriter:
    """Collects the files of one line, which must come sorted by name.

    _parts: the text of the first tokens, each part with the space before it; _tokens: those after it.
    """

    __slots__ = ("_locators", "_parts", "_placed", "_size", "_strip", "_tokens")

    def __init__(self, *, strip: bool) -> None:
        """strip: whether locators lose all hints but the size."""
        self._strip = strip
        self._locators: list[str] = []
        self._placed: dict[str, int] = {}
        self._size = 0
        self._parts: list[bytes | memoryview] = []
        self._tokens: list[str] = []

    def text(self, path: str) -> bytes:
        """The line, with its end, in UTF-8."""
        self._join_tokens()
        head = " ".join([escape(path), *(self._locators or [EMPTY_BLOCK])])
        return b"".join([head.encode(), *self._parts, b"\n"])

    def _join_tokens(self) -> None:
        if self._tokens:
            self._parts.append(f" {' '.join(self._tokens)}".encode())
            self._tokens.clear()

    def place(self, locator: str, size: int) -> int:
        """Where a block is in the stream; behind all others when it is new."""
        if self._strip:
            locator = stripped(locator)
        at = self._placed.get(locator)
        if at is None:
            at = self._placed[locator] = self._size
            self._locators.append(locator)
            self._size += size
        return at

    def add(self, name: str, ranges: Iterable[Range]) -> None:
        """A file of any ranges; `name` is escaped already."""
        start = stop = -1
        known, block = None, 0
        for locator, block_size, offset, size in ranges:
            if locator is not known:
                known, block = locator, self.place(locator, block_size)
            at = block + offset
            if at != stop:
                if start >= 0:
                    self._tokens.append(f"{start}:{stop - start}:{name}")
                start = at
            stop = at + size
        self._tokens.append(f"{start}:{stop - start}:{name}" if start >= 0 else f"0:0:{name}")

    def add_listing(self, source: "ListingSource", first: int, last: int) -> None:
        """Files `first` to `last - 1` of a listing."""
        if source.standing is not None:
            self._add_standing(source, source.standing, first, last)
            return
        listing, table = source.listing, source.table
        starts = table.offsets
        number = 0
        names = escaped(listing.names[first:last])
        tokens = self._tokens
        for at, name, position, size in zip(
            range(first, last), names, listing.positions[first:last], listing.sizes[first:last], strict=True
        ):
            if at in listing.scattered or table.has_empty:
                self.add(name, ranges_of(source.index, listing, at))
                continue
            if not size:
                tokens.append(f"0:0:{name}")
                continue
            if not starts[number] <= position < starts[number + 1]:
                number = bisect_right(starts, position) - 1
            if position + size > starts[number + 1]:
                self.add(name, ranges_of(source.index, listing, at))
                continue
            tokens.append(f"{self._block(source, number) + position - starts[number]}:{size}:{name}")

    def _block(self, source: "ListingSource", number: int) -> int:
        """Where a block of the listing's own stream is in this line."""
        block = source.places[number]
        if block < 0:
            starts = source.table.offsets
            block = self.place(source.table.locators[number], starts[number + 1] - starts[number])
            source.places[number] = block
        return block

    def _add_standing(self, source: "ListingSource", standing: "Standing", first: int, last: int) -> None:
        """The same, where the text of tokens can be used again."""
        empty = standing.empty
        for at in empty[bisect_left(empty, first) : bisect_left(empty, last)]:
            self._add_full(source, standing, first, at)
            self._tokens.append(f"0:0:{source.listing.names[at]}")
            first = at + 1
        self._add_full(source, standing, first, last)

    def _add_full(self, source: "ListingSource", standing: "Standing", first: int, last: int) -> None:
        """Files that are not empty, block by block: where the blocks stand as they stood, so do the files."""
        starts = source.table.offsets
        positions, sizes, names = source.listing.positions, source.listing.sizes, source.listing.names
        kept = first
        while first < last:
            number = bisect_right(starts, positions[first]) - 1
            end = starts[number + 1]
            stop = bisect_left(positions, end, first, last)
            # Only the last file of a block can go on in the next.
            inside = stop - 1 if positions[stop - 1] + sizes[stop - 1] > end else stop
            shift = self._block(source, number) - starts[number] if inside > first else 0
            if shift:
                self._add_text(standing, kept, first)
                self._tokens += [
                    f"{position + shift}:{size}:{name}"
                    for position, size, name in zip(
                        positions[first:inside], sizes[first:inside], names[first:inside], strict=True
                    )
                ]
                kept = inside
            if inside < stop and not self._stands(source, number, positions[inside] + sizes[inside]):
                self._add_text(standing, kept, inside)
                self.add(names[inside], ranges_of(source.index, source.listing, inside))
                kept = stop
            first = stop
        self._add_text(standing, kept, last)

    def _stands(self, source: "ListingSource", number: int, end: int) -> bool:
        """Whether the blocks from `number` to the one that ends at `end` or holds it are where they were."""
        starts = source.table.offsets
        while starts[number] < end:
            if self._block(source, number) != starts[number]:
                return False
            number += 1
        return True

    def _add_text(self, standing: "Standing", first: int, last: int) -> None:
        if first < last:
            self._join_tokens()
            self._parts.append(standing.text(first, last))


class Standing:
    """The tokens of a line, to be used again as pieces of its text: each file once, in order, spelled as it
    would be written, and none beginning before the one before it ends.

    A million tokens are written in a second; their text is copied in a few milliseconds.

    empty: the files without bytes, whose tokens may have to be written anew.
    """

    __slots__ = ("_at", "_end", "_line", "_names", "empty")

    def __init__(self, line: Line, listing: Listing) -> None:
        self.empty = list(compress(range(len(listing.sizes)), map(not_, listing.sizes)))
        self._line = line
        self._names = listing.names
        self._at = -1
        self._end = line.body - 1

    @classmethod
    def of(cls, index: ManifestIndex, listing: Listing, table: BlockTable) -> "Standing | None":
        """That of the line of a listing, if all its tokens can be used again."""
        positions, sizes = listing.positions, listing.sizes
        if len(sizes) < WORTH_IT or not listing.in_line_order or table.has_empty:
            return None
        if not all(map(le, map(add, positions, sizes), islice(positions, 1, None))):
            return None
        return cls(index.line(listing.entry), listing)

    def text(self, first: int, last: int) -> memoryview:
        """The tokens of files `first` to `last - 1`, with the space before; must be asked for in order."""
        start = self._end_of(first - 1)
        return memoryview(self._line.data)[start : self._end_of(last - 1)]

    def _end_of(self, at: int) -> int:
        """Where a file's token ends in the text. The search goes on where it last ended: one pass for all."""
        if at == self._at:
            return self._end
        data, last = self._line.data, len(self._names) - 1
        token_end = f":{self._names[at]} ".encode()
        self._end = self._line.end if at == last else data.index(token_end, self._end) + len(token_end) - 1
        self._at = at
        return self._end


class ListingSource:
    """A listing whose files go into a line.

    places: where the blocks of the listing's own stream are in the line so far, -1 for not yet.
    standing: its tokens, if they can be used again.
    """

    __slots__ = ("index", "listing", "places", "standing", "table")

    def __init__(self, index: ManifestIndex, listing: Listing) -> None:
        self.index = index
        self.listing = listing
        self.table = index.blocks(listing.entry)
        self.places = [-1] * len(self.table.locators)
        self.standing = Standing.of(index, listing, self.table)


def escaped(names: Sequence[str]) -> Sequence[str]:
    """All names as tokens; the same object when none needs an escape."""
    joined = "/".join(names)
    return names if len(escape(joined)) == len(joined) else [escape(name) for name in names]


def ranges_of(index: ManifestIndex, listing: Listing, at: int) -> Iterator[Range]:
    """One file of a listing. Empty blocks inside of it are kept, as the SDK does."""
    last, table = -1, index.blocks(listing.entry)
    for entry, position, size in listing.pieces(at):
        if entry != last:
            last, table = entry, index.blocks(entry)
        offsets = table.offsets
        number = bisect_right(offsets, position) - 1
        if size and position + size <= offsets[number + 1] and not table.has_empty:  # as nearly always
            start = offsets[number]
            yield Range(table.locators[number], offsets[number + 1] - start, position - start, size)
            continue
        for number, offset, length in _pieces(table, position, size):
            block_size = table.offsets[number + 1] - table.offsets[number]
            yield Range(table.locators[number], block_size, offset, length)


def _pieces(table: BlockTable, position: int, size: int) -> Iterator[tuple[int, int, int]]:
    if not table.has_empty:
        yield from table.pieces(position, size)
        return
    previous = -1
    for number, offset, length in table.pieces(position, size):
        if previous >= 0:
            for between in range(previous + 1, number):
                yield between, 0, 0
        yield number, offset, length
        previous = number


def directory_line(
    path: str,
    index: ManifestIndex | None,
    listing: Listing,
    changes: Mapping[str, Sequence[Range] | None],
    *,
    strip: bool,
) -> bytes:
    """The line of a directory: the files of `listing`, with `changes` over it (None: no such file); it has at
    least one."""
    writer = LineWriter(strip=strip)
    count = len(listing.names)
    source = ListingSource(index, listing) if index is not None and count else None
    done = 0
    for name in sorted(changes):
        at = bisect_left(listing.names, name, done)
        if source is not None and at > done:
            writer.add_listing(source, done, at)
        ranges = changes[name]
        if ranges is not None:
            writer.add(escape(name), ranges)
        done = at + (at < count and listing.names[at] == name)
    if source is not None and done < count:
        writer.add_listing(source, done, count)
    return writer.text(path)
