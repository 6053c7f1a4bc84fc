"""Who is asking: the API token of a request, and whether it is (still) good.

Used by the API, the Keep services and the event connections. `TokenCheck` may be used by any thread.
"""

import threading
import time
from collections.abc import Callable, Mapping

REMEMBER_SECONDS = 5.0
"""How long a good token is taken to stay good without asking again; blocks come in by the hundred a second.
"""


def token_of(headers: Mapping[str, str]) -> str:
    """Return the token in an `Authorization` header (`Bearer` or the older `OAuth2`), or ""."""
    scheme, _, token = headers.get("Authorization", "").strip().partition(" ")
    return token.strip() if scheme.lower() in ("bearer", "oauth2") else ""


class TokenCheck:
    """Asks `is_valid` (which may block on the database) and remembers a yes for a few seconds."""

    def __init__(self, is_valid: Callable[[str], bool], *, remember: float = REMEMBER_SECONDS) -> None:
        self._is_valid = is_valid
        self._remember = remember
        self._lock = threading.Lock()
        self._good_until: dict[str, float] = {}

    def known_good(self, token: str) -> bool:
        """Return whether the token was found good a moment ago; never blocks."""
        with self._lock:
            return self._good_until.get(token, 0.0) > time.monotonic()

    def check(self, token: str) -> bool:
        """Return whether the token is good; may ask the database."""
        if self.known_good(token):
            return True
        if not token or not self._is_valid(token):
            return False
        now = time.monotonic()
        with self._lock:
            self._good_until = {each: until for each, until in self._good_until.items() if until > now}
            self._good_until[token] = now + self._remember
        return True
