"""Threads for what waits on the network, and loads that happen once for all who wait.

Used by everything in the tree that asks the API server. A request of the kernel waits for an `Attempt` with a
deadline and goes on without it when that passes; the attempt itself goes on and its result is kept.
Threads are made when first needed (so: after the fork), and are daemons: a hung server can't keep the
process.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from arvados_fuse.errors import ArvadosFuseError, Unreachable

logger = logging.getLogger("arvados.arvados_fuse")

T = TypeVar("T")

THREADS = 64
"""The most loads under way at once; each has its own connection to the API server only once it exists."""


class Pool:
    """Runs work on up to `limit` threads. `lock` also guards the (very short) starting of attempts."""

    def __init__(self, limit: int = THREADS) -> None:
        self._limit = limit
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting = 0
        self._threads = 0
        self._closed = False
        self.lock = threading.Lock()

    def submit(self, work: Callable[[], None]) -> None:
        """Run `work` soon. It must not wait for other work of this pool."""
        with self.lock:
            self._waiting -= 1
            if self._waiting < 0 and self._threads < self._limit and not self._closed:
                self._threads += 1
                self._waiting += 1
                threading.Thread(target=self._run, name=f"load-{self._threads}", daemon=True).start()
        self._queue.put(work)

    def close(self) -> None:
        """Let idle threads end; does not wait for busy ones."""
        with self.lock:
            self._closed = True
            threads = self._threads
        for _ in range(threads):
            self._queue.put(None)

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            try:
                work()
            except Exception:
                logger.exception("unexpected failure of a load")
            with self.lock:
                self._waiting += 1


class Attempt(Generic[T]):
    """One run of a load. `begun` is time.monotonic()."""

    __slots__ = ("_done", "_error", "_result", "begun")

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self._done = threading.Event()
        self._result: T | None = None
        self._error: Exception | None = None

    @property
    def done(self) -> bool:
        return self._done.is_set()

    def run(self, load: Callable[[], T]) -> None:
        """Load, and wake those who wait; what the load raises goes to them."""
        try:
            self._result = load()
        except ArvadosFuseError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001 - it is raised again in every waiting thread
            self._error = error
        finally:
            self._done.set()

    def wait_done(self, seconds: float) -> bool:
        """Whether it has ended, well or not, within so many seconds."""
        return self._done.wait(seconds)

    def wait(self, seconds: float, subject: str) -> T:
        """The result, or raises what the load raised; Unreachable when there is none after `seconds`."""
        if not self._done.wait(max(0.0, seconds)):
            waited = time.monotonic() - self.begun
            raise Unreachable(f"{subject} did not load within {waited:.0f} s", subject=subject)
        if self._error is not None:
            raise self._error.with_traceback(None)
        return self._result  # type: ignore[return-value]
