"""The file system of a `--read-write` mount: everything of `FileSystem`, and the changes that it refuses.

Used by `fuse/operations.py` and by tests that run in process. What can be changed is said by the nodes; here
numbers and handles are resolved, names are checked, and the table of inodes follows.
"""

import os
import stat
from typing import Any, NoReturn

from arvados_fuse.collection.manifest.names import component_fault
from arvados_fuse.errors import (
    InvalidArgument,
    IsADirectory,
    NameTooLong,
    NoSuchCall,
    NotPermitted,
    NotSupported,
)
from arvados_fuse.tree import project_changes
from arvados_fuse.tree.attributes import NAME_MAX, Attributes, Changes
from arvados_fuse.tree.collection_nodes import CollectionFile
from arvados_fuse.tree.filesystem import FileSystem
from arvados_fuse.tree.handles import FileHandle
from arvados_fuse.tree.listed import ListedDirectory
from arvados_fuse.tree.nodes import DirectoryNode, FileNode
from arvados_fuse.tree.open_files import OpenWriting

WRITING = os.O_WRONLY | os.O_RDWR | os.O_TRUNC


class WritableFileSystem(FileSystem):
    """One tree that can be changed."""

    read_only = False

    # Files

    def open(self, ino: int, flags: int) -> int:
        """A handle. Raises IsADirectory, NotPermitted."""
        if not flags & WRITING:
            return super().open(ino, flags)
        node = self._file(ino)
        content = node.open_writing()
        if flags & os.O_TRUNC:
            content.truncate(0)
        return self._handle(node, content)

    def create_file(self, parent: int, name: bytes) -> tuple[int, Attributes]:
        """Make a file and open it: a handle, and its attributes with one reference of the kernel."""
        node = self._new_file(parent, name)
        content = node.open_new()
        return self._handle(node, content), node.attributes()

    def make_node(self, parent: int, name: bytes, mode: int) -> Attributes:
        """Make an empty file that nobody has open. Raises NotSupported for anything but a regular file."""
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            subject = os.fsdecode(name)
            raise NotSupported(f"only regular files can be made: {subject}", subject=subject)
        node = self._new_file(parent, name)
        node.open_new().close()
        return node.attributes()

    def make_link(self, parent: int, name: bytes) -> NoReturn:
        """Manifests have neither symbolic nor hard links."""
        raise NoSuchCall("there are no links in Arvados", subject=os.fsdecode(name))

    def write(self, fh: int, offset: int, data: bytes) -> int:
        """Put bytes at `offset`; gives their number. Raises NotPermitted."""
        return self._writable(fh).write(offset, data)

    def flush(self, fh: int) -> None:
        """A descriptor was closed. Raises what keeps earlier changes from the server, if it refused them."""
        content = self._files.get(fh).content
        if isinstance(content, OpenWriting):
            content.flush()

    def fsync(self, fh: int) -> None:
        """What was written to the file, through whichever handle, is on the server after this."""
        handle = self._files.get(fh)
        if isinstance(handle.content, OpenWriting):
            handle.content.sync()
        else:
            handle.node.sync()

    # Directories

    def make_directory(self, parent: int, name: bytes) -> Attributes:
        """mkdir. Raises ExistsError."""
        directory, text = self.inodes.directory(parent), self._new_name(name)
        if isinstance(directory, ListedDirectory):
            found: Any = project_changes.make_collection(directory, text)
        else:
            found = directory.make_directory(text)
        self._names_changed += 1
        node = self.inodes.adopt(directory, text, found)
        return node.attributes()

    def unlink(self, parent: int, name: bytes) -> None:
        """Remove a file; who has it open goes on with it."""
        directory, text = self.inodes.directory(parent), self.context.names.decode(name)
        directory.unlink(text)
        self._names_changed += 1
        self.inodes.unlink(directory, text)

    def remove_directory(self, parent: int, name: bytes) -> None:
        """rmdir."""
        directory, text = self.inodes.directory(parent), self.context.names.decode(name)
        if isinstance(directory, ListedDirectory):
            project_changes.remove_collection(directory, text)
        else:
            directory.remove_directory(text)
        self._names_changed += 1
        self.inodes.unlink(directory, text)

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes) -> None:
        """rename, as POSIX has it."""
        directory, text = self.inodes.directory(parent), self.context.names.decode(name)
        target, new_text = self.inodes.directory(new_parent), self._new_name(new_name)
        same = True
        if not isinstance(directory, ListedDirectory):
            directory.rename(text, target, new_text)
        else:
            same = project_changes.rename(directory, text, target, new_text)
        self._names_changed += 1
        if not same:
            self.inodes.unlink(directory, text)
            return
        self.inodes.rename(directory, text, target, new_text)

    def fsyncdir(self, fh: int) -> None:
        """What was changed in the collection of the directory is on the server after this."""
        self._directories.get(fh).node.sync()

    # Attributes

    def access(self, ino: int, mode: int) -> bool:
        """Whether `mode` (os.R_OK, ...) is allowed, as far as the bits say."""
        bits = self.getattr(ino).mode
        wanted = (os.W_OK, 0o222), (os.X_OK, 0o111)
        return all(bits & mask for flag, mask in wanted if mode & flag)

    def change_attributes(self, ino: int, changes: Changes, fh: int | None = None) -> Attributes:
        """truncate and utimens; what else there is (owner, permissions) is accepted and not kept."""
        node = self.inodes.get(ino)
        handle = self._files.find(fh)
        opened = handle.content if handle is not None else None
        if changes.size is not None:
            if not isinstance(node, FileNode):
                raise IsADirectory(f"{node.name!r} is a directory", subject=node.name)
            if isinstance(opened, OpenWriting):
                opened.truncate(changes.size)
            else:
                content = node.open_writing()
                try:
                    content.truncate(changes.size)
                finally:
                    content.close()
        if changes.mtime_ns is not None:
            self._set_mtime(node, opened, changes.mtime_ns)
        return self.getattr(ino)

    def change_xattr(self, ino: int, name: bytes) -> NoReturn:
        """They can only be read."""
        raise NotSupported("extended attributes can't be set", subject=os.fsdecode(name))

    def _set_mtime(self, node: object, opened: object, moment_ns: int) -> None:
        if isinstance(opened, OpenWriting):
            opened.set_mtime(moment_ns)
        elif isinstance(node, CollectionFile | DirectoryNode):
            node.set_mtime(moment_ns)

    # Resolving

    def _file(self, ino: int) -> FileNode:
        node = self.inodes.get(ino)
        if not isinstance(node, FileNode):
            raise IsADirectory(f"{node.name!r} is a directory", subject=node.name)
        return node

    def _handle(self, node: FileNode, content: OpenWriting) -> int:
        self.inodes.hold(node)
        return self._files.add(FileHandle(node, content))

    def _writable(self, fh: int) -> OpenWriting:
        handle = self._files.get(fh)
        if not isinstance(handle.content, OpenWriting):
            raise NotPermitted(f"{handle.node.name!r} is not open for writing", subject=handle.node.name)
        return handle.content

    def _new_file(self, parent: int, name: bytes) -> CollectionFile:
        directory, text = self.inodes.directory(parent), self._new_name(name)
        found = directory.create(text)
        self._names_changed += 1
        node = self.inodes.adopt(directory, text, found)
        assert isinstance(node, CollectionFile)
        return node

    def _new_name(self, name: bytes) -> str:
        """A name that something is to get. Raises NameTooLong, IllegalName, InvalidArgument."""
        if len(name) > NAME_MAX:
            raise NameTooLong(f"{name[:40]!r}... has {len(name)} bytes; {NAME_MAX} is the most")
        text = self.context.names.decode(name)
        if fault := component_fault(text):
            raise InvalidArgument(f"not a name: {fault}", subject=repr(text))
        return text
