"""The SQLite file under the records: connections, transactions, tables.

`Records` uses it. One writer at a time (a lock of ours before SQLite's own, so that nobody spins), readers
never wait: write-ahead log, every transaction has a connection of its own from a pool. Safe to call from any
thread.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arvados_fuse.local.records import matching
from arvados_fuse.local.records.apierror import ApiError, invalid
from arvados_fuse.local.records.attributes import AttributeType
from arvados_fuse.local.records.schema import RESOURCES, Resource
from arvados_fuse.local.records.upgrade import upgrade

_UNAVAILABLE = ("locked", "full", "disk I/O", "readonly", "unable to open")
"""Words in SQLite's messages for what is no mistake of ours and may pass."""
READ_SECONDS = 60.0
"""Time for the statements of one reading call: ordinary ones need milliseconds, clients wait minutes."""
PROGRESS_STEPS = 100_000
"""Steps of SQLite's machine, about a millisecond, between two looks at the clock."""
JOURNAL_LIMIT = 64 * 1024 * 1024
"""Bytes of disk that the empty write-ahead log keeps: a large manifest shouldn't stay in it for ever."""

_COLUMN: dict[AttributeType, str] = {
    "string": "TEXT",
    "text": "TEXT",
    "integer": "INTEGER",
    "float": "REAL",
    "boolean": "INTEGER NOT NULL DEFAULT 0",
    "datetime": "TEXT",
    "Hash": "TEXT NOT NULL DEFAULT '{}'",
    "Array": "TEXT NOT NULL DEFAULT '[]'",
}
_EXTRA_COLUMNS = {"api_client_authorizations": ("secret_hash TEXT NOT NULL UNIQUE",)}
# Manifests are kept once per portable data hash, beside the records: lists never touch them, a past version
# or a rename costs no copy.
_TABLES = """
CREATE TABLE manifests (
    portable_data_hash TEXT PRIMARY KEY,
    normalized INTEGER NOT NULL,
    text TEXT NOT NULL
);
CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO state VALUES ('permission_generation', 1);
"""
_INDEXES = """
CREATE INDEX IF NOT EXISTS collections_owner ON collections (owner_uuid, name);
CREATE INDEX IF NOT EXISTS collections_owner_uuid ON collections (owner_uuid, uuid);
CREATE INDEX IF NOT EXISTS collections_hash ON collections (portable_data_hash);
CREATE INDEX IF NOT EXISTS collections_current ON collections (current_version_uuid, version);
CREATE INDEX IF NOT EXISTS collections_modified ON collections (modified_at, uuid);
CREATE INDEX IF NOT EXISTS collections_trash ON collections (delete_at) WHERE delete_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS groups_owner ON groups (owner_uuid, name);
CREATE INDEX IF NOT EXISTS groups_trash ON groups (trash_at) WHERE trash_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS links_tail ON links (tail_uuid, link_class);
CREATE INDEX IF NOT EXISTS links_head ON links (head_uuid, link_class);
CREATE INDEX IF NOT EXISTS links_class ON links (link_class, name);
CREATE INDEX IF NOT EXISTS users_owner ON users (owner_uuid);
CREATE INDEX IF NOT EXISTS tokens_user ON api_client_authorizations (user_uuid);
CREATE INDEX IF NOT EXISTS logs_object ON logs (object_uuid);
CREATE INDEX IF NOT EXISTS logs_owner ON logs (object_owner_uuid);
CREATE INDEX IF NOT EXISTS logs_created ON logs (created_at);
"""


class Database:
    """The file and its connections. `open` before use, `close` at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._write_lock = threading.Lock()
        self._pool_lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False

    def open(self) -> None:
        """Make the file (0600) if need be and bring it to this version's tables.

        Raises sqlite3.Error when the file can't be used, ValueError when a newer version made it, or one so
        old that its tables can't be brought to this version's.
        """
        self._path.touch(mode=0o600)
        connection = self._connect()
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            upgrade(connection, _schema_sql())
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)

    def close(self) -> None:
        """Close every idle connection; those in use are closed when their transaction ends."""
        with self._pool_lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one state of all tables until the block ends. Never waits for a writer.

        A statement that is still at work READ_SECONDS after the beginning ends with ApiError 422.
        """
        with self._borrowed() as connection:
            end = time.monotonic() + READ_SECONDS
            connection.set_progress_handler(lambda: time.monotonic() > end, PROGRESS_STEPS)
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.set_progress_handler(None, 0)
                connection.rollback()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection with the only right to write; committed when the block ends well, else rolled back."""
        with self._write_lock, self._borrowed() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.commit()
            except BaseException:
                connection.rollback()
                raise

    @contextmanager
    def _borrowed(self) -> Iterator[sqlite3.Connection]:
        with self._pool_lock:
            if self._closed:
                raise ApiError(503, "the server is stopping")
            connection = self._idle.pop() if self._idle else None
        connection = connection or self._connect()
        try:
            yield connection
        except sqlite3.OperationalError as error:
            if "interrupted" in str(error):
                raise invalid("this request takes too long: use fewer or simpler filters") from None
            if not any(word in str(error) for word in _UNAVAILABLE):
                raise
            raise ApiError(503, f"the database is not available: {error}") from error
        finally:
            with self._pool_lock:
                keep = not self._closed
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()

    def _connect(self) -> sqlite3.Connection:
        # Used by one transaction at a time, not by one thread for ever.
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        # FULL: a record that was acknowledged is there after a power cut too, not only after a kill;
        # it costs one fsync of the log for each change, about a millisecond.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_LIMIT}")
        matching.register(connection)
        return connection


def _schema_sql() -> str:
    tables = "".join(_table_sql(resource) for resource in RESOURCES.values() if resource.served)
    return tables + _TABLES + _INDEXES


def _table_sql(resource: Resource) -> str:
    columns = []
    for item in resource.stored:
        if item.name == "id":
            columns.append("id INTEGER PRIMARY KEY AUTOINCREMENT")
        elif item.name == "uuid":
            columns.append("uuid TEXT NOT NULL UNIQUE")
        else:
            columns.append(f'"{item.name}" {_COLUMN[item.type]}')
    columns.extend(_EXTRA_COLUMNS.get(resource.name, ()))
    return f"CREATE TABLE {resource.name} ({', '.join(columns)});\n"
