"""When what is saved: groups of changes, one for each collection, and the threads that save them.

Used by `WriteBack`. A group is due a short while after its last change or a longer while after its first; at
once when somebody waits; after growing pauses when it failed. A room that was taken over from a dead mount is
a group of its own, and goes before newer changes of the same collection.

Threads: any may call; `start` makes those that save. One condition guards the groups; nothing is asked of a
server under it.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping

from arvados_fuse.errors import ArvadosFuseError, SaveFailed, Unreachable
from arvados_fuse.writeback.commit import Commits
from arvados_fuse.writeback.failures import NO_ANSWER, refresh, told
from arvados_fuse.writeback.group import NEVER, Group, Wish
from arvados_fuse.writeback.order import MovedAway, Neighbours
from arvados_fuse.writeback.pending import Pending, Row
from arvados_fuse.writeback.status import Limits, Unsaved

logger = logging.getLogger("arvados.writeback")


class Committer:
    """Saves groups. `start` it, `close` it."""

    def __init__(self, commits: Commits, limits: Limits) -> None:
        self._commits = commits
        self._limits = limits
        self._condition = threading.Condition()
        self._groups: dict[tuple[int, str], Group] = {}
        self._rooms: list[Pending] = []
        self._emptied: dict[int, Callable[[], None]] = {}
        self._threads: list[threading.Thread] = []
        self._closing = False

    def start(self) -> None:
        """Begin to save."""
        for number in range(self._limits.commits):
            thread = threading.Thread(target=self._run, name=f"writeback-commit-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self, timeout: float) -> bool:
        """Begin nothing more; whether all that was under way ended in so many seconds."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        ends = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    # What there is to save.

    def add_room(self, pending: Pending, emptied: Callable[[], None] | None = None) -> None:
        """Save the rows of this room too.

        The first room is the mount's own; those that are added later were taken over and go before it, in
        their order. emptied: called once, by a thread of ours, when a room that was taken over has no rows
        left and is forgotten here.
        """
        with self._condition:
            self._rooms.insert(max(0, len(self._rooms) - 1), pending)
            if emptied is not None:
                self._emptied[id(pending)] = emptied
            for uuid in pending.uuids():
                group = self._group(pending, uuid)
                group.first = group.last = 0.0
            self._condition.notify_all()

    def rooms(self) -> list[Pending]:
        """All rooms, the mount's own last."""
        with self._condition:
            return list(self._rooms)

    def _forget_if_empty(self, pending: Pending) -> None:
        with self._condition:
            emptied = self._emptied.get(id(pending))
            busy = any(group.pending is pending and group.running for group in self._groups.values())
            if emptied is None or busy or pending.uuids():
                return
            del self._emptied[id(pending)]
            self._rooms.remove(pending)
            for key in [key for key, group in self._groups.items() if group.pending is pending]:
                del self._groups[key]
            self._condition.notify_all()
        emptied()

    def discard(self, uuid: str) -> None:
        """Forget all changes of a collection. Raises NoSpaceError, SaveFailed."""
        for pending in self.rooms():
            pending.discard(uuid)
            self._forget_if_empty(pending)
        with self._condition:
            for group in self._groups.values():
                if group.uuid == uuid:
                    group.error, group.refused, group.waits_for = None, False, frozenset()
                    self._tell_who_waits(group)
            self._condition.notify_all()

    def changed(self, pending: Pending, uuid: str) -> None:
        """Something was recorded."""
        now = time.monotonic()
        with self._condition:
            group = self._group(pending, uuid)
            group.last = now
            if group.first == NEVER:
                group.first = now
                group.since = time.time()
                self._condition.notify_all()  # others wait here, too, whom it does not concern

    def _group(self, pending: Pending, uuid: str) -> Group:
        key = (id(pending), uuid)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(pending, uuid)
        return group

    def retry(self) -> None:
        """Try now what failed; whoever does it may have reason to hope."""
        with self._condition:
            for group in self._groups.values():
                group.not_before = 0.0
            self._condition.notify_all()

    def hurry(self) -> None:
        """Save everything now."""
        with self._condition:
            for group in self._groups.values():
                group.urgent = group.first != NEVER
            self._condition.notify_all()

    # The threads.

    def _run(self) -> None:
        while True:
            group = self._next()
            if group is None:
                return
            self._save(group)

    def _next(self) -> Group | None:
        """Wait for a group that is due; None at the end."""
        with self._condition:
            while not self._closing:
                now = time.monotonic()
                soonest = NEVER
                for group in self._groups.values():
                    due = self._due(group)
                    if due <= now:
                        group.running, group.urgent, group.first = True, False, NEVER
                        group.started += 1
                        return group
                    soonest = min(soonest, due)
                self._condition.wait(None if soonest == NEVER else soonest - now)
            return None

    def _due(self, group: Group) -> float:
        """When to begin; `NEVER` while the collection is being saved or an older room's changes go first."""
        if group.first == NEVER:
            return NEVER
        same = [self._groups.get((id(room), group.uuid)) for room in self._rooms]
        if any(other is not None and other.running for other in same):
            return NEVER
        for older in same[: same.index(group)]:
            if older is not None and older.first != NEVER and not older.refused:
                return NEVER
        if group.urgent:
            return group.not_before
        return max(group.not_before, min(group.last + self._limits.quiet, group.first + self._limits.longest))

    def _save(self, group: Group) -> None:
        error: ArvadosFuseError | None = None
        number = group.saved
        try:
            number = self._commits.commit(group.pending, group.uuid, self._neighbours(group))
        except ArvadosFuseError as failure:
            error = failure.with_traceback(None)  # the group keeps it, and need not keep manifests and blocks
        except Exception as failure:  # the outer edge of this thread
            logger.exception("%s: saving broke", group.uuid)
            error = SaveFailed(f"{type(failure).__name__}: {failure}", subject=group.uuid)
        # Outside of the lock: files of spools that nothing needs any more.
        self._commits.sweep()
        group.pending.spools.sweep()
        if error is not None and not group.pending.has(group.uuid):
            logger.warning("%s: saved, but %s", group.uuid, told(error))
            error = None
        with self._condition:
            group.running = False
            if error is None:
                if group.error is not None and not group.waits_for:
                    logger.info("%s: what could not be saved is saved now", group.uuid)
                group.saved = max(group.saved, number)
                group.error, group.refused, group.pause, group.not_before = None, False, 0.0, 0.0
                group.waits_for = frozenset()
            else:
                self._failed(group, error)
            self._tell_who_waits(group)
            if group.first == NEVER and group.pending.has(group.uuid):
                # What failed, and what was recorded meanwhile by somebody who has not told yet.
                group.first = group.last = time.monotonic()
            elif group.first == NEVER and group.error is None:
                # Who waits holds on to it, and all that he waits for is saved.
                group.saved = sys.maxsize
                self._groups.pop((id(group.pending), group.uuid), None)
            self._condition.notify_all()
        self._forget_if_empty(group.pending)

    def _failed(self, group: Group, error: ArvadosFuseError) -> None:
        previous = group.error
        group.error = error
        group.waits_for = error.uuids if isinstance(error, MovedAway) else frozenset()
        group.refused = not isinstance(error, (*NO_ANSWER, MovedAway))
        limits = self._limits
        longest = limits.longest_pause if group.refused else limits.longest_outage_pause
        group.pause = min(longest, group.pause * 2 if group.pause else limits.first_pause)
        group.not_before = time.monotonic() + group.pause
        if group.waits_for:
            group.refused = any(other.refused for other in self._awaited(group))
        elif previous is None or str(previous) != str(error):
            told_as = refresh(error, group.uuid, group.pending.rows(group.uuid))
            logger.log(logging.ERROR if group.refused else logging.WARNING, "%s", told(told_as))

    # What waits for what.

    def _neighbours(self, group: Group) -> Neighbours:
        """What is unsaved beside a group, for its commit."""
        uuid = group.uuid

        def rows() -> list[tuple[str, Mapping[str, Row]]]:
            rooms = self.rooms()
            return [(other, room.rows(other)) for room in rooms for other in room.uuids() if other != uuid]

        with self._condition:
            waiting: set[str] = set()
            more = {uuid}
            while more:
                more = {other.uuid for other in self._groups.values() if other.waits_for & more} - waiting
                waiting |= more
            older = self._rooms[: self._rooms.index(group.pending)]
        return Neighbours(rows, waiting, [room for room in older if room.has(uuid)])

    def _awaited(self, group: Group) -> list[Group]:
        """The groups that this one waits for; caller holds the lock."""
        return [other for other in self._groups.values() if other.uuid in group.waits_for]

    def _tell_who_waits(self, group: Group) -> None:
        """An attempt has ended: who waits for it goes on, or learns that it is refused; caller holds the
        lock."""
        for other in self._groups.values():
            if other.uuid == group.uuid and group.error is None:
                other.not_before = 0.0
            elif group.uuid in other.waits_for:
                other.refused = group.refused
                if group.error is None:
                    other.not_before, other.urgent = 0.0, other.first != NEVER

    # Waiting.

    def wait(self, uuid: str | None, timeout: float) -> None:
        """Wait until everything recorded so far, of one collection or of all, is on the server.

        Raises the error when the server refuses, or after `timeout` seconds why it takes so long.
        """
        ends = time.monotonic() + timeout
        with self._condition:
            waiting = [
                Wish(group, group.pending.number, group.started)
                for group in self._groups.values()
                if uuid is None or group.uuid == uuid
            ]
            while True:
                waiting = [
                    wish
                    for wish in waiting
                    if not wish.is_done() and (uuid is None or not self._is_old_trouble(wish.group))
                ]
                if not waiting:
                    return
                for wish in waiting:
                    group = wish.group
                    if wish.was_tried() and group.refused and group.error is not None:
                        raise self._refusal(group)
                    if wish.push():
                        self._condition.notify_all()
                    for other in self._awaited(group):
                        if not other.urgent and other.first != NEVER and not other.running:
                            other.urgent = True
                            self._condition.notify_all()
                left = ends - time.monotonic()
                if left <= 0:
                    group = waiting[0].group
                    late = Unreachable(f"not done within {timeout:.0f} seconds", subject=group.uuid)
                    raise refresh(group.error or late, group.uuid, group.pending.rows(group.uuid))
                self._condition.wait(left)

    def _is_old_trouble(self, group: Group) -> bool:
        """Whether it was left behind by a dead mount and is refused: no reason to refuse a new change."""
        return group.refused and group.pending is not self._rooms[-1]

    def refusal(self, uuid: str) -> ArvadosFuseError | None:
        """Why the server refuses the changes of a collection, if it does; a new error each time."""
        with self._condition:
            for group in self._groups.values():
                if group.uuid == uuid and group.refused and group.error is not None:
                    if self._is_old_trouble(group) or group.waits_for:
                        continue
                    return self._refusal(group)
            return None

    def _refusal(self, group: Group) -> ArvadosFuseError:
        """Why a group is refused, or what it waits for; caller holds the lock."""
        refused = next((other for other in self._awaited(group) if other.refused and other.error), group)
        assert refused.error is not None
        return refresh(refused.error, refused.uuid, refused.pending.rows(refused.uuid))

    def attempts(self) -> dict[int, int]:
        """How often each group was tried, for `is_done`."""
        with self._condition:
            return {id(group): group.started for group in self._groups.values()}

    def is_done(self, earlier: dict[int, int]) -> bool:
        """Whether nothing is left but what was refused again after `earlier`."""
        with self._condition:
            return all(
                not group.pending.has(group.uuid)
                or (group.refused and not group.running and group.started > earlier.get(id(group), 0))
                for group in self._groups.values()
            )

    def pause(self, seconds: float) -> None:
        """Wait until something ends, or so long."""
        with self._condition:
            self._condition.wait(seconds)

    def error(self) -> ArvadosFuseError | None:
        """Why something could not be saved, if something couldn't."""
        with self._condition:
            return next((group.error for group in self._groups.values() if group.error), None)

    def unsaved(self) -> list[Unsaved]:
        """What every collection waits for, by uuid."""
        with self._condition:
            groups = list(self._groups.values())
        found = []
        for group in groups:
            paths, size = group.pending.amount(group.uuid)
            if paths:
                error = "" if group.error is None else told(group.error)
                found.append(Unsaved(group.uuid, paths, size, error, group.refused, group.since))
        return sorted(found, key=lambda one: one.uuid)
