"""Named integer counters that any floor may add to and the reporters read.

Used by `keep`, `api`, `tree` and `fuse`; read by crunchstat, the status file and the metrics endpoint.
Threads: every method may be called from any thread.
"""

import itertools
import threading
from collections.abc import Callable


class Counters:
    """A set of named integers; a name exists from the first `add` on and starts at 0."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, int] = {}
        self._ticks: dict[str, _Ticks] = {}

    def add(self, name: str, n: int = 1) -> None:
        """Add `n` (which may be negative, for a gauge) to the counter `name`."""
        with self._lock:
            self._values[name] = self._values.get(name, 0) + n

    def ticker(self, name: str) -> Callable[[], object]:
        """What adds one to the counter `name` at each call, without a lock: for what is counted with every
        request."""
        with self._lock:
            return self._ticks.setdefault(name, _Ticks()).tick

    def get(self, name: str) -> int:
        """The value of one counter; 0 for a name never added to."""
        ticks = self._ticks.get(name)
        if ticks is None:
            return self._values.get(name, 0)
        with self._lock:
            return self._values.get(name, 0) + ticks.value()

    def snapshot(self) -> dict[str, int]:
        """All values at one moment."""
        with self._lock:
            found = dict(self._values)
            for name, ticks in self._ticks.items():
                if value := found.get(name, 0) + ticks.value():
                    found[name] = value
            return found


class _Ticks:
    """Counts calls: `next` of an iterator is one step for Python, whichever threads call. Its only way to
    tell how far it is counts as well, and is taken off again; the caller of `value` holds a lock."""

    def __init__(self) -> None:
        self._count = itertools.count()
        self.tick = self._count.__next__
        self._looks = 0

    def value(self) -> int:
        found = next(self._count) - self._looks
        self._looks += 1
        return found
