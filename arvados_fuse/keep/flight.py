"""One block on its way: what has arrived, who waits for what, what was handed out before the check.

Bytes are handed out as they arrive, but for the last HELD_BACK, which wait for the hash. If the block then
proves wrong, every reader that got bytes the checked block does not have is told (`Watcher.spoil`), so that
no program ends a read of that block without an error. Used by `keep.dispatch`, `keep.transfer` and
`keep.cache`.
Threads: one carrying thread calls `arrived`, `land` and `fail`; any thread may wait and read. One lock,
held shortly.
"""

import hashlib
import threading
import time
from typing import NamedTuple, Protocol

from arvados_fuse.errors import ArvadosFuseError, BlockCorrupt
from arvados_fuse.keep.connections import Interrupt
from arvados_fuse.keep.content import Content
from arvados_fuse.keep.locator import Locator

HELD_BACK = 65536
"""Bytes at a block's end that nobody gets before the check. A block that is not longer is held back as a
whole.
"""

FEW_READS = 4
"""A flight that answered more reads has a steady reader. One that answered fewer was looked into: the next
such look, at another block, goes first at once."""

ACTIVE_SECONDS = 0.05
"""A steady reader's own work between two reads takes less; the flight counts as read meanwhile."""

STEADY_SECONDS = 1.0
"""A flight with a steady reader is not given up for another before so long without a read."""


class Watcher(Protocol):
    """A reader that may get bytes before their check."""

    def spoil(self, md5: str, error: ArvadosFuseError) -> None:
        """Bytes it got from this block were not those of the block: its next read must fail."""


class Abandoned(Exception):
    """The flight ended without a result because nobody waited for it; ask again."""


class GaveWay(Abandoned):
    """It ended so that a demanded one has the line, and shall be made again when there is time."""


class _Handed(NamedTuple):
    begin: int
    end: int


class Debt(NamedTuple):
    """Bytes that a flight handed out and could not check because it was abandoned: the next one has to."""

    watcher: Watcher
    begin: int
    end: int
    digest: bytes


class Flight:
    """The fetch of one block, shared by all who want it."""

    def __init__(self, locator: Locator, text: str, *, demanded: bool) -> None:
        self.locator = locator
        self.text = text
        """The locator as it is sent, with the newest signature known."""
        self.demanded = demanded
        """Somebody asked for it when it was made; else it is read ahead, and others don't make way for it:
        they
        may be the same reader's next blocks."""
        self.ahead_for = 0 if demanded else 1
        """Readers it is read ahead for."""
        self.kept = False
        """Somebody wants the whole block, but waits for it behind all others."""
        self.started = False
        """A thread carries it; set by the dispatcher."""
        self.stopping = False
        """The carrier shall give up; see `stop`."""
        self.waiters = 0
        """Threads waiting for its bytes."""
        self.reads = 0
        """Reads that it answered."""
        self.used = 0.0
        """Monotonic time in seconds of the last one."""
        self.interrupt = Interrupt()
        self.released = 0
        """Bytes from the start that may be handed out. Read without the lock: it only grows."""
        self.high = 0
        """How far readers got, in bytes."""
        self.ended = False
        self._moved = threading.Condition()
        self._error: Exception | None = None
        self._shown: Content | None = None
        self._agrees = True
        self._handed: dict[Watcher, list[_Handed]] = {}
        self._debts: list[Debt] = []
        self._paused = False

    # Reading

    def read(self, watcher: Watcher, offset: int, size: int) -> bytes | memoryview | None:
        """These bytes, if they have arrived, else None."""
        end = offset + size
        if end > self.released:
            return None
        with self._moved:
            content = self._shown
            if content is None or self._error is not None:
                return None
            self.high = max(self.high, end)
            self.reads += 1
            self.used = time.monotonic()
            if not self.ended:
                _add(self._handed.setdefault(watcher, []), offset, end)
        data = content.read(offset, size)
        return data if len(data) == size else None

    def wait(self, end: int, timeout: float) -> bool:
        """Wait until bytes up to `end` may be read; False after `timeout` seconds.

        Raises the error that ended the flight, or Abandoned.
        """
        with self._moved:
            self.waiters += 1
            if self._paused:
                self._moved.notify_all()
            try:
                self._moved.wait_for(lambda: self._error is not None or self.released >= end, timeout)
            finally:
                self.waiters -= 1
                self.used = time.monotonic()
            if self._error is not None:
                raise self._error
            return self.released >= end

    def landed(self, seconds: float) -> bool:
        """Wait at most so long for its end, without taking part in who goes first; True when it is checked.

        Raises the error that ended the flight, or Abandoned.
        """
        with self._moved:
            self._moved.wait_for(
                lambda: self._error is not None or self.released >= self.locator.size, seconds
            )
            if self._error is not None:
                raise self._error
            return self.released >= self.locator.size

    def is_active(self, now: float) -> bool:
        """Somebody reads it just now (`now`: monotonic seconds)."""
        return self.waiters > 0 or (self.reads > FEW_READS and now - self.used < ACTIVE_SECONDS)

    def is_spare(self, now: float) -> bool:
        """It may be given up for a block that somebody waits for."""
        patience = ACTIVE_SECONDS if self.reads <= FEW_READS else STEADY_SECONDS
        return not self.waiters and not self.stopping and now - self.used >= patience

    def stop(self) -> None:
        """Make the carrier give up soon."""
        with self._moved:
            self.stopping = True
            self._moved.notify_all()
        self.interrupt.fire()

    @property
    def is_wanted(self) -> bool:
        """Somebody asked for it, rather than only expected it to be asked for."""
        return self.demanded or self.waiters > 0

    def is_paused(self) -> bool:
        """It makes way just now."""
        return self._paused

    @property
    def has_debts(self) -> bool:
        """Bytes that earlier flights handed out are still to be compared."""
        return bool(self._debts)

    # Carrying

    def pause(self, seconds: float) -> None:
        """Wait, but not longer than until somebody wants the block or it is to stop."""
        with self._moved:
            self._paused = True
            self._moved.wait_for(lambda: self.waiters > 0 or self.stopping, seconds)
            self._paused = False

    def rest(self, seconds: float) -> None:
        """Wait before the next attempt; ends early when the flight is to stop."""
        with self._moved:
            self._moved.wait_for(lambda: self.stopping, seconds)

    def arrived(self, content: Content, begin: int, data: memoryview) -> None:
        """`data`, at `begin`, is now readable in `content`.

        When an earlier attempt broke off, the new one starts from the beginning: it takes the old one's
        place as soon as it has agreed with all that was released; if it disagrees, nothing more is released
        before its check.
        """
        end = begin + len(data)
        with self._moved:
            shown, released = self._shown, self.released
        if begin == 0:
            self._agrees = True
        if shown is not None and self._agrees and begin < released:
            old = shown.read(begin, min(end, released) - begin)
            self._agrees = data[: len(old)] == old and len(old) == min(end, released) - begin
        if self._agrees and end >= released:
            visible = max(released, min(end, self.locator.size - HELD_BACK))
            with self._moved:
                self._shown = content
                self.released = visible
                if self.waiters:
                    self._moved.notify_all()

    def settle(self, content: Content, *, ended: bool = False) -> list[Watcher]:
        """The block is here and checked: tells the readers that got other bytes by an earlier attempt, and
        returns them. To be called before they could get the rest of the block in any way. ended: that was the
        last time.
        """
        with self._moved:
            shown, handed = self._shown, dict(self._handed)
            debts, self._debts = self._debts, []
            self._shown = content
            self.ended = self.ended or ended
        spoiled = [debt.watcher for debt in debts if _digest(content, debt.begin, debt.end) != debt.digest]
        if shown is not None and shown is not content and not self._agrees:
            for watcher, pieces in handed.items():
                if any(shown.read(b, e - b) != content.read(b, e - b) for b, e in pieces):
                    spoiled.append(watcher)
        self._tell(spoiled, "bytes read before its hash check were wrong; read the file again")
        return spoiled

    def land(self, content: Content) -> list[Watcher]:
        """The block is here and checked, and who waits for its end goes on. Returns what `settle` does."""
        spoiled = self.settle(content, ended=True)
        with self._moved:  # only now: a reader waiting for the end must find itself spoiled
            self._handed.clear()
            self.released = self.locator.size
            self._moved.notify_all()
        return spoiled

    def fail(self, error: Exception) -> list[Watcher]:
        """Every copy is damaged, so what was handed out was: those readers are spoiled."""
        with self._moved:
            spoiled = [*self._handed, *(debt.watcher for debt in self._debts)]
            self.ended = True
        self._tell(spoiled, "bytes read before its hash check can't be right")
        self._end(error)
        return spoiled

    def abandon(self, error: Exception | None = None) -> list[Debt]:
        """End without a result; gives what the next flight of this block has to check.

        error: for those who wait for the block; without one nobody waits.
        """
        with self._moved:
            shown, handed = self._shown, dict(self._handed)
            self.ended = True
        debts = list(self._debts)
        if shown is not None:
            for watcher, pieces in handed.items():
                debts.extend(Debt(watcher, b, e, _digest(shown, b, e)) for b, e in pieces)
        self._end(error or Abandoned())
        return debts

    def inherit(self, debts: list[Debt]) -> bool:
        """Take over what earlier flights of this block left to check; False when it is too late for that."""
        with self._moved:
            if not self.ended:
                self._debts.extend(debts)
            return not self.ended

    def _end(self, error: Exception) -> None:
        with self._moved:
            self._handed.clear()
            self._shown = None  # who waits raises the error, which then refers to this flight
            self._error = error
            self._moved.notify_all()

    def _tell(self, spoiled: list[Watcher], text: str) -> None:
        stripped = self.locator.stripped
        for watcher in spoiled:
            watcher.spoil(self.locator.md5, BlockCorrupt(f"block {stripped}: {text}", subject=stripped))


def _add(pieces: list[_Handed], begin: int, end: int) -> None:
    """Add a range, joined to the last one where they touch: a sequential reader has one."""
    if pieces and pieces[-1].begin <= begin <= pieces[-1].end:
        pieces[-1] = _Handed(pieces[-1].begin, max(end, pieces[-1].end))
    else:
        pieces.append(_Handed(begin, end))


def _digest(content: Content, begin: int, end: int) -> bytes:
    return hashlib.blake2b(content.read(begin, end - begin), digest_size=16).digest()
