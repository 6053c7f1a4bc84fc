"""`BlockCache`: the blocks of Keep, read through a cache on disk or in memory, and written.

Used by the collection and write-back floors through their small protocols, and by the tree for its file
handles, which read through a `Reader` of their own. Threads: every method may be called from any thread.
"""

import queue
import threading
import time
from collections.abc import Iterable, Sequence

from arvados_fuse.errors import ArvadosFuseError, InvalidArgument, NoSpaceError, NotSupported, Unreachable
from arvados_fuse.keep.connections import ConnectionPool
from arvados_fuse.keep.dispatch import CARRIERS, Dispatcher
from arvados_fuse.keep.flight import Abandoned, Flight, Watcher
from arvados_fuse.keep.locator import Locator
from arvados_fuse.keep.pins import SHARE, Pin, Pins, size_of
from arvados_fuse.keep.reader import Company, Reader
from arvados_fuse.keep.services import KeepService, ServiceDirectory, ServiceTable
from arvados_fuse.keep.store import Held, Store
from arvados_fuse.keep.transfer import BlockReplaced, Timeouts, Transfers
from arvados_fuse.keep.upload import Uploader
from arvados_fuse.reporting.counters import Counters

PREPARED = 2
"""Connections are made beforehand to no more services than this: behind a proxy there is one, inside a
cluster there may be many, and connecting is quick."""

PRELOAD_STEP = 0.1
"""Seconds after which a preload that made way tries again, or sees that it was stopped."""

WAIT_STEP = 0.25
"""Seconds after which a reader whose block has not started sees again who can make way."""

LOST_TRIES = 10
"""A block that vanishes or is cut in the cache so often while it is read is given up."""

SILENCE_MARGIN = 5.0
"""Seconds more than one fetch may go without progress: its error, which says more, comes first. A reader
whose block waits for its turn gives up then, if nothing at all came for any block."""


class BlockCache:
    """Reads and writes blocks. `start` before the first read and after the fork, `close` at the end.

    counters: where to count; the store's by default. news: gets a `BlockReplaced` when the kernel may hold
    wrong bytes of a block.
    """

    def __init__(
        self,
        directory: ServiceDirectory,
        store: Store,
        *,
        counters: Counters | None = None,
        insecure: bool = False,
        ca_file: str | None = None,
        retries: int = 10,
        replicas: int = 1,
        timeouts: Timeouts | None = None,
        news: "queue.SimpleQueue[BlockReplaced] | None" = None,
        carriers: int = CARRIERS,
    ) -> None:
        timeouts = timeouts or Timeouts()
        self.counters = counters or store.counters
        self._hit = self.counters.ticker("cache.hit")
        self._store = store
        self._blocks = store.blocks
        self._services = services = ServiceTable(directory, self._prepare)
        self._pool = ConnectionPool(insecure=insecure, ca_file=ca_file)
        self._timeouts = timeouts
        self._transfers = Transfers(
            services, self._pool, store, self.counters, retries=retries, timeouts=timeouts, news=news
        )
        self._dispatcher = Dispatcher(
            self._carry, store.room, carriers=carriers, spoiled=self._transfers.spoiled
        )
        self._uploader = Uploader(
            services, self._pool, store, self.counters, retries=retries, timeouts=timeouts, replicas=replicas
        )
        self._anyone = _Anyone()
        self._silence = timeouts.overall + SILENCE_MARGIN
        self._closed = False

    def start(self) -> None:
        """Start what runs beside; after the fork, before the first read."""
        self._store.start()
        self._dispatcher.start()
        self._uploader.start()
        # Beside, so that neither the start nor the first read waits for the API server.
        self._services.learn()

    def close(self) -> None:
        """End all threads and connections; readers that wait get Unreachable."""
        self._closed = True
        self._uploader.close()
        self._dispatcher.close()
        self._pool.close()
        self._store.close()
        self._services.close()

    def reader(self, company: Company | None = None) -> Reader:
        """A reader of its own for one open file handle: it reads ahead, and hears of bytes that proved
        wrong. company: of all handles for which the kernel has the same pages.
        """
        reader = Reader(self, company)
        if company is not None:
            company.join(reader)
        return reader

    def read(self, locator: str, offset: int, size: int) -> bytes | memoryview:
        """Exactly `size` bytes of the block from `offset`, as soon as they are here.

        Raises BlockNotFound, BlockCorrupt, SignatureRefused, Unreachable, LocatorError, and InvalidArgument
        for a range outside the block.
        """
        return self.read_for(self._anyone, locator, offset, size)

    def read_for(self, watcher: Watcher, locator: str, offset: int, size: int) -> bytes | memoryview:
        """As `read`; `watcher` hears when what it got proves wrong."""
        held = self._blocks.get(locator[:32])
        if held is not None:
            data = held.read(offset, size)
            if data is not None:
                self._hit()
                return data
        return self._read_slowly(locator, offset, size, watcher)

    def put(
        self, data: bytes | memoryview, *, storage_classes: Sequence[str] = (), file: str | None = None
    ) -> str:
        """Store a block of at most 64 MiB; returns its signed locator.

        file: the path of a file that holds just these bytes and never will hold others: the cache gives it a
        second name, if it can, rather than write them once more.
        Waits while too many blocks are on their way. Raises Unreachable, AccessDenied (`Keep write error:
        ...`).
        """
        return self._uploader.put(data, storage_classes=storage_classes, file=file)

    # Before anybody reads

    def preload(self, locator: str, stopping: threading.Event) -> bool:
        """Have the whole block here, fetched when nobody who reads needs the line; False if stopped before.

        Raises what `read` raises.
        """
        parsed, flight, lost = Locator.parse(locator), None, 0
        while not stopping.is_set():
            if flight is None:
                if parsed.size == 0 or self._here(parsed) is not None:
                    self._store.adopt(parsed.md5, parsed.size)
                    return True
                if lost == LOST_TRIES:
                    text = f"block {parsed.stripped} does not stay in the cache: it is too small for all this"
                    raise NoSpaceError(text, subject=parsed.stripped)
                flight = self._dispatcher.join(parsed, locator, demanded=False, kept=True)
            try:
                if flight.landed(PRELOAD_STEP):
                    flight, lost = None, lost + 1
            except Abandoned:  # it made way
                flight = None
                stopping.wait(PRELOAD_STEP)
        if flight is not None:
            self._dispatcher.unwanted(parsed.md5)
        return False

    def room_for(self, blocks: Iterable[str]) -> None:
        """Raise NoSpaceError unless all these (`md5+size`) can be in the cache together."""
        total = sum(map(size_of, set(blocks)))
        if total > self._store.limit:
            raise NoSpaceError(
                f"the cache holds {self._store.limit:,} bytes, not the {total:,} of this: make it larger "
                "(--file-cache)"
            )

    @property
    def pins(self) -> Pins | None:
        """What is pinned; None where nothing can be."""
        return self._store.pins

    def pin(self, pin: Pin, manifest: str) -> None:
        """Keep blocks from eviction; see `Pins.add`. Raises NoSpaceError, NotSupported."""
        if self._store.pins is None:
            raise NotSupported("blocks in memory (--ram-cache) can't be pinned")
        self._store.pins.add(pin, manifest, int(self._store.limit * SHARE))

    def usage(self) -> tuple[int, int]:
        """Bytes in the cache, and the most it may hold."""
        return self._store.usage(), self._store.limit

    # For readers

    def hold(self, md5: str) -> None:
        """A reader is at this block: others are evicted first."""
        self._store.hold(md5)

    def release(self, md5: str) -> None:
        """A reader that held the block went on."""
        self._store.release(md5)

    def budget(self) -> int:
        """Bytes that may be read ahead in all."""
        return self._store.budget()

    def rate(self) -> float:
        """Bytes per second that came from Keep, measured lately; 0 when not known yet."""
        return self._transfers.rate.value

    def fetch_ahead(self, locator: str) -> bool:
        """Start fetching a block that somebody will read soon; False when it is here already or can't be
        had.
        """
        held = self._blocks.get(locator[:32])
        if held is not None and held.content is not None:
            return False
        try:
            parsed = Locator.parse(locator)
            if parsed.size == 0 or self._here(parsed) is not None:
                return False
            self._dispatcher.join(parsed, locator, demanded=False)
        except ArvadosFuseError:
            return False
        self.counters.add("keep.ahead")
        return True

    def drop_ahead(self, md5s: Iterable[str]) -> None:
        """The reader went elsewhere: what was fetched for it only is not wanted."""
        for md5 in md5s:
            self._dispatcher.unwanted(md5)

    # Inside

    def _prepare(self, services: Sequence[KeepService]) -> None:
        """Where it is clear whom the first read will ask, a connection is there before it comes."""
        asked = [service for service in services if not service.is_gateway]
        if len(asked) <= PREPARED:
            for service in asked:
                self._pool.prepare(service, self._timeouts.connect)

    def _carry(self, flight: Flight, buffer: memoryview) -> None:
        self._transfers.carry(flight, buffer, self._dispatcher)

    def _read_slowly(self, text: str, offset: int, size: int, watcher: Watcher) -> bytes | memoryview:
        locator = Locator.parse(text)
        end = offset + size
        if offset < 0 or size < 0 or end > locator.size:
            raise InvalidArgument(
                f"block {locator.stripped} has no bytes {offset}+{size}", subject=locator.stripped
            )
        if size == 0:
            return b""
        missed = False
        lost = 0
        while lost < LOST_TRIES:
            flight = self._dispatcher.flying(locator.md5)
            if flight is None:
                data = self._reread(locator, offset, size)
                if data is not None:
                    if not missed:
                        self._hit()
                    return data
                flight = self._dispatcher.join(locator, text, demanded=True)
            if not missed:
                self.counters.add("cache.miss")
            missed = True
            try:
                self._await(flight, end)
            except Abandoned:
                continue
            data = flight.read(watcher, offset, size)
            if data is not None:
                if watcher is self._anyone:
                    self._anyone.check(locator.md5)
                return data
            lost += 1
        raise Unreachable(
            f"block {locator.stripped}: the cache lost it {LOST_TRIES} times", subject=locator.stripped
        )

    def _reread(self, locator: Locator, offset: int, size: int) -> bytes | memoryview | None:
        held = self._here(locator)
        return None if held is None else held.read(offset, size)

    def _here(self, locator: Locator) -> Held | None:
        """The block, if the store has it and nobody is still to be told of other bytes of it."""
        if self._closed or self._dispatcher.has_debts(locator.md5):
            return None
        return self._store.reopen(locator.md5, locator.size)

    def _await(self, flight: Flight, end: int) -> None:
        if flight.released >= end:
            return
        self._dispatcher.join(flight.locator, flight.text, demanded=True)
        silent_since, received = time.monotonic(), self.counters.get("net.received_bytes")
        while not flight.wait(end, WAIT_STEP):
            if not flight.started:
                self._dispatcher.hurry()
            now = time.monotonic()
            if received != self.counters.get("net.received_bytes"):
                silent_since, received = now, self.counters.get("net.received_bytes")
            elif now - silent_since > self._silence:
                stripped = flight.locator.stripped
                text = f"block {stripped}: nothing at all came from Keep for {now - silent_since:.0f} s"
                raise Unreachable(text, subject=stripped)


class _Anyone:
    """Stands for all who read without a `Reader`: the next of them to read a spoiled block gets the error."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spoiled: dict[str, ArvadosFuseError] = {}

    def spoil(self, md5: str, error: ArvadosFuseError) -> None:
        """Bytes of this block were wrong."""
        with self._lock:
            self._spoiled[md5] = error

    def check(self, md5: str) -> None:
        """Raise what is to be told about the block, once."""
        with self._lock:
            error = self._spoiled.pop(md5, None)
        if error is not None:
            raise error
