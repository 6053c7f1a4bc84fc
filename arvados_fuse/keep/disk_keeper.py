"""The thread beside `DiskStore`: scans the directory, keeps the size, lets go of files that nobody reads.

Used by `keep.disk_store` only. Threads: runs its own; calls the store as any other thread may.
"""

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger("arvados.keep")

PASS_SECONDS = 60.0
"""Other processes write to the directory too: it is scanned again after so long."""


class DiskKeeper:
    """Calls `work` once at start, then every PASS_SECONDS and when woken, until closed."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="keep-cache", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Work soon."""
        self._wake.set()

    def close(self) -> None:
        """End the thread; a pass under way is finished first."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._closing:
            try:
                self._work()
            except Exception:
                logger.exception("unexpected failure while looking after the block cache")
            self._wake.wait(PASS_SECONDS)
            self._wake.clear()
