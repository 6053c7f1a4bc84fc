"""Store blocks on Keep services: replicas and storage classes reached, a bounded number on its way.

Used by `keep.cache` for the write-back floor. Threads: any thread may call `put`; a pool of threads sends
the replicas side by side. Callers wait when too many blocks are on their way.
"""

import hashlib
import http.client
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from http.client import HTTPMessage
from typing import NamedTuple

from arvados_fuse.errors import InvalidArgument, Unreachable
from arvados_fuse.keep.connections import ConnectionPool, Interrupt
from arvados_fuse.keep.locator import MAX_BLOCK, Locator
from arvados_fuse.keep.outcomes import Outcomes
from arvados_fuse.keep.services import KeepService, ServiceTable, reading_order, writing_order
from arvados_fuse.keep.store import Store
from arvados_fuse.keep.transfer import Timeouts, backoff
from arvados_fuse.reporting.counters import Counters

logger = logging.getLogger("arvados.keep")

BLOCKS_AT_ONCE = 4
"""Blocks on their way out at one time: 256 MiB of callers' memory at most."""

SENDERS = 8
"""Threads that send; two replicas of each block."""

REMEMBERED = 8192
"""Blocks stored by us that are asked for before they are sent again; their locators take about 200 bytes
each.
"""

SIGNATURE_MARGIN = 3600.0
"""A remembered signature with less than so many seconds to live is not given out again."""


class _Stored(NamedTuple):
    """What one service confirmed. classes: None when it does not speak of storage classes."""

    locator: str
    replicas: int
    classes: Mapping[str, int] | None


class _Goal:
    """What is still missing of what was wanted."""

    def __init__(self, replicas: int, classes: Sequence[str]) -> None:
        self.wanted = replicas
        self.replicas = 0
        self.classes = dict.fromkeys(classes, 0)
        self.locator = ""

    def add(self, stored: _Stored) -> None:
        self.replicas += stored.replicas
        self.locator = stored.locator
        for name in self.classes:
            # An old service that does not confirm classes is believed for its replicas, as the SDK does.
            count = stored.replicas if stored.classes is None else stored.classes.get(name, 0)
            self.classes[name] += count

    def missing_classes(self) -> list[str]:
        return sorted(name for name, count in self.classes.items() if count < self.wanted)

    def missing(self) -> int:
        """How many services more are needed if each stores one replica."""
        return max(self.wanted - self.replicas, 1 if self.missing_classes() else 0)

    def told(self) -> str:
        text = f"stored {self.replicas} of {self.wanted} replicas"
        classes = self.missing_classes()
        return f"{text}, storage classes not reached: {', '.join(classes)}" if classes else text


class Uploader:
    """Sends blocks. `start` before the first one, `close` at the end."""

    def __init__(
        self,
        services: ServiceTable,
        pool: ConnectionPool,
        store: Store,
        counters: Counters,
        *,
        retries: int,
        timeouts: Timeouts,
        replicas: int,
    ) -> None:
        self._services = services
        self._pool = pool
        self._store = store
        self._counters = counters
        self._retries = retries
        self._timeouts = timeouts
        self._replicas = replicas
        self._places = threading.BoundedSemaphore(BLOCKS_AT_ONCE)
        self._senders: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._stored: OrderedDict[tuple[str, frozenset[str]], str] = OrderedDict()
        self._under_way: set[Interrupt] = set()
        self._closing = threading.Event()

    def start(self) -> None:
        """From now on blocks can be sent; the threads come with the first ones."""
        self._senders = ThreadPoolExecutor(SENDERS, thread_name_prefix="keep-put")

    def close(self) -> None:
        """Break off what is on its way; its callers get Unreachable."""
        self._closing.set()
        with self._lock:
            under_way = list(self._under_way)
        for interrupt in under_way:
            interrupt.fire()
        if self._senders is not None:
            self._senders.shutdown()

    def put(
        self, data: bytes | memoryview, *, storage_classes: Sequence[str] = (), file: str | None = None
    ) -> str:
        """Store a block, wait until it is; returns its signed locator. The block is then in the cache, too.

        file: see `BlockCache.put`.
        Raises InvalidArgument (larger than a block), Unreachable or AccessDenied (`Keep write error: ...`).
        """
        view = memoryview(data).cast("B")
        if len(view) > MAX_BLOCK:
            raise InvalidArgument(f"a block of {len(view)} bytes is beyond {MAX_BLOCK}")
        self._counters.add("keep.put")
        locator = Locator(hashlib.md5(view, usedforsecurity=False).hexdigest(), len(view))
        if not self._places.acquire(timeout=self._timeouts.storing * 2):
            text = f"Keep write error: block {locator.stripped}: no earlier block came through"
            raise Unreachable(text, subject=locator.stripped)
        try:
            text = self._already_there(locator, storage_classes) or self._send(locator, view, storage_classes)
        finally:
            self._places.release()
        self._keep_copy(locator, view, file)
        return text

    def _already_there(self, locator: Locator, classes: Sequence[str]) -> str:
        """The locator under which we stored the block before, if a service says that it still has it."""
        key = (locator.md5, frozenset(classes))
        with self._lock:
            text = self._stored.get(key)
        if text is None or _expires(text) < time.time() + SIGNATURE_MARGIN:
            return ""
        for service in reading_order(locator, self._services.services()):
            try:
                with self._pool.request(
                    service,
                    "HEAD",
                    text,
                    {"Authorization": f"Bearer {self._services.token()}"},
                    connect_timeout=self._timeouts.connect,
                    progress_timeout=self._timeouts.progress,
                ) as answer:
                    answer.text()
                    if answer.status == 200:
                        self._counters.add("keep.put_spared")
                        return text
            except (OSError, http.client.HTTPException) as error:
                logger.info("HEAD %s at %s: %s", locator.stripped, service.address, error)
        return ""

    def _send(self, locator: Locator, view: memoryview, classes: Sequence[str]) -> str:
        goal = _Goal(self._replicas, classes)
        outcomes = Outcomes(locator.stripped)
        done: set[KeepService] = set()
        overdue = time.monotonic() + self._timeouts.storing
        for round_number in range(self._retries + 1):
            services = writing_order(locator.md5, self._services.services(failed=round_number > 0))
            asking = [one for one in services if one not in done and outcomes.may_ask(one)]
            if not asking or self._closing.is_set() or time.monotonic() > overdue:
                break
            if round_number:
                self._counters.add("keep.retries")
                self._closing.wait(backoff(round_number))
            self._round(locator, view, goal, asking, done, round_number, outcomes)
            if not goal.missing():
                with self._lock:
                    self._stored[locator.md5, frozenset(classes)] = goal.locator
                    if len(self._stored) > REMEMBERED:
                        self._stored.popitem(last=False)
                return goal.locator
        if self._closing.is_set() or self._senders is None:
            text = f"Keep write error: block {locator.stripped}: the block cache is closed or was not started"
            raise Unreachable(text, subject=locator.stripped)
        error = outcomes.failure_to_write(goal.told())
        logger.error("%s", error)
        raise error

    def _round(
        self,
        locator: Locator,
        view: memoryview,
        goal: _Goal,
        asking: Sequence[KeepService],
        done: set[KeepService],
        number: int,
        outcomes: Outcomes,
    ) -> None:
        """Offer the block to as many services at once as replicas are missing, then to the next ones."""
        left = list(asking)
        flying: dict[Future[_Stored | None], KeepService] = {}
        while goal.missing():
            while left and len(flying) < goal.missing():
                service = left.pop(0)
                wanted, classes = goal.wanted - goal.replicas, goal.missing_classes()
                offer = partial(
                    self._offer, service, locator, view, max(wanted, 1), classes, number, outcomes
                )
                future = self._submit(offer)
                if future is None:
                    return
                flying[future] = service
            if not flying:
                return
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                service = flying.pop(future)
                stored = future.result()
                if stored is not None:
                    done.add(service)
                    goal.add(stored)
        wait(flying)

    def _submit(self, offer: "Callable[[], _Stored | None]") -> "Future[_Stored | None] | None":
        """Hand an offer to a thread; None when closing."""
        if self._senders is None or self._closing.is_set():
            return None
        try:
            return self._senders.submit(offer)
        except RuntimeError:  # closed since
            return None

    def _offer(
        self,
        service: KeepService,
        locator: Locator,
        view: memoryview,
        replicas: int,
        classes: Sequence[str],
        number: int,
        outcomes: Outcomes,
    ) -> _Stored | None:
        token = self._services.token()
        headers = {
            "Authorization": f"Bearer {token}",
            "X-Request-Id": outcomes.request_id,
            "Content-Type": "application/octet-stream",
            "X-Keep-Desired-Replicas": str(replicas),
        }
        if classes:
            headers["X-Keep-Storage-Classes"] = ", ".join(classes)
        interrupt = Interrupt()
        with self._lock:
            self._under_way.add(interrupt)
        if self._closing.is_set():
            interrupt.fire()
        self._counters.add("keep.requests")
        try:
            with self._pool.request(
                service,
                "PUT",
                locator.md5,
                headers,
                connect_timeout=self._timeouts.connecting(number),
                progress_timeout=self._timeouts.progressing(number),
                interrupt=interrupt,
                body=view,
            ) as answer:
                text = answer.text()
                if answer.status == 401 and self._services.has_another_token(token):
                    return self._offer(service, locator, view, replicas, classes, number, outcomes)
                if answer.status != 200:
                    outcomes.status(service, answer.status, text)
                    return None
                stored = _confirmed(text, answer.headers)
        except (OSError, http.client.HTTPException) as error:
            outcomes.broke(service, error)
            return None
        finally:
            with self._lock:
                self._under_way.discard(interrupt)
        if not text.startswith(locator.md5):
            outcomes.wrong(service, "it confirmed another block")
            return None
        self._counters.add("net.sent_bytes", len(view))
        return stored

    def _keep_copy(self, locator: Locator, view: memoryview, file: str | None) -> None:
        """What was just written is likely to be read: put it into the cache, already checked."""
        if locator.size == 0 or self._store.reopen(locator.md5, locator.size) is not None:
            return
        if file is not None and self._store.link(locator.md5, locator.size, file):
            return
        sink = self._store.begin(locator.md5, locator.size)
        try:
            at = 0
            while at < locator.size:
                room = sink.room(at, view[at:])
                part = view[at : at + len(room)]
                if room.obj is not view.obj:
                    room[:] = part
                sink.write(at, part)
                at += len(part)
            sink.commit(0)
        except BaseException:
            sink.discard()
            raise


def _confirmed(text: str, headers: HTTPMessage) -> _Stored:
    try:
        replicas = int(headers.get("X-Keep-Replicas-Stored") or 1)
    except ValueError:
        replicas = 1
    told = headers.get("X-Keep-Storage-Classes-Confirmed")
    if told is None:
        return _Stored(text, replicas, None)
    classes: dict[str, int] = {}
    for item in told.split(","):
        name, _, count = item.strip().partition("=")
        if name and count.strip().isdecimal():
            classes[name.strip()] = int(count)
    return _Stored(text, replicas, classes)


def _expires(text: str) -> float:
    """When the signature in a locator ends, in seconds since 1970; far away if there is none."""
    for hint in text.split("+")[2:]:
        if hint.startswith("A") and "@" in hint:
            try:
                return float(int(hint.rpartition("@")[2], 16))
            except ValueError:
                return 0.0
    return float("inf")
