"""Bring one block into the store: from a file found there, or from Keep services, over retries and time.

Used by `keep.cache`, as what the dispatcher's threads carry. Keep has no ranges: an attempt that broke off
is made again from the block's beginning; `Flight` sees to it that what was handed out and what comes then
agree.
Threads: one `Transfers` serves all carrying threads; what it holds is thread-safe.
"""

import hashlib
import http.client
import logging
import queue
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from arvados_fuse.errors import ArvadosFuseError
from arvados_fuse.keep.connections import ConnectionPool, Exchange
from arvados_fuse.keep.content import Content
from arvados_fuse.keep.flight import Abandoned, Flight, Watcher
from arvados_fuse.keep.outcomes import Outcomes
from arvados_fuse.keep.services import KeepService, ServiceTable, reading_order
from arvados_fuse.keep.store import Store
from arvados_fuse.reporting.counters import Counters

logger = logging.getLogger("arvados.keep")

BACKOFF_FIRST = 0.1
BACKOFF_MOST = 30.0
"""Seconds before the second round over the services, doubling up to the most: ten retries outlast 80
seconds.
"""

REFUSED_ROUNDS = 2
"""After so many rounds a refused signature is the answer, whatever ails the other services."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds. Those for connecting and progress double with every round, up to eight times."""

    connect: float = 2.0
    """For a connection; the SDK's."""
    progress: float = 15.0
    """For one read or write to bring anything at all. A Keep service may fetch from slow storage before it
    answers.
    """
    slow_bytes: int = 32768
    """Bytes per second below which, over a progress time, a transfer counts as stuck; the SDK's."""
    overall: float = 60.0
    """A block is given up when no attempt got any further for so long, whatever the number of retries: a
    program waits for it."""
    storing: float = 300.0
    """After so long no further attempt to store a block is begun: nobody waits but the committer."""

    def connecting(self, round_number: int, most: float = float("inf")) -> float:
        """For the given round, from 0; at most `most`."""
        return min(self.connect * 2.0 ** min(round_number, 3), most)

    def progressing(self, round_number: int, most: float = float("inf")) -> float:
        """For the given round, from 0; at most `most`."""
        return min(self.progress * 2.0 ** min(round_number, 3), most)


@dataclass(frozen=True)
class BlockReplaced:
    """Bytes of this block may have been handed out that were wrong: before its check, or out of a cache file
    that was damaged. What the kernel cached of it has to go.
    """

    md5: str


class Way(Protocol):
    """What a transfer needs from the dispatcher."""

    def make_way(self, flight: Flight, at: int) -> float:
        """Pause while others need the line more; returns seconds paused. Raises GaveWay."""


class WrongBytes(Exception):
    """What a service gave is not the block."""


class Transfers:
    """Carries flights."""

    def __init__(
        self,
        services: ServiceTable,
        pool: ConnectionPool,
        store: Store,
        counters: Counters,
        *,
        retries: int,
        timeouts: Timeouts,
        news: "queue.SimpleQueue[BlockReplaced] | None",
    ) -> None:
        self._services = services
        self._pool = pool
        self._store = store
        self._counters = counters
        self._retries = retries
        self._timeouts = timeouts
        self._news = news
        self.rate = Rate()

    def carry(self, flight: Flight, buffer: memoryview, way: Way) -> None:
        """Land the flight. Raises BlockNotFound, BlockCorrupt, SignatureRefused, Unreachable, Abandoned."""
        if self._from_store(flight):
            return
        try:
            self._from_services(flight, buffer, way)
        except ArvadosFuseError as error:
            if flight.is_wanted:
                logger.log(error.level, "%s", error)
                error.told = True
            raise

    def _from_store(self, flight: Flight) -> bool:
        """A file that somebody left in the cache is hashed before any byte of it is used."""
        md5, size = flight.locator.md5, flight.locator.size
        # It may have come while this flight was being made. But what is reopened is there for all, also for
        # readers who have to be told first.
        ready = None if flight.has_debts else self._store.reopen(md5, size)
        if ready is not None and ready.content is not None:
            self._spoil(flight, flight.land(ready.content))
            return True
        found = self._store.unchecked(md5, size)
        if found is None:
            return False
        if self._has_hash(flight, found):
            self._spoil(flight, flight.settle(found))
            if self._store.accept(md5, found):
                self._spoil(flight, flight.land(found))
                return True
        self._store.reject(md5, found)
        if self._news is not None:  # it may have been right once, and read from until just now
            self._news.put(BlockReplaced(md5))
        return False

    @staticmethod
    def _has_hash(flight: Flight, content: Content) -> bool:
        md5 = hashlib.md5(usedforsecurity=False)
        at = 0
        try:
            while data := content.read(at, 1024 * 1024):
                md5.update(data)
                at += len(data)
                if flight.stopping:
                    raise Abandoned
        except OSError as error:
            logger.warning("cached block %s can't be read: %s", flight.locator.stripped, error)
            return False
        return md5.hexdigest() == flight.locator.md5

    def _from_services(self, flight: Flight, buffer: memoryview, way: Way) -> None:
        locator = flight.locator
        outcomes, patience = Outcomes(locator.stripped), _Patience(self._timeouts.overall)
        task = _Task(flight, buffer, way, outcomes, patience)
        for round_number in range(self._retries + 1):
            known = self._services.services(failed=round_number > 0, patience=patience.left())
            asking = [one for one in reading_order(locator, known) if outcomes.may_ask(one)]
            if not asking or (outcomes.refused and round_number >= REFUSED_ROUNDS):
                break
            if round_number:
                if not flight.is_wanted and not flight.kept:
                    raise Abandoned  # read ahead: who wants it will ask again
                self._counters.add("keep.retries")
                flight.rest(min(backoff(round_number), patience.left()))
            for service in asking:
                if flight.stopping:
                    raise Abandoned
                if patience.left() <= 0:
                    raise outcomes.failure_to_read()
                if self._attempt(task, service, round_number):
                    return
                # That one of several services does not have it is no news; that one fails is.
                level = logging.DEBUG if outcomes.is_missing(service) else logging.INFO
                logger.log(
                    level, "GET %s from %s: %s", locator.stripped, service.address, outcomes.last(service)
                )
        if flight.stopping:
            raise Abandoned
        raise outcomes.failure_to_read()

    def _attempt(self, task: "_Task", service: KeepService, number: int) -> bool:
        flight, outcomes, left = task.flight, task.outcomes, task.patience.left()
        headers = {
            "Authorization": f"Bearer {self._services.token()}",
            "X-Request-Id": outcomes.request_id,
        }
        progress = self._timeouts.progressing(number, left)
        self._counters.add("keep.requests")
        try:
            with self._pool.request(
                service,
                "GET",
                flight.text,
                headers,
                connect_timeout=self._timeouts.connecting(number, left),
                progress_timeout=progress,
                interrupt=flight.interrupt,
            ) as answer:
                if answer.status != 200:
                    outcomes.status(service, answer.status, answer.text())
                    return False
                if answer.length is not None and answer.length != flight.locator.size:
                    raise WrongBytes(f"{answer.length} bytes announced")
                content = self._receive(task, answer, progress)
        except (OSError, http.client.HTTPException) as error:
            outcomes.broke(service, error)
            return False
        except WrongBytes as error:
            self._counters.add("keep.wrong")
            logger.warning("block %s from %s: %s", flight.locator.stripped, service.address, error)
            outcomes.wrong(service, str(error))
            return False
        self._spoil(flight, flight.land(content))
        return True

    def _receive(self, task: "_Task", answer: Exchange, progress: float) -> Content:
        """Take the body into a sink, hash it on the way. progress: seconds.

        Raises OSError, HTTPException, WrongBytes, Abandoned.
        """
        flight, buffer, size = task.flight, task.buffer, task.flight.locator.size
        sink = self._store.begin(flight.locator.md5, size)
        md5 = hashlib.md5(usedforsecurity=False)
        pace = _Pace(progress, self._timeouts.slow_bytes)
        at = 0
        try:
            while at < size:
                room = sink.room(at, buffer)
                count = answer.readinto(room)
                if count == 0:
                    raise ConnectionResetError(f"cut after {at} of {size} bytes")
                part = room[:count]
                sink.write(at, part)
                flight.arrived(sink.content, at, part)
                md5.update(part)  # after handing out: the hash is not on the way of who waits for these bytes
                at += count
                self._counters.add("net.received_bytes", count)
                self.rate.note(count)
                task.patience.got(at)
                if flight.stopping:
                    raise Abandoned
                pace.check(at, task.way.make_way(flight, at))
            if md5.hexdigest() != flight.locator.md5:
                raise WrongBytes(f"its md5 is {md5.hexdigest()}")
            self._spoil(flight, flight.settle(sink.content))  # before anybody finds the rest in the store
            sink.commit(flight.high)
        except BaseException:
            sink.discard()
            raise
        return sink.content

    def _spoil(self, flight: Flight, readers: Sequence[Watcher]) -> None:
        if readers:
            self.spoiled(flight, len(readers))

    def spoiled(self, flight: Flight, readers: int) -> None:
        """So many readers got bytes of this flight that are wrong or were never checked: count, log, tell."""
        self._counters.add("keep.spoiled", readers)
        stripped = flight.locator.stripped
        logger.warning(
            "block %s: %d readers got bad bytes before its check and are told so", stripped, readers
        )
        if self._news is not None:
            self._news.put(BlockReplaced(flight.locator.md5))


class _Patience:
    """Seconds left for a block: they run from the moment when an attempt last got further than any before."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since = time.monotonic()
        self._most = 0

    def got(self, at: int) -> None:
        """An attempt has so many bytes."""
        if at > self._most:
            self._most, self._since = at, time.monotonic()

    def left(self) -> float:
        """Seconds; 0 when it is over."""
        return max(0.0, self._since + self._seconds - time.monotonic())


class _Task(NamedTuple):
    """What all attempts for one block share."""

    flight: Flight
    buffer: memoryview
    way: Way
    outcomes: Outcomes
    patience: _Patience


class _Pace:
    """Raises TimeoutError when a transfer is slower than it may be, over a whole patience; pauses don't
    count.
    """

    def __init__(self, patience: float, slow_bytes: int) -> None:
        self._patience = patience
        self._slow_bytes = slow_bytes
        self._since = time.monotonic()
        self._had = 0

    def check(self, at: int, paused: float) -> None:
        """`at` bytes are here; the thread was paused for so many seconds since the last call."""
        now = time.monotonic()
        self._since += paused
        spent = now - self._since
        if spent >= self._patience:
            if at - self._had < self._slow_bytes * spent:
                raise TimeoutError(f"{at - self._had} bytes in {spent:.0f} s")
            self._since, self._had = now, at


class Rate:
    """Bytes per second that all transfers bring together, while there is any; for reading ahead."""

    def __init__(self) -> None:
        self._begun = 0.0
        self._last = 0.0
        self._bytes = 0
        self.value = 0.0

    def note(self, count: int) -> None:
        """So many bytes came. Without a lock: an estimate may lose a piece."""
        now = time.monotonic()
        if now - self._last > 0.25:  # a gap: nothing was on its way
            self._begun, self._bytes = now, 0
        self._last = now
        self._bytes += count
        spent = now - self._begun
        if spent >= 0.1:
            measured = self._bytes / spent
            self.value = measured if not self.value else 0.7 * self.value + 0.3 * measured
            self._begun, self._bytes = now, 0


def backoff(round_number: int) -> float:
    """Seconds before this round, from 1; a quarter more or less, lest all clients come at once."""
    seconds: float = min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** (round_number - 1))
    return seconds * random.uniform(0.75, 1.25)
