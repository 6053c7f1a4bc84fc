"""llfuse's handlers: resolve, release the global lock, call the file system, translate.

Public as `arvados_fuse.Operations`. llfuse calls every handler with its global lock held; `handler` releases
it at once, so the floors below never run under it. `handler` is also the one place where errors become errno,
and where anything unexpected is logged and kept from ending llfuse's loop (and with it the mount).
"""

import errno
import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from stat import S_ISDIR
from threading import get_ident
from typing import Any, Concatenate, ParamSpec, TypeVar

import llfuse

from arvados_fuse.errors import ArvadosFuseError
from arvados_fuse.fuse.places import place
from arvados_fuse.reporting.activity import Activity, now
from arvados_fuse.reporting.troubles import NOTED, Trouble, Troubles
from arvados_fuse.tree.attributes import BLOCK_SIZE, Attributes, Changes, Missing
from arvados_fuse.tree.filesystem import FileSystem

logger = logging.getLogger("arvados.arvados_fuse")

SIZE_OF: dict[str, Callable[[Any], int]] = {"read": len, "write": int}
"""How many bytes an operation moved, from its answer."""

P = ParamSpec("P")
R = TypeVar("R")


def handler(
    method: "Callable[Concatenate[Operations, P], R]",
) -> "Callable[Concatenate[Operations, P], R]":
    """Run a handler without llfuse's lock, counted and timed; let nothing but FUSEError out."""
    name = method.__name__
    release, acquire = llfuse.lock.release, llfuse.lock.acquire
    size_of: Callable[[Any], int] | None = SIZE_OF.get(name)

    # Every request passes here: what it does for each is counted in tenths of a microsecond.
    @functools.wraps(method)
    def run(self: "Operations", /, *args: P.args, **kwargs: P.kwargs) -> R:
        activity, thread, begun = self.activity, get_ident(), now()
        current = activity.current
        current[thread] = name, begun, args
        release()
        try:
            answer = method(self, *args, **kwargs)
        except ArvadosFuseError as error:
            if error.level >= logging.WARNING:
                self.note(name, args, error)
            raise _answer(name, error) from None
        except llfuse.FUSEError:
            raise
        except Exception as error:
            self.note(name, args, error)
            logger.exception(
                "Unhandled exception during FUSE operation %s%s", name, args[:2], extra={NOTED: True}
            )
            raise llfuse.FUSEError(errno.EIO) from None
        finally:
            acquire()
            elapsed = now() - begun
            del current[thread]
            tally = activity.tallies[name]
            tally.count += 1
            tally.seconds += elapsed
            if activity.windows:
                activity.note(name, elapsed)
        if size_of is not None and (size := size_of(answer)):
            activity.moved(name, args, size)
        return answer

    return run


def _answer(name: str, error: ArvadosFuseError) -> llfuse.FUSEError:
    """The errno for an error, and its line in the log: what failed, on which object, which server, which
    request."""
    level = logging.DEBUG if error.told else error.level
    if logger.isEnabledFor(level):
        details = {"object": error.subject, "server": error.server, "request": error.request_id}
        known = ", ".join(
            f"{key} {value}" for key, value in details.items() if value and value not in str(error)
        )
        said = f"{error} ({known})" if known else str(error)
        logger.log(level, "%s: %s", name, said, extra={NOTED: True})
    return llfuse.FUSEError(error.errno)


def entry(attributes: Attributes) -> llfuse.EntryAttributes:
    """llfuse's form of attributes."""
    result = llfuse.EntryAttributes()
    result.st_ino, mode, size, mtime_ns, result.st_uid, result.st_gid, timeout, result.st_nlink = attributes
    result.st_mode = mode
    result.st_size = size
    # Units of 512 bytes, as POSIX has it; a directory's size is that of what is below it.
    result.st_blocks = 0 if S_ISDIR(mode) else (size + 511) >> 9
    result.st_blksize = BLOCK_SIZE
    result.st_atime_ns = result.st_mtime_ns = result.st_ctime_ns = mtime_ns
    result.entry_timeout = result.attr_timeout = timeout
    return result


class Operations(llfuse.Operations):  # type: ignore[misc]
    """The kernel's questions and commands, passed on to a `FileSystem`, read-only or not."""

    def __init__(self, filesystem: FileSystem) -> None:
        super().__init__()
        self._fs = filesystem
        self.activity = Activity()
        self.troubles = Troubles()

    def note(self, operation: str, arguments: tuple[Any, ...], error: Exception) -> None:
        """Remember a failure for who looks later."""
        self.activity.failed(operation)
        path = place(self._fs, operation, arguments)
        if isinstance(error, ArvadosFuseError):
            about = error.subject, error.server, error.request_id
            self.troubles.note(Trouble(time.time(), operation, str(error), path, *about))
        else:
            self.troubles.note(Trouble(time.time(), operation, repr(error), path))

    # Names and attributes

    @handler
    def lookup(self, parent_inode: int, name: bytes, ctx: Any = None) -> llfuse.EntryAttributes:
        """An entry with inode 0 tells the kernel that the name is missing, and for how long."""
        try:
            return entry(self._fs.lookup(parent_inode, name))
        except Missing as missing:
            nothing = llfuse.EntryAttributes()
            nothing.st_ino = 0
            nothing.entry_timeout = missing.timeout
            return nothing

    @handler
    def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Drop references."""
        self._fs.forget(inode_list)

    @handler
    def getattr(self, inode: int, ctx: Any = None) -> llfuse.EntryAttributes:
        """stat."""
        return entry(self._fs.getattr(inode))

    @handler
    def access(self, inode: int, mode: int, ctx: Any = None) -> bool:
        """Asked only where the kernel does not check modes itself."""
        return self._fs.access(inode, mode)

    @handler
    def statfs(self, ctx: Any = None) -> llfuse.StatvfsData:
        """df."""
        told = self._fs.statfs()
        result = llfuse.StatvfsData()
        result.f_bsize = result.f_frsize = told.block_size
        result.f_blocks = told.total // told.block_size
        result.f_bfree = result.f_bavail = told.free // told.block_size
        result.f_files = told.files
        result.f_ffree = result.f_favail = told.files_free
        result.f_namemax = told.name_max
        return result

    @handler
    def readlink(self, inode: int, ctx: Any = None) -> bytes:
        """There are none."""
        return self._fs.readlink(inode)

    @handler
    def getxattr(self, inode: int, name: bytes, ctx: Any = None) -> bytes:
        """One extended attribute. What is no attribute of a user is refused in the way that makes programs
        (`ls`) ask once for a whole file system."""
        if not name.startswith(b"user."):
            raise llfuse.FUSEError(errno.ENOTSUP)
        return self._fs.getxattr(inode, name)

    @handler
    def listxattr(self, inode: int, ctx: Any = None) -> list[bytes]:
        """Names of extended attributes."""
        return self._fs.listxattr(inode)

    # Files

    @handler
    def open(self, inode: int, flags: int, ctx: Any = None) -> int:
        """llfuse keeps the kernel's cached pages across opens, so an inode's content must never change."""
        return self._fs.open(inode, flags)

    @handler
    def read(self, fh: int, off: int, size: int) -> bytes | memoryview:
        """Any contiguous buffer goes to the kernel without a copy."""
        return self._fs.read(fh, off, size)

    @handler
    def write(self, fh: int, off: int, buf: bytes) -> int:
        """pwrite."""
        return self._fs.write(fh, off, buf)

    @handler
    def flush(self, fh: int) -> None:
        """close of one descriptor. ENOSYS tells the kernel that it need not ask at each close."""
        if self._fs.read_only:
            raise llfuse.FUSEError(errno.ENOSYS)
        self._fs.flush(fh)

    @handler
    def fsync(self, fh: int, datasync: bool) -> None:
        """fsync, fdatasync."""
        self._fs.fsync(fh)

    @handler
    def release(self, fh: int) -> None:
        """The last descriptor is closed."""
        if self.activity.has_moved(fh):
            self.activity.closed(fh, place(self._fs, "release", (fh,)))
        self._fs.release(fh)

    # Directories

    @handler
    def opendir(self, inode: int, ctx: Any = None) -> int:
        """Snapshots the names."""
        return self._fs.opendir(inode)

    @handler
    def readdir(self, fh: int, off: int) -> Iterator[tuple[bytes, llfuse.EntryAttributes, int]]:
        """The iterator runs later, under llfuse's lock: it only walks the snapshot."""
        return _listed(self._fs.readdir(fh, off))

    @handler
    def fsyncdir(self, fh: int, datasync: bool) -> None:
        """fsync of a directory."""
        self._fs.fsyncdir(fh)

    @handler
    def releasedir(self, fh: int) -> None:
        """closedir."""
        self._fs.releasedir(fh)

    # Changes

    @handler
    def setattr(
        self, inode: int, attr: llfuse.EntryAttributes, fields: Any, fh: int | None, ctx: Any = None
    ) -> llfuse.EntryAttributes:
        """truncate, utimens, chmod, chown."""
        changes = Changes(
            attr.st_size if fields.update_size else None, attr.st_mtime_ns if fields.update_mtime else None
        )
        return entry(self._fs.change_attributes(inode, changes, fh))

    @handler
    def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: Any = None
    ) -> tuple[int, llfuse.EntryAttributes]:
        """open with O_CREAT."""
        handle, attributes = self._fs.create_file(parent_inode, name)
        return handle, entry(attributes)

    @handler
    def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: Any = None
    ) -> llfuse.EntryAttributes:
        """mknod."""
        return entry(self._fs.make_node(parent_inode, name, mode))

    @handler
    def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: Any = None) -> llfuse.EntryAttributes:
        """mkdir."""
        return entry(self._fs.make_directory(parent_inode, name))

    @handler
    def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: Any = None
    ) -> llfuse.EntryAttributes:
        """There are none."""
        self._fs.make_link(parent_inode, name)

    @handler
    def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: Any = None
    ) -> llfuse.EntryAttributes:
        """There are none."""
        self._fs.make_link(new_parent_inode, new_name)

    @handler
    def unlink(self, parent_inode: int, name: bytes, ctx: Any = None) -> None:
        """unlink."""
        self._fs.unlink(parent_inode, name)

    @handler
    def rmdir(self, parent_inode: int, name: bytes, ctx: Any = None) -> None:
        """rmdir."""
        self._fs.remove_directory(parent_inode, name)

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
        self._fs.rename(parent_inode_old, name_old, parent_inode_new, name_new)

    @handler
    def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Any = None) -> None:
        """They can only be read."""
        self._fs.change_xattr(inode, name)

    @handler
    def removexattr(self, inode: int, name: bytes, ctx: Any = None) -> None:
        """They can only be read."""
        self._fs.change_xattr(inode, name)


def _listed(entries: Iterator[Any]) -> Iterator[tuple[bytes, llfuse.EntryAttributes, int]]:
    """llfuse copies number and type out of each entry before it takes the next: one object serves for all."""
    shared = llfuse.EntryAttributes()
    for name, ino, mode, next_offset in entries:
        shared.st_ino = ino
        shared.st_mode = mode
        yield name, shared, next_offset
