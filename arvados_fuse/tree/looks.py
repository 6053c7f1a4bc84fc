"""What programs look at that others could take away from us, or give to us: noted, and asked for by another.

Kept by `Context`; `FileSystem` notes here, `RightsWatch` takes what was noted and asks the API server. Any
thread may note: that costs about a microsecond and never waits.
"""

import re
import threading
from typing import NamedTuple

from arvados_fuse.tree.nodes import DirectoryNode, Node

SHARED_NAME = re.compile(r"[0-9a-z]{5}-(?:4zz18|j7d0g)-[0-9a-z]{15}")
"""Uuids of what can be shared and is shown: collections and groups."""
MOST = 500
"""Objects noted at once: some 15 kB of one question. Those beyond are noted when next looked at."""
MOMENT = 0.1
"""Seconds for which the kernel remembers what it has to ask for, so that it is known whether programs still
look at it: one directory on the path to what others could take away, and names missing where they could give
some."""


class Noted(NamedTuple):
    """objects: uuids, and whether they could be seen when last looked at. both: those that could and could
    not. names: whether names were looked at that others decide on."""

    objects: dict[str, bool]
    both: set[str]
    names: bool


class Looks:
    """Notes only while `on`: while changes show within a second otherwise, too. Constructing does nothing."""

    def __init__(self) -> None:
        self.on = False
        self._woken = threading.Event()
        self._lock = threading.Lock()
        self._objects: dict[str, bool] = {}
        self._both: set[str] = set()
        self._names = False

    def at(self, node: Node) -> bool:
        """A program looks at this. Gives whether the kernel has to ask for it again in a moment, so that one
        knows whether programs still look: of a path which others could take away it is the first directory
        that comes out of what may be anybody's."""
        directory = node if isinstance(node, DirectoryNode) else node.parent
        uuid = "" if directory is None else vouching(directory)
        if not uuid:
            return False
        self._note(uuid, True)
        above = node.parent
        return directory is node and (above is None or above.gathers or above.parent is None)

    def at_missing(self, directory: DirectoryNode, name: str) -> bool:
        """A program looks for what is not there. Gives whether others could make it appear."""
        if not directory.gathers:
            self.at(directory)
            return False
        if directory.context.is_ours(directory.stands_for):
            return False
        if SHARED_NAME.fullmatch(name):
            self._note(name, False)
            return True
        return self._note_names(directory)

    def at_names(self, directory: DirectoryNode) -> None:
        """A program reads all names."""
        self.at(directory)
        self._note_names(directory)

    def wait(self) -> None:
        """Come back when something is noted, or after `wake`."""
        self._woken.wait()

    def wake(self) -> None:
        """End the waiting."""
        self._woken.set()

    def take(self) -> Noted:
        """What was noted since the last call."""
        with self._lock:
            self._woken.clear()
            noted = Noted(self._objects, self._both, self._names)
            self._objects, self._both, self._names = {}, set(), False
        return noted

    def _note(self, uuid: str, seen: bool) -> None:
        if self._objects.get(uuid) is seen:
            return
        with self._lock:
            if uuid in self._objects:
                self._both.add(uuid)
            elif len(self._objects) >= MOST:
                return
            self._objects[uuid] = seen
            self._woken.set()

    def _note_names(self, directory: DirectoryNode) -> bool:
        if not directory.grows or directory.context.is_ours(directory.stands_for):
            return False
        if not self._names:
            with self._lock:
                self._names = True
                self._woken.set()
        return True


def vouching(directory: DirectoryNode) -> str:
    """The uuid of the collection or group which can be seen exactly as long as `directory` can: what a
    project owns is as visible as the project. "" for what nobody can take away without an event."""
    here, above = directory, directory.parent
    while above is not None and not above.gathers:
        here, above = above, above.parent
    context, uuid = directory.context, here.stands_for
    if above is not None and context.is_ours(above.stands_for):
        return ""
    return uuid if SHARED_NAME.fullmatch(uuid) and not context.is_ours(uuid) else ""
