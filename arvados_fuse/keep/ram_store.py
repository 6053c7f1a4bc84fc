"""Blocks in bounded memory: `--ram-cache`, and where blocks go when the disk does not take them.

Used by `keep.cache`; `keep.disk_store` keeps one for bad days. Threads: any; one short lock.
"""

import threading
from collections.abc import MutableMapping

from arvados_fuse.keep.content import Content, MemoryContent
from arvados_fuse.keep.pins import Pins
from arvados_fuse.keep.replacement import Replacement
from arvados_fuse.keep.store import REREAD_SLACK, SMALLEST_LIMIT, Held
from arvados_fuse.reporting.counters import Counters

DEFAULT_LIMIT = 256 * 1024 * 1024
"""Bytes, when no limit is given; the SDK's."""


class RamBlock:
    """One block in memory."""

    __slots__ = ("_high", "_reused", "_store", "_view", "content", "md5")

    def __init__(self, store: "RamStore", md5: str, content: MemoryContent, high: int) -> None:
        self.md5 = md5
        self._store = store
        self.content: Content | None = content
        self._view = content.view.toreadonly()
        self._high = high
        self._reused = False

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self._view)

    def read(self, offset: int, size: int) -> memoryview | None:
        """A view of exactly these bytes; None outside the block."""
        end = offset + size
        if offset < 0 or size < 0 or end > len(self._view):
            return None
        if end > self._high:
            self._high = end
        elif offset + REREAD_SLACK < self._high and not self._reused:
            self._reused = True
            self._store.used_again(self)
        if self._store.latest is not self:
            self._store.used(self)
        return self._view[offset:end]


class RamSink:
    """A block on its way into memory."""

    def __init__(self, store: "RamStore", md5: str, size: int) -> None:
        self._memory = MemoryContent(size)
        self.content: Content = self._memory
        self._store = store
        self._md5 = md5
        self._size = size

    def room(self, at: int, buffer: memoryview) -> memoryview:
        """The block's own place: no copy."""
        return self._memory.view[at : at + len(buffer)]

    def write(self, at: int, data: memoryview) -> None:
        """They are in place already: the room was the block's own."""

    def commit(self, high: int) -> None:
        """Hold the block."""
        self._store.arrived(RamBlock(self._store, self._md5, self._memory, high))

    def discard(self) -> None:
        """Give the room back."""
        self._store.refused(self._size)


class RamStore:
    """Blocks in memory up to `limit` bytes (0: DEFAULT_LIMIT; at least one block).

    `blocks` may be another store's mapping, to be found there; only own entries are removed from it.
    """

    def __init__(
        self,
        limit: int = 0,
        *,
        counters: Counters | None = None,
        blocks: MutableMapping[str, Held] | None = None,
    ) -> None:
        self.limit = max(limit or DEFAULT_LIMIT, SMALLEST_LIMIT)
        self.blocks: MutableMapping[str, Held] = {} if blocks is None else blocks
        self.latest: RamBlock | None = None
        self.pins: Pins | None = None
        self.counters = counters or Counters()
        self._lock = threading.Lock()
        self._mine: dict[str, RamBlock] = {}
        self._order = Replacement(self.limit)
        self._arriving = 0

    def start(self) -> None:
        """Nothing runs beside."""

    def close(self) -> None:
        """Let go of all blocks."""
        with self._lock:
            for md5 in list(self._mine):
                self._forget(md5)

    def usage(self) -> int:
        """Bytes held and on their way."""
        return self._order.total + self._arriving

    def room(self) -> int:
        """Three quarters of the limit: the rest is for what is read."""
        return self.limit * 3 // 4

    def budget(self) -> int:
        """A quarter of the limit."""
        return self.limit // 4

    def hold(self, md5: str) -> None:
        """A reader is at this block: others are evicted first."""
        with self._lock:
            self._order.hold(md5)

    def release(self, md5: str) -> None:
        """A reader that held the block went on."""
        with self._lock:
            self._order.release(md5)

    def reopen(self, md5: str, size: int) -> RamBlock | None:
        """What is in memory was checked when it came in."""
        return self._mine.get(md5)

    def unchecked(self, md5: str, size: int) -> Content | None:
        """None: memory never holds unchecked blocks."""
        return None

    def accept(self, md5: str, content: Content) -> bool:
        """Never called: nothing is unchecked."""
        return False

    def reject(self, md5: str, content: Content) -> None:
        """Never called: nothing is unchecked."""

    def adopt(self, md5: str, size: int) -> None:
        """Nothing is pinned in memory."""

    def link(self, md5: str, size: int, path: str) -> bool:
        """Files have no place in memory."""
        return False

    def begin(self, md5: str, size: int) -> RamSink:
        """Evict until the block fits, as far as there is something to evict."""
        with self._lock:
            self._arriving += size
            for cold in self._order.coldest():
                if self.usage() <= self.limit:
                    break
                self._order.drop(cold)
                self._forget(cold)
                self.counters.add("cache.evicted")
        return RamSink(self, md5, size)

    def used(self, block: RamBlock) -> None:
        """The block is the most recently used."""
        with self._lock:
            self.latest = block
            self._order.touch(block.md5)

    def used_again(self, block: RamBlock) -> None:
        """A part of the block was read a second time."""
        with self._lock:
            self._order.protect(block.md5)

    def arrived(self, block: RamBlock) -> None:
        """A sink's block is complete and checked."""
        with self._lock:
            self._arriving -= block.size
            self._mine[block.md5] = self.blocks[block.md5] = block
            self._order.add(block.md5, block.size)

    def refused(self, size: int) -> None:
        """A sink gave up."""
        with self._lock:
            self._arriving -= size

    def check(self) -> None:
        """Raise AssertionError when an invariant is broken; for tests."""
        with self._lock:
            self._order.check()
            assert set(self._order.coldest()) == set(self._mine)
            assert self._order.total == sum(block.size for block in self._mine.values())
            assert self._arriving >= 0

    def _forget(self, md5: str) -> None:
        block = self._mine.pop(md5)
        self._order.remove(md5)
        if self.blocks.get(md5) is block:
            del self.blocks[md5]
        if self.latest is block:
            self.latest = None
