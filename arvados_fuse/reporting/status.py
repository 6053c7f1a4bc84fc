"""What a mount tells about itself, gathered from those who know it; and a running comparison of it.

`cli/inside.py` registers the sources; the control socket and the metrics read them. A source answers at once,
from memory. Threads: any may collect; `provide` belongs to the builder.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from threading import Event
from typing import Any

from arvados_fuse.reporting.activity import Activity, FileTraffic

logger = logging.getLogger("arvados.arv-mount")

BUSIEST = 10
"""Files of which the traffic is told."""
SHORTEST, LONGEST = 0.1, 60.0
"""Seconds between two samples for a watcher."""


class StatusBoard:
    """Named parts of a status, each from a source of its own."""

    def __init__(self) -> None:
        self._sources: dict[str, Callable[[], Any]] = {}

    def provide(self, name: str, source: Callable[[], Any]) -> None:
        """`source()` gives the part `name`: values that JSON knows, dataclasses, named tuples, mappings."""
        self._sources[name] = source

    def collect(self) -> dict[str, Any]:
        """All parts, as JSON knows them. A source that fails does not hide the others."""
        return {name: self._part(name, source) for name, source in self._sources.items()}

    def _part(self, name: str, source: Callable[[], Any]) -> Any:
        try:
            return plain(source())
        except Exception as error:
            logger.debug("The status has no %s", name, exc_info=error)
            return {"failed": f"{type(error).__name__}: {error}"}


def plain(value: Any) -> Any:
    """A value as JSON knows it."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return str(value)


def traffic(activity: Activity, path_of: Callable[[int], str]) -> dict[str, FileTraffic]:
    """Bytes by path, of open files and of those closed last. path_of: the path of a file handle."""
    found: dict[str, FileTraffic] = {file.path: file for file in activity.closed_files()}
    for handle, (read, written) in activity.handles().items():
        path = path_of(handle)
        before = found.get(path, FileTraffic(path, 0, 0))
        found[path] = FileTraffic(path, before.read + read, before.written + written)
    return found


def watch(
    board: StatusBoard,
    activity: Activity,
    path_of: Callable[[int], str],
    interval: float,
    stopping: Event,
) -> Iterator[dict[str, Any]]:
    """The status every `interval` seconds, the first at once, with what happened in between.

    Added are `at` (time.monotonic()), `longest` (seconds, by operation, since the sample before) and
    `busiest` (files with bytes read and written since then).
    """
    interval = min(max(interval, SHORTEST), LONGEST)
    before = traffic(activity, path_of)
    with activity.watch() as window:
        while True:
            files = traffic(activity, path_of)
            yield {
                **board.collect(),
                "at": time.monotonic(),
                "longest": dict(window.look()),
                "busiest": [file._asdict() for file in _busiest(before, files)],
            }
            before = files
            if stopping.wait(interval):
                return


def _busiest(before: Mapping[str, FileTraffic], after: Mapping[str, FileTraffic]) -> list[FileTraffic]:
    moved = []
    for path, file in after.items():
        old = before.get(path, FileTraffic(path, 0, 0))
        # A closed file may have been forgotten in between and have begun anew.
        read, written = file.read - old.read, file.written - old.written
        if read > 0 or written > 0:
            moved.append(FileTraffic(path, max(0, read), max(0, written)))
    return sorted(moved, key=lambda file: -(file.read + file.written))[:BUSIEST]
