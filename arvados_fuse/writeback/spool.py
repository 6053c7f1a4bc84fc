"""Spools that lie on disk: where written bytes are until they are in blocks.

Made by `Spools.new`, which is the spool factory of the collections of a mount. One file for each spool; at
most some descriptors are open at a time. A write is never synced: it survives the end of the process, not
that of the machine; what must survive that is saved to the server.

A file goes when nothing refers to its spool any more: no segment of a content, no row of the journal (rows
are in memory too, and refer to the spools they need). Files that outlive their process are dealt with by
`rooms`.

Threads: any.
"""

import errno
import gc
import os
import sys
import threading
import time
import weakref
from bisect import bisect_left, bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from arvados_fuse.collection.segments import BLOCK_SIZE, Segment
from arvados_fuse.errors import ArvadosFuseError, NoSpaceError, SaveFailed

DESCRIPTORS = 128
"""Spool files open at a time: of 1024 that a process has by default, connections and cached blocks need
theirs."""

SUFFIX = ".spool"

SHARED = 1 << 20
"""Bytes up to which files that begin to be written share a spool: to make a file of its own for each is what
takes longest where many small ones are written, for it may wait for the disk. So little, because a spool goes
only when all that share it are done with it."""

LEFT_FREE = 8 << 20
"""Bytes of the disk that spools leave to the journal, so that what they hold can be saved and they can go;
of a small disk a 16th part. (As much is set aside in `reserve`, for when others fill the disk.)"""
LOOK_AFTER = 64 << 20
"""Bytes written at most between two looks at the free space; less where there is little."""

AT_ONCE = 1024
"""Buffers that one system call fills (Linux: UIO_MAXIOV)."""

COLLECT_PAUSE = 1.0
"""Seconds between two searches for spools that could go, while the disk is full."""


class Spools:
    """The spools of one room.

    bytes: in all files that there are. appended: ever written; it only grows. give_way: called when the disk
    is full: whether something was let go.
    """

    def __init__(self, directory: Path, *, descriptors: int = DESCRIPTORS) -> None:
        """directory: exists, and belongs to this process alone."""
        self._directory = directory
        self._files = _Descriptors(descriptors)
        self._lock = threading.Lock()
        self._count = 0
        self._spools: weakref.WeakValueDictionary[str, DiskSpool] = weakref.WeakValueDictionary()
        # Filled by finalizers, which may run anywhere, under any lock: so they only append.
        self._dead: deque[tuple[str, list[int]]] = deque()
        self._unlooked = 0
        self._collected = float("-inf")
        self._shared: weakref.ref[DiskSpool] | None = None
        self.give_way: Callable[[], bool] = lambda: False
        self.bytes = 0
        self.appended = 0

    def new(self, limit: int = 0) -> "DiskSpool":
        """An empty spool of one's own; its file comes with the first byte. limit: bytes that it shall hold, 0
        for any. Raises nothing."""
        self.sweep()
        with self._lock:
            self._count += 1
            made = self._make(f"{self._count:08d}{SUFFIX}", self._count, 0)
            made.limit = limit
            return made

    def begin(self, *, large: bool = False) -> "DiskSpool":
        """A spool for a file that begins to be written (a `SpoolFactory`): shared with others unless it is
        large. Raises nothing."""
        if large:
            return self.new(BLOCK_SIZE)
        with self._lock:
            found = self._shared() if self._shared is not None else None
        if found is not None and found.room():
            return found
        made = self.new(SHARED)
        made.is_shared = True
        with self._lock:
            self._shared = weakref.ref(made)
        return made

    def existing(self, name: str) -> "DiskSpool":
        """The spool of a file that was there when the room was opened; of size 0 when it is not."""
        with self._lock:
            found = self._spools.get(name)
            if found is None:
                size = 0
                with suppress(OSError):
                    size = os.stat(self._directory / name).st_size
                number = int(name.removesuffix(SUFFIX)) if name.removesuffix(SUFFIX).isdecimal() else 0
                self._count = max(self._count, number)
                found = self._make(name, number, size)
            return found

    def _make(self, name: str, number: int, size: int) -> "DiskSpool":
        total = [size]
        made = DiskSpool(self, str(self._directory / name), name, number, total)
        self._spools[name] = made
        self.bytes += size
        # Not at the end of the process: then the files are what the journal lives on.
        weakref.finalize(made, self._dead.append, (name, total)).atexit = False
        return made

    def need_room(self, size: int) -> None:
        """Raise OSError (ENOSPC) when so many bytes more would leave too little for the journal."""
        if self._has_room(size):
            return
        self._collect()
        while not self._has_room(size):
            if not self._dead and not self.give_way():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.sweep()

    def _has_room(self, size: int) -> bool:
        with self._lock:
            self._unlooked -= size
            if self._unlooked >= 0:
                return True
            disk = os.statvfs(self._directory)
            free = disk.f_bavail * disk.f_frsize
            spare = free - min(LEFT_FREE, disk.f_blocks * disk.f_frsize // 16) - size
            if spare < 0:
                return False
            self._unlooked = min(LOOK_AFTER, spare // 2)
            return True

    def _collect(self) -> None:
        """Remove spools that only wait for Python's collector: trees refer to them, and are cycles."""
        now = time.monotonic()
        if now - self._collected >= COLLECT_PAUSE:
            self._collected = now
            gc.collect()
            self.sweep()

    def count(self, size: int) -> None:
        """Bytes were appended."""
        with self._lock:
            self.bytes += size
            self.appended += size

    def sweep(self) -> None:
        """Remove the files of spools that nothing refers to any more."""
        while self._dead:
            try:
                name, total = self._dead.popleft()
            except IndexError:
                return
            with self._lock:
                self.bytes -= total[0]
                is_used_again = name in self._spools
            if not is_used_again:
                self._files.forget(str(self._directory / name))
                with suppress(FileNotFoundError):
                    os.unlink(self._directory / name)

    def remove_unknown(self) -> None:
        """Remove files that no spool stands for: left behind when a process was killed."""
        with self._lock:
            known = set(self._spools)
        for path in self._directory.iterdir():
            if path.name not in known:
                path.unlink(missing_ok=True)

    @contextmanager
    def file(self, path: str) -> Iterator[int]:
        """A descriptor of one spool's file, for reading and writing."""
        with self._files.open(path) as descriptor:
            yield descriptor

    def close(self) -> None:
        """Close all descriptors; the files stay."""
        self.sweep()
        self._files.close()


class DiskSpool:
    """One spool, see `collection.spool.Spool`. Remembers which of its ranges are in blocks by now.

    name: of the file; number: counts spools in the order of their making. limit: bytes that it shall hold, 0
    for any; those who share it may bring it somewhat beyond.
    """

    __slots__ = (
        "__weakref__",
        "_lock",
        "_owner",
        "_path",
        "_starts",
        "_stored",
        "_total",
        "is_shared",
        "limit",
        "name",
        "number",
    )

    def __init__(self, owner: Spools, path: str, name: str, number: int, total: list[int]) -> None:
        self._owner = owner
        self._path = path
        self._lock = threading.Lock()
        self._total = total
        self._starts: list[int] = []
        self._stored: dict[int, Segment] = {}
        self.name = name
        self.number = number
        self.limit = 0
        self.is_shared = False

    def append(self, data: bytes | memoryview) -> int:
        """See `Spool`. Raises NoSpaceError; the spool is then as it was."""
        view = memoryview(data).cast("B")
        with self._lock:
            start = self._total[0]
            done = 0
            try:
                self._owner.need_room(len(view))
                with self._owner.file(self._path) as file:
                    try:
                        while done < len(view):
                            done += os.pwrite(file, view[done:], start + done)
                    except OSError:
                        # Leave what room there is to the journal.
                        with suppress(OSError):
                            os.ftruncate(file, start)
                        raise
            except OSError as error:
                raise disk_error(error, self._path) from error
            self._total[0] = start + done
        self._owner.count(done)
        return start

    def read(self, offset: int, size: int) -> bytes:
        """See `Spool`. Raises SaveFailed when the file is not what it was."""
        with self._open() as file:
            data = os.pread(file, size, offset)
            if len(data) == size:
                return data
            parts, got = [data], len(data)
            while data and got < size:
                data = os.pread(file, size - got, offset + got)
                parts.append(data)
                got += len(data)
        if got != size:
            raise SaveFailed(f"the spool file {self._path} is shorter than what was written to it")
        return b"".join(parts)

    def read_into(self, offset: int, targets: Iterable[memoryview]) -> None:
        """Fill the targets, none of them empty, one after another with the bytes from `offset`. Raises as
        `read`."""
        left = deque(targets)
        with self._open() as file:
            while left:
                count = os.preadv(file, list(islice(left, AT_ONCE)), offset)
                if not count:
                    raise SaveFailed(f"the spool file {self._path} is shorter than what was written to it")
                offset += count
                while left and len(left[0]) <= count:
                    count -= len(left.popleft())
                if count:
                    left[0] = left[0][count:]

    @contextmanager
    def _open(self) -> Iterator[int]:
        try:
            with self._owner.file(self._path) as file:
                yield file
        except OSError as error:
            raise disk_error(error, self._path) from error

    def size(self) -> int:
        """See `Spool`."""
        return self._total[0]

    def room(self) -> int:
        """See `Spool`."""
        if not self.limit:
            return sys.maxsize
        left = max(0, self.limit - self._total[0])
        return sys.maxsize if left and self.is_shared else left

    def successor(self, waiting: int) -> "DiskSpool":
        """See `Spool`. It ends where a block ends that is made of all unsaved bytes in their order: a file
        that is written from end to end has a spool for each block."""
        return self._owner.new(BLOCK_SIZE - waiting % BLOCK_SIZE)

    def file_of(self, segment: Segment) -> str | None:
        """The path of its file if it has just these bytes and will never have others."""
        size = self._total[0]
        is_full = size == self.limit and not self.is_shared
        return self._path if is_full and segment.offset == 0 and segment.size == size else None

    def is_of(self, spools: Spools) -> bool:
        """Whether it lies in the room of `spools`."""
        return self._owner is spools

    # What is in blocks by now.

    def note_stored(self, offset: int, where: Segment) -> None:
        """The bytes from `offset` are in a block, at `where`; noted unless a longer range has them."""
        stop = offset + where.size
        with self._lock:
            before = bisect_right(self._starts, offset) - 1
            if before >= 0 and self._stop(before) >= stop:
                return
            first = last = bisect_left(self._starts, offset)
            while last < len(self._starts) and self._stop(last) <= stop:
                del self._stored[self._starts[last]]
                last += 1
            self._starts[first:last] = [offset]
            self._stored[offset] = where

    def _stop(self, at: int) -> int:
        """Where a range that is stored ends; the caller holds the lock."""
        start = self._starts[at]
        return start + self._stored[start].size

    def stored(self, offset: int, size: int) -> list[tuple[int, Segment]]:
        """Where the ranges are, of those that touch this one, that are in blocks: (offset, where)."""
        with self._lock:
            first = max(0, bisect_right(self._starts, offset) - 1)
            last = bisect_left(self._starts, offset + size, first)
            found = [(start, self._stored[start]) for start in self._starts[first:last]]
        if found and found[0][0] + found[0][1].size <= offset:
            del found[0]
        return found


class _Descriptors:
    """Open files by path: as many as are in use, and some that were used last."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._idle: OrderedDict[str, int] = OrderedDict()
        self._used: dict[str, tuple[int, int]] = {}

    @contextmanager
    def open(self, path: str) -> Iterator[int]:
        """The file, made if it is not there."""
        with self._lock:
            file, users = self._used.get(path, (-1, 0))
            if not users:
                file = self._idle.pop(path, -1)
                if file < 0:
                    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._used[path] = (file, users + 1)
        try:
            yield file
        finally:
            self._give_back(path)

    def _give_back(self, path: str) -> None:
        with self._lock:
            file, users = self._used.pop(path)
            if users > 1:
                self._used[path] = (file, users - 1)
                return
            self._idle[path] = file
            if len(self._idle) > self._limit:
                os.close(self._idle.popitem(last=False)[1])

    def forget(self, path: str) -> None:
        """The file will not be asked for again."""
        with self._lock:
            file = self._idle.pop(path, -1)
            if file >= 0:
                os.close(file)

    def close(self) -> None:
        with self._lock:
            while self._idle:
                os.close(self._idle.popitem()[1])


def disk_error(error: OSError, path: str) -> ArvadosFuseError:
    """The kind for a failure of the local disk."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(f"no space left for unsaved data ({path})")
    return SaveFailed(f"unsaved data can't be kept on the local disk: {error}")
