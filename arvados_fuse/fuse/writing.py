"""llfuse's handlers for changes: what a `--read-write` mount answers where `Operations` refuses.

Used by `cli/build.py`; see `operations` for locks and errors.
"""

from typing import Any

import llfuse

from arvados_fuse.errors import NoSuchCall, NotSupported
from arvados_fuse.fuse.operations import Operations, entry, handler
from arvados_fuse.tree.writable import Changes, WritableFileSystem


class WritingOperations(Operations):
    """The kernel's questions and commands, passed on to `WritableFileSystem`."""

    def __init__(self, filesystem: WritableFileSystem, **more: Any) -> None:
        super().__init__(filesystem, **more)
        self._tree = filesystem

    @handler
    def write(self, fh: int, off: int, buf: bytes) -> int:
        """pwrite."""
        return self._tree.write_at(fh, off, buf)

    @handler
    def setattr(
        self, inode: int, attr: llfuse.EntryAttributes, fields: Any, fh: int | None, ctx: Any = None
    ) -> llfuse.EntryAttributes:
        """truncate and utimens; chmod and chown succeed and are not kept."""
        changes = Changes(
            attr.st_size if fields.update_size else None, attr.st_mtime_ns if fields.update_mtime else None
        )
        return entry(self._tree.change_attributes(inode, changes, fh))

    @handler
    def create(self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: Any = None) -> Any:
        """open with O_CREAT."""
        handle, attributes = self._tree.create_file(parent_inode, name)
        return handle, entry(attributes)

    @handler
    def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: Any = None) -> Any:
        """mknod of a regular file."""
        return entry(self._tree.make_node(parent_inode, name, mode))

    @handler
    def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: Any = None) -> Any:
        """mkdir."""
        return entry(self._tree.make_directory(parent_inode, name))

    @handler
    def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: Any = None) -> Any:
        """Manifests have no symbolic links."""
        raise NoSuchCall("there are no symbolic links in Arvados")

    @handler
    def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: Any = None) -> Any:
        """Nor hard links."""
        raise NoSuchCall("there are no hard links in Arvados")

    @handler
    def unlink(self, parent_inode: int, name: bytes, ctx: Any = None) -> None:
        """unlink."""
        self._tree.unlink(parent_inode, name)

    @handler
    def rmdir(self, parent_inode: int, name: bytes, ctx: Any = None) -> None:
        """rmdir."""
        self._tree.remove_directory(parent_inode, name)

    @handler
    def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        ctx: Any = None,
    ) -> None:
        """rename."""
        self._tree.rename(parent_inode_old, name_old, parent_inode_new, name_new)

    @handler
    def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Any = None) -> None:
        """Attributes can only be read."""
        raise NotSupported("extended attributes can't be set")

    @handler
    def removexattr(self, inode: int, name: bytes, ctx: Any = None) -> None:
        """Attributes can only be read."""
        raise NotSupported("extended attributes can't be set")
