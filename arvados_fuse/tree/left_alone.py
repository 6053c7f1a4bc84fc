"""Paths that were left as they are here when others changed them: what ours came from, and theirs later.

Used by `Working`, under its lock. What is unsaved or open is not touched when the server tells of others'
changes. But from then on the server's last answer is not what ours came from: a save that compared with that
would undo theirs without a trace. So the older state is kept until a save of the path is answered; and if
nothing of ours comes of it, theirs is taken.
"""

from collections.abc import Callable, Iterable

from arvados_fuse.collection import Directory
from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.merge import merge_into
from arvados_fuse.writeback import State
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

    def saved(self, paths: Iterable[str]) -> None:
        """A save of ours was answered: from now on ours comes from that."""
        for path in paths:
            self._before.pop(path, None)

    def take(self, root: Directory, is_ours: Callable[[str], bool]) -> list[str]:
        """Let there be theirs where ours is gone without having been saved; gives the paths that changed.

        Raises ManifestError when their lines are not legal.
        """
        free = {path: state for path, state in self._before.items() if not is_ours(path)}
        if not free:
            return []
        theirs = {path: self._heard(path) for path in free}
        old, new = ManifestIndex(manifest_of(free)), ManifestIndex(manifest_of(theirs))
        changed = merge_into(root, old, new, ours=lambda _path: False).changed
        for path in free:
            if path in changed or same(free[path], theirs[path]):
                del self._before[path]
        return changed
