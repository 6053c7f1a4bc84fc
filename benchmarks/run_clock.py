"""The clock of a program that uses a mount; see `benchmarks.load`."""

import json
import time
from typing import Any

from benchmarks.processes import cpu_seconds

Figures = dict[str, Any]


class Wrong(Exception):
    """The mount gave other bytes than were stored."""


class Run:
    """The clock, and how far it is: said every half second, for the case that the run is given up."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._next = time.monotonic() + 0.5
        self._cpu = cpu_seconds(pid)
        self.start = time.perf_counter()

    def at(self, count: int, **figures: float) -> None:
        """So many are done."""
        if time.monotonic() >= self._next:
            print(json.dumps({"progress": count, **figures}), flush=True)
            self._next = time.monotonic() + 0.5

    def done(self, count: int, **figures: Any) -> Figures:
        """Stop the clock; the figures."""
        seconds = time.perf_counter() - self.start
        return {"seconds": seconds, "cpu": cpu_seconds(self._pid) - self._cpu, "count": count, **figures}
