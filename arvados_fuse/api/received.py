"""Which events came already, and from where to ask again.

Used by the event listener alone, in its own thread. Pure.
Events can come out of order: the database gives out ids before it commits (a slow request's event comes after
events with higher ids), and a server tells of new events while it still replays old ones.
"""

from collections import deque

SETTLING = 10.0
"""Seconds: an event with a lower id than another comes at most so much later."""


class Received:
    """Ids of events. `resume`: every event up to this id came; None when nothing is known."""

    def __init__(self, settling: float = SETTLING) -> None:
        self.resume: int | None = None
        self._settling = settling
        self._recent: deque[tuple[float, int]] = deque()
        self._ids: set[int] = set()

    def start(self, log_id: int | None) -> None:
        """Everything up to this id counts as come; None: nothing is known."""
        self.resume = log_id
        self._recent.clear()
        self._ids.clear()

    def take(self, log_id: int, now: float) -> bool:
        """Note an event that comes `now` (time.monotonic()); False if it came before."""
        if log_id in self._ids:
            return False
        self._ids.add(log_id)
        self._recent.append((now, log_id))
        return True

    def settle(self, now: float) -> None:
        """Nothing is missing of what was sent until `now`: what came long enough before need not be asked
        for again.

        Not to be called while a replay is under way.
        """
        while self._recent and self._recent[0][0] <= now - self._settling:
            _, log_id = self._recent.popleft()
            self._ids.discard(log_id)
            self.resume = max(self.resume or 0, log_id)
