"""What has to wait for what: moves between collections, and what a dead mount left that was overtaken.

Used by the committer and `commit`. What is moved to another collection is not taken away before that one has
it. As long as some collection on the server has a block, new signatures for it can be had there, whatever
token is in use by then, and nobody takes it for garbage. So a path that is about to lose blocks which unsaved
changes of another collection need stays there until those are saved.

Pure values and functions, but for `Leaving`, which has a lock: any thread may call it.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import TypeVar

from arvados_fuse.collection.manifest.names import conflict_name
from arvados_fuse.errors import ArvadosFuseError
from arvados_fuse.writeback.pending import Pending, Row
from arvados_fuse.writeback.states import State, blocks_of, same

T = TypeVar("T")


class MovedAway(ArvadosFuseError):
    """All is saved but paths whose data has not arrived in other collections yet.

    uuids: of those.
    """

    def __init__(self, uuid: str, uuids: Iterable[str]) -> None:
        self.uuids = frozenset(uuids)
        super().__init__(
            f"what was moved from here is removed once {', '.join(sorted(self.uuids))} has it", subject=uuid
        )


class Neighbours:
    """The unsaved changes beside those of a commit, looked at when they are first asked for.

    older: rooms of dead mounts, whose changes of the same collection were refused.
    """

    def __init__(
        self,
        rows: Callable[[], Iterable[tuple[str, Mapping[str, Row]]]],
        waiting: Set[str] = frozenset(),
        older: Sequence[Pending] = (),
    ) -> None:
        """rows: of the other collections. waiting: those that wait for this one, or for one that does."""
        self._rows = rows
        self._waiting = waiting
        self.older = older

    def exchange(self) -> tuple[dict[str, str], set[str]]:
        """Blocks that a collection is about to get, and which one; and those that one which waits for this
        one is about to lose."""
        needed: dict[str, str] = {}
        lost: set[str] = set()
        for uuid, rows in self._rows():
            for row in rows.values():
                needed |= dict.fromkeys(_gained(row), uuid)
                if uuid in self._waiting:
                    lost |= _lost(row)
        return needed, lost

    def having(self, blocks: Set[str]) -> list[str]:
        """Collections that have one of these blocks and are about to lose it."""
        return sorted(
            {
                uuid
                for uuid, rows in self._rows()
                if any(not blocks.isdisjoint(blocks_of(row.before)) for row in rows.values())
            }
        )


class Leaving:
    """The blocks that collections lose by commits under way.

    A program can move a file back while the collection that it left is being told to give it up. Then the
    other one, which is about to give it up as well, would count on a collection that loses it just now.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._blocks: dict[str, set[str]] = {}

    def begin(self, uuid: str, decide: Callable[[], tuple[T, set[str]]]) -> T:
        """What `decide` gives for a commit of this collection; its second answer are blocks that the
        collection loses. Nobody else decides meanwhile, and it is decided anew when commits have ended that
        lose one of the same. `end` must follow."""
        with self._condition:
            while True:
                decided, blocks = decide()
                if all(blocks.isdisjoint(others) for others in self._blocks.values()):
                    self._blocks[uuid] = blocks
                    return decided
                self._condition.wait()

    def end(self, uuid: str) -> None:
        """The commit has ended, and its rows say what the server has."""
        with self._condition:
            del self._blocks[uuid]
            self._condition.notify_all()


def leaving(rows: Mapping[str, Row]) -> set[str]:
    """The blocks that a collection loses by these rows."""
    lost = set().union(*map(_lost, rows.values()))
    return lost.difference(*(blocks_of(row.after) for row in rows.values())) if lost else lost


def held_back(rows: Mapping[str, Row], neighbours: Neighbours) -> dict[str, str]:
    """The paths that have to wait, and for which collection.

    With a path wait those above and below it: a directory that is said to be empty, a file in its place. If
    one of these is to get what another collection holds back for it, and that one waits for ours, then all
    would wait for ever: such a path goes on.
    """
    losing = {path: _lost(row) for path, row in rows.items()}
    if not any(losing.values()):
        return {}
    needing, held_for_us = neighbours.exchange()
    kept = set().union(*(blocks_of(row.after) for row in rows.values()))
    found: dict[str, str] = {}
    for path, blocks in losing.items():
        needed = [needing[block] for block in blocks - kept if block in needing]
        if needed:
            found[path] = needed[0]
    around = _around(found, rows)
    for path in [path for path in around if not held_for_us.isdisjoint(_gained(rows[path]))]:
        for way in around[path]:
            found.pop(way, None)
    return {path: found[ways[0]] for path, ways in _around(found, rows).items()}


def _around(found: Mapping[str, str], rows: Iterable[str]) -> dict[str, list[str]]:
    """Of the rows those that are, or are above or below, one of the paths found; and which."""
    below: dict[str, list[str]] = {}
    for path in found:
        for way in _above(path):
            below.setdefault(way, []).append(path)
    near = {
        path: [way for way in (path, *_above(path)) if way in found] + below.get(path, []) for path in rows
    }
    return {path: ways for path, ways in near.items() if ways}


def _lost(row: Row) -> set[str]:
    return blocks_of(row.before) - blocks_of(row.after)


def _gained(row: Row) -> set[str]:
    """A request whose outcome is unknown may have taken away what was there."""
    return blocks_of(row.after) - blocks_of(row.before).intersection(*map(blocks_of, row.attempted))


def overtaken(older: Mapping[str, Row], newer: Mapping[str, State], moment: float) -> dict[str, str]:
    """What has to give way after newer changes of the same collection were saved before it.

    Gives the paths of older files, and under which conflict names they are to be saved; "" for what is not a
    file, or the same: it is not needed any more. moment: seconds since 1970.
    """
    holding = {above for path, state in newer.items() if state is not None for above in _above(path)}
    found: dict[str, str] = {}
    for path, row in older.items():
        ways = (way for way in _above(path) if isinstance(newer.get(way), tuple))
        clash = path if path in newer else next(ways, "")
        if not clash and path in holding and isinstance(row.after, tuple):
            clash = path
        if clash:
            found[path] = ""
            if isinstance(row.after, tuple) and not (clash == path and same(row.after, newer.get(path))):
                found[path] = conflict_name(clash, moment) + path[len(clash) :]
    return found


def _above(path: str) -> list[str]:
    """The directories that a path lies in."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]
