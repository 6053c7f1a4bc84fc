"""`--crunchstat-interval`: statistics on standard error, for the tools that make reports of container runs.

The form is that of arv-mount 3.2.1, line by line: `crunchstat: PREFIX VALUE NAME ... -- interval SECONDS
seconds DELTA NAME ...`. Started by the door when asked for; one thread.
"""

import logging
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from arvados_fuse.reporting.activity import Activity
from arvados_fuse.reporting.counters import Counters

logger = logging.getLogger("arvados.arv-mount")

OPERATIONS = (
    *("read", "write", "destroy", "on_event", "getattr", "setattr", "lookup", "forget", "open", "release"),
    *("opendir", "readdir", "statfs", "create", "mkdir", "unlink", "rmdir", "rename", "flush"),
)
"""In the order of 3.2.1. `on_event`: news of the cluster that were taken in."""

STOP_WITHIN = 1.0
"""Seconds."""

Values = Sequence[tuple[float | int, str]]


def sample(activity: Activity, counters: Mapping[str, int]) -> list[tuple[str, Values]]:
    """All values now, under their prefixes, in order."""
    read, written = activity.bytes_moved()
    count = counters.get
    tallies = activity.tallies.copy()
    operations = {name: (tally.count, tally.seconds) for name, tally in tallies.items()}
    operations["on_event"] = count("events", 0), count("events.ns", 0) / 1e9

    def times(name: str) -> int:
        return operations[name][0] if name in operations else 0

    hits, misses = count("cache.hit", 0), count("cache.miss", 0)
    lines: list[tuple[str, Values]] = [
        ("keepcalls", [(count("keep.put", 0), "put"), (hits + misses, "get")]),
        ("net:keep0", [(count("net.sent_bytes", 0), "tx"), (count("net.received_bytes", 0), "rx")]),
        ("keepcache", [(hits, "hit"), (misses, "miss")]),
        ("blkio:0:0", [(written, "write"), (read, "read")]),
        ("fuseops", [(times("write"), "write"), (times("read"), "read")]),
    ]
    for name in OPERATIONS:
        number, seconds = operations.get(name, (0, 0.0))
        lines.append((f"fuseop:{name}", [(number, "count"), (float(seconds), "time")]))
    return lines


def report(
    before: Sequence[tuple[str, Values]], after: Sequence[tuple[str, Values]], elapsed: float
) -> list[str]:
    """The lines for the `elapsed` seconds between two samples."""
    lines = []
    for (prefix, old), (_, new) in zip(before, after, strict=True):
        totals = " ".join(f"{_number(value)} {name}" for value, name in new)
        deltas = " ".join(
            f"{_number(value - earlier)} {name}" for (earlier, _), (value, name) in zip(old, new, strict=True)
        )
        lines.append(f"crunchstat: {prefix} {totals} -- interval {elapsed:.4f} seconds {deltas}")
    return lines


def _number(value: float | int) -> str:
    return f"{value:.6f}" if isinstance(value, float) else str(value)


class Crunchstat:
    """Writes a report every `interval` seconds, the first after one interval. Constructing does nothing."""

    def __init__(
        self, activity: Activity, counters: Counters, interval: float, output: TextIO | None = None
    ) -> None:
        self._activity = activity
        self._counters = counters
        self._interval = interval
        self._output = output
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="crunchstat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; safe to call twice. Waits little: standard error may be full and read by nobody."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_WITHIN)

    def _run(self) -> None:
        try:
            self._report()
        except Exception:
            logger.exception("Statistics failed unexpectedly")

    def _report(self) -> None:
        begun = last = time.monotonic()
        before, number = self._sample(), 0
        while True:
            number += 1
            if self._stopping.wait(max(0.0, begun + number * self._interval - time.monotonic())):
                return
            moment, after = time.monotonic(), self._sample()
            self._write(report(before, after, moment - last))
            before, last = after, moment

    def _sample(self) -> Any:
        return sample(self._activity, self._counters.snapshot())

    def _write(self, lines: Sequence[str]) -> None:
        output = self._output or sys.stderr
        try:
            output.write("".join(f"{line}\n" for line in lines))
            output.flush()
        except (OSError, ValueError) as error:
            logger.debug("Statistics could not be written: %s", error)
