"""The same questions to a file system in this process and to a mount: paths in, values or OSError out."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple, NoReturn, ParamSpec, Protocol, TypeVar

from arvados_fuse.errors import ArvadosFuseError
from arvados_fuse.tree import FileSystem
from arvados_fuse.tree.attributes import Attributes
from arvados_fuse.tree.inodes import ROOT

P = ParamSpec("P")
T = TypeVar("T")

READ_PIECE = 131072
"""Bytes: what the kernel asks for at once."""

CHANGES = (
    "open_write",
    "open_read_write",
    "open_truncate",
    "truncate",
    "create",
    "mknod",
    "mkdir",
    "unlink",
    "rmdir",
    "rename",
    "symlink",
    "link",
    "chmod",
    "chown",
    "utime",
    "setxattr",
)
"""Every way to change something."""


class Stat(NamedTuple):
    """What tests compare. mtime_ns: ns since 1970."""

    is_dir: bool
    mode: int
    size: int
    mtime_ns: int
    ino: int
    nlink: int
    uid: int


class OpenedFile(Protocol):
    """A file that stays open."""

    def read(self, offset: int, size: int) -> bytes: ...

    def close(self) -> None: ...


class Driver(Protocol):
    """Paths are relative to the root of the tree, "" is the root."""

    def names(self, path: str) -> list[str]:
        """As listed, in the order of the listing, without `.` and `..`."""

    def stat(self, path: str) -> Stat: ...

    def open(self, path: str) -> OpenedFile: ...

    def change(self, kind: str, path: str) -> None:
        """Try to change the (existing) object at `path` in one of CHANGES."""

    def free_bytes(self) -> int: ...


def read(driver: Driver, path: str) -> bytes:
    """The whole file."""
    opened = driver.open(path)
    try:
        pieces = []
        offset = 0
        while piece := opened.read(offset, READ_PIECE):
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)
    finally:
        opened.close()


def walk(driver: Driver, path: str = "") -> Iterator[tuple[str, Stat]]:
    """Everything below `path`, directories before what is in them."""
    for name in sorted(driver.names(path)):
        below = f"{path}/{name}" if path else name
        found = driver.stat(below)
        yield below, found
        if found.is_dir:
            yield from walk(driver, below)


def exists(driver: Driver, path: str) -> bool:
    """Whether there is such a path; other errors are raised."""
    try:
        driver.stat(path)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def refused(number: int) -> Iterator[None]:
    """What is inside must fail with this errno."""
    answered = 0
    try:
        yield
    except OSError as error:
        answered = error.errno or 0
    assert answered == number, f"{errno.errorcode[number]} expected, not {errno.errorcode.get(answered)}"


class MountDriver:
    """A mount, through the kernel."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _path(self, path: str) -> str:
        return f"{self.root}/{path}" if path else str(self.root)

    def names(self, path: str) -> list[str]:
        with os.scandir(self._path(path)) as entries:
            listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        return [name for name, _ in listed]

    def stat(self, path: str) -> Stat:
        found = os.lstat(self._path(path))
        return Stat(
            stat.S_ISDIR(found.st_mode),
            found.st_mode,
            found.st_size,
            found.st_mtime_ns,
            found.st_ino,
            found.st_nlink,
            found.st_uid,
        )

    def open(self, path: str) -> "MountedFile":
        return MountedFile(os.open(self._path(path), os.O_RDONLY))

    def change(self, kind: str, path: str) -> None:
        full = self._path(path)
        flags = {"open_write": os.O_WRONLY, "open_read_write": os.O_RDWR, "open_truncate": os.O_TRUNC}
        if kind in flags:
            os.close(os.open(full, flags[kind]))
        elif kind == "create":
            os.close(os.open(full + ".new", os.O_CREAT | os.O_WRONLY))
        else:
            {
                "truncate": lambda: os.truncate(full, 1),
                "mknod": lambda: os.mknod(full + ".new", stat.S_IFREG | 0o644),
                "mkdir": lambda: os.mkdir(full + ".new"),
                "unlink": lambda: os.unlink(full),
                "rmdir": lambda: os.rmdir(full),
                "rename": lambda: os.rename(full, full + ".new"),
                "symlink": lambda: os.symlink("target", full + ".new"),
                "link": lambda: os.link(full, full + ".new"),
                "chmod": lambda: os.chmod(full, 0o777),
                "chown": lambda: os.chown(full, 1, 1),
                "utime": lambda: os.utime(full, (0, 0)),
                "setxattr": lambda: os.setxattr(full, "user.test", b"value"),
            }[kind]()

    def free_bytes(self) -> int:
        told = os.statvfs(self.root)
        return told.f_bavail * told.f_frsize


class MountedFile:
    """An open descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def close(self) -> None:
        os.close(self._descriptor)


class TreeDriver:
    """A FileSystem in this process; references are dropped as the kernel would drop them at once."""

    def __init__(self, filesystem: FileSystem) -> None:
        self.fs = filesystem

    def names(self, path: str) -> list[str]:
        with self.at(path) as found:
            fh = self.call(self.fs.opendir, found.ino)
            try:
                return self._list(fh)
            finally:
                self.fs.releasedir(fh)

    def _list(self, fh: int) -> list[str]:
        """In pieces of 100, as the kernel's buffer would cut it."""
        names: list[str] = []
        offset = 0
        while True:
            entries = list(islice(self.call(self.fs.readdir, fh, offset), 100))
            if not entries:
                return [name for name in names if name not in (".", "..")]
            names += [os.fsdecode(entry.name) for entry in entries]
            offset = entries[-1].next_offset

    def stat(self, path: str) -> Stat:
        with self.at(path) as found:
            told = self.call(self.fs.getattr, found.ino)
            return Stat(told.is_directory, told.mode, told.size, told.mtime_ns, told.ino, 1, told.uid)

    def open(self, path: str) -> "TreeFile":
        with self.at(path) as found:
            return TreeFile(self, self.call(self.fs.open, found.ino, os.O_RDONLY))

    def change(self, kind: str, path: str) -> None:
        parent, _, name = path.rpartition("/")
        flags = {"open_write": os.O_WRONLY, "open_read_write": os.O_RDWR, "open_truncate": os.O_TRUNC}
        with self.at(parent) as above, self.at(path) as found:
            if kind in flags:
                self.call(self.fs.open, found.ino, flags[kind])
            elif kind in ("truncate", "chmod", "chown", "utime"):
                self.call(self.fs.setattr, found.ino)
            elif kind in ("create", "mknod", "mkdir", "symlink", "link"):
                self.call(self.fs.create, above.ino, f"{name}.new".encode())
            elif kind in ("unlink", "rmdir", "rename"):
                self.call(self.fs.remove, above.ino, name.encode())
            else:
                assert kind == "setxattr"
                self.call(self.fs.setxattr, found.ino, b"user.test")

    def free_bytes(self) -> int:
        return self.fs.statfs().free

    def at(self, path: str) -> "_Reference":
        """The inode at a path, held while the context lasts."""
        return _Reference(self, path)

    def call(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """The kernel's view of an error: its number."""
        try:
            return function(*arguments, **options)
        except ArvadosFuseError as error:
            _raise(error)


def _raise(error: ArvadosFuseError) -> NoReturn:
    raise OSError(error.errno, f"{os.strerror(error.errno)}: {error}") from error


class _Reference:
    """The inode at a path, held for a while."""

    def __init__(self, driver: TreeDriver, path: str) -> None:
        self._driver = driver
        self._path = path
        self._held: list[int] = []

    def __enter__(self) -> Attributes:
        fs = self._driver.fs
        found = fs.getattr(ROOT)
        try:
            for name in filter(None, self._path.split("/")):
                if not found.is_directory:
                    raise NotADirectoryError(errno.ENOTDIR, name)
                found = self._driver.call(fs.lookup, found.ino, os.fsencode(name))
                self._held.append(found.ino)
        except OSError:
            self.__exit__()
            raise
        return found

    def __exit__(self, *_: object) -> None:
        self._driver.fs.forget([(ino, 1) for ino in self._held])


class TreeFile:
    """An open handle."""

    def __init__(self, driver: TreeDriver, fh: int) -> None:
        self._driver = driver
        self._fh = fh

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self._driver.call(self._driver.fs.read, self._fh, offset, size))

    def close(self) -> None:
        self._driver.fs.release(self._fh)
