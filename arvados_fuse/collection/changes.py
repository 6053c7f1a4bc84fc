"""What differs between two manifests, path by path.

Used by `merge` and `commit`. Pure functions over indexes: lines that are equal but for their hints are
skipped as bytes, so that two manifests of a million files with one difference are compared in the time it
takes to look at their lines.
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from arvados_fuse.collection.lines import Range, ranges_of
from arvados_fuse.collection.listing import Listing
from arvados_fuse.collection.manifest import ManifestIndex, stripped
from arvados_fuse.collection.segments import Segment, Segments
from arvados_fuse.collection.tokens import strip_hints

Data: TypeAlias = tuple[tuple[str, int, int], ...]
"""A file's content: (locator without hints, offset, size), neighbours joined."""


class Version(NamedTuple):
    """One file as one manifest has it."""

    manifest: ManifestIndex
    key: str
    listing: Listing
    at: int

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
        return data_of(self.segments())


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


def data_of(segments: Segments) -> Data:
    """The content of segments without unsaved bytes."""
    joined = Segments(
        Segment(stripped(source) if isinstance(source, str) else source, offset, size)
        for source, offset, size in segments
    )
    return tuple((str(source), offset, size) for source, offset, size in joined)


def find(index: ManifestIndex, path: str) -> Version | None:
    """The file at a path (`a/b`), or None. Raises ManifestError."""
    parent, _, name = path.rpartition("/")
    key = parent.replace("/", "\0")
    if not index.has_directory(key):
        return None
    listing = Listing.read(index, key)
    at = listing.find(name)
    return None if at is None else Version(index, key, listing, at)


def has_directory(index: ManifestIndex, path: str) -> bool:
    """Whether there is a directory at a path (`a/b`)."""
    return index.has_directory(path.replace("/", "\0"))


def has_entries(index: ManifestIndex, path: str) -> bool:
    """Whether the directory at `path` holds anything."""
    listing = Listing.read(index, path.replace("/", "\0"))
    return bool(listing.names or listing.subdirectories)


def paths_below(index: ManifestIndex, path: str) -> Iterator[str]:
    """Paths of all files below a directory, and of its empty directories."""
    pending = [path]
    while pending:
        way = pending.pop()
        listing = Listing.read(index, way.replace("/", "\0"))
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
    at = other = 0
    while at < len(mine.names) or other < len(theirs.names):
        if other == len(theirs.names) or (at < len(mine.names) and mine.names[at] < theirs.names[other]):
            yield Change(prefix + mine.names[at], Version(before, key, mine, at), None)
            at += 1
        elif at == len(mine.names) or theirs.names[other] < mine.names[at]:
            yield Change(prefix + theirs.names[other], None, Version(after, key, theirs, other))
            other += 1
        else:
            old, new = Version(before, key, mine, at), Version(after, key, theirs, other)
            if old.size != new.size or (old.size and old.data() != new.data()):
                yield Change(prefix + mine.names[at], old, new)
            at += 1
            other += 1


def _directories(index: ManifestIndex) -> set[str]:
    """Paths of all directories, those without a line of their own too."""
    found: set[str] = set()
    for key in index.keys:
        path = key.replace("\0", "/")
        while path and path not in found:
            found.add(path)
            path = path.rpartition("/")[0]
    return found
