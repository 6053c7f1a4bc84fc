"""Who fetches when: a bounded number of carrying threads, demanded blocks before those read ahead.

A flight that nobody reads makes way: it pauses while a demanded one is read, and gives up its thread when
there is no other. Used by `keep.cache`. Threads: any; one short lock. Threads are started by the first
flights after `start`.
"""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from arvados_fuse.errors import ArvadosFuseError, BlockCorrupt, Unreachable
from arvados_fuse.keep.flight import FEW_READS, Abandoned, Debt, Flight, GaveWay
from arvados_fuse.keep.locator import Locator

logger = logging.getLogger("arvados.keep")

CARRIERS = 16
"""Threads that fetch, and so the most connections that fetch."""

CARRIERS_AHEAD = 6
"""At most so many of them read ahead."""

BUFFER_BYTES = 512 * 1024
"""A thread's buffer. Measured: one read of a loopback socket gives about 400 KiB; a larger one saves no
CPU.
"""

PAUSE_STEP = 0.01
"""Seconds after which a flight that makes way looks again."""

QUIET_SECONDS = 0.05
"""A flight that made way goes on when nobody has needed the line for so long: who looks into one block after
another needs it again at once, and each of those that wait would take a piece of theirs in between."""

PAUSE_SECONDS = 5.0
"""A flight that makes way takes one piece of its block after so long, lest the server takes it for dead."""

GIVE_WAY_BYTES = 4 * 1024 * 1024
"""A flight that has less gives way altogether after one step, unless it has a steady reader."""

REST_BYTES = 1024 * 1024
"""If no more than this is missing of a block, it is not worth a pause."""

LATER_FLIGHTS = 32
"""At most so many that gave way wait to be made again."""

CLOSE_SECONDS = 5.0
"""Closing waits so long for threads that are busy with what can't be interrupted (connecting); they end
later.
"""

LOOK_SECONDS = 0.05
IDLE_SECONDS = 60.0
"""A thread without work looks up after so long: for blocks to read ahead when it is their time, else in
vain.
"""

KEPT_DEBTS = 1024
"""Blocks whose bytes were handed out unchecked and that are not on their way; the oldest are forgotten
first.
"""

Carry = Callable[[Flight, memoryview], None]
"""Fetch a block and land the flight; raises an ArvadosFuseError, or Abandoned."""


class Dispatcher:
    """Flights by md5, at most one for a block.

    room: gives the bytes that may be on their way together. spoiled: is told of a flight that failed after
    handing out bytes, and how many readers got some.
    """

    def __init__(
        self,
        carry: Carry,
        room: Callable[[], int],
        *,
        carriers: int = CARRIERS,
        spoiled: Callable[[Flight, int], None] = lambda flight, readers: None,
    ) -> None:
        self._carry = carry
        self._spoiled = spoiled
        self._room = room
        self._carriers = carriers
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._flights: dict[str, Flight] = {}
        self._demanded: deque[Flight] = deque()
        self._ahead: deque[Flight] = deque()
        self._running: list[Flight] = []
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._debts: dict[str, list[Debt]] = {}
        self._state = "new"

    def start(self) -> None:
        """From now on flights are carried."""
        with self._lock:
            self._state = "open"

    def close(self) -> None:
        """End all flights and threads; those waiting get Unreachable."""
        with self._lock:
            self._state = "closed"
            queued = [*self._demanded, *self._ahead]
            self._demanded.clear()
            self._ahead.clear()
            running = list(self._running)
            self._work.notify_all()
        for flight in queued:
            flight.fail(_closed(flight))
        for flight in running:
            flight.stop()
        patience = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, patience - time.monotonic()))
        self._flights.clear()

    # For those who want blocks

    def flying(self, md5: str) -> Flight | None:
        """The flight of this block, if there is one."""
        return self._flights.get(md5)

    def join(self, locator: Locator, text: str, *, demanded: bool, kept: bool = False) -> Flight:
        """The flight of this block, made if there is none; kept: see `Flight`.

        Raises Unreachable when closed or not started.
        """
        with self._lock:
            flight = self._flights.get(locator.md5)
            if flight is not None and not flight.stopping:
                flight.text = text
                flight.kept = flight.kept or kept
                if demanded:
                    self._promote(flight)
                else:
                    flight.ahead_for += 1
                return flight
            flight = Flight(locator, text, demanded=demanded)
            flight.kept = kept
            if self._state != "open":
                raise _closed(flight)
            flight.inherit(self._debts.pop(locator.md5, []))
            self._flights[locator.md5] = flight
            (self._demanded if demanded else self._ahead).append(flight)
            self._call_thread()
        return flight

    def has_debts(self, md5: str) -> bool:
        """Whether somebody got bytes of this block that are still to be compared."""
        return md5 in self._debts

    def hurry(self) -> None:
        """Somebody waits for a flight that has not started: see again who can make way for it."""
        with self._lock:
            self._clear_way()

    def unwanted(self, md5: str) -> None:
        """A reader does not read ahead to this block any more: drop its flight, unless others want it."""
        with self._lock:
            flight = self._flights.get(md5)
            if flight is None:
                return
            flight.ahead_for -= 1
            if flight.demanded or flight.waiters or flight.ahead_for > 0:
                return
            if flight.started:
                flight.stop()
                return
            self._ahead.remove(flight)
            del self._flights[md5]
        self._settle(flight)

    # For the carrier

    def make_way(self, flight: Flight, at: int) -> float:
        """Called between the pieces of a block, `at` bytes are here: pause while others need the line more.

        Returns seconds paused. Raises GaveWay when little is lost by beginning again later: what a paused
        connection has under way still takes the line.
        """
        begun = now = time.monotonic()
        if flight.locator.size - at <= REST_BYTES:
            return 0.0
        pressed_at = float("-inf")
        while not flight.is_active(now) and not flight.stopping and now - begun < PAUSE_SECONDS:
            if self._is_pressed(now, flight):
                if now > begun and at < GIVE_WAY_BYTES and flight.reads <= FEW_READS:
                    raise GaveWay
                pressed_at = now
            elif now - pressed_at >= QUIET_SECONDS:
                break
            flight.pause(PAUSE_STEP)
            now = time.monotonic()
        return now - begun

    def threads(self) -> int:
        """How many carrying threads there are."""
        return len(self._threads)

    def _is_pressed(self, now: float, flight: Flight | None = None) -> bool:
        """Whether a demanded block, other than this, is being read just now; for one that is only kept, any
        that is not.
        """
        behind_all = flight is not None and flight.kept and not flight.waiters
        return any(
            one is not flight and (one.demanded or (behind_all and not one.kept)) and one.is_active(now)
            for one in list(self._running)
        )

    # Under the lock

    def _promote(self, flight: Flight) -> None:
        if not flight.started and flight in self._ahead:
            self._ahead.remove(flight)
            self._demanded.append(flight)
            self._call_thread()

    def _call_thread(self) -> None:
        """There is a flight more to start."""
        self._work.notify()
        if len(self._demanded) + len(self._ahead) > self._idle and len(self._threads) < self._carriers:
            thread = threading.Thread(target=self._run, name=f"keep-fetch-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._clear_way()

    def _clear_way(self) -> None:
        """If a demanded flight can't start, stop one that nobody reads: best one read ahead, of the least
        progress.
        """
        if not self._demanded or any(flight.stopping for flight in self._running):
            return
        if len(self._running) >= self._carriers or not self._fits(self._demanded[0]):
            now = time.monotonic()
            spare = [flight for flight in self._running if flight.is_spare(now)]
            if spare:
                min(spare, key=lambda flight: (flight.demanded, flight.used)).stop()

    def _fits(self, flight: Flight) -> bool:
        on_their_way = sum(other.locator.size for other in self._running)
        return not self._running or on_their_way + flight.locator.size <= self._room()

    def _next(self) -> Flight | None:
        if self._demanded:
            return self._demanded.popleft() if self._fits(self._demanded[0]) else None
        if not self._ahead:
            return None
        flight = next((one for one in self._ahead if not one.kept), self._ahead[0])
        if not self._fits(flight) or self._is_pressed(time.monotonic(), flight):
            return None
        ahead = sum(not one.demanded for one in self._running)
        # Two threads stay free for what is demanded next.
        if ahead < CARRIERS_AHEAD and len(self._running) < max(1, self._carriers - 2):
            self._ahead.remove(flight)
            return flight
        return None

    # Carrying threads

    def _run(self) -> None:
        buffer = memoryview(bytearray(BUFFER_BYTES))
        while self._carry_next(buffer):  # its own frame: an idle thread refers to no flight and so to no file
            pass

    def _carry_next(self, buffer: memoryview) -> bool:
        flight = self._take()
        if flight is None:
            return False
        error: Exception | None = None
        stripped = flight.locator.stripped
        try:
            self._carry(flight, buffer)
        except (ArvadosFuseError, Abandoned) as problem:
            # Not with the frames that it passed: they hold the block's memory, or its open file.
            error = problem.with_traceback(None)
        except Exception as problem:
            logger.exception("unexpected failure while fetching block %s", stripped)
            error = Unreachable(f"block {stripped}: unexpected failure: {problem!r}", subject=stripped)
        with self._lock:
            if self._flights.get(flight.locator.md5) is flight:
                del self._flights[flight.locator.md5]
            self._running.remove(flight)
            self._work.notify()
            self._clear_way()
        if self._state == "closed" and not flight.ended:
            flight.fail(_closed(flight))
        elif isinstance(error, Abandoned):
            self._settle(flight)
            if isinstance(error, GaveWay) and len(self._ahead) < LATER_FLIGHTS:
                with contextlib.suppress(Unreachable):  # closed meanwhile
                    again = self.join(flight.locator, flight.text, demanded=False, kept=flight.kept)
                    again.reads += flight.reads
        elif isinstance(error, BlockCorrupt):
            readers = flight.fail(error)
            if readers:
                self._spoiled(flight, len(readers))
        elif error is not None:
            # Nothing is known of what was handed out: it is compared when the block can be had again, and
            # nobody can end a read of it before.
            self._settle(flight, error)
        return True

    def _take(self) -> Flight | None:
        with self._work:
            self._idle += 1
            try:
                while self._state != "closed":
                    flight = self._next()
                    if flight is not None:
                        flight.started = True
                        self._running.append(flight)
                        return flight
                    self._work.wait(LOOK_SECONDS if self._ahead else IDLE_SECONDS)
                return None
            finally:
                self._idle -= 1

    def _settle(self, flight: Flight, error: Exception | None = None) -> None:
        """End a flight without result; what it handed out is checked by the next flight of the block."""
        debts = flight.abandon(error)
        if not debts:
            return
        md5 = flight.locator.md5
        with self._lock:
            successor = self._flights.get(md5)
            if successor is not None and successor.inherit(debts):
                return
            self._debts.setdefault(md5, []).extend(debts)
            while len(self._debts) > KEPT_DEBTS:
                del self._debts[next(iter(self._debts))]


def _closed(flight: Flight) -> Unreachable:
    stripped = flight.locator.stripped
    return Unreachable(f"block {stripped}: the block cache is closed or was not started", subject=stripped)
