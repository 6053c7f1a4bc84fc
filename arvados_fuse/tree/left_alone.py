"""Paths that were left as they are here when others changed them: what ours came from, and theirs later.

Used by `Working`, under its lock. What is unsaved or open is not touched when the server tells of others'
changes. But from then on the server's last answer is not what ours came from: a save that compared with that
would undo theirs without a trace. So the older state is kept until a save of the path is answered; and if
nothing of ours comes of it, theirs is taken.
"""

from collections.abc import Callable, Iterable, Mapping

from arvados_fuse.collection import Directory
from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.merge import merge_into
from arvados_fuse.writeback import DIRECTORY, State
from arvados_fuse.writeback.partial import manifest_of
from arvados_fuse.writeback.states import same


class LeftAlone:
    """See the module. heard: what the server has at a path, by its last answer."""

    def __init__(self, heard: Callable[[str], State]) -> None:
        self._heard = heard
        self._before: dict[str, State] = {}

    def note(self, path: str) -> None:
        """A path is left alone; the answer that changes it is yet to become the last one."""
        self._before.setdefault(path, self._heard(path))

    def before(self, path: str) -> State:
        """What ours came from at a path."""
        return self._before[path] if path in self._before else self._heard(path)

    def saved(self, paths: Iterable[str], later: Mapping[str, State]) -> None:
        """A save of ours was answered: from now on ours comes from that.

        later: what was saved of those paths where the answer has something that came after it.
        """
        for path in paths:
            self._before.pop(path, None)
        self._before.update(later)

    def take(self, root: Directory, is_ours: Callable[[str], bool]) -> list[str]:
        """Let there be theirs where ours is gone without having been saved; gives the paths that changed.

        Raises ManifestError when their lines are not legal.
        """
        free = {path: self._heard(path) for path in self._before if not is_ours(path)}
        changed: list[str] = []
        # One by one, for they are of different moments: of one there may have been a file, of another one a
        # file below it. What goes makes place for what comes.
        for path in sorted(free, key=lambda path: free[path] is not None):
            before, theirs = self._before[path], free[path]
            if same(before, theirs):
                del self._before[path]
                continue
            old, new = {path: before}, {path: theirs}
            if theirs is None:
                new |= self._left_empty(path)
            indexes = (ManifestIndex(manifest_of(states)) for states in (old, new))
            here = merge_into(root, *indexes, ours=lambda _path: False).changed
            if path in here:
                del self._before[path]
            changed += here
        return changed

    def _left_empty(self, path: str) -> dict[str, State]:
        """The directory above a path, if it is there and empty once nothing is at the path."""
        above = path.rpartition("/")[0]
        while above:
            if self._heard(above) is DIRECTORY:
                return {above: DIRECTORY}
            above = above.rpartition("/")[0]
        return {}
