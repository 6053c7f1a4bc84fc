"""Blocks as files in the directory that Arvados tools share, with bounded size and bounded open files.

Nothing is read at start: a thread (`disk_keeper`) scans the directory beside the first reads. When the disk
fails, blocks go to memory. A file is believed only when this process, or a mark on the file, says that it
passed its check (`disk_files`).
Used by `keep.cache`. Threads: any; one short lock, under which no file is touched.
"""

import errno
import itertools
import logging
import resource
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

from arvados_fuse.keep import disk_files
from arvados_fuse.keep.content import Content, FileContent
from arvados_fuse.keep.disk_block import DiskBlock, DiskSink, by_use
from arvados_fuse.keep.disk_files import FoundBlock, TemporaryBlock
from arvados_fuse.keep.disk_keeper import DiskKeeper, Trouble
from arvados_fuse.keep.pins import Pins
from arvados_fuse.keep.ram_store import RamSink, RamStore
from arvados_fuse.keep.replacement import Replacement
from arvados_fuse.keep.store import SMALLEST_LIMIT, Held
from arvados_fuse.reporting.counters import Counters

logger = logging.getLogger("arvados.keep")

SCAN_BYTES = 1024 * 1024 * 1024
"""The directory is scanned again after this process wrote so much, or an eighth of the limit."""

OPEN_FILES = 512
"""At most so many block files open, and at most a quarter of what the process may open."""

BUSY_TRIES = 64
"""An eviction ends after meeting so many blocks that other processes hold."""

USED_AGAIN_SECONDS = 300.0
"""A file found on disk that was read so long after it was written is taken for one that is used again and
again.
"""


class DiskStore:
    """Blocks below `directory` up to `limit` bytes (0: chosen as Arvados tools choose it; at least one
    block).
    """

    def __init__(
        self,
        directory: Path,
        limit: int = 0,
        *,
        counters: Counters | None = None,
        open_files: int = OPEN_FILES,
        spill_limit: int = 0,
    ) -> None:
        self.directory = directory
        self.blocks: dict[str, Held] = {}
        self.latest: DiskBlock | None = None
        self.uses = itertools.count(1)
        self.limit = max(limit, SMALLEST_LIMIT)
        self.scans = 0
        """Complete scans of the directory so far."""
        self._automatic = limit == 0
        self.counters = counters or Counters()
        self.spill = RamStore(spill_limit, counters=self.counters, blocks=self.blocks)
        self._pins = Pins(directory)
        self.pins: Pins | None = self._pins
        self._open_files = open_files
        self._lock = threading.Lock()
        self._known: dict[str, DiskBlock] = {}
        self._order = Replacement(self.limit)
        self._open: OrderedDict[str, DiskBlock] = OrderedDict()
        self._arriving = 0
        self._written = 0
        self._trouble = Trouble(directory)
        self._keeper = DiskKeeper(self.look_after)

    def start(self) -> None:
        """Start the thread that scans and evicts; the directory is made if it is missing."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            self.trouble(error)
        self._open_files = min(self._open_files, max(8, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))
        self._choose_limit()
        self._keeper.start()

    def close(self) -> None:
        """End the thread and close all files."""
        self._keeper.close()
        with self._lock:
            files = [self._shut(block) for block in self._open.values()]
            self._open.clear()
            self.blocks.clear()
        files.clear()
        self.spill.close()

    # Reading

    def room(self) -> int:
        """Three quarters of what is not pinned: the rest is for what is read. If the disk fails, memory's."""
        room = self._unpinned() * 3 // 4
        return min(room, self.spill.room()) if self._trouble.lately() else room

    def budget(self) -> int:
        """A quarter of the limit less pinned blocks."""
        return self._unpinned() // 4

    def _unpinned(self) -> int:
        return max(0, self.limit - self._order.pinned_total)

    def usage(self) -> int:
        """Bytes on disk that are known of, and those on their way."""
        return self._order.total + self._arriving

    def hold(self, md5: str) -> None:
        """A reader is at this block: others are evicted first."""
        with self._lock:
            self._order.hold(md5)

    def release(self, md5: str) -> None:
        """A reader that held the block went on."""
        with self._lock:
            self._order.release(md5)

    def reopen(self, md5: str, size: int) -> Held | None:
        """Open the block's file if it is one that passed its check; a block in memory is there too."""
        spilled = self.spill.reopen(md5, size)
        if spilled is not None:
            return spilled
        file = self._open_file(md5, size)
        if file is None:
            self._forget(md5)
            return None
        known = self._known.get(md5)
        passed = (known is not None and known.identity == file.identity) or disk_files.is_checked(file)
        if file.size != size or not passed:
            return None
        return self._install(md5, file)

    def unchecked(self, md5: str, size: int) -> FileContent | None:
        """The file as it is found, whatever is in it; one of a wrong size is removed at once."""
        file = self._open_file(md5, size)
        if file is not None and file.size != size:
            self._pins.spoil(md5, size)
            self.reject(md5, file)
            return None
        return file

    def accept(self, md5: str, content: Content) -> bool:
        """The file's hash is right: remember it, here and on the file. False if the file changed since."""
        assert isinstance(content, FileContent)
        if not content.unchanged():
            return False
        disk_files.mark_checked(content)
        self._install(md5, content)
        self.adopt(md5, content.size)
        self.evict()
        return True

    def reject(self, md5: str, content: Content) -> None:
        """Remove a damaged file. It is not served even if another process holds it and it stays."""
        assert isinstance(content, FileContent)
        self.counters.add("cache.damaged")
        logger.warning(
            "cached block %s is damaged (%d bytes on disk): removed from the cache", md5, content.size
        )
        self._forget(md5)
        self._pins.spoil(md5, content.size)
        disk_files.delete_block(self.directory, md5, content, damaged=True)

    def adopt(self, md5: str, size: int) -> None:
        """A block is here and checked: never evict it, if it is pinned."""
        if self._pins.adopt(md5, size):
            with self._lock:
                self._order.pin(md5)

    # Writing

    def begin(self, md5: str, size: int) -> DiskSink | RamSink:
        """Make room for a block, on disk or else in memory."""
        with self._lock:
            self._arriving += size
        self.evict()
        try:
            return DiskSink(self, md5, size, TemporaryBlock(self.directory, md5, size))
        except OSError as error:
            self.settled(size)
            self.trouble(error)
            return self.spill.begin(md5, size)

    def link(self, md5: str, size: int, path: str) -> bool:
        """Hold the block by a second name of a file that never changes; False where the disk can't."""
        with self._lock:
            self._arriving += size
        self.evict()
        file = disk_files.link_block(self.directory, md5, size, path)
        if file is None:
            self.settled(size)
            return False
        self.counters.add("cache.linked")
        self.arrived(md5, file, 0)
        return True

    def arrived(self, md5: str, file: FileContent, high: int) -> None:
        """A sink's block is complete, checked and under its name."""
        # In this order: counted twice for a moment, never not at all, or others would not make room.
        self._install(md5, file).high = high
        self.settled(file.size)
        self.adopt(md5, file.size)
        with self._lock:
            self._written += file.size
            overdue = self._written >= min(SCAN_BYTES, self.limit // 8)
        if overdue:
            self._keeper.wake()

    def settled(self, size: int) -> None:
        """A sink needs no more room than what is counted otherwise."""
        with self._lock:
            self._arriving -= size

    def trouble(self, error: OSError) -> None:
        """Tell that the disk failed, at most once a minute; free space if that is what is missing."""
        self.counters.add("cache.trouble")
        self._trouble.tell(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            self.evict(goal=self.usage() - 2 * SMALLEST_LIMIT)

    def evict(self, *, goal: int | None = None) -> None:
        """Delete the coldest blocks until no more than `goal` bytes are left (by default the limit); skip
        what other processes hold."""
        with self._lock:
            goal = self.limit if goal is None else goal
            if self.usage() <= goal:
                return
            self._note_uses()
            candidates = self._order.coldest()
        busy = 0
        for md5 in candidates:
            with self._lock:
                if self.usage() <= goal or busy >= BUSY_TRIES:
                    return
                block = self._known.get(md5)
            if block is None:
                continue
            outcome = disk_files.delete_block(self.directory, md5, block.file)
            if outcome in ("busy", "pinned"):
                busy += outcome == "busy"
                with self._lock:
                    self._order.touch(md5)  # another process reads it: the next pass tries others first
                    self._order.pin(md5, outcome == "pinned")
            else:
                self._forget(md5, evicted=True)
                self.counters.add("cache.evicted")

    # What blocks and the keeper tell

    def used_again(self, block: DiskBlock) -> None:
        """A part of the block was read a second time."""
        with self._lock:
            self._order.protect(block.md5)

    def look_after(self) -> None:
        """One pass of the keeper: scan, close what is idle, hold the limit, give back memory."""
        self._written = 0
        self._pins.restore_all()
        self._merge(list(disk_files.scan(self.directory)))
        self._choose_limit()
        self._rest()
        self.evict()
        if not self._trouble.lately():
            # The disk takes blocks again: memory is given back.
            self.spill.close()
        self.scans += 1

    def check(self) -> None:
        """Raise AssertionError when an invariant is broken; for tests."""
        with self._lock:
            self._order.check()
            assert set(self._order.keys()) == set(self._known)
            assert {md5 for md5, block in self._known.items() if block.file is not None} == set(self._open)
            assert len(self._open) <= self._open_files
            assert self._arriving >= 0

    def _merge(self, found: Iterable[FoundBlock]) -> None:
        """Learn what other processes added and removed; blocks not known before are colder than all known
        ones.
        """
        by_md5 = {block.md5: block for block in found}
        with self._lock:
            for md5, block in list(self._known.items()):
                if md5 not in by_md5 and block.file is None:
                    self._strike(md5)
            for one in sorted(by_md5.values(), key=lambda one: one.accessed, reverse=True):
                known = self._known.get(one.md5)
                if known is None:
                    known = self._known[one.md5] = DiskBlock(self, one.md5, one.size)
                    used_again = one.accessed - one.modified > USED_AGAIN_SECONDS
                    self._order.add(one.md5, one.size, protected=used_again, cold=True)
                self._order.pin(one.md5, one.pinned)

    def _choose_limit(self) -> None:
        if not self._automatic:
            return
        try:
            limit = disk_files.automatic_limit(self.directory, self._order.total)
        except OSError:
            return
        with self._lock:
            self.limit = self._order.limit = max(limit, SMALLEST_LIMIT)

    def _rest(self) -> None:
        """Close files not read since the last pass, for others to evict; note the use of the rest."""
        with self._lock:
            self._note_uses()
            self.latest = None
            idle = [block for block in self._open.values() if not block.recent]
            files = [self._shut(block) for block in idle]
            for block in idle:
                del self._open[block.md5]
            busy = [block.file for block in self._open.values()]
            for block in self._open.values():
                block.recent = False
        files.clear()
        for file in busy:
            if file is not None:
                disk_files.note_use(file)

    def _open_file(self, md5: str, size: int) -> FileContent | None:
        try:
            found = disk_files.open_block(self.directory, md5)
            if found is None and self._pins.restore(md5, size):
                found = disk_files.open_block(self.directory, md5)
            return found
        except OSError:  # no descriptors left: half of ours will do for a while
            with self._lock:
                self._note_uses()
                files = [self._shut(self._open.popitem(last=False)[1]) for _ in range(len(self._open) // 2)]
            files.clear()
        try:
            return disk_files.open_block(self.directory, md5)
        except OSError:
            return None

    def _install(self, md5: str, file: FileContent) -> DiskBlock:
        """A checked, open file is what the block is read from."""
        with self._lock:
            block = self._known.get(md5) or DiskBlock(self, md5, file.size)
            before, block.file, block.identity, block.recent = block.file, file, file.identity, True
            if md5 in self._known and block.size == file.size:
                self._order.touch(md5)
            else:
                self._order.add(md5, file.size)
            block.size = file.size
            self._known[md5] = self.blocks[md5] = block
            self._open[md5] = block
            self._open.move_to_end(md5)
            if len(self._open) > self._open_files:
                self._note_uses()
            surplus = [self._open.popitem(last=False)[1] for _ in range(len(self._open) - self._open_files)]
            files = [before, *(self._shut(block) for block in surplus)]
        files.clear()  # here, not under the lock: closing the last reference to a deleted file takes its time
        return block

    def _forget(self, md5: str, *, evicted: bool = False) -> None:
        with self._lock:
            if md5 in self._known:
                file = self._strike(md5)
                if evicted:
                    self._order.drop(md5)
            else:
                file = None
        del file

    def _strike(self, md5: str) -> FileContent | None:
        """Caller holds the lock and drops the returned file after it."""
        block = self._known.pop(md5)
        self._order.remove(md5)
        self._open.pop(md5, None)
        if self.blocks.get(md5) is block:
            del self.blocks[md5]
        if self.latest is block:
            self.latest = None
        return self._shut(block)

    def _note_uses(self) -> None:
        """Caller holds the lock. What was read since the last time is what was used most recently."""
        for block in by_use(self._open.values()):
            self._order.touch(block.md5)
            self._open.move_to_end(block.md5)

    @staticmethod
    def _shut(block: DiskBlock) -> FileContent | None:
        """Caller holds the lock, drops the returned file after it, and takes the block out of `_open`."""
        file, block.file = block.file, None
        return file
