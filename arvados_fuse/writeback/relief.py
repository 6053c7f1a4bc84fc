"""Files that are being written: full blocks leave while writing goes on, and writers wait when too much is
unsaved.

Used by `WriteBack.relieve`, after each write. A look costs nothing until 64 MiB more were written. What goes
first is what was written first, so that old spools become free.

Threads: any. The lock guards the table of contents; a content's own lock is taken under it, nothing else.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple
from weakref import WeakKeyDictionary

from arvados_fuse.collection.content import Content
from arvados_fuse.collection.moves import split
from arvados_fuse.collection.segments import BLOCK_SIZE, Segment
from arvados_fuse.errors import ArvadosFuseError, NoSpaceError
from arvados_fuse.writeback.committer import Committer
from arvados_fuse.writeback.failures import told
from arvados_fuse.writeback.moved import known_moves
from arvados_fuse.writeback.pending import settled
from arvados_fuse.writeback.spool import DiskSpool, Spools
from arvados_fuse.writeback.states import blocks_of, spools
from arvados_fuse.writeback.status import Limits
from arvados_fuse.writeback.uploads import Uploads, moves_to_come

logger = logging.getLogger("arvados.writeback")

AFTER_A_FAILURE = 5.0
"""Seconds in which no block of an open file is tried again; saving goes its own way."""

STEP = 0.05
"""Seconds after which a writer that waits looks again: spools go when the last reference does, which nobody
announces."""


class _Look(NamedTuple):
    """appended: bytes in all spools when a content was looked at. left: its unsaved bytes that stayed."""

    appended: int
    left: int
    classes: tuple[str, ...]


class Relief:
    """See the module."""

    def __init__(self, spools: Spools, uploads: Uploads, committer: Committer, limits: Limits) -> None:
        spools.give_way = uploads.kept.give_way
        self._spools = spools
        self._uploads = uploads
        self._committer = committer
        self._limits = limits
        self._lock = threading.Lock()
        self._looks: WeakKeyDictionary[Content, _Look] = WeakKeyDictionary()
        self._error: ArvadosFuseError | None = None
        self._failed_at = float("-inf")

    def blocks(self) -> set[str]:
        """The blocks of all that was written and is in memory, without hints."""
        with self._lock:
            contents = list(self._looks)
        return set().union(*(blocks_of(settled(content.snapshot()[0])) for content in contents))

    def relieve(self, content: Content, classes: Sequence[str]) -> None:
        """Something was written to `content`. Raises NoSpaceError when too much waits for too long."""
        appended = self._spools.appended
        look = self._looks.get(content)
        if look is None and content.size < BLOCK_SIZE:
            with self._lock:
                self._looks[content] = _Look(appended, content.size, tuple(classes))
        elif look is None or look.left + appended - look.appended >= BLOCK_SIZE:
            self._send(content, tuple(classes), BLOCK_SIZE)
        if self._spools.bytes > self._limits.spool:
            self._wait()

    def _send(self, content: Content, classes: tuple[str, ...], least: int) -> list["Future[None]"]:
        """Begin to store what is unsaved, as long as it makes blocks of at least so many bytes."""
        with self._lock:
            appended = self._spools.appended
            live = self._unsent(content)
            left = sum(segment.size for segment in live)
            flying = []
            if time.monotonic() > self._failed_at + AFTER_A_FAILURE:
                while left >= least and left:
                    block, live = split(live, BLOCK_SIZE)
                    flying.append(self._uploads.submit(block, classes))
                    left -= sum(segment.size for segment in block)
            self._looks[content] = _Look(appended, left, classes)
        for future in flying:
            future.add_done_callback(self._settler(content))
        return flying

    def _unsent(self, content: Content) -> list[Segment]:
        """Unsaved ranges that are not on their way, the oldest first."""
        segments = tuple(part for part in content.snapshot()[0] if isinstance(part.source, DiskSpool))
        sent = moves_to_come(self._uploads.on_their_way(spools(segments)).values())
        waiting = sent.missing(known_moves(segments).translate(segments))
        return sorted(waiting, key=_age)

    def _settler(self, content: Content) -> Callable[["Future[None]"], None]:
        def settle(future: "Future[None]") -> None:
            error = None if future.cancelled() else future.exception()
            if isinstance(error, ArvadosFuseError):
                with self._lock:
                    news = self._error is None or str(self._error) != str(error)
                    self._error, self._failed_at = error, time.monotonic()
                if news:
                    logger.warning("a block of an open file could not be stored: %s", told(error))
            elif error is not None:
                logger.error("storing a block broke", exc_info=error)
            content.settle(known_moves(content.snapshot()[0]))

        return settle

    def _wait(self) -> None:
        """Until the spools take less than allowed; all that can go is sent."""
        ends = time.monotonic() + self._limits.patience
        while self._spools.bytes > self._limits.spool:
            if self._uploads.kept.give_way():
                self._spools.sweep()
                continue
            self._committer.hurry()
            with self._lock:
                contents = list(self._looks.items())
            for content, look in contents:
                self._send(content, look.classes, 1)
            del contents
            self._spools.sweep()
            if self._spools.bytes <= self._limits.spool:
                return
            if time.monotonic() > ends:
                raise self._too_much()
            time.sleep(STEP)

    def _too_much(self) -> ArvadosFuseError:
        error = self._committer.error() or self._error
        reason = f": {told(error)}" if error is not None else ""
        kind = NoSpaceError if error is None else type(error)
        return NoSpaceError(
            f"{self._spools.bytes >> 20} MiB wait to be saved, and none could be in"
            f" {self._limits.patience:.0f} seconds ({kind.__name__}){reason}"
        )


def _age(segment: Segment) -> tuple[int, int]:
    assert isinstance(segment.source, DiskSpool)
    return segment.source.number, segment.offset
