"""The inside of a collection as inodes: its root, its directories, its files.

Used by listings (which make roots) and `Inodes`. Nodes are small and hold a place in the collection's tree
only weakly; where the collection has changed, a directory finds its new self by name when next used.
"""

import weakref
from typing import Any, NamedTuple

from arvados_fuse.collection import Directory, File
from arvados_fuse.errors import NotFoundError, SignatureRefused
from arvados_fuse.keep import Reader
from arvados_fuse.tree.attributes import DIRECTORY_MODE, FILE_MODE, Attributes, Missing
from arvados_fuse.tree.collection_state import CollectionState, Record
from arvados_fuse.tree.context import Context
from arvados_fuse.tree.listed import ListingRef
from arvados_fuse.tree.nodes import Content, DirectoryNode, FileNode, Found, Node, Snapshot, Text
from arvados_fuse.tree.version import Origin, Version
from arvados_fuse.tree.versions import versions_ref

RECORD_NAME = ".arvados#collection"
VERSIONS_NAME = ".versions"
"""Not listed; a file or directory that is really called so comes first."""
RENEWALS = 2
"""Times that a read fetches new signatures before it believes the refusal."""


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


class OpenFile:
    """A file as it was when opened; reads go straight to the blocks, through a reader that reads ahead."""

    __slots__ = ("_file", "_reader", "_version")

    def __init__(self, file: File, version: Version, reader: Reader) -> None:
        self._file = file
        self._version = version
        self._reader = reader

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """See Content. New signatures are fetched when the old ones are refused."""
        for _ in range(RENEWALS):
            self._version.renew_when_due()
            try:
                return self._read(offset, size)
            except SignatureRefused:
                self._version.renew()
        return self._read(offset, size)

    def _read(self, offset: int, size: int) -> bytes | memoryview:
        data = self._file.read(offset, size, self._reader)
        ahead = self._reader.after(offset, len(data))
        if ahead is not None:
            self._reader.announce(ahead, _blocks(self._file, ahead.begin, ahead.size))
        return data

    def close(self) -> None:
        """See Content."""
        self._reader.close()


def _blocks(file: File, begin: int, size: int) -> list[str]:
    """The locators of the blocks that hold a range of the file, in its order; there may be none."""
    return [
        segment.locator
        for segment in file.segments()
        if segment.range_start < begin + size
        and segment.range_start + segment.range_size > begin
        and isinstance(segment.locator, str)
    ]


class CollectionFile(FileNode):
    """A file in a collection."""

    __slots__ = ("_file", "_opened", "_version")

    lasting = True

    def __init__(self, context: Context, file: File, version: Version) -> None:
        super().__init__(context)
        self._file = file
        self._version = version
        self._opened = False

    def attributes(self, timeout: float | None = None) -> Attributes:
        context, state = self.context, self._version.state
        if timeout is None:
            timeout = state.timeout()
        return Attributes(
            self.ino, FILE_MODE, self._file.size(), state.mtime_ns, context.uid, context.gid, timeout
        )

    def described(self) -> CollectionState:
        return self._version.state

    def rebind(self, content: Any) -> bool:
        version, entry = content
        if version is self._version:  # a version never changes: under one name it has one file
            return isinstance(entry, File)
        if not isinstance(entry, File) or entry != self._file:
            return False
        self._file = entry
        self._version = version
        return True

    def open(self) -> Content:
        self._version.renew_when_due()
        self._opened = True
        return OpenFile(self._file, self._version, self.context.blocks.reader())

    def was_read_from(self, md5: str) -> bool:
        """Whether the kernel may hold pages that came from this block."""
        return self._opened and any(
            isinstance(segment.locator, str) and segment.locator.startswith(md5)
            for segment in self._file.segments()
        )


class CollectionDirectory(DirectoryNode):
    """A directory in a collection."""

    __slots__ = ("_directory", "_version", "state")

    def __init__(self, context: Context, state: CollectionState) -> None:
        super().__init__(context)
        self.state = state
        self._version: weakref.ref[Version] | None = None
        self._directory: weakref.ref[Directory] | None = None

    def attributes(self, timeout: float | None = None) -> Attributes:
        context, state = self.context, self.state
        if timeout is None:
            timeout = state.timeout()
        return Attributes(self.ino, DIRECTORY_MODE, 0, state.mtime_ns, context.uid, context.gid, timeout)

    def described(self) -> CollectionState:
        return self.state

    def rebind(self, content: Any) -> bool:
        return isinstance(content, tuple) and isinstance(content[1], Directory)

    def find(self, name: str) -> Found:
        version, timeout = self.state.look()
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

    def directory(self, version: Version) -> Directory:
        """This directory in `version`. Raises NotFoundError when it is not there any more, ManifestError."""
        known = self._directory() if self._directory is not None else None
        if known is not None and self._version is not None and self._version() is version:
            return known
        directory = self._resolve(version)
        self._directory = weakref.ref(directory)
        self._version = weakref.ref(version)
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

    def attributes(self, timeout: float | None = None) -> Attributes:
        return super().attributes(timeout)._replace(size=self.state.size)

    def rebind(self, content: Any) -> bool:
        return isinstance(content, CollectionRef) and content.key == self.state.key

    def find(self, name: str) -> Found:
        if name == RECORD_NAME:
            # Not for ever, by hash neither: the signatures in it end.
            timeout = self.context.policy.max_age
            return Text(self.state.record_text(), self.state.mtime_ns, timeout), timeout
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

    def _resolve(self, version: Version) -> Directory:
        return version.collection.root
