"""`WriteBack`: changes of collections, kept safe here until they are on the server.

Used by the tree, which records what was closed, and wired by `cli/build.py`. `open` it, `start` it (after the
fork), `adopt` what dead mounts left, and `close` it at the end. What is promised when: docs/writeback.md.

Threads: every method may be called from any thread. `relieve` and `save` may wait, each with a deadline;
`record` waits for the local disk only. Callers must hold no lock that the sink of `Saved` needs.
"""

import dataclasses
import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from arvados_fuse.collection.content import Content
from arvados_fuse.collection.spool import Spool
from arvados_fuse.collection.stores import BlockStore, RecordStore
from arvados_fuse.reporting.counters import Counters
from arvados_fuse.writeback.commit import Commits
from arvados_fuse.writeback.committer import Committer
from arvados_fuse.writeback.journal import Journal, Owner
from arvados_fuse.writeback.kept import Kept
from arvados_fuse.writeback.pending import Pending
from arvados_fuse.writeback.recovery import Adoption, Taken, take_over
from arvados_fuse.writeback.relief import Relief
from arvados_fuse.writeback.rooms import Room
from arvados_fuse.writeback.spool import DiskSpool, Spools
from arvados_fuse.writeback.states import PathChange, State, same
from arvados_fuse.writeback.status import Limits, Sink, Status
from arvados_fuse.writeback.uploads import Uploads

logger = logging.getLogger("arvados.writeback")

PROGRESS_EVERY = 0.2
"""Seconds between two calls for progress while closing."""

SPOOL_LEAST, SPOOL_MOST = 256 << 20, 8 << 30
"""Bytes that may be unsaved where nobody said how many."""

KEPT_SHARE = 4
"""The part of that (one in so many) which bytes may take that are stored and that no collection has yet."""

LAST_WORDS = 2.0
"""Seconds that closing waits for requests under way after its time is over."""


class WriteBack:
    """See the module."""

    def __init__(
        self,
        directory: Path,
        room: Room,
        pending: Pending,
        uploads: Uploads,
        committer: Committer,
        relief: Relief,
        owner: Owner,
    ) -> None:
        self._directory = directory
        self._room = room
        self._pending = pending
        self._uploads = uploads
        self._committer = committer
        self._relief = relief
        self._owner = owner
        self._taken: list[Taken] = []
        self._lock = threading.Lock()
        self._closed = False

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        owner: Owner,
        records: RecordStore,
        blocks: BlockStore,
        saved: Sink,
        limits: Limits | None = None,
        counters: Counters | None = None,
    ) -> "WriteBack":
        """Make a room of our own below `directory` (made if need be, for its owner only).

        saved: gets a `Saved` after every successful save. Raises NoSpaceError, SaveFailed.
        """
        limits = _filled(limits or Limits(), directory)
        counters = counters or Counters()
        room = Room.create(directory)
        try:
            journal = Journal.create(room.journal, owner, room.since)
        except BaseException:
            room.remove()
            raise
        spools = Spools(room.spools)
        pending = Pending(journal, spools)

        def stored(of: Sequence[Spool]) -> None:
            for one in committer.rooms():
                one.settle(of)

        def needed() -> set[str]:
            return relief.blocks().union(*(one.blocks() for one in committer.rooms()))

        def room_of(spool: DiskSpool) -> Pending | None:
            return next((one for one in committer.rooms() if spool.is_of(one.spools)), None)

        kept = Kept(limits.spool // KEPT_SHARE, needed, room_of, getattr(records, "token", str))
        uploads = Uploads(blocks, stored, kept, counters, threads=limits.blocks)
        committer = Committer(Commits(records, blocks, uploads, saved, counters), limits)
        committer.add_room(pending)
        relief = Relief(spools, uploads, committer, limits)
        return cls(
            directory,
            room,
            pending,
            uploads,
            committer,
            relief,
            owner,
        )

    def start(self) -> None:
        """Begin to save; after the fork."""
        self._uploads.start()
        self._committer.start()

    def adopt(self) -> Adoption:
        """Take over what dead mounts of the same owner left below the same directory: it is being saved from
        now on.

        Doesn't wait for that: `save(None, ...)` does. Changes of a collection that were left behind go before
        new ones.
        """
        taken, foreign = take_over(self._directory, self._owner)
        for one in taken:
            logger.info("%s: saving %d paths that a mount left behind", one.leftover.path, one.leftover.paths)
            kept, held = one.kept, one._replace(kept={})
            with self._lock:
                self._taken.append(held)
            self._committer.add_room(one.pending, lambda held=held: self._emptied(held))  # type: ignore[misc]
            # Not before: what no known room needs is let go.
            self._uploads.kept.restore(one.pending, kept)
        return Adoption([one.leftover for one in taken], foreign)

    def _emptied(self, taken: Taken) -> None:
        with self._lock:
            self._taken.remove(taken)
        taken.pending.close()
        taken.room.remove()

    # While files are written.

    def new_spool(self, *, large: bool = False) -> Spool:
        """Where written bytes go (a `SpoolFactory`); its `append` raises NoSpaceError."""
        return self._pending.spools.begin(large=large)

    def relieve(self, content: Content, classes: Sequence[str] = ()) -> None:
        """To be called after writes: full blocks of `content` leave in the background, in `classes`.

        Waits while too much is unsaved. Raises NoSpaceError when that takes too long (`Limits.patience`).
        """
        self._relief.relieve(content, classes)

    # When they are closed.

    def record(self, uuid: str, changes: Sequence[PathChange]) -> None:
        """`record_all` of one collection."""
        self.record_all({uuid: changes})

    def record_all(self, changes: Mapping[str, Sequence[PathChange]]) -> None:
        """Note changes of collections, all or none: durable against the end of this process on return.

        A path that has an unsaved change keeps its `before`; a change back to that is no change any more.
        Raises NoSpaceError, SaveFailed.
        """
        changed = {uuid: here for uuid, here in changes.items() if here}
        if changed:
            self._pending.record_all(changed)
        for uuid in changed:
            self._committer.changed(self._pending, uuid)

    def save(self, uuid: str | None, *, deadline: float) -> None:
        """Wait until everything recorded so far, of one collection or of all, is on the server.

        deadline: seconds. Raises at once when the server refuses, and at the deadline else: AccessDenied,
        QuotaExceeded, NoSpaceError, Unreachable, or SaveFailed for any other reason. The data stays in the
        journal, and is tried again.
        """
        self._committer.wait(uuid, deadline)

    def raise_refusal(self, uuid: str) -> None:
        """Raise why the server refuses the changes of a collection, if it does."""
        error = self._committer.refusal(uuid)
        if error is not None:
            raise error

    def retry(self) -> None:
        """Try now what was refused or not answered."""
        self._committer.retry()

    def discard(self, uuid: str) -> None:
        """Forget all unsaved changes of one collection. Raises NoSpaceError, SaveFailed."""
        self._committer.discard(uuid)

    # How it stands.

    def pending(self, uuid: str) -> dict[str, State]:
        """Unsaved paths of a collection, those of dead mounts too, and what they shall be."""
        found: dict[str, State] = {}
        for room in self._committer.rooms():
            found.update(room.states(uuid))
        return found

    def recorded(self, uuid: str) -> dict[str, State]:
        """Of these what was changed through this mount."""
        return self._pending.states(uuid)

    def made_here(self, uuid: str, saved: Mapping[str, State]) -> dict[str, State]:
        """Which of the states that were saved just now were changes of this mount."""
        rows = self._pending.rows(uuid)
        return {
            path: state
            for path, state in saved.items()
            if path in rows and any(same(state, mine) for mine in (rows[path].after, *rows[path].attempted))
        }

    def is_recorded(self, uuid: str, path: str) -> bool:
        """Whether a path has an unsaved change that was made through this mount; cheap."""
        return self._pending.has(uuid, path)

    def is_pending(self, uuid: str, path: str | None = None) -> bool:
        """Whether a path, or anything in the collection, has an unsaved change; cheap."""
        return any(room.has(uuid, path) for room in self._committer.rooms())

    def status(self) -> Status:
        """What is unsaved, and why."""
        collections = tuple(self._committer.unsaved())
        return Status(
            files=sum(one.paths for one in collections),
            bytes=sum(one.bytes for one in collections),
            spool=sum(room.spools.bytes for room in self._committer.rooms()),
            collections=collections,
        )

    # The end.

    def close(self, *, timeout: float, progress: Callable[[Status], None] | None = None) -> Status:
        """Save what is unsaved, for at most so many seconds; gives what is left and stays in the journal.

        progress: called several times a second meanwhile. Ends earlier when all that is left is refused. A
        second call does nothing but tell.
        """
        with self._lock:
            if self._closed:
                return self.status()
        self._drain(timeout, progress)
        status = self.status()
        with self._lock:
            self._closed = True
        self._uploads.close()
        if not self._committer.close(LAST_WORDS):
            # Requests under way may still end well: the journal and its lock stay ours until we are gone.
            logger.warning("a request to save is still under way")
            return status
        status = self.status()
        for one in self._taken:
            one.pending.close()
            one.room.release()
        empty = not self._pending.uuids()
        self._pending.close()
        if empty:
            self._room.remove()
        else:
            self._room.release()
        return status

    def _drain(self, timeout: float, progress: Callable[[Status], None] | None) -> None:
        ends = time.monotonic() + timeout
        self._committer.retry()
        started = self._committer.attempts()
        while True:
            self._committer.hurry()
            if progress is not None:
                progress(self.status())
            if self._committer.is_done(started) or time.monotonic() >= ends:
                return
            self._committer.pause(min(PROGRESS_EVERY, max(0.0, ends - time.monotonic())))


def _filled(limits: Limits, directory: Path) -> Limits:
    """The limits with sizes that fit the disk: a quarter of what is free, within reason."""
    if limits.spool:
        return limits
    directory.mkdir(0o700, parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    return dataclasses.replace(limits, spool=min(SPOOL_MOST, max(SPOOL_LEAST, free // 4)))
