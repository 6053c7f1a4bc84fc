"""Bringing the tables that an older build made to those of this one, or saying plainly that it can't be done.

`Database.open` uses it, in one transaction, before anybody else has a connection. What a step needs stands in
UPGRADES under the version it starts from; afterwards the tables are compared with those that a new file would
get, so that a build which changed them without a new version is found at the start and not at a request.
"""

import sqlite3
from collections.abc import Callable

FORMAT = 2
"""Version of the tables, in SQLite's `user_version`."""


class TooOld(ValueError):
    """The file's tables can't be brought to this version; the text says what to do."""


def _to_2(connection: sqlite3.Connection) -> None:
    """Builds before version 2 kept the names of a manifest's files beside it, or had its form as now."""
    names = _columns(connection, "manifests")
    if "normalized" not in names:
        connection.execute("ALTER TABLE manifests RENAME TO old_manifests")
        connection.execute(
            "CREATE TABLE manifests (portable_data_hash TEXT PRIMARY KEY, normalized INTEGER NOT NULL,"
            " text TEXT NOT NULL)"
        )
        # Whether a text is normalized costs a look at it when it is next changed, no more.
        connection.execute("INSERT INTO manifests SELECT portable_data_hash, 0, text FROM old_manifests")
        connection.execute("DROP TABLE old_manifests")


UPGRADES: dict[int, Callable[[sqlite3.Connection], None]] = {1: _to_2}


def upgrade(connection: sqlite3.Connection, schema: str) -> None:
    """Make or change the tables in the open transaction. schema: SQL that makes them in an empty file.

    Raises TooOld, ValueError when a newer version made the file, sqlite3.Error.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > FORMAT:
        raise ValueError("a newer version made them; use that one, or another --data-dir")
    if version == 0:
        for statement in _statements(schema):
            connection.execute(statement)
    try:
        for number in range(max(version, 1), FORMAT):
            UPGRADES[number](connection)
    except sqlite3.OperationalError as error:
        raise TooOld(_too_old(str(error))) from error
    wrong = differences(connection, schema)
    if wrong:
        raise TooOld(_too_old("; ".join(wrong)))
    # An index is no part of the form: builds without it can go on with the file.
    for statement in _statements(schema):
        if statement.startswith("CREATE INDEX IF NOT EXISTS"):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def differences(connection: sqlite3.Connection, schema: str) -> list[str]:
    """How the tables differ from those of a new file in what matters to statements, in words."""
    fresh = sqlite3.connect(":memory:")
    try:
        fresh.executescript(schema)
        found = []
        for (table,) in fresh.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
            if table.startswith("sqlite_"):
                continue
            wanted, there = _columns(fresh, table), _columns(connection, table)
            if not there:
                found.append(f"no table {table}")
                continue
            missing = sorted(wanted.keys() - there.keys())
            unknown = sorted(name for name in there.keys() - wanted.keys() if there[name])
            found += [f"{table} has no column {name}" for name in missing]
            found += [f"{table} insists on a column {name}" for name in unknown]
        return found
    finally:
        fresh.close()


def _columns(connection: sqlite3.Connection, table: str) -> dict[str, bool]:
    """Names of columns, and whether a row can't do without a value that it is given."""
    rows = connection.execute('SELECT name, "notnull", dflt_value FROM pragma_table_info(?)', (table,))
    return {row[0]: bool(row[1]) and row[2] is None for row in rows}


def _statements(script: str) -> list[str]:
    """`executescript` would end the transaction."""
    return [statement for part in script.split(";") if (statement := part.strip())]


def _too_old(why: str) -> str:
    return (
        f"an older version made them, in a form that this one can't read ({why}); "
        "use another --data-dir, or move this one away"
    )
