"""Named integer counters that any floor may add to and the reporters read.

Used by `keep`, `api`, `tree` and `fuse`; read by crunchstat, the status file and the metrics endpoint.
Threads: every method may be called from any thread.
"""

import threading


class Counters:
    """A set of named integers; a name exists from the first `add` on and starts at 0."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, int] = {}

    def add(self, name: str, n: int = 1) -> None:
        """Add `n` (which may be negative, for a gauge) to the counter `name`."""
        with self._lock:
            self._values[name] = self._values.get(name, 0) + n

    def get(self, name: str) -> int:
        """The value of one counter; 0 for a name never added to."""
        return self._values.get(name, 0)

    def snapshot(self) -> dict[str, int]:
        """All values at one moment."""
        with self._lock:
            return dict(self._values)
