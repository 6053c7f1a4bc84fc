"""Block files in the cache directory that Arvados tools share: names, locks, temporary files, marks of a
passed check.

Layout and locking are those of the Arvados SDK: `<first 3 hex>/<md5>.keepcacheblock`, mode 0600; written
under a name with the prefix `tmp` and renamed when complete; who has a block open holds a shared flock, who
deletes it needs an exclusive one.
Used by `keep.disk_store` only. Threads: functions without state; a `TemporaryBlock` belongs to one thread.
"""

import contextlib
import errno
import fcntl
import os
import re
import stat
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from arvados_fuse.keep.content import FileContent

SUFFIX = ".keepcacheblock"
LEFTOVER_SECONDS = 60.0
"""A temporary file not written to for so long belongs to nobody (the SDK uses the same time)."""

TRUST_SECONDS = 7 * 86400.0
"""A passed check is believed for so long, then the file is hashed again: disks do rot."""

_BLOCK_NAME = re.compile(r"[0-9a-f]{32}" + re.escape(SUFFIX), re.ASCII)
_MARK = "user.arvados_fuse.checked"
_MARK_FORM = struct.Struct("<16sQQQQ")  # boot id, inode, mtime in ns, size, time of the check in s


class FoundBlock(NamedTuple):
    """A block file seen by a scan: sizes in bytes, times in seconds."""

    md5: str
    size: int
    accessed: float
    modified: float
    pinned: bool


def block_path(directory: Path, md5: str) -> str:
    """Where the block's file is, in the shared layout."""
    return f"{directory}/{md5[:3]}/{md5}{SUFFIX}"


def pin_path(directory: Path, md5: str, size: int) -> str:
    """Where the second name of a pinned block is (see `pins`)."""
    return f"{directory}/pins/blocks/{md5}+{size}"


def _is_pinned(directory: Path, md5: str, status: os.stat_result) -> bool:
    return status.st_nlink > 1 and os.path.lexists(pin_path(directory, md5, status.st_size))


def open_block(directory: Path, md5: str) -> FileContent | None:
    """Open a block file and hold the shared lock; None when it is not there, not ours to read or being
    deleted.

    Raises OSError when the process is out of file descriptors.
    """
    try:
        fd = os.open(block_path(directory, md5), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return None
    content = FileContent(fd)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # Deleted before the lock was ours: it is not in the cache any more.
        return content.identify() if os.fstat(fd).st_nlink else None
    except OSError:  # locked exclusively: another process is about to delete it
        return None


def delete_block(
    directory: Path, md5: str, held: FileContent | None, *, damaged: bool = False
) -> Literal["deleted", "busy", "gone", "pinned"]:
    """Delete a block file unless another process reads it or, if it is not damaged, it is pinned; `held` is
    this process's open file of it, if any.
    """
    content = held or open_block(directory, md5)
    path = block_path(directory, md5)
    if content is None:
        return "busy" if os.path.lexists(path) else "gone"
    try:
        fcntl.flock(content.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            if os.stat(path, follow_symlinks=False).st_ino != os.fstat(content.fd).st_ino:
                return "gone"  # replaced meanwhile; the new file is for the next scan to see
            if not damaged and _is_pinned(directory, md5, os.fstat(content.fd)):
                return "pinned"
            os.unlink(path)
        finally:
            fcntl.flock(content.fd, fcntl.LOCK_SH)  # readers of ours may go on with it
    except FileNotFoundError:
        return "gone"
    except OSError:
        return "busy"
    return "deleted"


def link_block(directory: Path, md5: str, size: int, path: str) -> FileContent | None:
    """Give a file that has the whole, checked block the block's name as a second one; None where that can't
    be: on another file system, or when the name is taken.
    """
    final = block_path(directory, md5)
    try:
        if os.stat(path, follow_symlinks=False).st_size != size:
            return None
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.dirname(final), 0o700)
        os.link(path, final, follow_symlinks=False)
        content = open_block(directory, md5)
    except OSError:
        return None
    if content is not None:
        mark_checked(content)
    return content


class TemporaryBlock:
    """A block on its way in: readable at once through `content`, under its final name only after `commit`."""

    def __init__(self, directory: Path, md5: str, size: int) -> None:
        """Create the file and reserve its space. Raises OSError (no space, read-only, no permission)."""
        self._final = block_path(directory, md5)
        folder = os.path.dirname(self._final)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        fd, self._name = tempfile.mkstemp(prefix="tmp", suffix=SUFFIX, dir=folder)
        self.content = FileContent(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            _reserve(fd, size)
        except BaseException:
            self.discard()
            raise

    def write(self, at: int, data: memoryview) -> None:
        """Write all of `data`. Raises OSError."""
        while data:
            count = os.pwrite(self.content.fd, data, at)
            at += count
            data = data[count:]

    def commit(self, size: int) -> None:
        """The block of `size` bytes passed its check: give it its name. Raises OSError."""
        if self.content.identify().size != size:
            raise OSError(errno.EIO, "the file was cut by another process")
        mark_checked(self.content)
        os.rename(self._name, self._final)

    def discard(self) -> None:
        """Remove the name; the content lives on while it is referred to."""
        with contextlib.suppress(OSError):
            os.unlink(self._name)


def _reserve(fd: int, size: int) -> None:
    """Allocate the blocks now: a full disk shows before the transfer, and writing takes a third less CPU."""
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise


def _boot_id() -> bytes:
    try:
        return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return b""


def mark_checked(content: FileContent) -> None:
    """Note on the file that its hash was right, as it looks now. Does nothing where the file system can't
    hold it.
    """
    boot = _boot_id()
    if len(boot) == 16:
        mark = _MARK_FORM.pack(boot, *content.identity, int(time.time()))
        with contextlib.suppress(OSError):
            os.setxattr(content.fd, _MARK, mark)


def is_checked(content: FileContent) -> bool:
    """Whether a process of this boot found the hash right and the file looks the same since.

    Of this boot: after a power cut a file may have its size, times and attributes, and zeros for bytes.
    """
    try:
        boot, *identity, checked = _MARK_FORM.unpack(os.getxattr(content.fd, _MARK))
    except (OSError, struct.error):
        return False
    age = time.time() - checked
    return boot == _boot_id() and tuple(identity) == content.identity and 0 <= age + 1 < TRUST_SECONDS


def note_use(content: FileContent) -> None:
    """Set the file's access time, which orders eviction in all processes and is not kept by every mounted
    disk.
    """
    with contextlib.suppress(OSError):
        if content.unchanged():
            os.utime(content.fd, ns=(time.time_ns(), content.mtime_ns))


def scan(directory: Path) -> Iterator[FoundBlock]:
    """All blocks below the directory; leftovers of dead processes are removed on the way. Never raises
    OSError.
    """
    try:
        folders = [entry.path for entry in os.scandir(directory) if len(entry.name) == 3]
    except OSError:
        return
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not entry.name.endswith(SUFFIX):
                        continue
                    status = entry.stat(follow_symlinks=False)
                    if _BLOCK_NAME.fullmatch(entry.name) and stat.S_ISREG(status.st_mode):
                        md5 = entry.name[:32]
                        pinned = _is_pinned(directory, md5, status)
                        yield FoundBlock(md5, status.st_size, status.st_atime, status.st_mtime, pinned)
                    elif entry.name.startswith("tmp") and time.time() - status.st_mtime > LEFTOVER_SECONDS:
                        _remove_leftover(entry.path)
        except OSError:  # the folder or a file went away, or is another user's
            continue


def _remove_leftover(path: str) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # its writer, alive but stalled, would hold it
            os.unlink(path)
        finally:
            os.close(fd)


def automatic_limit(directory: Path, held: int) -> int:
    """The size that Arvados tools choose, in bytes: the least of 10 % of the disk and a quarter of what is
    free.

    `held` is what the cache holds already; it counts as free. Raises OSError.
    """
    disk = os.statvfs(directory)
    return min(disk.f_blocks * disk.f_frsize // 10, (disk.f_bavail * disk.f_frsize + held) // 4)
