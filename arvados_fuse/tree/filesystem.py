"""The file system: everything the kernel can ask, without a kernel.

Used by `fuse/operations.py` and by tests that run in process. Errors are ArvadosFuseError kinds. Any thread
may call anything; `lookup`, `opendir`, `open` and `read` may wait for servers (never longer than their
deadlines), the rest answers from memory.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple, NoReturn

from arvados_fuse.errors import (
    IllegalName,
    InvalidArgument,
    IsADirectory,
    NameTooLong,
    ReadOnlyError,
)
from arvados_fuse.tree import xattrs
from arvados_fuse.tree.attributes import Attributes, Changes, Missing, Statistics
from arvados_fuse.tree.context import ENDLESS, Context
from arvados_fuse.tree.handles import DirectoryHandles, FileHandle, FileHandles
from arvados_fuse.tree.inodes import ROOT, Inodes
from arvados_fuse.tree.looks import MOMENT
from arvados_fuse.tree.names import KERNEL_NAME_MAX
from arvados_fuse.tree.nodes import DirectoryNode, FileNode, Node, Snapshot

WRITING = os.O_WRONLY | os.O_RDWR | os.O_TRUNC | os.O_APPEND | os.O_CREAT
"""Flags of `open` that say the file will be changed."""
TOTAL = 1 << 50
"""Bytes that `statfs` shows: Arvados does not tell how much fits, and programs refuse to work with
nothing."""
FILES = 1 << 32
"""Files that `statfs` shows, likewise."""
DOTS = 2
"""`.` and `..` come before the entries of a listing."""
READ = -1
"""`as_of` of a snapshot that was read: who begins anew gets another."""


class DirectoryEntry(NamedTuple):
    """One name of a listing. mode: its file type only. next_offset: where to go on after it."""

    name: bytes
    ino: int
    mode: int
    next_offset: int


class FileSystem:
    """One tree, read-only: every change is refused. Names are bytes, as the kernel gives them."""

    read_only = True

    def __init__(self, context: Context, root: DirectoryNode) -> None:
        self.context = context
        self.inodes = Inodes(root)
        self._files = FileHandles()
        self._directories = DirectoryHandles()
        self._names_changed = 0

    # Names and attributes

    def lookup(self, parent: int, name: bytes) -> Attributes:
        """What `name` in the directory `parent` is; counts one reference of the kernel to it.

        Raises Missing (its timeout: how long that may be remembered), NameTooLong, and what loading raises.
        """
        directory = self.inodes.directory(parent)
        if len(name) > KERNEL_NAME_MAX:
            raise NameTooLong(f"{name[:40]!r}... has {len(name)} bytes")
        try:
            text = self.context.names.decode(name)
        except IllegalName:
            raise Missing(repr(name)) from None
        context, looks = self.context, self.context.looks
        try:
            content, timeout = directory.find(text)
        except Missing as missing:
            if looks.on and missing.timeout < ENDLESS and looks.at_missing(directory, text):
                missing.timeout = min(missing.timeout, MOMENT)
            missing.timeout = context.brief(missing.timeout)
            raise
        node = self.inodes.adopt(directory, text, content)
        if looks.on and not isinstance(node, FileNode) and looks.at(node):
            timeout = min(timeout, MOMENT)
        return node.attributes(timeout if node.lasting else context.brief(timeout))

    def forget(self, counts: Iterable[tuple[int, int]]) -> None:
        """The kernel dropped references: pairs of inode number and how many."""
        self.inodes.forget(counts)

    def getattr(self, ino: int) -> Attributes:
        """Attributes of an inode that the kernel knows."""
        node = self.inodes.get(ino)
        attributes, looks = node.attributes(), self.context.looks
        lasts = node.lasting and ino != ROOT  # of which the kernel is not told, see `Follower`
        timeout = attributes.timeout if lasts else self.context.brief(attributes.timeout)
        if looks.on and looks.at(node):
            timeout = min(timeout, MOMENT)
        return attributes if timeout == attributes.timeout else attributes._replace(timeout=timeout)

    def access(self, ino: int, mode: int) -> bool:
        """Whether `mode` (os.R_OK, ...) is allowed; nobody may write."""
        attributes = self.getattr(ino)
        if mode & os.W_OK:
            return False
        return not mode & os.X_OK or bool(attributes.mode & 0o111)

    def statfs(self) -> Statistics:
        """Sizes that let programs which check for space go on."""
        return Statistics(block_size=4096, total=TOTAL, free=TOTAL, files=FILES, files_free=FILES)

    def readlink(self, ino: int) -> NoReturn:
        """There are no symbolic links."""
        raise InvalidArgument("not a symbolic link", subject=self.inodes.get(ino).name)

    def getxattr(self, ino: int, name: bytes) -> bytes:
        """An extended attribute. Raises AttributeMissing. May ask the server."""
        return xattrs.value(self.inodes.get(ino).described(), name)

    def listxattr(self, ino: int) -> list[bytes]:
        """Names of extended attributes."""
        return xattrs.names(self.inodes.get(ino).described())

    # Files

    def open(self, ino: int, flags: int) -> int:
        """A handle for reading. Raises ReadOnlyError, IsADirectory."""
        node = self.inodes.get(ino)
        if not isinstance(node, FileNode):
            raise IsADirectory(f"{node.name!r} is a directory", subject=node.name)
        if flags & WRITING:
            self._refuse(node.name)
        if self.context.looks.on:
            self.context.looks.at(node)
        content = node.open()
        self.inodes.hold(node)
        return self._files.add(FileHandle(node, content))

    def read(self, fh: int, offset: int, size: int) -> bytes | memoryview:
        """Bytes from `offset`, fewer than `size` only at the end."""
        return self._files.get(fh).content.read(offset, size)

    def flush(self, fh: int) -> None:
        """A descriptor was closed; nothing is unsaved here."""
        self._files.get(fh)

    def fsync(self, fh: int) -> None:
        """Nothing is unsaved here."""
        self._files.get(fh)

    def release(self, fh: int) -> None:
        """The handle is not used any more."""
        handle = self._files.remove(fh)
        handle.content.close()
        self.inodes.release(handle.node)

    # Directories

    def opendir(self, ino: int) -> int:
        """A handle on the names as they are now."""
        node = self.inodes.directory(ino)
        if self.context.looks.on:
            self.context.looks.at_names(node)
        snapshot = self._snapshot(node)
        self.inodes.hold(node)
        return self._directories.add(snapshot)

    def readdir(self, fh: int, offset: int) -> Iterator[DirectoryEntry]:
        """The names from `offset` (0, or the `next_offset` of an entry). Never fails halfway, and waits only
        when it begins anew: who rewinds a directory that is open asks for the names of now."""
        snapshot = self._directories.get(fh)
        if not offset:
            if snapshot.as_of != self._names_changed:
                snapshot = self._snapshot(snapshot.node)
                self._directories.replace(fh, snapshot)
            snapshot.as_of = READ
        return self._entries(snapshot, offset)

    def fsyncdir(self, fh: int) -> None:
        """Nothing is unsaved here."""
        self._directories.get(fh)

    def releasedir(self, fh: int) -> None:
        """The handle is not used any more."""
        self.inodes.release(self._directories.remove(fh).node)

    def _snapshot(self, node: DirectoryNode) -> Snapshot:
        as_of = self._names_changed
        snapshot = node.snapshot()
        snapshot.as_of = as_of
        return snapshot

    def _entries(self, snapshot: Snapshot, offset: int) -> Iterator[DirectoryEntry]:
        node = snapshot.node
        if offset == 0:
            yield DirectoryEntry(b".", node.ino, stat.S_IFDIR, 1)
        if offset <= 1:
            above = node.parent.ino if node.parent is not None else ROOT
            yield DirectoryEntry(b"..", above, stat.S_IFDIR, DOTS)
        start = max(0, offset - DOTS)
        encode, is_directory = self.context.names.encode, snapshot.is_directory
        rest = map(snapshot.entries.__getitem__, range(start, len(snapshot.entries)))
        for place, (name, content) in enumerate(rest, start + DOTS + 1):
            raw = encode(name)
            if raw is not None:
                mode = stat.S_IFDIR if is_directory(content) else stat.S_IFREG
                yield DirectoryEntry(raw, self.inodes.number_of(node, name), mode, place)

    # Changes: refused, whoever asks and whatever the kernel has checked before

    def write(self, fh: int, offset: int, data: bytes) -> int:
        """Put bytes at `offset`; gives their number."""
        self._refuse(self._files.get(fh).node.name)

    def change_attributes(self, ino: int, changes: Changes, fh: int | None = None) -> Attributes:
        """truncate, utimens, chmod and chown."""
        self._refuse(self.inodes.get(ino).name)

    def create_file(self, parent: int, name: bytes) -> tuple[int, Attributes]:
        """Make a file and open it: a handle, and its attributes with one reference of the kernel."""
        self._refuse_in(parent, name)

    def make_node(self, parent: int, name: bytes, mode: int) -> Attributes:
        """mknod."""
        self._refuse_in(parent, name)

    def make_directory(self, parent: int, name: bytes) -> Attributes:
        """mkdir."""
        self._refuse_in(parent, name)

    def make_link(self, parent: int, name: bytes) -> NoReturn:
        """symlink, and link to this name."""
        self._refuse_in(parent, name)

    def unlink(self, parent: int, name: bytes) -> None:
        """Remove a file."""
        self._refuse_in(parent, name)

    def remove_directory(self, parent: int, name: bytes) -> None:
        """rmdir."""
        self._refuse_in(parent, name)

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes) -> None:
        """rename."""
        self._refuse_in(parent, name)

    def change_xattr(self, ino: int, name: bytes) -> NoReturn:
        """setxattr, removexattr."""
        self._refuse(f"{self.inodes.get(ino).name}: {os.fsdecode(name)}")

    # For reports

    def open_file(self, fh: int) -> Node:
        """What is open. Raises BadHandle."""
        return self._files.get(fh).node

    def open_directory(self, fh: int) -> Node:
        """What is open. Raises BadHandle."""
        return self._directories.get(fh).node

    def open_handles(self) -> tuple[int, int]:
        """How many handles are open: on files, on directories."""
        return len(self._files), len(self._directories)

    def check(self) -> None:
        """Raise AssertionError when an invariant of the tables does not hold."""
        self.inodes.check()
        self.context.cache.check()

    def close(self) -> None:
        """Let the threads below end."""
        self.context.close()

    def _refuse_in(self, parent: int, name: bytes) -> NoReturn:
        self.inodes.directory(parent)
        self._refuse(os.fsdecode(name))

    @staticmethod
    def _refuse(what: str) -> NoReturn:
        raise ReadOnlyError(f"the mount is read-only: {what}", subject=what)
