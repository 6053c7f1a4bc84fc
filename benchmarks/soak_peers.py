"""More programs of the soak run: a database with transactions, one that moves files between collections, one
that looks from another mount at what is written. Used by `soak_load`; the database also by the last check.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from benchmarks.soak_content import LEAST, State, Wrong, described, recognise, text
from benchmarks.soak_programs import Program

KEPT = 200
"""Rows; older ones are deleted."""
ROW = 1500
"""Bytes of content in each."""


def read_ledger(path: Path) -> int:
    """The number of the last transaction in a ledger, 0 when there is none. Raises Wrong, sqlite3.Error."""
    try:
        return _checked(path)
    except sqlite3.DatabaseError as error:
        if "malformed" not in str(error):
            raise
        raise sqlite3.DatabaseError(f"{error}: {_looks(path)}") from error


def _looks(path: Path) -> str:
    """What there is to see of a database that SQLite takes for damaged."""
    data = path.read_bytes()
    pages, beside = int.from_bytes(data[28:32], "big"), sorted(os.listdir(path.parent))
    return f"{path.stat().st_size} bytes, {len(data)} read, {pages} pages by its header, beside {beside}"


def _checked(path: Path) -> int:
    with closing(sqlite3.connect(path, timeout=5)) as database:
        answer = database.execute("PRAGMA integrity_check").fetchall()
        if "unable to get the page. error code" in str(answer):
            raise sqlite3.OperationalError("disk I/O error")  # which it does not raise itself
        if answer != [("ok",)]:
            raise Wrong(f"the database is damaged: {answer[:3]}")
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries'").fetchall():
            return 0
        rows = database.execute("SELECT number, content FROM entries ORDER BY number").fetchall()
    last = rows[-1][0] if rows else 0
    if [number for number, _ in rows] != list(range(max(0, last - KEPT) + 1, last + 1)):
        raise Wrong(f"rows are missing before {last}: there are {len(rows)}")
    for number, content in rows:
        if content != text("ledger", number, ROW):
            raise Wrong(f"row {number} is wrong: {described(content)}")
    return int(last)


class Ledger(Program):
    """A database with rollback journal and full syncs: what was committed is there after every fault."""

    def __init__(self, name: str, root: Path, path: str, seed: int) -> None:
        super().__init__(name, root, path, seed)
        self.committed = 0
        self._database: sqlite3.Connection | None = None

    @property
    def file(self) -> Path:
        """The database."""
        return self.directory / "ledger.db"

    def step(self) -> None:
        """One transaction."""
        if self._database is None:
            with self.clock.at("open database", self.file):
                self._database = sqlite3.connect(
                    self.file, timeout=5, isolation_level=None, check_same_thread=False
                )
                self._database.execute(
                    "CREATE TABLE IF NOT EXISTS entries (number INTEGER PRIMARY KEY, content BLOB)"
                )
        number = self.committed + 1
        with self.clock.at("transaction", self.file):
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("INSERT INTO entries VALUES (?, ?)", (number, text("ledger", number, ROW)))
            self._database.execute("DELETE FROM entries WHERE number <= ?", (number - KEPT,))
            self._database.execute("COMMIT")
        self.committed = number
        self.clock.written += ROW

    def park(self) -> None:
        """Close it."""
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def look_at_all(self) -> None:
        """All that was committed is there, and at most the transaction that failed as well."""
        self.park()
        with self.clock.at("check database", self.file):
            last = read_ledger(self.file)
        if last not in (self.committed, self.committed + 1):
            raise Wrong(f"transaction {self.committed} was committed, and {last} is the last one")
        self.clock.verified += min(last, KEPT) * ROW
        self.committed = last


class Mover(Program):
    """Moves files from one collection to another and back."""

    def __init__(self, name: str, root: Path, path: str, other: str, seed: int) -> None:
        """path, other: its directories, in two collections."""
        super().__init__(name, root, path, seed)
        self.other = root / other

    def step(self) -> None:
        """One file there, or back."""
        name = f"m{self.random.randrange(4)}"
        if name not in self.known.present():
            self.put(name, self.random.choice([300, 70_000]), sync=self.random.random() < 0.3)
            return
        here, there = self.directory / name, self.other / name
        with self.clock.at("move", here):
            here.rename(there)
        with self.clock.at("move", there):
            there.rename(here)
        self.check(name)

    def look_at_all(self) -> None:
        """What was on its way is in one of both places; it comes back. In both is no loss."""
        for entry in list(os.scandir(self.other)):
            (self.other / entry.name).rename(self.directory / entry.name)
        super().look_at_all()


class Watcher(Program):
    """Looks, on another mount, at what the others write: every file is whole, and no older than before."""

    def __init__(self, name: str, root: Path, path: str, seed: int, programs: set[str]) -> None:
        """programs: names of directories whose files say what they are."""
        super().__init__(name, root, path, seed)
        self._programs = programs
        self._seen: dict[str, tuple[int, int]] = {}

    def step(self) -> None:
        """One file of one directory."""
        at = self.directory
        try:
            while True:
                with self.clock.at("list", at):
                    names = [(entry.name, entry.is_dir()) for entry in os.scandir(at)]
                if at == self.directory:
                    names = [each for each in names if each[0] in self._programs]
                if not names:
                    return
                name, is_directory = self.random.choice(names)
                at = at / name
                if not is_directory:
                    break
            self._look(at)
        except FileNotFoundError:
            self.directory.stat()  # else it was renamed or removed meanwhile

    def _look(self, path: Path) -> None:
        name = str(path.relative_to(self.directory))
        data = self.read(name)
        if len(data) < LEAST:
            return
        found = recognise(data)
        if found is None or found.label != name.partition("/")[0]:
            raise Wrong(f"{name} is {described(data)}")
        now = found.version, len(data)
        if now < self._seen.get(name, (0, 0)):
            raise Wrong(f"{name} was version and size {self._seen[name]}, and is {now} again")
        self._seen[name] = now

    def look_at_all(self) -> None:
        """Nothing of its own to find out."""

    def expected(self) -> dict[str, State]:
        """Nothing."""
        return {}
