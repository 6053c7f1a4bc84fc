"""One block of `DiskStore`: known and perhaps open (`DiskBlock`), or on its way in (`DiskSink`).

Used by `keep.disk_store` only, which is `Holder` and `Arrivals` to them. Threads: a block is read from any
thread; a sink belongs to one thread.
"""

from collections.abc import Iterable
from itertools import count
from os import fstat, pread
from typing import Protocol

from arvados_fuse.keep.content import Content, FileContent
from arvados_fuse.keep.disk_files import TemporaryBlock
from arvados_fuse.keep.ram_store import RamSink, RamStore
from arvados_fuse.keep.store import REREAD_SLACK


class Holder(Protocol):
    """Who knows a block. latest: the block that was read last. uses: numbers those times that a block was
    read after another."""

    latest: "DiskBlock | None"
    uses: "count[int]"

    def used_again(self, block: "DiskBlock") -> None:
        """A part of it was read a second time."""


class Arrivals(Protocol):
    """Who takes a block in. spill: where it goes when the disk fails."""

    spill: RamStore

    def trouble(self, error: OSError) -> None:
        """The disk failed."""

    def arrived(self, md5: str, file: FileContent, high: int) -> None:
        """The block is there under its final name; it was read up to `high`."""

    def settled(self, size: int) -> None:
        """So many bytes are not on their way any more."""


class DiskBlock:
    """One block file known to this process."""

    __slots__ = (
        "_reused",
        "_store",
        "file",
        "high",
        "identity",
        "md5",
        "recent",
        "size",
        "used_at",
    )

    def __init__(self, store: Holder, md5: str, size: int) -> None:
        self._store = store
        self.md5 = md5
        self.size = size
        self.file: FileContent | None = None
        """Set while open and checked."""
        self.identity: tuple[int, int, int] | None = None
        """What the file looked like when it passed its check."""
        self.high = 0
        """How far it was read, in bytes."""
        self.recent = False
        """Read since the keeper's last pass."""
        self.used_at = 0
        """The number of its last use that the store has not taken note of; 0 for none."""
        self._reused = False

    @property
    def content(self) -> Content | None:
        """The file, if it is open."""
        return self.file

    def read(self, offset: int, size: int) -> bytes | None:
        """Exactly these bytes; None when the file is not open or no longer what was checked."""
        file = self.file  # a reference of our own: eviction can't close it under us
        if file is None:
            return None
        try:
            data = pread(file.fd, size, offset)
            status = fstat(file.fd)
        except (OSError, ValueError, OverflowError):
            return None
        if len(data) != size or status.st_mtime_ns != file.mtime_ns or status.st_size != file.size:
            return None
        end = offset + size
        if end > self.high:
            self.high = end
        elif offset + REREAD_SLACK < self.high and not self._reused:
            self._reused = True
            self._store.used_again(self)
        store = self._store
        if store.latest is not self:
            store.latest = self
            self.recent = True
            self.used_at = next(store.uses)
        return data


def by_use(blocks: Iterable[DiskBlock]) -> list[DiskBlock]:
    """Those read since they were last asked here, in the order in which they were read."""
    used = sorted((block for block in blocks if block.used_at), key=lambda block: block.used_at)
    for block in used:
        block.used_at = 0
    return used


class DiskSink:
    """A block on its way to the disk, or to memory from the moment the disk fails."""

    def __init__(self, store: Arrivals, md5: str, size: int, temporary: TemporaryBlock) -> None:
        self._store = store
        self._md5 = md5
        self._size = size
        self._temporary = temporary
        self._memory: RamSink | None = None
        self.content: Content = temporary.content

    def room(self, at: int, buffer: memoryview) -> memoryview:
        """The caller's buffer, or the place in memory."""
        return self._memory.room(at, buffer) if self._memory else buffer

    def write(self, at: int, data: memoryview) -> None:
        """Write to the file; when the disk fails, move what is there to memory."""
        if self._memory:
            return
        try:
            self._temporary.write(at, data)
        except OSError as error:
            self._store.trouble(error)
            self._memory = self._store.spill.begin(self._md5, self._size)
            done = self._temporary.content.read(0, at)
            if len(done) != at:
                raise  # not even readable any more: this attempt is lost
            self._memory.room(0, memoryview(done))[:] = done
            self._memory.room(at, data)[:] = data
            self.content = self._memory.content
            self._drop_temporary()

    def commit(self, high: int) -> None:
        """Hold the block under its final name; if that fails, in memory."""
        if self._memory:
            self._memory.commit(high)
            return
        try:
            self._temporary.commit(self._size)
        except FileNotFoundError:
            # A cleaning process took it for a leftover. What is open stays readable.
            self._store.settled(self._size)
        except OSError as error:
            self._store.trouble(error)
            self._drop_temporary()
        else:
            self._store.arrived(self._md5, self._temporary.content, high)

    def discard(self) -> None:
        """Remove what was written."""
        if self._memory:
            self._memory.discard()
        else:
            self._drop_temporary()

    def _drop_temporary(self) -> None:
        self._temporary.discard()
        self._store.settled(self._size)
