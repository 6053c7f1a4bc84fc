"""Requests of the kernel that take too long: each is logged once, with what every thread does.

Started by `cli/inside.py`. Its thread wakes a few times a minute and looks at a handful of entries.
"""

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable

from arvados_fuse.reporting.activity import Activity, Request, now
from arvados_fuse.reporting.troubles import NOTED, Trouble, Troubles

logger = logging.getLogger("arvados.arvados_fuse")

LOOKS = 8
"""How often to look in the time after which a request is slow."""
LONGEST_PAUSE = 10.0
"""Seconds between two looks, at most."""

STOP_WITHIN = 1.0
"""Seconds."""


class Watchdog:
    """Looks for requests that are under way for `limit` seconds. Constructing does nothing.

    describe: what a request is about, in words; may not wait.
    """

    def __init__(
        self, activity: Activity, troubles: Troubles, describe: Callable[[Request], str], limit: float
    ) -> None:
        self._activity = activity
        self._troubles = troubles
        self._describe = describe
        self._limit = limit
        self._told: set[tuple[int, float]] = set()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; safe to call twice. Waits little: the log may go where nobody reads."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_WITHIN)

    def _run(self) -> None:
        while not self._stopping.wait(min(self._limit / LOOKS, LONGEST_PAUSE)):
            try:
                self.look()
            except Exception:
                logger.exception("Looking for slow requests failed unexpectedly")

    def look(self) -> None:
        """Log what has become slow since the last look. (The thread calls this.)"""
        moment = now()
        slow = {
            (thread, request.begun): request
            for thread, request in self._activity.pending()
            if moment - request.begun >= self._limit
        }
        fresh = {key: request for key, request in slow.items() if key not in self._told}
        self._told = set(slow)
        if not fresh:
            return
        for (thread, begun), request in fresh.items():
            text = f"{request.operation} {self._describe(request)}".strip()
            said = f"under way for {moment - begun:.0f} s"
            self._troubles.note(Trouble(time.time(), "slow", f"{text}: {said}"))
            logger.warning("%s is %s, in thread %d", text, said, thread, extra={NOTED: True})
        logger.warning("What every thread does:\n%s", stacks(), extra={NOTED: True})


def stacks() -> str:
    """Where every thread of this process is now."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for thread, frame in sys._current_frames().items():
        lines = "".join(traceback.format_stack(frame))
        parts.append(f"Thread {thread} ({names.get(thread, 'kernel request')}):\n{lines}")
    return "".join(parts)
