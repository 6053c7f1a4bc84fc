"""The last things that went wrong, for `--status`: a short list in memory, without secrets.

Filled by `fuse/operations.py` (requests of the kernel that failed) and from the log (what failed beside).
Threads: every method may be called from any thread.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

KEPT = 50
LONGEST = 500
"""Characters of a message that are kept."""
NOTED = "noted"
"""Attribute of a log record that says that its trouble is in the list already."""


@dataclass(frozen=True)
class Trouble:
    """One failure. at: time.time(), of the last time. times: how often in a row. Unknown is ""."""

    at: float
    operation: str
    message: str
    path: str = ""
    subject: str = ""
    server: str = ""
    request_id: str = ""
    times: int = 1

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Troubles:
    """The last `KEPT` troubles."""

    def __init__(self) -> None:
        self._token: Callable[[], str] = str
        self._lock = threading.Lock()
        self._latest: deque[Trouble] = deque(maxlen=KEPT)
        self._count = 0

    @property
    def count(self) -> int:
        """How many there were in all."""
        return self._count

    def hide(self, token: Callable[[], str]) -> None:
        """Blank out what `token()` gives, and its secret part, where somebody has put it into a message."""
        self._token = token

    def note(self, trouble: Trouble) -> None:
        """Remember it; the same as the one before is counted there."""
        trouble = replace(trouble, message=self._clean(trouble.message))
        with self._lock:
            self._count += 1
            last = self._latest[-1] if self._latest else None
            if (
                last is not None
                and replace(last, at=trouble.at, request_id=trouble.request_id, times=1) == trouble
            ):
                self._latest[-1] = replace(trouble, times=last.times + 1)
            else:
                self._latest.append(trouble)

    def latest(self) -> list[Trouble]:
        """The oldest first."""
        with self._lock:
            return list(self._latest)

    def _clean(self, message: str) -> str:
        token = self._token()
        # A token of the form `v2/uuid/secret` has a part that works alone as well.
        for secret in (token, token.rpartition("/")[2]):
            if secret:
                message = message.replace(secret, "[token]")
        return message if len(message) <= LONGEST else f"{message[:LONGEST]} ..."


class TroubleHandler(logging.Handler):
    """Takes warnings and errors from the log, except those that are noted already."""

    def __init__(self, troubles: Troubles) -> None:
        super().__init__(logging.WARNING)
        self._troubles = troubles

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        if getattr(record, NOTED, False):
            return
        try:
            message = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                message = f"{message}: {record.exc_info[1]!r}"
            self._troubles.note(Trouble(time.time(), record.name, message))
        except Exception:  # noqa: BLE001 - the outer edge: logging must never harm who logs
            self.handleError(record)
