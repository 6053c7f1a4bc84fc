"""A directory of a collection: what the manifest says.

Made by `Collection` and by other directories; the tree floor and the public API use it. A directory is read
when somebody looks into it, and can forget what it read.

Threads: any; the tree's lock guards the registry of handed-out entries; see `tree` for the order of locks.
"""

from typing import TypeAlias, Union
from weakref import ref

from arvados_fuse.collection.content import Content
from arvados_fuse.collection.file import File
from arvados_fuse.collection.listing import Listing
from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.segments import Segment, Segments
from arvados_fuse.collection.tree import Tree

Entry: TypeAlias = Union["Directory", File]


class _Registered(ref[Entry]):
    """A weak reference to a handed-out entry that knows the entry's name."""

    __slots__ = ("name",)
    name: str


class Directory:
    """One directory; the root of a collection has no parent and the name "."."""

    __slots__ = ("__weakref__", "_index", "_kept", "_key", "_listing", "_live", "name", "parent", "tree")

    def __init__(
        self,
        tree: Tree,
        parent: "Directory | None",
        name: str,
        index: ManifestIndex | None = None,
        key: str = "",
    ) -> None:
        """index, key: where the manifest describes this directory; None for one that no manifest has."""
        self.tree = tree
        self.parent = parent
        self.name = name
        self._index = index
        self._key = key
        self._listing: Listing | None = None
        self._kept: dict[str, Directory] = {}
        self._live: dict[str, _Registered] = {}

    # Looking.

    def get(self, name: str) -> Entry | None:
        """The entry of this name, or None. Raises ManifestError when the directory's lines are not legal."""
        listing = self._read()
        with self.tree.lock:
            known = self._known(name)
            if known is not None:
                return known
            at = listing.find(name)
            if at is not None:
                return self._register(name, File(self, name, listing.sizes[at]))
            if listing.has_subdirectory(name):
                return self._subdirectory(name)
            return None

    def entries(self) -> list[tuple[str, Entry]]:
        """All entries, sorted by name: a snapshot. Raises ManifestError when the directory's lines are not
        legal."""
        listing = self._read()
        with self.tree.lock:
            found: list[tuple[str, Entry]] = [
                (name, self._known(name) or self._register(name, File(self, name, size)))
                for name, size in zip(listing.names, listing.sizes, strict=True)
            ]
            if listing.subdirectories:
                found += [
                    (name, self._known(name) or self._subdirectory(name)) for name in listing.subdirectories
                ]
                found.sort(key=lambda entry: entry[0])
            return found

    def _known(self, name: str) -> Entry | None:
        """Caller holds the lock. An entry that was handed out and is still in use."""
        kept = self._kept.get(name)
        if kept is not None:
            return kept
        registered = self._live.get(name)
        return registered() if registered is not None else None

    def _register(self, name: str, entry: Entry) -> Entry:
        """Caller holds the lock."""
        registered = _Registered(entry, self._unregister)
        registered.name = name
        self._live[name] = registered
        return entry

    def _unregister(self, registered: "ref[Entry]") -> None:
        """An entry is gone. Runs at any moment in any thread, so it takes no lock: one dictionary
        operation."""
        assert isinstance(registered, _Registered)
        if self._live.get(registered.name) is registered:
            self._live.pop(registered.name, None)

    def _subdirectory(self, name: str) -> "Directory":
        """Caller holds the lock."""
        key = f"{self._key}\0{name}" if self._key else name
        made = self._kept[name] = Directory(self.tree, self, name, self._index, key)
        return made

    # The manifest.

    def _read(self) -> Listing:
        listing = self._listing
        if listing is None:
            # Outside the lock: a large directory takes a while, and reading it twice does no harm.
            listing = _NOTHING if self._index is None else Listing.read(self._index, self._key)
            with self.tree.lock:
                if self._listing is None:
                    self._listing = listing
                    self.tree.parsed += listing.approximate_size()
        return listing

    def manifest_content(self, name: str) -> Content:
        """What the manifest says is in the file `name`, which it must have."""
        listing, index = self._read(), self._index
        at = listing.find(name)
        assert at is not None
        assert index is not None
        generation = index.generation
        segments = Segments()
        for piece in listing.pieces(at):
            table = index.blocks(piece.entry)
            for number, offset, size in table.pieces(piece.position, piece.size):
                segments.append(Segment(table.locators[number], offset, size))
        return Content(segments, index, generation)

    def drop_parsed(self) -> None:
        """Forget what was read here and below; entries that somebody holds stay valid."""
        pending = [self]
        with self.tree.lock:
            while pending:
                directory = pending.pop()
                if directory._listing is not None:
                    self.tree.parsed -= directory._listing.approximate_size()
                    directory._listing = None
                for name, child in directory._kept.items():
                    directory._register(name, child)
                    pending.append(child)
                directory._kept = {}

    def approximate_size(self) -> int:
        """Bytes of memory that what was read of this directory takes, without those below."""
        listing = self._listing
        return 0 if listing is None else listing.approximate_size()


_NOTHING = Listing.empty()
