"""The changes that are closed and not yet on the server: rows in memory, and the same rows in a journal.

Used by `WriteBack` (records), the committer (takes, settles, finishes) and `recovery`. One row per path: what
the server had, what it shall have, and what it may have been told meanwhile. See docs/writeback.md.

Threads: any. One lock guards rows and journal; under it nothing but memory and the local disk is touched.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from arvados_fuse.collection.content import Content
from arvados_fuse.collection.segments import Segment
from arvados_fuse.collection.spool import Spool
from arvados_fuse.writeback.journal import Journal, Line
from arvados_fuse.writeback.moved import known_moves
from arvados_fuse.writeback.spool import DiskSpool, Spools
from arvados_fuse.writeback.states import (
    PathChange,
    State,
    blocks_of,
    decode,
    encode,
    is_whole,
    same,
    spools,
    unsaved_bytes,
)

REMEMBERED = 50_000
"""Segments in the states that were saved last and are remembered, for callers that don't know yet that they
were saved."""


class Row(NamedTuple):
    """One path.

    before: what the server had last, as far as we know. after: what it shall have. attempted: what it was
    asked to have, by requests whose outcome may be unknown, or told the caller too late. since: seconds since
    1970 of the first unsaved change. content: see `PathChange`.
    """

    before: State
    after: State
    attempted: tuple[State, ...]
    since: float
    content: Content | None

    def is_needed(self) -> bool:
        """Whether there is something to tell the server."""
        return not all(same(state, self.after) for state in (self.before, *self.attempted))


class Batch(NamedTuple):
    """The rows of one collection at one moment; `number` counts records, for those who wait."""

    uuid: str
    rows: Mapping[str, Row]
    number: int


class Pending:
    """All rows of one room. Make it with a journal that is new or was read by `load`."""

    def __init__(self, journal: Journal, spools: Spools) -> None:
        self.spools = spools
        self._journal = journal
        self._lock = threading.Lock()
        self._rows: dict[str, dict[str, Row]] = {}
        self._bytes: dict[str, int] = {}
        self._users: dict[Spool, set[tuple[str, str]]] = {}
        self._recent: OrderedDict[tuple[str, str], State] = OrderedDict()
        self._remembered = 0
        self._number = 0

    def load(self) -> None:
        """Read the rows of the journal. Raises SaveFailed, ManifestError."""
        with self._lock:
            spool = self.spools.existing
            # Who waits for record 1 waits for all of these.
            self._number = 1
            for line in self._journal.lines():
                row = Row(
                    decode(line.before, spool),
                    decode(line.after, spool),
                    tuple(decode(state, spool) for state in line.attempted),
                    line.since,
                    None,
                )
                self._put(line.uuid, line.path, row)

    # Recording.

    def record(self, uuid: str, changes: Sequence[PathChange]) -> int:
        """`record_all` of one collection."""
        return self.record_all({uuid: changes})

    def record_all(self, changes: Mapping[str, Sequence[PathChange]]) -> int:
        """Note changes of collections, all or none; gives their number. Raises NoSpaceError, SaveFailed."""
        now = time.time()
        with self._lock:
            fresh: dict[str, dict[str, Row]] = {}
            for uuid, here in changes.items():
                rows, new = self._rows.get(uuid, {}), fresh.setdefault(uuid, {})
                for change in here:
                    old = new.get(change.path) or rows.get(change.path)
                    new[change.path] = self._coalesced(uuid, change, old, now)
            self._store(fresh)
            self._number += 1
            return self._number

    def _coalesced(self, uuid: str, change: PathChange, old: Row | None, now: float) -> Row:
        after = self._kept(change.after)
        if old is not None:
            return Row(old.before, after, old.attempted, old.since, change.content)
        # The caller may not have heard yet that this path was saved.
        saved = (uuid, change.path) in self._recent
        attempted = (self._recent[uuid, change.path],) if saved else ()
        return Row(_without_spools(change.before), after, attempted, now, change.content)

    def _kept(self, state: State) -> State:
        """The state with its bytes in blocks where they are already, and else in spools of ours."""
        if not isinstance(state, tuple):
            return state
        moves = known_moves(state)
        foreign = [
            segment
            for segment in state
            if segment.is_unsaved
            and not (isinstance(segment.source, DiskSpool) and segment.source.is_of(self.spools))
        ]
        if foreign:
            moves.copy(foreign, self.spools.new())
        return tuple(moves.translate(state))

    def _store(self, fresh: Mapping[str, Mapping[str, Row]]) -> None:
        """Write rows to the journal, then to memory; those that are not needed are removed."""
        needed: list[tuple[str, str, Row]] = []
        gone: list[tuple[str, str]] = []
        for uuid, rows in fresh.items():
            for path, row in rows.items():
                if row.is_needed():
                    needed.append((uuid, path, row))
                elif path in self._rows.get(uuid, ()):
                    gone.append((uuid, path))
        self._journal.write((_line(*one) for one in needed), gone)
        for one in needed:
            self._put(*one)
        for uuid, path in gone:
            self._drop(uuid, path)

    def _put(self, uuid: str, path: str, row: Row) -> None:
        self._drop(uuid, path)
        self._rows.setdefault(uuid, {})[path] = row
        self._bytes[uuid] = self._bytes.get(uuid, 0) + unsaved_bytes(row.after)
        for spool in spools(row.after):
            self._users.setdefault(spool, set()).add((uuid, path))

    def _drop(self, uuid: str, path: str) -> None:
        rows = self._rows.get(uuid)
        row = rows.pop(path, None) if rows else None
        if rows is None or row is None:
            return
        self._bytes[uuid] -= unsaved_bytes(row.after)
        if not rows:
            del self._rows[uuid]
            del self._bytes[uuid]
        for spool in spools(row.after):
            users = self._users[spool]
            users.discard((uuid, path))
            if not users:
                del self._users[spool]

    # Saving.

    def take(self, uuid: str) -> Batch:
        """The rows of a collection as they are now."""
        with self._lock:
            return Batch(uuid, dict(self._rows.get(uuid, {})), self._number)

    def settle(self, stored: Iterable[Spool]) -> None:
        """Ranges of these spools came into blocks: let rows and contents point there. Raises NoSpaceError."""
        with self._lock:
            keys = sorted({key for spool in stored for key in self._users.get(spool, ())})
            fresh: dict[str, dict[str, Row]] = {}
            for uuid, path in keys:
                row = self._rows[uuid][path]
                fresh.setdefault(uuid, {})[path] = row._replace(after=settled(row.after))
            self._store(fresh)
            contents = [row.content for rows in fresh.values() for row in rows.values() if row.content]
        for content in contents:
            content.settle(known_moves(content.snapshot()[0]))

    def refine(self, batch: Batch) -> None:
        """The blocks of the batch have other locators now. Raises NoSpaceError."""
        with self._lock:
            current = self._rows.get(batch.uuid, {})
            fresh = {
                path: current[path]._replace(after=row.after)
                for path, row in batch.rows.items()
                if path in current and same(current[path].after, row.after)
            }
            self._store({batch.uuid: fresh})

    def mark_attempted(self, batch: Batch) -> None:
        """The server is about to be asked for the batch: from now on it may have it. Raises NoSpaceError."""
        with self._lock:
            current = self._rows.get(batch.uuid, {})
            fresh = {}
            for path, taken in batch.rows.items():
                row = current.get(path, taken._replace(after=taken.before))
                if not any(same(state, taken.after) for state in row.attempted):
                    fresh[path] = row._replace(attempted=(*row.attempted, taken.after))
            self._store({batch.uuid: fresh})

    def finish(self, batch: Batch) -> None:
        """The server has the batch: drop the rows that are still the same, and base the others on it."""
        with self._lock:
            current = self._rows.get(batch.uuid, {})
            fresh = {}
            now = time.time()
            for path, taken in batch.rows.items():
                row = current.get(path)
                after = taken.before if row is None else row.after
                content = None if row is None else row.content
                fresh[path] = Row(taken.after, after, (), now, content)
            self._store({batch.uuid: fresh})
            for path, taken in batch.rows.items():
                self._remember(batch.uuid, path, taken.after)

    def _remember(self, uuid: str, path: str, state: State) -> None:
        if (uuid, path) in self._recent:
            self._remembered -= _weight(self._recent.pop((uuid, path)))
        self._recent[uuid, path] = state
        self._remembered += _weight(state)
        while self._remembered > REMEMBERED and len(self._recent) > 1:
            self._remembered -= _weight(self._recent.popitem(last=False)[1])

    def discard(self, uuid: str) -> None:
        """Forget all changes of one collection."""
        with self._lock:
            paths = list(self._rows.get(uuid, ()))
            self._journal.write((), [(uuid, path) for path in paths])
            for path in paths:
                self._drop(uuid, path)

    def drop(self, uuid: str, paths: Iterable[str]) -> None:
        """Forget single changes."""
        with self._lock:
            gone = list(paths)
            self._journal.write((), [(uuid, path) for path in gone])
            for path in gone:
                self._drop(uuid, path)

    def rename(self, uuid: str, paths: Mapping[str, str]) -> None:
        """Let files be saved under other paths, where nothing is; "": not at all. Raises NoSpaceError."""
        with self._lock:
            rows = self._rows.get(uuid, {})
            old = [path for path in paths if path in rows]
            fresh = {
                paths[path]: Row(None, rows[path].after, (), rows[path].since, None)
                for path in old
                if paths[path]
            }
            self._journal.write(
                [_line(uuid, path, row) for path, row in fresh.items()], [(uuid, path) for path in old]
            )
            for path in old:
                self._drop(uuid, path)
            for path, row in fresh.items():
                self._put(uuid, path, row)

    # Looking.

    @property
    def number(self) -> int:
        """How often was recorded."""
        return self._number

    def uuids(self) -> list[str]:
        """Collections with unsaved changes."""
        with self._lock:
            return list(self._rows)

    def has(self, uuid: str, path: str | None = None) -> bool:
        """Whether a collection, or one path of it, has unsaved changes."""
        with self._lock:
            rows = self._rows.get(uuid)
            return bool(rows) if path is None else bool(rows) and path in (rows or {})

    def states(self, uuid: str) -> dict[str, State]:
        """Unsaved paths and what they shall be."""
        with self._lock:
            return {path: row.after for path, row in self._rows.get(uuid, {}).items()}

    def rows(self, uuid: str) -> dict[str, Row]:
        """Unsaved paths and all that is known of them."""
        with self._lock:
            return dict(self._rows.get(uuid, {}))

    def blocks(self, uuid: str | None = None) -> set[str]:
        """The blocks that unsaved paths need, of one collection or of all, without hints."""
        with self._lock:
            chosen = self._rows.values() if uuid is None else [self._rows.get(uuid, {})]
            states = [row.after for rows in chosen for row in rows.values()]
        return set().union(*(blocks_of(settled(state)) for state in states))

    # Bytes of blocks that no collection has yet; see `kept`.

    def keep(self, block: str, pieces: State) -> None:
        """Note where the bytes of a stored block are. Raises NoSpaceError, SaveFailed."""
        with self._lock:
            self._journal.keep(block, encode(pieces))

    def let_go(self, blocks: Iterable[str]) -> None:
        """Forget where the bytes of blocks are. Raises NoSpaceError, SaveFailed."""
        with self._lock:
            self._journal.let_go(blocks)

    def load_kept(self) -> dict[str, tuple[Segment, ...]]:
        """The blocks that rows need and whose bytes are there; others are forgotten. Raises as `load`."""
        needed, found, rest = self.blocks(), {}, []
        with self._lock:
            for block, value in list(self._journal.kept()):
                pieces = decode(value, self.spools.existing)
                if block in needed and isinstance(pieces, tuple) and is_whole(pieces):
                    found[block] = pieces
                else:
                    rest.append(block)
            if rest:
                self._journal.let_go(rest)
        return found

    def amount(self, uuid: str) -> tuple[int, int]:
        """Number of unsaved paths of a collection, and of bytes that are in no block yet."""
        with self._lock:
            return len(self._rows.get(uuid, ())), self._bytes.get(uuid, 0)

    def close(self) -> None:
        """Close journal and spools; what is in them stays."""
        with self._lock:
            self._journal.close()
        self.spools.close()

    def check(self) -> None:
        """Assert the invariants (for tests)."""
        with self._lock:
            stored = {(line.uuid, line.path): line for line in self._journal.lines()}
            count = 0
            for uuid, rows in self._rows.items():
                assert rows
                assert self._bytes[uuid] == sum(unsaved_bytes(row.after) for row in rows.values())
                for path, row in rows.items():
                    count += 1
                    assert row.is_needed()
                    assert not spools(row.before)
                    line = _line(uuid, path, row)
                    assert stored[uuid, path] == line
                    for spool in spools(row.after):
                        assert (uuid, path) in self._users[spool]
            assert count == len(stored)


def _line(uuid: str, path: str, row: Row) -> Line:
    attempted = [encode(state) for state in row.attempted]
    return Line(uuid, path, encode(row.before), encode(row.after), attempted, row.since)


def settled(state: State) -> State:
    """The state with its bytes in blocks, as far as they are."""
    return tuple(known_moves(state).translate(state)) if isinstance(state, tuple) else state


def _without_spools(state: State) -> State:
    """What the server has is in blocks. A state of which we don't know where is not what it has."""
    there = settled(state)
    return None if unsaved_bytes(there) else there


def _weight(state: State) -> int:
    return 1 + len(state) if isinstance(state, tuple) else 1
