"""The same questions to a file system in this process and to a mount: paths in, values or OSError out."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, ParamSpec, Protocol, TypeVar

from arvados_fuse.errors import ArvadosFuseError
from arvados_fuse.tree import FileSystem
from arvados_fuse.tree.attributes import Attributes, Changes
from arvados_fuse.tree.inodes import ROOT

P = ParamSpec("P")
T = TypeVar("T")

READ_PIECE = 131072
"""Bytes: what the kernel asks for at once."""

REGULAR = stat.S_IFREG
"""For mknod."""

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


class WrittenFile(OpenedFile, Protocol):
    """A file that stays open and may be changed."""

    def write(self, offset: int, data: bytes) -> int: ...

    def append(self, data: bytes) -> int:
        """Write as a handle of O_APPEND does: at the end."""

    def truncate(self, size: int) -> None: ...

    def fsync(self) -> None: ...

    def size(self) -> int:
        """As fstat tells it."""

    def links(self) -> int:
        """Names that it has, as fstat tells it."""


class EnteredDirectory(Protocol):
    """A directory that a program works in, whatever happens to its name."""

    def names(self) -> list[str]: ...

    def make(self, name: str) -> None:
        """A new file in it."""

    def leave(self) -> None: ...


class WritingDriver(Driver, Protocol):
    """What a tree that can be changed answers. Times are ns since 1970."""

    def open_file(self, path: str, flags: int) -> WrittenFile: ...

    def mkdir(self, path: str) -> None: ...

    def mknod(self, path: str, kind: int = REGULAR) -> None: ...

    def unlink(self, path: str) -> None: ...

    def rmdir(self, path: str) -> None: ...

    def rename(self, path: str, new_path: str) -> None: ...

    def truncate(self, path: str, size: int) -> None: ...

    def utime(self, path: str, mtime_ns: int) -> None: ...

    def chmod(self, path: str, mode: int) -> None: ...

    def chown(self, path: str, uid: int, gid: int) -> None: ...

    def symlink(self, target: str, path: str) -> None: ...

    def link(self, path: str, new_path: str) -> None: ...

    def fsync_directory(self, path: str) -> None: ...

    def enter(self, path: str) -> EnteredDirectory: ...


def write(driver: WritingDriver, path: str, data: bytes) -> None:
    """The whole file, new or anew, as `>` of a shell."""
    opened = driver.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        for offset in range(0, len(data), READ_PIECE):
            opened.write(offset, data[offset : offset + READ_PIECE])
    finally:
        opened.close()


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

    # Changes

    def open_file(self, path: str, flags: int) -> "MountedFile":
        return MountedFile(os.open(self._path(path), flags, 0o644))

    def mkdir(self, path: str) -> None:
        os.mkdir(self._path(path))

    def mknod(self, path: str, kind: int = REGULAR) -> None:
        os.mknod(self._path(path), kind | 0o644)

    def unlink(self, path: str) -> None:
        os.unlink(self._path(path))

    def rmdir(self, path: str) -> None:
        os.rmdir(self._path(path))

    def rename(self, path: str, new_path: str) -> None:
        os.rename(self._path(path), self._path(new_path))

    def truncate(self, path: str, size: int) -> None:
        os.truncate(self._path(path), size)

    def utime(self, path: str, mtime_ns: int) -> None:
        os.utime(self._path(path), ns=(mtime_ns, mtime_ns))

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self._path(path), mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(self._path(path), uid, gid)

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, self._path(path))

    def link(self, path: str, new_path: str) -> None:
        os.link(self._path(path), self._path(new_path))

    def fsync_directory(self, path: str) -> None:
        descriptor = os.open(self._path(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def enter(self, path: str) -> "MountedDirectory":
        return MountedDirectory(os.open(self._path(path), os.O_RDONLY | os.O_DIRECTORY))


class MountedDirectory:
    """An open descriptor of a directory."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def names(self) -> list[str]:
        return os.listdir(self._descriptor)

    def make(self, name: str) -> None:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=self._descriptor))

    def leave(self) -> None:
        os.close(self._descriptor)


class MountedFile:
    """An open descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def write(self, offset: int, data: bytes) -> int:
        return os.pwrite(self._descriptor, data, offset)

    def append(self, data: bytes) -> int:
        return os.write(self._descriptor, data)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def fsync(self) -> None:
        os.fsync(self._descriptor)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def links(self) -> int:
        return os.fstat(self._descriptor).st_nlink

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
                return self.list_open(fh)
            finally:
                self.fs.releasedir(fh)

    def list_open(self, fh: int) -> list[str]:
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
            return TreeFile(self, self.call(self.fs.open, found.ino, os.O_RDONLY), found.ino)

    def change(self, kind: str, path: str) -> None:
        parent, _, name = path.rpartition("/")
        flags = {"open_write": os.O_WRONLY, "open_read_write": os.O_RDWR, "open_truncate": os.O_TRUNC}
        with self.at(parent) as above, self.at(path) as found:
            if kind in flags:
                self.call(self.fs.open, found.ino, flags[kind])
            elif kind in ("truncate", "chmod", "chown", "utime"):
                changes = {"truncate": Changes(size=1), "utime": Changes(mtime_ns=0)}
                self.call(self.fs.change_attributes, found.ino, changes.get(kind, Changes()))
            elif kind == "setxattr":
                self.call(self.fs.change_xattr, found.ino, b"user.test")
            else:
                at, old, new = above.ino, os.fsencode(name), os.fsencode(f"{name}.new")
                calls: dict[str, tuple[Any, ...]] = {
                    "create": (self.fs.create_file, at, new),
                    "mknod": (self.fs.make_node, at, new, REGULAR),
                    "mkdir": (self.fs.make_directory, at, new),
                    "symlink": (self.fs.make_link, at, new),
                    "link": (self.fs.make_link, at, new),
                    "unlink": (self.fs.unlink, at, old),
                    "rmdir": (self.fs.remove_directory, at, old),
                    "rename": (self.fs.rename, at, old, at, new),
                }
                self.call(*calls[kind])

    def free_bytes(self) -> int:
        return self.fs.statfs().free

    # Changes: what the kernel asks for them, its own checks left out

    def open_file(self, path: str, flags: int) -> "TreeFile":
        above, name = _split(path)
        with self.at(above) as parent:
            try:
                with self.at(path) as found:
                    if flags & os.O_CREAT and (flags & os.O_EXCL or found.is_directory):
                        number = errno.EEXIST if flags & os.O_EXCL else errno.EISDIR
                        raise OSError(number, os.strerror(number), path)
                    kept = flags & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC)
                    opened = TreeFile(self, self.call(self.fs.open, found.ino, kept), found.ino)
                    if flags & os.O_TRUNC:
                        opened.truncate(0)
                    return opened
            except FileNotFoundError:
                if not flags & os.O_CREAT:
                    raise
            fh, made = self.call(self.fs.create_file, parent.ino, os.fsencode(name))
            self.fs.forget([(made.ino, 1)])
            return TreeFile(self, fh, made.ino)

    def mkdir(self, path: str) -> None:
        above, name = _split(path)
        with self.at(above) as parent:
            self._need_free(path)
            made = self.call(self.fs.make_directory, parent.ino, os.fsencode(name))
            self.fs.forget([(made.ino, 1)])

    def mknod(self, path: str, kind: int = REGULAR) -> None:
        above, name = _split(path)
        with self.at(above) as parent:
            self._need_free(path)
            made = self.call(self.fs.make_node, parent.ino, os.fsencode(name), kind | 0o644)
            self.fs.forget([(made.ino, 1)])

    def unlink(self, path: str) -> None:
        above, name = _split(path)
        with self.at(above) as parent:
            self.call(self.fs.unlink, parent.ino, os.fsencode(name))

    def rmdir(self, path: str) -> None:
        above, name = _split(path)
        with self.at(above) as parent:
            self.call(self.fs.remove_directory, parent.ino, os.fsencode(name))

    def rename(self, path: str, new_path: str) -> None:
        (above, name), (target, new_name) = _split(path), _split(new_path)
        with self.at(above) as parent:
            if not parent.is_directory:
                raise NotADirectoryError(errno.ENOTDIR, above)
            self._rename(parent.ino, name, target, new_name)

    def _rename(self, parent: int, name: str, target: str, new_name: str) -> None:
        with self.at(target) as new_parent:
            self.call(self.fs.rename, parent, os.fsencode(name), new_parent.ino, os.fsencode(new_name))

    def truncate(self, path: str, size: int) -> None:
        self._set(path, Changes(size=size))

    def utime(self, path: str, mtime_ns: int) -> None:
        self._set(path, Changes(mtime_ns=mtime_ns))

    def chmod(self, path: str, mode: int) -> None:
        self._set(path, Changes())

    def chown(self, path: str, uid: int, gid: int) -> None:
        self._set(path, Changes())

    def _set(self, path: str, changes: Changes) -> None:
        with self.at(path) as found:
            self.call(self.fs.change_attributes, found.ino, changes)

    def symlink(self, target: str, path: str) -> None:
        above, name = _split(path)
        with self.at(above) as parent:
            self.call(self.fs.make_link, parent.ino, os.fsencode(name))

    def link(self, path: str, new_path: str) -> None:
        self.symlink(path, new_path)

    def fsync_directory(self, path: str) -> None:
        with self.at(path) as found:
            fh = self.call(self.fs.opendir, found.ino)
            try:
                self.call(self.fs.fsyncdir, fh)
            finally:
                self.fs.releasedir(fh)

    def enter(self, path: str) -> "TreeDirectory":
        reference = self.at(path)
        return TreeDirectory(self, reference, reference.__enter__().ino)

    def _need_free(self, path: str) -> None:
        """What the kernel sees to before it asks for something new."""
        if exists(self, path):
            raise FileExistsError(errno.EEXIST, path)

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

    def __init__(self, driver: TreeDriver, fh: int, ino: int) -> None:
        self._driver = driver
        self._fh = fh
        self._ino = ino

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self._driver.call(self._driver.fs.read, self._fh, offset, size))

    def write(self, offset: int, data: bytes) -> int:
        return self._driver.call(self._driver.fs.write, self._fh, offset, data)

    def append(self, data: bytes) -> int:
        return self.write(self.size(), data)

    def truncate(self, size: int) -> None:
        fs = self._driver.fs
        self._driver.call(fs.change_attributes, self._ino, Changes(size=size), self._fh)

    def fsync(self) -> None:
        self._driver.call(self._driver.fs.fsync, self._fh)

    def size(self) -> int:
        return self._driver.call(self._driver.fs.getattr, self._ino).size

    def links(self) -> int:
        return self._driver.call(self._driver.fs.getattr, self._ino).links

    def close(self) -> None:
        fs = self._driver.fs
        try:
            if not fs.read_only:
                self._driver.call(fs.flush, self._fh)
        finally:
            with suppress(OSError):  # the kernel tells nobody
                self._driver.call(fs.release, self._fh)


class TreeDirectory:
    """An inode that is kept, with a handle on it that is rewound for every listing."""

    def __init__(self, driver: TreeDriver, reference: _Reference, ino: int) -> None:
        self._driver = driver
        self._reference = reference
        self._ino = ino
        self._fh = driver.call(driver.fs.opendir, ino)

    def names(self) -> list[str]:
        return self._driver.list_open(self._fh)

    def make(self, name: str) -> None:
        fs = self._driver.fs
        fh, made = self._driver.call(fs.create_file, self._ino, os.fsencode(name))
        fs.forget([(made.ino, 1)])
        fs.release(fh)

    def leave(self) -> None:
        self._driver.fs.releasedir(self._fh)
        self._reference.__exit__()


def _split(path: str) -> tuple[str, str]:
    above, _, name = path.rpartition("/")
    return above, name
