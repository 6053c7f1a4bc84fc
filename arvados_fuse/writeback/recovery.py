"""Journals of mounts that died: finding, listing, replaying and discarding them.

Used by `WriteBack.adopt` and by `arv-mount --recover`. A leftover is saved where it lies, by the same
committer as new changes, and goes when it is empty; so a crash in between loses and doubles nothing.

Threads: any.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from arvados_fuse.collection.segments import Segment
from arvados_fuse.collection.spool import MemorySpool
from arvados_fuse.errors import ArvadosFuseError, SaveFailed
from arvados_fuse.writeback.journal import Journal, JournalTooNew, Owner
from arvados_fuse.writeback.pending import Pending
from arvados_fuse.writeback.rooms import Room, leftovers, room_at
from arvados_fuse.writeback.spool import Spools
from arvados_fuse.writeback.states import State, decode, is_whole

logger = logging.getLogger("arvados.writeback")


class Leftover(NamedTuple):
    """What a dead mount left behind.

    paths: changed and not saved; bytes: size of those that are files. since: seconds since 1970, when that
    mount began. problem: why it can't be replayed by this version, or "".
    """

    path: Path
    owner: Owner
    paths: int
    bytes: int
    since: float
    problem: str = ""


class Adoption(NamedTuple):
    """adopted: being saved now. foreign: of another server or user, or not readable; left as they are."""

    adopted: list[Leftover]
    foreign: list[Leftover]


class Taken(NamedTuple):
    """A leftover that was opened to be saved. kept: where the bytes of blocks are that its rows need."""

    room: Room
    pending: Pending
    leftover: Leftover
    kept: Mapping[str, Sequence[Segment]]


def list_pending(directory: Path) -> list[Leftover]:
    """What dead mounts left behind below `directory`; needs no server. Live mounts' are not listed."""
    found = []
    for room in leftovers(directory):
        try:
            leftover = _examine(room)
            if leftover is not None:
                found.append(leftover)
        finally:
            room.release()
    return found


def discard(leftover: Leftover) -> None:
    """Throw away what a dead mount left behind. Raises SaveFailed when a mount is saving it just now."""
    room = room_at(leftover.path)
    if room is None:
        if leftover.path.exists():
            raise SaveFailed("in use: a mount is saving it just now", subject=str(leftover.path))
        return
    room.remove()


def take_over(directory: Path, owner: Owner) -> tuple[list[Taken], list[Leftover]]:
    """Open the leftovers of `owner` for saving, oldest first; gives those of others too, left alone.

    Rooms without a change are removed.
    """
    taken: list[Taken] = []
    foreign: list[Leftover] = []
    for room in leftovers(directory):
        leftover = _examine(room)
        if leftover is None:
            room.remove()
        elif leftover.problem or leftover.owner != owner:
            foreign.append(leftover)
            room.release()
        else:
            opened = _open(room, leftover)
            if opened is None:
                foreign.append(leftover._replace(problem="it can't be read"))
                room.release()
            else:
                taken.append(opened)
    taken.sort(key=lambda one: one.leftover.since)
    for leftover in foreign:
        logger.warning(
            "%s: %d unsaved paths of %s at %s are left alone%s",
            leftover.path,
            leftover.paths,
            leftover.owner.user_uuid or "somebody",
            leftover.owner.host or "an unknown server",
            f": {leftover.problem}" if leftover.problem else "",
        )
    return taken, foreign


def _examine(room: Room) -> Leftover | None:
    """What is in a room; None for nothing."""
    nobody = Owner("", "")
    try:
        journal = Journal.open(room.journal)
    except JournalTooNew as error:
        return Leftover(room.path, nobody, 0, 0, 0.0, str(error))
    except ArvadosFuseError as error:
        return Leftover(room.path, nobody, 0, 0, 0.0, str(error))
    if journal is None:
        return None
    paths = size = 0
    problem = ""
    try:
        anywhere = MemorySpool()
        for line in journal.lines():
            paths += 1
            size += _size(decode(line.after, lambda name: anywhere))
    except ArvadosFuseError as error:
        problem = str(error)
    finally:
        journal.close()
    if not paths and not problem:
        return None
    return Leftover(room.path, journal.owner, paths, size, journal.since, problem)


def _size(state: State) -> int:
    return sum(segment.size for segment in state) if isinstance(state, tuple) else 0


def _open(room: Room, leftover: Leftover) -> Taken | None:
    try:
        journal = Journal.open(room.journal)
        if journal is None:
            return None
        pending = Pending(journal, Spools(room.spools))
        pending.load()
        _drop_what_is_lost(pending, room)
        kept = pending.load_kept()
        pending.spools.remove_unknown()
    except ArvadosFuseError:
        logger.exception("%s: can't be replayed", room.path)
        return None
    return Taken(room, pending, leftover, kept)


def _drop_what_is_lost(pending: Pending, room: Room) -> None:
    """A loss of power can take bytes that were never synced: such a file can't be saved, and must not keep
    the others from it."""
    for uuid in pending.uuids():
        lost = [path for path, state in pending.states(uuid).items() if not is_whole(state)]
        for path in lost:
            logger.error(
                "%s/%s: bytes are missing in %s; the machine must have lost power before they were saved",
                uuid,
                path,
                room.path,
            )
        if lost:
            pending.drop(uuid, lost)
