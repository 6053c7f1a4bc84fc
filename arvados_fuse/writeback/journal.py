"""The journal on disk: one SQLite database of changes that are closed and not yet on the server, and of where
the bytes of stored blocks are that no collection has yet (`kept`).

Used by `pending`, which has the same rows in memory, and by `recovery`. What `write` returned from survives
`kill -9` of the process; after a loss of power the last transactions may be missing, but the database is
whole. A database with a newer schema than ours is refused and left as it is.

Threads: any; the lock of `pending` guards the connection, and only one process has the journal open (see
`rooms`).
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from arvados_fuse.errors import ArvadosFuseError, NoSpaceError, SaveFailed
from arvados_fuse.writeback.reserve import Reserve

SCHEMA = 1
"""`user_version` of the database."""

FILE_NAME = "journal.sqlite3"

_KEPT_TABLE = "CREATE TABLE IF NOT EXISTS kept (block TEXT PRIMARY KEY, pieces TEXT NOT NULL) WITHOUT ROWID"


class JournalTooNew(ArvadosFuseError):
    """A newer version of this program wrote the journal; that version has to save it."""


class Owner(NamedTuple):
    """Whose changes they are: the API server's host (and port), and the uuid of the user."""

    host: str
    user_uuid: str


class Line(NamedTuple):
    """One row as it is stored. before, after: JSON values of `states.encode`; attempted: a list of such.

    since: seconds since 1970.
    """

    uuid: str
    path: str
    before: Any
    after: Any
    attempted: list[Any]
    since: float


class Journal:
    """An open database. Make it with `create` or `open`."""

    def __init__(self, connection: sqlite3.Connection, path: Path, owner: Owner, since: float) -> None:
        self._connection = connection
        self._reserve = Reserve(path.parent)
        self.path = path
        self.owner = owner
        self.since = since

    @classmethod
    def create(cls, path: Path, owner: Owner, since: float) -> "Journal":
        """A new database. Raises NoSpaceError, SaveFailed."""
        path.touch(0o600, exist_ok=False)
        with _kinds(path):
            connection = _connect(path)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE journal (host TEXT, user_uuid TEXT, since REAL)")
            connection.execute(
                "CREATE TABLE changes (uuid TEXT NOT NULL, path TEXT NOT NULL, before TEXT NOT NULL,"
                " after TEXT NOT NULL, attempted TEXT NOT NULL, since REAL NOT NULL,"
                " PRIMARY KEY (uuid, path)) WITHOUT ROWID"
            )
            connection.execute(_KEPT_TABLE)
            connection.execute("INSERT INTO journal VALUES (?, ?, ?)", (*owner, since))
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
            connection.execute("COMMIT")
        return cls(connection, path, owner, since)

    @classmethod
    def open(cls, path: Path) -> "Journal | None":
        """An existing database; None when it was never finished. Raises JournalTooNew, SaveFailed."""
        if not path.exists():
            return None
        with _kinds(path):
            connection = _connect(path)
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == SCHEMA:
                connection.execute(_KEPT_TABLE)
                row = connection.execute("SELECT host, user_uuid, since FROM journal").fetchone()
                return cls(connection, path, Owner(row[0], row[1]), row[2])
            connection.close()
        if version == 0:
            return None
        raise JournalTooNew(f"{path} was written by a newer version (schema {version}, known: {SCHEMA})")

    def lines(self) -> Iterator[Line]:
        """All rows."""
        with _kinds(self.path):
            query = "SELECT uuid, path, before, after, attempted, since FROM changes ORDER BY uuid, path"
            for uuid, path, before, after, attempted, since in self._connection.execute(query):
                yield Line(uuid, path, json.loads(before), json.loads(after), json.loads(attempted), since)

    def write(self, lines: Iterable[Line], gone: Iterable[tuple[str, str]]) -> None:
        """Put rows in place of those of the same path, and remove others: all or nothing.

        gone: (uuid, path). Raises NoSpaceError, SaveFailed.
        """
        self._reserve.renew()
        put, removed = list(lines), list(gone)
        try:
            self._write(put, removed)
        except NoSpaceError:
            if not self._reserve.give():
                raise
            self._write(put, removed)

    def _write(self, lines: Sequence[Line], gone: Sequence[tuple[str, str]]) -> None:
        with _kinds(self.path):
            execute = self._connection.execute
            execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO changes VALUES (?, ?, ?, ?, ?, ?)",
                    [
                        (
                            line.uuid,
                            line.path,
                            _text(line.before),
                            _text(line.after),
                            _text(line.attempted),
                            line.since,
                        )
                        for line in lines
                    ],
                )
                self._connection.executemany("DELETE FROM changes WHERE uuid = ? AND path = ?", gone)
                execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    execute("ROLLBACK")
                raise

    def kept(self) -> Iterator[tuple[str, Any]]:
        """Blocks without hints, and where their bytes are: JSON values of `states.encode`."""
        with _kinds(self.path):
            for block, pieces in self._connection.execute("SELECT block, pieces FROM kept"):
                yield block, json.loads(pieces)

    def keep(self, block: str, pieces: Any) -> None:
        """Note where the bytes of a block are. Raises NoSpaceError, SaveFailed."""
        with _kinds(self.path):
            self._connection.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (block, _text(pieces)))

    def let_go(self, blocks: Iterable[str]) -> None:
        """Forget where the bytes of blocks are. Raises NoSpaceError, SaveFailed."""
        with _kinds(self.path):
            query = "DELETE FROM kept WHERE block IN (SELECT value FROM json_each(?))"
            self._connection.execute(query, (_text(list(blocks)),))

    def close(self) -> None:
        """Close the database; what is in it stays."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()


_text = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        # Only one process has it: no shared memory is needed beside the log, which not every disk can have.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _kinds(path: Path) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite3.Error as error:
        if "full" in str(error):
            raise NoSpaceError(f"no space left for the journal ({path})") from error
        raise SaveFailed(f"the journal {path} failed: {error}") from error
    except (ValueError, TypeError) as error:
        raise SaveFailed(f"the journal {path} is damaged: {error}") from error
