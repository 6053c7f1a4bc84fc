"""The token in use, and where a new one comes from when the server does not take it any more.

Used by the API client and its transport; the block cache and the event listener get the token from the
client. A token from `settings.conf` may be replaced there at any time: after a refusal (401) the file is read
again, and all go on with what it says then. Any thread may call.
"""

import logging
import threading
import time
from collections.abc import Callable

from arvados_fuse.api.settings import ApiSettings
from arvados_fuse.errors import SetupError

logger = logging.getLogger("arvados.api")

PAUSE = 2.0
"""Seconds between two looks at the settings: a mount whose token has ended is refused all the time."""


class Credentials:
    """Begins with the token of `settings`. Constructing reads nothing."""

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._looked_at = float("-inf")
        self._told = False
        self.token = settings.token
        self.tell: Callable[[str], None] | None = None
        """Gets each new token before it is used (to keep it out of logs)."""

    def renew(self, refused: str) -> bool:
        """The server refused this token: whether there is another one now.

        Looks at the settings, a small local file, with a short lock held; not more often than once in PAUSE.
        """
        with self._lock:
            if self.token != refused:
                return True
            now = time.monotonic()
            if now - self._looked_at < PAUSE:
                return False
            self._looked_at = now
            self._look()
            return self.token != refused

    def _look(self) -> None:
        try:
            found = self._settings.again()
        except SetupError as error:  # being rewritten just now, perhaps
            logger.debug("The settings can't be used: %s", error)
            return
        if found.host == self._settings.host and found.token != self.token:
            if self.tell is not None:
                self.tell(found.token)
            self.token = found.token
            self._told = False
            logger.warning("The API server refused the token; going on with the new one in the settings")
        elif not self._told:
            self._told = True
            where = "a new one there will be taken" if found.is_renewable else "mount again"
            logger.warning("The API server refuses the token, and the settings have no other: %s", where)
