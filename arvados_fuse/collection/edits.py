"""Every way to change the names in a directory.

Base of `Directory`.

Threads: any; names are guarded by the tree's lock, see `tree` for the order of locks. A listing is read
without it.
"""

from typing import TypeVar

from arvados_fuse.collection.base import Base
from arvados_fuse.collection.content import Content
from arvados_fuse.collection.failures import (
    BadArgument,
    CollectionReadOnly,
    DirectoryNotEmpty,
    IsADirectoryPath,
    NotADirectoryPath,
    PathExists,
    PathNotFound,
)
from arvados_fuse.collection.file import File
from arvados_fuse.collection.manifest import ManifestIndex, names
from arvados_fuse.collection.segments import Segments
from arvados_fuse.collection.tree import Guard, Tree, TwoGuards
from arvados_fuse.collection.view import DirectoryView

D = TypeVar("D", bound="DirectoryEdits")
"""The class of a directory, which is also that of those below it."""


class DirectoryEdits(DirectoryView):
    """A directory that can be changed."""

    __slots__ = ()

    # Changing one name. All raise what `OSError`s a program expects: see `failures`.

    def create(self, name: str) -> File:
        """A new empty file. Raises PathExists."""
        self._need_writable()
        check_name(name)
        self._base.read()
        with Guard(self):
            if self._entry(name) is not None:
                raise PathExists(f"the name is taken: {name!r}", subject=name)
            content = Content(self, name, Segments(), changed=True)
            self._link(name, content)
        return File(None, name, 0, content)

    def make_directory(self: D, name: str) -> D:
        """A new empty directory. Raises PathExists."""
        self._need_writable()
        check_name(name)
        self._base.read()
        with Guard(self):
            if self._entry(name) is not None:
                raise PathExists(f"the name is taken: {name!r}", subject=name)
            made = type(self)(self.tree, self, name)
            if made.stream_name().count("/") > names.PATH_DEPTH_MAX // 2:
                # Half of what can be read, so that moving one tree into another can't go beyond that.
                raise BadArgument(f"too many directories in one another: {name!r}", subject=name)
            self._link(name, made)
        return made

    def unlink(self: D, name: str, *, recursive: bool = False) -> D | File:
        """Remove a file or a directory, also a full one if `recursive`; gives what was there, which stays
        usable.

        Raises PathNotFound, DirectoryNotEmpty.
        """
        self._need_writable()
        self._base.read()
        with Guard(self):
            entry = self._entry(name)
            if entry is None:
                raise PathNotFound(f"no such entry: {name!r}", subject=name)
            if isinstance(entry, File):
                content = self._base.known(name) if name not in self._changes else entry.content()
                self._unlink(name)
                if content is not None:
                    content.detach()
            else:
                if not recursive and not entry.is_empty():
                    raise DirectoryNotEmpty(f"directory not empty: {name!r}", subject=name)
                entry.linked = False
                self._unlink(name)
            return entry

    def put(self: D, name: str, item: D | Content, *, overwrite: bool = False) -> D | File | None:
        """Let a content or directory that lies nowhere be `name` here; gives what it took the place of."""
        self._need_writable()
        check_name(name)
        self._base.read()
        with Guard(self):
            previous = self._entry(name)
            if previous is not None:
                if not overwrite:
                    raise PathExists(f"the name is taken: {name!r}", subject=name)
                self.unlink(name, recursive=True)
            self._link(name, item)
            return previous

    def move(self: D, name: str, target: D, new_name: str, *, force: bool = False) -> D | File:
        """Move an entry, also to another collection, with its unsaved bytes and everybody who has it open.

        As in POSIX a file takes the place of a file and a directory that of an empty directory, with
        `force` anything that of anything. Raises PathNotFound, BadArgument when a directory would get into
        itself, IsADirectoryPath, NotADirectoryPath, DirectoryNotEmpty.
        """
        self._need_writable()
        target._need_writable()
        check_name(new_name)
        self._base.read()
        target._base.read()
        with TwoGuards(self, target):
            entry, previous = self._entry(name), target._entry(new_name)
            if entry is None:
                raise PathNotFound(f"no such entry: {name!r}", subject=name)
            if not isinstance(entry, File) and target._is_inside(entry):
                raise BadArgument(f"a directory can't be moved into itself: {name!r}", subject=name)
            if self is target and name == new_name:
                return entry
            if previous is not None:
                if not force:
                    _check_replace(entry, previous, new_name)
                target.unlink(new_name, recursive=force)
            item = entry.content() if isinstance(entry, File) else entry
            self._unlink(name)
            if not isinstance(item, Content):
                item._own(target.tree)
            target._link(new_name, item)
            return entry

    def copy_of(self: D, tree: Tree, parent: D | None, name: str) -> D:
        """A copy, by reference to the same blocks and the same manifest, that lies nowhere yet."""
        with Guard(self):
            made = type(self)(tree, parent, name, self._base.index, self._base.key)
            made._touched = self._touched
            for child_name, item in self._changes.items():
                if isinstance(item, DirectoryEdits):
                    made._changes[child_name] = item.copy_of(tree, made, child_name)
                else:
                    made._changes[child_name] = (
                        item.clone(made, child_name) if isinstance(item, Content) else None
                    )
            for child in self._made():
                if child._touched and child.name not in self._changes:
                    made._kept[child.name] = child.copy_of(tree, made, child.name)
            return made

    def _is_inside(self, other: DirectoryView) -> bool:
        at: DirectoryView | None = self
        while at is not None and at is not other:
            at = at.parent if at.linked else None
        return at is other

    def _own(self, tree: Tree) -> None:
        """Caller holds both locks: this and all below lies in another collection from now on."""
        if self.tree is tree:
            return
        pending = [self]
        while pending:
            directory = pending.pop()
            parsed = directory._base.size_of_listing()
            directory.tree.parsed -= parsed
            tree.parsed += parsed
            directory.tree = tree
            pending += directory._made()

    def _link(self, name: str, item: DirectoryView | Content) -> None:
        """Caller holds the lock; the name is free."""
        if isinstance(item, Content):
            item.attach(self, name)
        else:
            item.parent, item.name, item.linked = self, name, True
        self._changes[name] = item
        self._touch()

    def _unlink(self, name: str) -> None:
        """Caller holds the lock; the name is taken. What was there is up to the caller."""
        listing = self._base.read()
        if name not in self._base.gone and listing.find(name) is not None:
            self._base.remove(name)
        if listing.find(name) is not None or listing.has_subdirectory(name):
            self._changes[name] = None
        else:
            del self._changes[name]
        self._kept.pop(name, None)
        if self._live is not None:
            self._live.pop(name, None)
        self._touch()

    def _need_writable(self) -> None:
        if not self.tree.writable:
            raise CollectionReadOnly("the collection is read-only", subject=self.tree.subject)

    # After a save.

    def rebase(self, index: ManifestIndex, versions: dict[int, int]) -> None:
        """Caller holds the lock. `index` has exactly what this root and all below are: forget the changes.

        versions: of the contents (by id) that are in it. A content that was written since keeps its change.
        """
        pending = [(self, "")]
        while pending:
            directory, key = pending.pop()
            for child in directory._rebase(index, key, versions):
                pending.append((child, f"{key}\0{child.name}" if key else child.name))

    def _rebase(self: D, index: ManifestIndex, key: str, versions: dict[int, int]) -> list[D]:
        old, fresh = self._base, Base(self, index, key)
        fresh.take_listing(old)
        children = self._made()
        changed = {name: item for name, item in self._changes.items() if isinstance(item, Content)}
        kept: dict[str, Content | DirectoryView | None] = {}
        for name, content in {**old.contents(), **changed}.items():
            if content.parent is not self or content.name != name or not content.linked:
                continue
            segments, generation = fresh.segments(name)
            version = versions.get(id(content), content.version)
            if content.settle_into(segments, index, generation, version):
                fresh.register(name, content)
            else:
                kept[name] = content
        old.disturbed, old.successor = True, fresh
        old.drop()
        # In this order: `get` looks at the changes first and without the lock.
        self._base = fresh
        self._changes = kept
        self._kept = {child.name: child for child in children}
        self._live = None
        self._touched = bool(kept)
        if kept:
            self._touch()
        return children


def check_name(name: str) -> None:
    """Raise BadArgument when `name` can't be one component of a path."""
    fault = names.component_fault(name)
    if fault:
        raise BadArgument(f"not a name: {fault}", subject=name[:80])


def _check_replace(entry: DirectoryView | File, previous: DirectoryView | File, name: str) -> None:
    if not isinstance(previous, File):
        if isinstance(entry, File):
            raise IsADirectoryPath(f"a file can't take the place of a directory: {name!r}", subject=name)
    elif not isinstance(entry, File):
        raise NotADirectoryPath(f"a directory can't take the place of a file: {name!r}", subject=name)
