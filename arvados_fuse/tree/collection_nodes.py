"""The inside of a collection as inodes: its root, its directories, its files.

Used by listings (which make roots) and `Inodes`. Nodes are small and hold a place in the collection's tree
only weakly; where the collection has changed, a directory finds its new self by name when next used.
"""

import threading
import weakref
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from arvados_fuse.collection import Directory, File
from arvados_fuse.collection.content import Content as FileContent
from arvados_fuse.errors import NotFoundError, NotPermitted, StaleFile
from arvados_fuse.keep import Company, Reader
from arvados_fuse.tree.attributes import (
    DIRECTORY_MODE,
    FILE_MODE,
    WRITABLE_DIRECTORY_MODE,
    WRITABLE_FILE_MODE,
    Attributes,
    Missing,
)
from arvados_fuse.tree.collection_state import CollectionState
from arvados_fuse.tree.context import Context
from arvados_fuse.tree.described import DescribedCollection
from arvados_fuse.tree.editing import edit_both
from arvados_fuse.tree.listed import ListingRef
from arvados_fuse.tree.nodes import Content, DirectoryNode, FileNode, Found, Node, Snapshot, Text
from arvados_fuse.tree.open_files import OpenFile, OpenWriting
from arvados_fuse.tree.version import Origin, Record, Version
from arvados_fuse.tree.versions import versions_ref
from arvados_fuse.tree.working import Working
from arvados_fuse.tree.writer import Writer

_first_open = threading.Lock()
"""Held while a file gets its company of readers."""

RECORD_NAME = ".arvados#collection"
VERSIONS_NAME = ".versions"
"""Not listed; a file or directory that is really called so comes first."""


class CollectionRef(NamedTuple):
    """A collection as a listing knows it. record: the fields the listing asked for, `at`
    (time.monotonic()). origin: see CollectionState."""

    key: str
    record: Record
    at: float
    origin: Origin | None = None

    @property
    def is_directory(self) -> bool:
        """See Entry."""
        return True

    def node(self, context: Context, _parent: DirectoryNode) -> Node:
        """A root for it."""
        state = context.collection(
            self.key, lambda: CollectionState(context, self.key, self.record, self.at, self.origin)
        )
        return CollectionRoot(context, state)


Item = tuple[Version, Directory | File]
"""Something found in a collection, with the content of the collection that it belongs to."""


class CollectionFile(FileNode):
    """A file in a collection."""

    __slots__ = ("_company", "_file", "_seen", "_version")

    lasting = True

    def __init__(self, context: Context, file: File, version: Version) -> None:
        super().__init__(context)
        self._file = file
        self._version = version
        self._company: Company | None = None
        # What never was a working copy has no file that was ever changed.
        self._seen = file.version() if version.state.times is not None else 0

    def attributes(self, timeout: float | None = None) -> Attributes:
        context, state = self.context, self._version.state
        if timeout is None:
            timeout = state.timeout()
        mode = WRITABLE_FILE_MODE if state.writable else FILE_MODE
        moment = state.mtime_ns if state.times is None else self._mtime_ns(state)
        size, links = self._file.size(), 0 if self.parent is None else 1
        return Attributes(self.ino, mode, size, moment, context.uid, context.gid, timeout, links)

    @property
    def state(self) -> CollectionState:
        """The collection that it is in."""
        return self._version.state

    def described(self) -> DescribedCollection:
        return DescribedCollection(self._version.state)

    def rebind(self, content: Any) -> bool:
        version, entry = content
        if not isinstance(entry, File):
            return False
        if version is self._version:
            # One that never was a working copy never changes: under one name it has one file.
            return self.state.times is None or (entry.is_same(self._file) and entry.version() == self._seen)
        if entry != self._file:
            return False
        self._take(entry, version)
        return True

    def content_in(self, version: Version) -> Item | None:
        """What its directory has under its name in `version`, if that is known here."""
        # A version never changes, but for a working copy.
        never_changes = version is self._version and self.context.writeback is None
        return (version, self._file) if never_changes else None

    def has_seen(self, content: FileContent) -> None:
        """The kernel has the content as it is now: what changed it went through this inode."""
        self._seen = content.version

    def move_to(self, version: Version) -> None:
        """It was moved into the collection of `version`, as it is."""
        self._version = version

    def _take(self, file: File, version: Version) -> None:
        self._file = file
        self._version = version
        self._seen = file.version()

    def _mtime_ns(self, state: CollectionState) -> int:
        working, times = state.working, state.times
        if working is not None and working.writers:
            writer = working.writers.get(self._file.content())
            if writer is not None and writer.mtime_ns is not None:
                return writer.mtime_ns
        return times.get(path_in_collection(self)) if times is not None else state.mtime_ns

    def open(self) -> Content:
        self._version.renew_when_due()
        return OpenFile(self._file, self._version, self._reader())

    def _reader(self) -> Reader:
        """One reader more among those of this file, who share its pages in the kernel."""
        with _first_open:
            if self._company is None:
                self._company = Company()
            company = self._company
        return self.context.blocks.reader(company)

    def open_writing(self) -> OpenWriting:
        """See FileNode. Raises StaleFile when the name stands for another file by now."""
        self._version.renew_when_due()
        if not self.state.writable:
            raise NotPermitted(f"{self.name!r} can't be changed", subject=self.name)
        with self.state.edit() as working:
            file = self._current(working)
            writer = working.open_writer(file.content())
            return self._opened_writing(file, working, writer)

    def sync(self) -> None:
        if self.state.writable:
            working = self.state.working
            if working is not None:
                working.flush(self._file.content())
            self.state.save_closed()

    def set_mtime(self, moment_ns: int) -> None:
        """The time it was modified, ns since 1970, for the life of the mount."""
        if not self.state.writable:
            return
        with self.state.edit() as working:
            writer = working.writers.get(self._file.content())
            if writer is not None:
                writer.mtime_ns = moment_ns
            elif self.parent is not None:
                working.times.set(path_in_collection(self), moment_ns)

    def open_new(self) -> OpenWriting:
        """The same for a file that was made just now."""
        with self.state.edit() as working:
            writer = working.open_writer(self._file.content(), new=True)
            return self._opened_writing(self._file, working, writer)

    def _opened_writing(self, file: File, working: Working, writer: Writer) -> OpenWriting:
        return OpenWriting(self, file, working.version, self._reader(), writer)

    def _current(self, working: Working) -> File:
        """This file in the working copy."""
        parent = self.parent
        if not isinstance(parent, CollectionDirectory):
            return self._file  # unlinked, and still open
        entry = parent.directory(working.version).get(self.name)
        if not isinstance(entry, File) or not self.rebind((working.version, entry)):
            raise StaleFile(f"{self.name!r} was changed elsewhere", subject=self.name)
        return self._file

    def was_read_from(self, md5: str) -> bool:
        """Whether the kernel may hold pages that came from this block."""
        return self._company is not None and any(
            isinstance(segment.locator, str) and segment.locator.startswith(md5)
            for segment in self._file.segments()
        )


class CollectionDirectory(DirectoryNode):
    """A directory in a collection."""

    __slots__ = ("_directory", "state")

    def __init__(self, context: Context, state: CollectionState) -> None:
        super().__init__(context)
        self.state = state
        self._directory: weakref.ref[Directory] | None = None

    @property
    def lasting(self) -> bool:
        return self.context.expires_names

    def attributes(self, timeout: float | None = None) -> Attributes:
        context, state = self.context, self.state
        if timeout is None:
            timeout = state.timeout()
        mode = WRITABLE_DIRECTORY_MODE if state.writable else DIRECTORY_MODE
        times = state.times
        moment = state.mtime_ns if times is None else times.get(path_in_collection(self))
        return Attributes(self.ino, mode, self._size(), moment, context.uid, context.gid, timeout)

    def _size(self) -> int:
        """Bytes, where Arvados tells them."""
        return 0

    @property
    def stands_for(self) -> str:
        return self.state.key

    def described(self) -> DescribedCollection:
        return DescribedCollection(self.state)

    def rebind(self, content: Any) -> bool:
        return isinstance(content, tuple) and isinstance(content[1], Directory)

    def find(self, name: str) -> Found:
        version, timeout = self.state.look()
        known = self.children.get(name)
        if isinstance(known, CollectionFile):
            # Nothing in the collection needs to be touched for what the kernel has asked for before.
            content = known.content_in(version)
            if content is not None:
                return content, timeout
        entry = self.directory(version).get(name)
        if entry is None:
            raise Missing(name, timeout=timeout)
        return (version, entry), timeout

    def make(self, name: str, content: Any) -> Node:
        version, entry = content
        if isinstance(entry, File):
            return CollectionFile(self.context, entry, version)
        return CollectionDirectory(self.context, self.state)

    def snapshot(self) -> Snapshot:
        entries = self.directory(self.state.current()).entries()
        self.context.cache.resize(self.state)  # it has just been parsed
        return Snapshot(self, entries, lambda entry: isinstance(entry, Directory))

    # Changes

    def create(self, name: str) -> Any:
        with self._edit(name) as working:
            return working.version, working.create(self.directory(working.version), name)

    def make_directory(self, name: str) -> Any:
        with self._edit(name) as working:
            return working.version, working.make_directory(self.directory(working.version), name)

    def unlink(self, name: str) -> None:
        with self._edit(name) as working:
            working.unlink(self.directory(working.version), name)

    def remove_directory(self, name: str) -> None:
        with self._edit(name) as working:
            working.remove_directory(self.directory(working.version), name)

    def rename(self, name: str, target: DirectoryNode, new_name: str) -> None:
        if not isinstance(target, CollectionDirectory):
            raise NotPermitted(f"{name!r} can't leave its collection", subject=name)
        self._need_changeable(name)
        target._need_changeable(new_name)
        with edit_both(self.state, target.state) as (working, into):
            working.rename(
                self.directory(working.version), name, into, target.directory(into.version), new_name
            )
            moved = self.children.get(name)
            if working is not into and moved is not None:
                _move_nodes(moved, into)

    def sync(self) -> None:
        if self.state.writable:
            self.state.save_closed()

    def set_mtime(self, moment_ns: int) -> None:
        # What was removed and is still open has no place where a time could be kept.
        if self.state.writable and (self.parent is not None or isinstance(self, CollectionRoot)):
            with self.state.edit() as working:
                working.times.set(path_in_collection(self), moment_ns)

    def _edit(self, name: str) -> AbstractContextManager[Working]:
        self._need_changeable(name)
        return self.state.edit()

    def _need_changeable(self, name: str) -> None:
        if not self.state.writable or self.is_reserved(name):
            raise self._refusal(name)

    def is_reserved(self, name: str) -> bool:
        """Whether the name is one of ours."""
        return False

    def directory(self, version: Version) -> Directory:
        """This directory in `version`. Raises NotFoundError when it is not there any more, ManifestError."""
        known = self._directory() if self._directory is not None else None
        # It may have gone to another collection, through another place that shows this one.
        if known is not None and known.linked and known.tree is version.collection.root.tree:
            return known
        directory = self._resolve(version)
        self._directory = weakref.ref(directory)
        self.context.cache.resize(self.state)
        return directory

    def _resolve(self, version: Version) -> Directory:
        parent = self.parent
        if isinstance(parent, CollectionDirectory):
            directory = parent.directory(version).get(self.name)
            if isinstance(directory, Directory):
                return directory
        raise NotFoundError(f"directory {self.name!r} is gone from the collection", subject=self.state.key)


class CollectionRoot(CollectionDirectory):
    """The top directory of a collection, wherever in the tree it is shown."""

    __slots__ = ("shows",)

    def __init__(self, context: Context, state: CollectionState) -> None:
        super().__init__(context, state)
        self.shows = "" if state.forever else state.key

    def _size(self) -> int:
        return self.state.size

    def rebind(self, content: Any) -> bool:
        return isinstance(content, CollectionRef) and content.key == self.state.key

    def find(self, name: str) -> Found:
        if name == RECORD_NAME:
            # The kernel asks at each look, as we ask the server.
            return Text(self.state.record_text(), self.state.mtime_ns, 0.0), 0.0
        try:
            return super().find(name)
        except Missing:
            if name != VERSIONS_NAME or "-4zz18-" not in self.shows or self.state.read_only:
                raise
        state, timeout = self.state, self.context.policy.max_age
        return versions_ref(self.context, state.key, state.mtime_ns, CollectionRef), timeout

    def make(self, name: str, content: Any) -> Node:
        if isinstance(content, (Text, ListingRef)):
            return content.node(self.context, self)
        return super().make(name, content)

    def is_reserved(self, name: str) -> bool:
        return name == RECORD_NAME

    def _resolve(self, version: Version) -> Directory:
        return version.collection.root


def path_in_collection(node: Node) -> str:
    """Where a node is in its collection: `a/b`, "" for the root, and for what has no name any more."""
    parts: list[str] = []
    at: Node | None = node
    while at is not None and not isinstance(at, CollectionRoot):
        parts.append(at.name)
        at = at.parent
    return "/".join(reversed(parts)) if at is not None else ""


def _move_nodes(node: Node, target: Working) -> None:
    """A node and those below it show a part of another collection from now on."""
    pending = [node]
    while pending:
        here = pending.pop()
        if isinstance(here, CollectionFile):
            here.move_to(target.version)
        elif isinstance(here, CollectionDirectory):
            here.state = target.state
            pending += here.children.values()
