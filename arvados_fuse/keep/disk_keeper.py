"""The thread beside `DiskStore`: scans the directory, keeps the size, lets go of files that nobody reads. And
what the store says when the disk fails.

Used by `keep.disk_store` only. Threads: runs its own; calls the store as any other thread may.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger("arvados.keep")

PASS_SECONDS = 60.0
"""Other processes write to the directory too: it is scanned again after so long."""


WARN_SECONDS = 60.0
"""The same trouble with the disk is told once in this time."""


class Trouble:
    """Trouble with the disk, told once a minute."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._text = ""
        self._when = 0.0

    def lately(self) -> bool:
        """Whether there was some."""
        return bool(self._text) and time.monotonic() - self._when < WARN_SECONDS

    def tell(self, error: OSError) -> None:
        """There is now."""
        text = (
            f"the block cache in {self._directory} can't be written ({error.strerror}): using memory instead"
        )
        now = time.monotonic()
        with self._lock:
            quiet = self._text == text and now - self._when < WARN_SECONDS
            if not quiet:
                self._text, self._when = text, now
        if not quiet:
            logger.warning("%s", text)


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
