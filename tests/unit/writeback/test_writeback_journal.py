"""The journal: what was written is there again, newer ones are refused, half-made ones are nothing."""

import sqlite3
from pathlib import Path

import pytest

from arvados_fuse.errors import SaveFailed
from arvados_fuse.writeback.journal import Journal, JournalTooNew, Line, Owner

OWNER = Owner("example.org:443", "zzzzz-tpzed-000000000000000")
ONE = Line("c1", "a/b", "-", ["37b51d194a7513e45b56f6524f2d51f2+3", 0, 3], [], 1.5)
TWO = Line("c1", 'odd "name"\n\u00e9\U0001f600', "d", "-", ["-", "d"], 2.5)


def test_rows_survive_and_are_replaced_by_path(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal.create(path, OWNER, 12.0)
    journal.write([ONE, TWO], [])
    journal.write([ONE._replace(after="d")], [("c1", TWO.path), ("c2", "not there")])
    journal.close()
    assert path.stat().st_mode & 0o777 == 0o600
    again = Journal.open(path)
    assert again is not None
    assert (again.owner, again.since) == (OWNER, 12.0)
    assert list(again.lines()) == [ONE._replace(after="d")]
    again.close()


def test_a_write_is_all_or_nothing(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "journal", OWNER, 1.0)
    journal.write([ONE], [])
    with pytest.raises(SaveFailed):
        journal.write([TWO, ONE._replace(path=None)], [("c1", ONE.path)])  # type: ignore[arg-type]
    assert list(journal.lines()) == [ONE]
    journal.write([TWO], [])
    assert list(journal.lines()) == [ONE, TWO]
    journal.close()


def test_a_newer_journal_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal.create(path, OWNER, 1.0).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(JournalTooNew, match="newer"):
        Journal.open(path)
    assert path.read_bytes() == before


def test_a_journal_that_was_never_finished_is_none(tmp_path: Path) -> None:
    assert Journal.open(tmp_path / "none") is None
    (tmp_path / "empty").touch()
    assert Journal.open(tmp_path / "empty") is None


def test_what_is_no_database_has_a_name(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database\n" * 1000)
    with pytest.raises(SaveFailed, match="text"):
        Journal.open(tmp_path / "text")
