"""The manifest of a tree, in two steps: what will stand in it, then the text.

Used by `manifests`. `make_plan` takes a snapshot under the tree's lock, without reading or storing a block;
`Plan.write` makes the text later, without the lock, when unsaved bytes have found their blocks. What nobody
changed goes out as the lines that came in, as one piece of text where they stand together.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

from arvados_fuse.collection.content import Content
from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.manifest.lines import Range, directory_line, empty_line, located
from arvados_fuse.collection.manifest.listing import Listing
from arvados_fuse.collection.manifest.names import escape
from arvados_fuse.collection.manifest.tokens import strip_hints
from arvados_fuse.collection.moves import Moves
from arvados_fuse.collection.segments import ZERO_BLOCK, Segment, Zeros
from arvados_fuse.collection.tree import Guard
from arvados_fuse.collection.view import DirectoryView


class Lines(NamedTuple):
    """Entries `first` to `last - 1` of a manifest, all below the directory `key`, which is at `path` now."""

    manifest: ManifestIndex
    first: int
    last: int
    key: str
    path: str


class Stream(NamedTuple):
    """The files of one directory: those of a listing, with `changes` over it (None: no such file)."""

    path: str
    manifest: ManifestIndex | None
    listing: Listing
    changes: dict[str, tuple[Segment, ...] | None]


class Empty(NamedTuple):
    """A directory without entries."""

    path: str


Part: TypeAlias = Lines | Stream | Empty


class Plan(NamedTuple):
    """A snapshot of a tree.

    parts: in the order of a normalized manifest; normalize: whether every line is written anew.
    contents: every changed file with the version that is in the plan.
    version: the tree's, from before the snapshot: what is written meanwhile makes it another.
    """

    parts: list[Part]
    normalize: bool
    contents: list[tuple[Content, int]]
    version: int

    def unsaved(self) -> Iterator[list[Segment]]:
        """The unsaved segments, file by file."""
        for part in self.parts:
            if isinstance(part, Stream):
                for name in sorted(part.changes):
                    segments = [segment for segment in part.changes[name] or () if segment.is_unsaved]
                    if segments:
                        yield segments

    def has_zeros(self) -> bool:
        """Whether the padding block is needed."""
        return any(
            isinstance(segment.source, Zeros)
            for part in self.parts
            if isinstance(part, Stream)
            for segments in part.changes.values()
            for segment in segments or ()
        )

    def write(self, moves: Moves, *, strip: bool = False, zero_block: str = ZERO_BLOCK) -> bytes:
        """The text in UTF-8; unsaved segments that `moves` does not have are left out."""
        return b"".join(self._written(moves, strip, zero_block))

    def _written(self, moves: Moves, strip: bool, zero_block: str) -> Iterator[bytes]:
        for part in self.parts:
            if isinstance(part, Stream):
                changes = {
                    name: None if segments is None else _ranges(segments, moves, zero_block)
                    for name, segments in part.changes.items()
                }
                yield directory_line(part.path, part.manifest, part.listing, changes, strip=strip)
            elif isinstance(part, Empty):
                yield empty_line(part.path)
            elif not self.normalize and part.last - part.first == len(part.manifest.keys) and _in_place(part):
                yield strip_hints(part.manifest.data) if strip else part.manifest.data
            elif self.normalize or part.manifest.has_loose_lines:
                yield from normalized(part, strip=strip)
            else:
                text = (
                    part.manifest.span(part.first, part.last) if _in_place(part) else b"".join(_renamed(part))
                )
                yield strip_hints(text) if strip else text


def _ranges(segments: tuple[Segment, ...], moves: Moves, zero_block: str) -> list[Range]:
    saved = (segment for segment in moves.translate(segments) if not segment.is_unsaved)
    return list(located(saved, zero_block))


def _in_place(part: Lines) -> bool:
    return part.path == ("./" + part.key.replace("\0", "/") if part.key else ".")


def _path(part: Lines, key: str) -> str:
    """Where the directory `key` of a part's index is now."""
    rest = key[len(part.key) + 1 :] if part.key else key
    return f"{part.path}/{rest.replace(chr(0), '/')}" if key != part.key else part.path


def _renamed(part: Lines) -> Iterator[bytes]:
    for at in range(part.first, part.last):
        text = part.manifest.span(at, at + 1)
        yield escape(_path(part, part.manifest.keys[at])).encode() + text[text.index(b" ") :]


def normalized(part: Lines, *, strip: bool) -> Iterator[bytes]:
    """The same directories, every line written anew. Raises ManifestError when one is not legal."""
    keys = part.manifest.keys
    for at in range(part.first, part.last):
        key = keys[at]
        if at > part.first and keys[at - 1] == key:
            continue
        listing = Listing.read(part.manifest, key)
        if listing.names:
            yield directory_line(_path(part, key), part.manifest, listing, {}, strip=strip)
        elif not listing.subdirectories and (key or part.path != "."):
            yield empty_line(_path(part, key))


def make_plan(root: DirectoryView, path: str = ".", *, normalize: bool = False) -> Plan:
    """A snapshot of `root` and all below, which is at `path` in the manifest.

    Raises ManifestError when a changed directory's lines are not legal.
    """
    parts: list[Part] = []
    contents: list[tuple[Content, int]] = []
    with Guard(root) as tree:
        version = tree.version
        pending: list[tuple[DirectoryView, str] | Lines] = [(root, path)]
        while pending:
            item = pending.pop()
            if isinstance(item, Lines):
                if item.first < item.last:
                    parts.append(item)
                continue
            directory, at = item
            if not directory.is_touched():
                base = directory.layers().base
                if base.index is None:
                    if at != ".":
                        parts.append(Empty(at))
                    continue
                own, below = base.index.own(base.key), base.index.below(base.key)
                parts.append(Lines(base.index, own.start, below.stop, base.key, at))
                continue
            own_part, children = _split(directory, at, contents)
            if own_part is not None:
                parts.append(own_part)
            pending += reversed(children)
        return Plan(parts, normalize, contents, version)


def _split(
    directory: DirectoryView, path: str, contents: list[tuple[Content, int]]
) -> tuple[Part | None, list[tuple[DirectoryView, str] | Lines]]:
    """A changed directory: its own line, and what follows in order."""
    layers = directory.layers()
    base = layers.base
    listing, index = base.read(), base.index
    files: dict[str, tuple[Segment, ...] | None] = {}
    special: dict[str, DirectoryView | None] = dict(layers.below)
    for name, item in layers.changes.items():
        if isinstance(item, Content):
            segments, version = item.snapshot()
            contents.append((item, version))
            files[name] = segments
        elif listing.find(name) is not None:
            files[name] = None
        if not isinstance(item, Content) and (item is not None or listing.has_subdirectory(name)):
            special[name] = item
        elif listing.has_subdirectory(name):
            special[name] = None
    children: list[tuple[DirectoryView, str] | Lines] = []
    below = range(0) if index is None else index.below(base.key)
    done = below.start
    for name in sorted(special):
        if index is not None:
            key = f"{base.key}\0{name}" if base.key else name
            own = index.own(key)
            if done < own.start:
                children.append(Lines(index, done, own.start, base.key, path))
            done = max(done, index.below(key).stop)
        found = special[name]
        if found is not None:
            children.append((found, f"{path}/{name}"))
    if index is not None and done < below.stop:
        children.append(Lines(index, done, below.stop, base.key, path))
    return _own_part(path, index, base.key, listing, files, bool(children)), children


def _own_part(
    path: str,
    index: ManifestIndex | None,
    key: str,
    listing: Listing,
    files: Mapping[str, tuple[Segment, ...] | None],
    has_children: bool,
) -> Part | None:
    added = sum(segments is not None and listing.find(name) is None for name, segments in files.items())
    removed = sum(segments is None for segments in files.values())
    if not len(listing.names) + added - removed:
        return None if has_children or path == "." else Empty(path)
    if not files and index is not None:
        own = index.own(key)
        return Lines(index, own.start, own.stop, key, path)
    return Stream(path, index, listing, dict(files))
