"""What differs between two manifests, path by path.

Used by `merge` and `commit`. Pure functions over indexes: lines that are equal but for their hints are
skipped as bytes, so that two manifests of a million files with one difference are compared in the time it
takes to look at their lines.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from arvados_fuse.collection.manifest.index import ManifestIndex, stripped
from arvados_fuse.collection.manifest.lines import Range, ranges_of
from arvados_fuse.collection.manifest.listing import Listing
from arvados_fuse.collection.manifest.tokens import strip_hints
from arvados_fuse.collection.segments import Segment, Segments, Source, joined

_LISTINGS_KEPT = 16

Data: TypeAlias = tuple[Segment, ...]
"""A file's content in blocks without hints, neighbours joined."""


@dataclass(slots=True)
class Version:
    """One file as one manifest has it. Its data is worked out when it is first asked for."""

    manifest: ManifestIndex
    key: str
    listing: Listing
    at: int
    _data: Data | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return self.listing.sizes[self.at]

    def ranges(self) -> list[Range]:
        """Where its bytes are, with the manifest's signatures."""
        return list(ranges_of(self.manifest, self.listing, self.at))

    def segments(self) -> Segments:
        """The same for a content."""
        return Segments(Segment(locator, offset, size) for locator, _, offset, size in self.ranges())

    def data(self) -> Data:
        """In a form in which equal content in equal blocks is equal."""
        if self._data is None:
            ranges = ranges_of(self.manifest, self.listing, self.at)
            self._data = data_of((locator, offset, size) for locator, _, offset, size in ranges)
        return self._data


class Change(NamedTuple):
    """A file that differs; None where there is none."""

    path: str
    before: Version | None
    after: Version | None


class Changes(NamedTuple):
    """What differs: files, and directories that are only in one of the two, all sorted by path."""

    files: list[Change]
    directories_removed: list[str]
    directories_added: list[str]


def data_of(segments: Iterable[tuple[Source, int, int]]) -> Data:
    """The content of segments, without the hints of their blocks."""
    return tuple(joined(bare(segments)))


def bare(segments: Iterable[tuple[Source, int, int]]) -> Iterator[Segment]:
    """The segments with locators without hints; many are of few blocks."""
    known: dict[Source, Source] = {}
    for source, offset, size in segments:
        name = known.get(source)
        if name is None:
            name = known[source] = stripped(source) if isinstance(source, str) else source
        yield Segment(name, offset, size)


class Finder:
    """Looks paths (`a/b`) up in an index, and remembers the directories it read last."""

    def __init__(self, index: ManifestIndex) -> None:
        self._index = index
        self._read: OrderedDict[str, Listing] = OrderedDict()

    def _listing(self, key: str) -> Listing:
        listing = self._read.get(key)
        if listing is None:
            listing = self._read[key] = Listing.read(self._index, key)
            if len(self._read) > _LISTINGS_KEPT:
                self._read.popitem(last=False)
        return listing

    def file(self, path: str) -> Version | None:
        """The file at a path, or None. Raises ManifestError."""
        parent, _, name = path.rpartition("/")
        key = parent.replace("/", "\0")
        if not self._index.has_directory(key):
            return None
        listing = self._listing(key)
        at = listing.find(name)
        return None if at is None else Version(self._index, key, listing, at)

    def has_directory(self, path: str) -> bool:
        """Whether there is a directory at a path."""
        return self._index.has_directory(path.replace("/", "\0"))

    def has_entries(self, path: str) -> bool:
        """Whether the directory at a path holds anything."""
        listing = self._listing(path.replace("/", "\0"))
        return bool(listing.names or listing.subdirectories)

    def below(self, path: str) -> Iterator[str]:
        """Paths of all files below a directory, and of its empty directories."""
        pending = [path]
        while pending:
            way = pending.pop()
            listing = self._listing(way.replace("/", "\0"))
            yield from (f"{way}/{name}" for name in listing.names)
            pending += [f"{way}/{name}" for name in listing.subdirectories]
            if way != path and not listing.names and not listing.subdirectories:
                yield way


def compare(before: ManifestIndex, after: ManifestIndex) -> Changes:
    """What has to be done to `before` to get `after`. Raises ManifestError when a differing line is not
    legal."""
    files = [change for key in _differing(before, after) for change in _files(before, after, key)]
    files.sort(key=lambda change: change.path)
    removed: list[str] = []
    added: list[str] = []
    if before.keys != after.keys:
        mine, theirs = _directories(before), _directories(after)
        removed = sorted(mine - theirs)
        added = sorted(theirs - mine)
    return Changes(files, removed, added)


def _differing(before: ManifestIndex, after: ManifestIndex) -> Iterator[str]:
    """Keys of directories whose own lines differ."""
    if before.data == after.data:
        return
    lines_count = not before.has_loose_lines and not after.has_loose_lines
    for key in sorted({*before.keys, *after.keys}):
        mine, theirs = before.own(key), after.own(key)
        if lines_count and len(mine) and len(theirs):
            old, new = (index.span(own.start, own.stop) for index, own in ((before, mine), (after, theirs)))
            if old == new or strip_hints(old) == strip_hints(new):
                continue
        yield key


def _files(before: ManifestIndex, after: ManifestIndex, key: str) -> Iterator[Change]:
    prefix = key.replace("\0", "/") + "/" if key else ""
    mine = Listing.read(before, key) if before.has_directory(key) else Listing.empty()
    theirs = Listing.read(after, key) if after.has_directory(key) else Listing.empty()
    is_same = _Quickly(before, mine, after, theirs).is_same if mine.names and theirs.names else None
    old_names, new_names = mine.names, theirs.names
    at = other = 0
    while at < len(old_names) or other < len(new_names):
        if other == len(new_names) or (at < len(old_names) and old_names[at] < new_names[other]):
            yield Change(prefix + old_names[at], Version(before, key, mine, at), None)
            at += 1
        elif at == len(old_names) or new_names[other] < old_names[at]:
            yield Change(prefix + new_names[other], None, Version(after, key, theirs, other))
            other += 1
        else:
            if is_same is None or not is_same(at, other):
                old, new = Version(before, key, mine, at), Version(after, key, theirs, other)
                if old.size != new.size or old.data() != new.data():
                    yield Change(prefix + old_names[at], old, new)
            at += 1
            other += 1


class _Quickly:
    """Tells of most files of two listings that they are the same: those that are one piece of one block."""

    def __init__(self, before: ManifestIndex, old: Listing, after: ManifestIndex, new: Listing) -> None:
        self._old = old
        self._new = new
        table, other = before.blocks(old.entry), after.blocks(new.entry)
        self._starts = table.offsets
        places: dict[str, int] = {}
        for locator, start in zip(other.locators, other.offsets, strict=False):
            # A block that is there twice gives no answer.
            places[stripped(locator)] = -1 if stripped(locator) in places else start
        self._places = [places.get(stripped(locator), -1) for locator in table.locators]
        self._number = 0

    def is_same(self, at: int, other: int) -> bool:
        """Whether two files are certainly the same."""
        old, new = self._old, self._new
        size = old.sizes[at]
        if size != new.sizes[other] or at in old.scattered or other in new.scattered:
            return False
        if not size:
            return True
        position, starts, number = old.positions[at], self._starts, self._number
        if not starts[number] <= position < starts[number + 1]:
            number = self._number = bisect_right(starts, position) - 1
        place = self._places[number]
        return (
            place >= 0
            and position + size <= starts[number + 1]
            and new.positions[other] == place + position - starts[number]
        )


def _directories(index: ManifestIndex) -> set[str]:
    """Paths of all directories, those without a line of their own too."""
    found: set[str] = set()
    for key in index.keys:
        path = key.replace("\0", "/")
        while path and path not in found:
            found.add(path)
            path = path.rpartition("/")[0]
    return found
