"""What the server has in a collection by its last answer, path by path.

Used by `Working`, under its lock.
"""

from collections.abc import Mapping

from arvados_fuse.collection import Collection
from arvados_fuse.collection.manifest.changes import Finder
from arvados_fuse.writeback import State
from arvados_fuse.writeback.partial import state_at
from arvados_fuse.writeback.states import same


class Heard:
    """See the module. The collection's `baseline` is the last answer."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._finder: tuple[object, Finder] | None = None

    def at(self, path: str) -> State:
        """What it has at a path. See `State`: a directory counts only while it is empty."""
        baseline = self._collection.baseline
        if self._finder is None or self._finder[0] is not baseline:
            self._finder = (baseline, Finder(baseline))
        return state_at(self._finder[1], path) if path else None

    def has(self, states: Mapping[str, State]) -> bool:
        """Whether it has all of these."""
        return all(same(self.at(path), state) for path, state in states.items())

    def overtaken(self, saved: Mapping[str, State]) -> dict[str, State]:
        """What was saved of the paths where it has another file, or a file no more."""
        there = {path: self.at(path) for path in saved}
        return {
            path: state
            for path, state in saved.items()
            if isinstance(state, tuple) | isinstance(there[path], tuple) and not same(there[path], state)
        }

    def forget(self) -> None:
        """There is a new answer: its signatures may be others though nothing else is."""
        self._finder = None
