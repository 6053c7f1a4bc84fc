"""`Reader`: what one open file handle needs of the block cache: bytes, reading ahead, and honesty.

It watches where the program reads. From the second sequential read on it asks for the blocks that come
next, further ahead the faster they come, within a byte budget; random access stops that. If bytes that it
handed out before their check prove wrong, all its later reads fail, so that the program learns of it: one
failure would not do, since the kernel keeps to itself what happens to its reading ahead. Used by the tree.
Threads: any; reads of one handle may come from several threads and slightly out of order.
"""

import threading
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from arvados_fuse.errors import ArvadosFuseError, BlockCorrupt, Unreachable
from arvados_fuse.keep.flight import Watcher
from arvados_fuse.keep.locator import MAX_BLOCK

DISORDER = 1024 * 1024
"""Bytes by which a sequential reader's requests may be out of order (the kernel reads ahead in several
threads).
"""

AHEAD_SECONDS = 2.0
"""What is read ahead would take so long to arrive at the measured rate."""

AHEAD_MOST = 4 * MAX_BLOCK
"""More is not read ahead for one handle, however fast it comes."""


FAILED_SECONDS = 1.0
"""For so long a block that could not be had is not asked for again by the same handle: when the kernel's
reading ahead fails, it asks once more for the one page that the program wants, and would wait as long
again."""


FORGET_SECONDS = 1.0
"""After so long the kernel has been told, twice, to forget pages that were wrong."""


class Ahead(NamedTuple):
    """A range of the file, in bytes, whose blocks shall be announced to the reader."""

    begin: int
    size: int


class _Failed(NamedTuple):
    """A block that could not be had. until: monotonic seconds."""

    md5: str
    until: float
    error: Unreachable

    def check(self, md5: str) -> None:
        """Raise the error again if it is about this block and still good."""
        if md5 == self.md5 and time.monotonic() < self.until:
            raise self.error


class Cache(Protocol):
    """What a reader needs from the block cache."""

    def read_for(self, watcher: Watcher, locator: str, offset: int, size: int) -> bytes | memoryview: ...
    def hold(self, md5: str) -> None: ...
    def release(self, md5: str) -> None: ...
    def budget(self) -> int: ...
    def rate(self) -> float: ...
    def fetch_ahead(self, locator: str) -> bool: ...
    def drop_ahead(self, md5s: Iterable[str]) -> None: ...


class Company:
    """The readers of one file. What one of them was given, the kernel keeps and shows to all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers: list[Reader] = []
        self._clean_at = 0.0

    def join(self, reader: "Reader") -> None:
        """A file handle more. Waits, in the rare case that the kernel is just being told to forget pages."""
        wait = self._clean_at - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        with self._lock:
            self._readers.append(reader)

    def leave(self, reader: "Reader") -> None:
        """A file handle less."""
        with self._lock:
            if reader in self._readers:
                self._readers.remove(reader)

    def spoil(self, error: ArvadosFuseError) -> None:
        """Bytes that one of them was given were wrong: none of them may come to an end as if all was well."""
        with self._lock:
            self._clean_at = time.monotonic() + FORGET_SECONDS
            readers = list(self._readers)
        for reader in readers:
            reader.fail_from_now(error)


class Reader:
    """A `BlockStore` to read with, for one handle. company: of the file, if others have it open too."""

    def __init__(self, cache: Cache, company: Company | None = None) -> None:
        self._cache = cache
        self._company = company
        self._told = False
        self._lock = threading.Lock()
        self._spoiled: ArvadosFuseError | None = None
        self._held = ""
        self._expected = -1
        """Where the next sequential read would begin, in bytes of the file; -1 before the first read."""
        self._run = 0
        """Sequential reads in a row, after the first."""
        self._frontier = 0
        """Up to where in the file blocks were announced."""
        self._ahead: dict[str, None] = {}
        """Blocks (md5) asked for ahead and not read yet."""
        self._closed = False
        self._failed: _Failed | None = None

    def read(self, locator: str, offset: int, size: int) -> bytes | memoryview:
        """Exactly `size` bytes of the block from `offset`; raises what `BlockCache.read` raises.

        Raises BlockCorrupt, from then on, when bytes read through this reader or its company proved wrong.
        """
        if self._spoiled is not None:
            self._tell()
        if self._run and locator[:32] != self._held:
            self._move_to(locator[:32])
        if self._failed is not None:
            self._failed.check(locator[:32])
        try:
            data = self._cache.read_for(self, locator, offset, size)
        except Unreachable as error:
            self._failed = _Failed(locator[:32], time.monotonic() + FAILED_SECONDS, error)
            raise
        if self._spoiled is not None:
            self._tell()
        return data

    def spoil(self, md5: str, error: ArvadosFuseError) -> None:
        """Bytes handed out earlier were wrong: every later read fails with `error`."""
        self.fail_from_now(error)
        if self._company is not None:
            self._company.spoil(error)

    def fail_from_now(self, error: ArvadosFuseError) -> None:
        """Every later read fails with `error`."""
        self._spoiled = error

    def after(self, offset: int, size: int) -> Ahead | None:
        """Tell that the program read these bytes of the file; gives the range to `announce` now, if any.

        Cheap: a range comes about once for every block.
        """
        end = offset + size
        expected = self._expected
        slack = DISORDER if self._run else 0
        if -slack <= offset - expected <= slack:
            if end > expected:
                self._expected = end
            self._run += 1
            window = self._window()
            if self._frontier - end > window - window // 8:  # not for every read
                return None
            begin = max(end, self._frontier)
            return Ahead(begin, end + window - begin) if end + window > begin else None
        self._expected = end
        self._run = 0
        if self._ahead or self._frontier:
            self._stop()
        return None

    def announce(self, ahead: Ahead, locators: Sequence[str]) -> None:
        """`locators` hold the range that `after` gave, in the order of the file: fetch those that are not
        here.
        """
        with self._lock:
            self._frontier = ahead.begin + ahead.size
        for locator in locators:
            if self._cache.fetch_ahead(locator):
                with self._lock:
                    if not self._closed:
                        self._ahead[locator[:32]] = None

    def close(self) -> None:
        """The handle is closed: nothing more is read ahead for it."""
        with self._lock:
            self._closed = True
        if self._ahead:
            self._stop()
        if self._held:
            self._move_to("")
        if self._company is not None:
            self._company.leave(self)

    def _window(self) -> int:
        """Bytes to be ahead: one block at first, what comes in AHEAD_SECONDS when that is known; within the
        budget.
        """
        wanted = max(MAX_BLOCK, int(self._cache.rate() * AHEAD_SECONDS))
        return min(wanted, AHEAD_MOST, self._cache.budget())

    def _move_to(self, md5: str) -> None:
        with self._lock:
            before, self._held = self._held, "" if self._closed else md5
            self._ahead.pop(md5, None)
            now = self._held
        if now != before:
            if now:
                self._cache.hold(now)
            if before:
                self._cache.release(before)

    def _stop(self) -> None:
        with self._lock:
            unwanted = list(self._ahead)
            self._ahead.clear()
            self._frontier = 0
        self._cache.drop_ahead(unwanted)

    def _tell(self) -> None:
        """Raise the error; one line in the log is enough."""
        error = self._spoiled
        if error is not None:
            again = BlockCorrupt(str(error), subject=error.subject)
            again.told, self._told = self._told, True
            raise again
