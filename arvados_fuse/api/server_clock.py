"""What time it is at the API server, whatever the clock of this machine says.

Signatures end and records are made by the server's clock. Ours may be wrong, or be set while we run. So the
`Date` of each answer (RFC 9110, 6.6.1) is noted, and time goes on from there by a clock that nobody sets.

Used by `ApiClient`. Threads: any.
"""

import email.utils
import time


class ServerClock:
    """Seconds since 1970 there, to within a second or two."""

    def __init__(self) -> None:
        self._at_start: float | None = None
        """What it was when this machine was started; None before the first answer."""

    def hear(self, date: str) -> None:
        """The header `Date` of an answer that came just now; one that can't be read says nothing."""
        fields = email.utils.parsedate_tz(date)
        try:
            moment = email.utils.mktime_tz(fields) if fields is not None else None
        except (OverflowError, ValueError):
            return
        if moment is not None:
            self._at_start = moment - uptime()

    def now(self) -> float:
        """Seconds since 1970; by the clock of this machine before the first answer."""
        at_start = self._at_start
        return time.time() if at_start is None else at_start + uptime()


def uptime() -> float:
    """Seconds since this machine was started, with those in which it slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
