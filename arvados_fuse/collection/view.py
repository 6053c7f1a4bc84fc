"""A directory of a collection, as one looks at it.

Base of `DirectoryEdits`, which makes changes. They lie over the listing of the manifest, name by name, so
that one change in a directory of a million files stays one change.

Threads: any; names are guarded by the tree's lock, see `tree` for the order of locks. A listing is read
without it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast
from weakref import WeakValueDictionary

from arvados_fuse.collection.base import Base
from arvados_fuse.collection.collector import collector_off
from arvados_fuse.collection.content import Content
from arvados_fuse.collection.file import File, Files
from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.tree import Guard, Tree

Callback: TypeAlias = Callable[[str, Any, str, Any], object]
"""Called with an event, the directory or collection, a name in it, and what that stands for."""

D = TypeVar("D", bound="DirectoryView")
"""The class of a directory, which is also that of those below it."""


class Layers(NamedTuple):
    """A snapshot of one directory for those who write manifests.

    base: what the manifest says; changes: what lies over it (None: nothing there any more);
    below: subdirectories that are unchanged themselves but differ inside; the rest is as the manifest says.
    """

    base: Base
    changes: "dict[str, Content | DirectoryView | None]"
    below: "dict[str, DirectoryView]"


class DirectoryView:
    """What a directory holds."""

    __slots__ = (
        "__weakref__",
        "_base",
        "_changes",
        "_kept",
        "_live",
        "_touched",
        "callback",
        "linked",
        "name",
        "parent",
        "tree",
    )

    def __init__(
        self,
        tree: Tree,
        parent: "DirectoryView | None",
        name: str,
        index: ManifestIndex | None = None,
        key: str = "",
    ) -> None:
        """index, key: where the manifest describes this directory; None for one that no manifest has."""
        self.tree = tree
        self.parent = parent
        self.name = name
        self.linked = True
        self.callback: Callback | None = None
        self._base = Base(self, index, key)
        self._changes: dict[str, Content | DirectoryView | None] = {}
        self._kept: dict[str, DirectoryView] = {}
        self._live: WeakValueDictionary[str, DirectoryView] | None = None
        self._touched = False

    def stream_name(self) -> str:
        """The path as the name of a manifest stream: `.` or `./a/b`."""
        parts = []
        at = self
        while at.parent is not None:
            parts.append(at.name)
            at = at.parent
        return "/".join([".", *reversed(parts)])

    # Looking.

    def get(self: D, name: str) -> D | File | None:
        """The entry of this name, or None. Raises ManifestError when the directory's lines are not legal."""
        # Without the lock when nothing was changed here. The changes are looked at first: see `_rebase`.
        if not self._changes:
            base = self._base
            listing = base.read()
            at = listing.find(name)
            if at is not None:
                return File(base, name, listing.sizes[at])
            if not listing.subdirectories:
                return None
        self._base.read()
        with Guard(self):
            return self._entry(name)

    def entries(self: D) -> Sequence[tuple[str, D | File]]:
        """All entries, sorted by name: a snapshot. Raises ManifestError when the directory's lines are not
        legal."""
        self._base.read()
        with Guard(self):
            files, changes = Files(self._base), self._changes
            subdirectories = self._base.read().subdirectories
            if not changes and not subdirectories:
                return files
            with collector_off(len(files)):
                found: list[tuple[str, D | File]] = [entry for entry in files if entry[0] not in changes]
            found += [(name, self._subdirectory(name)) for name in subdirectories if name not in changes]
            for name in changes:
                entry = self._entry(name)
                if entry is not None:
                    found.append((name, entry))
            found.sort(key=lambda entry: entry[0])
            return found

    def names(self) -> list[str]:
        """Names of all entries, sorted; cheaper than `entries`."""
        self._base.read()
        with Guard(self):
            listing = self._base.read()
            if not self._changes and not listing.subdirectories:
                return list(listing.names)
            found = {*listing.names, *listing.subdirectories, *self._changes}
            found.difference_update(name for name, item in self._changes.items() if item is None)
            return sorted(found)

    def is_empty(self) -> bool:
        """Whether it has no entry."""
        self._base.read()
        with Guard(self):
            if any(item is not None for item in self._changes.values()):
                return False
            listing = self._base.read()
            return len(listing.names) + len(listing.subdirectories) == len(self._changes)

    def _entry(self: D, name: str) -> D | File | None:
        """Caller holds the lock."""
        if name in self._changes:
            item = self._changes[name]
            return File(None, name, 0, item) if isinstance(item, Content) else cast("D | None", item)
        listing = self._base.read()
        at = listing.find(name)
        if at is not None:
            return File(self._base, name, listing.sizes[at])
        return self._subdirectory(name) if listing.has_subdirectory(name) else None

    def _subdirectory(self: D, name: str) -> D:
        """Caller holds the lock. A subdirectory that the manifest has: the same object as long as it is
        held."""
        found = self._kept.get(name)
        if found is None:
            found = self._live.get(name) if self._live is not None else None
            if found is None:
                key = f"{self._base.key}\0{name}" if self._base.key else name
                found = type(self)(self.tree, self, name, self._base.index, key)
            self._kept[name] = found
        return cast("D", found)

    def _made(self: D) -> list[D]:
        """Caller holds the lock. Every subdirectory object there is."""
        live = [] if self._live is None else list(self._live.values())
        changed = [
            item for item in self._changes.values() if item is not None and not isinstance(item, Content)
        ]
        made = {id(child): child for child in (*self._kept.values(), *live, *changed)}
        return cast("list[D]", list(made.values()))

    # News from what lies in it.

    def _touch(self) -> None:
        """Caller holds the lock: this directory differs from what the manifest says."""
        self.tree.count_change()
        at: DirectoryView | None = self
        while at is not None and not at._touched:
            at._touched = True
            at = at.parent

    def announce(self, content: Content) -> None:
        """A content of this directory is about to be changed for the first time."""
        with Guard(self):
            if content.linked and content.parent is self and not content.changed:
                self._changes[content.name] = content
                content.mark_changed()
                self._touch()

    def notify(self, event: str, collection: Any, name: str, item: Any) -> None:
        """Tell the subscribers of this directory and of the collection."""
        root = self.tree.owner.root if self.tree.owner is not None else self
        where = self.tree.owner if collection is root else collection
        for callback in (self.callback, root.callback if root is not self else None):
            if callback is not None:
                callback(event, where, name, item)

    # For those who write manifests, and for memory.

    def is_touched(self) -> bool:
        """Whether this directory, or something below it, is not what the manifest says."""
        return self._touched

    def layers(self) -> Layers:
        """A snapshot; call it with the tree's lock held to get one that fits those of other directories."""
        with Guard(self):
            below = {
                child.name: child
                for child in self._made()
                if child._touched and child.name not in self._changes
            }
            return Layers(self._base, dict(self._changes), below)

    def drop_parsed(self) -> None:
        """Forget what was read here and below; entries that somebody holds, and all changes, stay."""
        with Guard(self):
            pending: list[DirectoryView] = [self]
            while pending:
                directory = pending.pop()
                directory._base.drop()
                pending += directory._made()
                if directory._kept:
                    directory._live = directory._live or WeakValueDictionary()
                    directory._live.update(directory._kept)
                    directory._kept = {
                        name: child for name, child in directory._kept.items() if child._touched
                    }

    def approximate_size(self) -> int:
        """Bytes of memory that what was read of this directory takes, without those below."""
        return self._base.size_of_listing()

    def check(self) -> None:
        """Assert the invariants, here and below (for tests)."""
        with Guard(self):
            listing = self._base.read()
            listing.check()
            for name, item in self._changes.items():
                assert self._touched
                if item is None:
                    assert listing.find(name) is not None or listing.has_subdirectory(name)
                else:
                    assert (item.parent, item.name, item.linked) == (self, name, True)
                if isinstance(item, Content):
                    assert item.changed
                    item.check()
            for child in self._made():
                assert child.tree is self.tree
                assert child.parent is self
                assert child._touched <= self._touched
                child.check()
