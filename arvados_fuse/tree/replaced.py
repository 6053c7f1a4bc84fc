"""From blocks that proved wrong after programs had read from them, to what the kernel should forget.

Made by `cli/build.py` with the queue on which the block cache puts `BlockReplaced` and that of
`Invalidation`s. One thread; it never waits for a server.
"""

import logging
import queue
import threading
import time

from arvados_fuse.keep import BlockReplaced
from arvados_fuse.tree.attributes import Invalidation
from arvados_fuse.tree.collection_nodes import CollectionFile
from arvados_fuse.tree.inodes import Inodes

logger = logging.getLogger("arvados.arvados_fuse")

AGAIN_AFTER = 0.3
"""Seconds after which the kernel is told once more: answers that were on their way to it when it was told
first have come by then."""


class Replacer:
    """Reads `news`, writes `invalidations`. Constructing does nothing."""

    def __init__(
        self,
        inodes: Inodes,
        news: "queue.SimpleQueue[BlockReplaced]",
        invalidations: "queue.SimpleQueue[Invalidation]",
    ) -> None:
        self._inodes = inodes
        self._news = news
        self._invalidations = invalidations
        self._again: list[tuple[float, str]] = []
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="replaced", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Safe to call twice."""
        self._stopping.set()
        self._news.put(BlockReplaced(""))  # wakes it
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._step()
            except Exception:
                logger.exception("The kernel could not be told of a block that was replaced")

    def _step(self) -> None:
        """Wait for the next block, or for the time to tell of one again."""
        wait = max(0.0, self._again[0][0] - time.monotonic()) if self._again else None
        try:
            md5 = self._news.get(timeout=wait).md5
        except queue.Empty:
            self._tell(self._again.pop(0)[1])
            return
        if md5:
            self._tell(md5)
            self._again.append((time.monotonic() + AGAIN_AFTER, md5))

    def _tell(self, md5: str) -> None:
        for node in self._inodes.all():
            if isinstance(node, CollectionFile) and node.was_read_from(md5):
                self._invalidations.put(Invalidation(node.ino))
