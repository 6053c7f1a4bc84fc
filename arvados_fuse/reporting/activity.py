"""What the kernel asks of the mount: how often, how long it takes, how many bytes, and what is under way.

Filled by the one decorator of `fuse/operations.py`, in microseconds; read by crunchstat, `--status`, `--top`,
the metrics and the watchdog.

Threads: `current`, `tallies` and `moved` are written with llfuse's global lock held, which is all the locking
that plain additions need. Readers take no lock: they may see one operation counted and its time not yet.
"""

import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

RECENT_FILES = 200
"""Closed files of which the bytes are remembered."""

now = time.perf_counter


class Tally:
    """What one kind of operation came to. seconds: in all."""

    __slots__ = ("count", "failures", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self.failures = 0


class Request(NamedTuple):
    """A request of the kernel that is being answered. begun: time.perf_counter(). arguments: as llfuse gave
    them."""

    operation: str
    begun: float
    arguments: tuple[Any, ...]


class FileTraffic(NamedTuple):
    """Bytes that programs read and wrote, by the file's path on the mount."""

    path: str
    read: int
    written: int


class Window:
    """The longest operation of each kind since the last look."""

    def __init__(self) -> None:
        self._longest: dict[str, float] = {}

    def note(self, operation: str, elapsed: float) -> None:
        """An operation took so many seconds."""
        if elapsed > self._longest.get(operation, 0.0):
            self._longest[operation] = elapsed

    def look(self) -> Mapping[str, float]:
        """Seconds by operation; begins anew."""
        longest, self._longest = self._longest, {}
        return longest


class Activity:
    """All operations of one mount."""

    def __init__(self) -> None:
        self.tallies: dict[str, Tally] = defaultdict(Tally)
        self.current: dict[int, tuple[str, float, tuple[Any, ...]]] = {}
        """The fields of a `Request` for each thread (threading.get_ident()) that answers one."""
        self.windows: tuple[Window, ...] = ()
        """Who watches closely just now; changed by `watch` alone."""
        self._gone = (0, 0)
        self._handles: dict[int, list[int]] = {}
        self._lock = threading.Lock()
        self._closed: OrderedDict[str, list[int]] = OrderedDict()

    def note(self, operation: str, elapsed: float) -> None:
        """For the windows: an operation took so many seconds."""
        for window in self.windows:
            window.note(operation, elapsed)

    def failed(self, operation: str) -> None:
        """A request could not be answered well."""
        self.tallies[operation].failures += 1

    def moved(self, operation: str, arguments: tuple[Any, ...], size: int) -> None:
        """A `read` or `write` moved so many bytes; its first argument is the file handle."""
        handle = arguments[0]
        try:
            counts = self._handles[handle]
        except KeyError:
            counts = self._handles[handle] = [0, 0]
        counts[operation != "read"] += size

    def bytes_moved(self) -> tuple[int, int]:
        """Bytes that programs have read, and written."""
        with self._lock:
            read, written = self._gone
            for counts in self._handles.copy().values():
                read += counts[0]
                written += counts[1]
        return read, written

    # Files

    def has_moved(self, handle: int) -> bool:
        """Whether bytes went through this handle."""
        return handle in self._handles

    def closed(self, handle: int, path: str) -> None:
        """The handle is being released; what went through it is kept under the file's path."""
        with self._lock:
            counts = self._handles.pop(handle, None)
            if counts is None:
                return
            self._gone = self._gone[0] + counts[0], self._gone[1] + counts[1]
            total = self._closed.setdefault(path, [0, 0])
            total[0] += counts[0]
            total[1] += counts[1]
            self._closed.move_to_end(path)
            if len(self._closed) > RECENT_FILES:
                self._closed.popitem(last=False)

    def handles(self) -> dict[int, tuple[int, int]]:
        """Bytes read and written through each open handle through which any went."""
        return {handle: (counts[0], counts[1]) for handle, counts in self._handles.copy().items()}

    def closed_files(self) -> list[FileTraffic]:
        """The files closed last."""
        with self._lock:
            return [FileTraffic(path, counts[0], counts[1]) for path, counts in self._closed.items()]

    # Watching

    @contextmanager
    def watch(self) -> Iterator[Window]:
        """A window to look through, as long as the context lasts."""
        window = Window()
        with self._lock:
            self.windows = (*self.windows, window)
        try:
            yield window
        finally:
            with self._lock:
                self.windows = tuple(other for other in self.windows if other is not window)

    def pending(self) -> list[tuple[int, Request]]:
        """What is under way: threads and their requests."""
        return [(thread, Request(*fields)) for thread, fields in self.current.copy().items()]
