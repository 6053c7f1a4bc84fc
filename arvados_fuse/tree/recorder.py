"""Writes changes of collections into the journal, and remembers those that it had no room for.

One for a mount, used by each `Working`. What programs see here must not go back to what it was when the mount
dies or a collection is taken from the server again: so what could not be written down, because the disk was
full, is written down with whatever comes next to the same collection, in the same transaction. So is
everything else that waits: it may be the other end of a move between two collections.

Threads: any. The lock is held across the journal's transaction; it comes after that of a `Working`.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from arvados_fuse.errors import ArvadosFuseError
from arvados_fuse.writeback import PathChange

AGAIN = 1.0
"""Seconds between two attempts that nobody waits for."""


class Recorder:
    """See the module. write: puts changes, by the keys of collections, into the journal, all or none; raises
    NoSpaceError, SaveFailed."""

    def __init__(self, write: Callable[[Mapping[str, Sequence[PathChange]]], None]) -> None:
        self._write = write
        self._lock = threading.Lock()
        self._waiting: dict[str, dict[str, PathChange]] = {}
        self._tried_at = float("-inf")

    def record(self, changes: Mapping[str, Sequence[PathChange]]) -> None:
        """Write down changes, and what waits if any of that is of the same collections. Raises what `write`
        raises; then they wait."""
        with self._lock:
            late = self._waiting if not self._waiting.keys().isdisjoint(changes) else {}
            keys = late.keys() | changes.keys()
            together = {key: [*late.get(key, {}).values(), *changes.get(key, ())] for key in keys}
            self._tried_at = time.monotonic()
            try:
                self._write(together)
            except ArvadosFuseError:
                self._keep(changes)
                raise
            if late:
                self._waiting = {}

    def _keep(self, changes: Mapping[str, Sequence[PathChange]]) -> None:
        for key, here in changes.items():
            for change in here:
                waiting = self._waiting.setdefault(key, {})
                earlier = waiting.get(change.path, change)
                waiting[change.path] = change._replace(before=earlier.before)

    def try_again(self, key: str) -> None:
        """Write down what waits of a collection, now and then; raises nothing."""
        if self.is_behind(key) and time.monotonic() - self._tried_at > AGAIN:
            with suppress(ArvadosFuseError):
                self.record({key: ()})

    def waits(self, key: str, path: str) -> bool:
        """Whether a change of this path is in no journal."""
        return path in self._waiting.get(key, ())

    def is_behind(self, key: str) -> bool:
        """Whether some change of this collection is in no journal."""
        return key in self._waiting
