"""Writes changes of one collection into the journal, and remembers those that it had no room for.

Used by `Working`, under its lock. What programs see here must not go back to what it was when the mount
dies or the collection is taken from the server again: so what could not be written down, because the disk was
full, is written down with whatever comes next, in the same transaction.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from arvados_fuse.errors import ArvadosFuseError
from arvados_fuse.writeback import PathChange

AGAIN = 1.0
"""Seconds between two attempts that nobody waits for."""


class Recorder:
    """See the module. write: puts changes into the journal, all or none; raises NoSpaceError, SaveFailed."""

    def __init__(self, write: Callable[[Sequence[PathChange]], None]) -> None:
        self._write = write
        self._waiting: dict[str, PathChange] = {}
        self._tried_at = float("-inf")

    def record(self, changes: Sequence[PathChange]) -> None:
        """Write down changes, and what waits. Raises what `write` raises; then they wait."""
        if not changes and not self._waiting:
            return
        self._tried_at = time.monotonic()
        try:
            self._write([*self._waiting.values(), *changes])
        except ArvadosFuseError:
            for change in changes:
                earlier = self._waiting.get(change.path, change)
                self._waiting[change.path] = change._replace(before=earlier.before)
            raise
        self._waiting = {}

    def try_again(self) -> None:
        """Write down what waits, now and then; raises nothing."""
        if time.monotonic() - self._tried_at > AGAIN:
            with suppress(ArvadosFuseError):
                self.record(())

    def waits(self, path: str) -> bool:
        """Whether a change of this path is in no journal."""
        return path in self._waiting

    def is_behind(self) -> bool:
        """Whether some change is in no journal."""
        return bool(self._waiting)
