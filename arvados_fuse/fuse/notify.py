"""News for the kernel: names and pages that it should forget.

The floors below put `Invalidation`s here from any thread and never wait. One thread of its own passes them
on, because the kernel may hold a notification up until a program has finished what it does there.
"""

import logging
import queue
import threading
from typing import NamedTuple

import llfuse

logger = logging.getLogger("arvados.arvados_fuse")


class Invalidation(NamedTuple):
    """inode: of the object, or with `name` of the directory whose entry `name` (bytes) is meant.

    attributes_only: forget size and times but keep the cached pages.
    """

    inode: int
    name: bytes = b""
    attributes_only: bool = False


class Notifier:
    """An unbounded queue and the thread that empties it; `start` after the fork, `stop` at the end."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Invalidation | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, invalidation: Invalidation) -> None:
        """Pass on later; never waits."""
        self._queue.put(invalidation)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="notify", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; it is not waited for, as the kernel may hold it until the unmount."""
        self._queue.put(None)

    def _run(self) -> None:
        while (invalidation := self._queue.get()) is not None:
            try:
                if invalidation.name:
                    llfuse.invalidate_entry(invalidation.inode, invalidation.name)
                else:
                    llfuse.invalidate_inode(invalidation.inode, attr_only=invalidation.attributes_only)
            except OSError as error:  # the kernel did not know it: nothing to forget
                logger.debug("invalidation %s: %s", invalidation, error)
