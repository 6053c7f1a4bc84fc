"""Files of an older build are brought to this build's tables, or refused with a sentence at the start."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from records_world import Person

from arvados_fuse.local.records import Records
from arvados_fuse.local.records.context import Caller, Context
from arvados_fuse.local.records.permissions import Permissions
from arvados_fuse.local.records.sweeping import prune_logs
from arvados_fuse.local.records.upgrade import FORMAT, TooOld
from arvados_fuse.local.signature import Signer
from arvados_fuse.local.site import SiteConfig

MANIFEST = ". d41d8cd98f00b204e9800998ecf8427e+0 0:0:empty\n"


@pytest.fixture
def site() -> SiteConfig:
    return SiteConfig.new("zzzzz")


@pytest.fixture
def path(tmp_path: Path, site: SiteConfig) -> Path:
    """A file of this build with one collection."""
    where = tmp_path / "records.sqlite"
    records = Records.open(where, site)
    root(records, site).call("collections", "create", collection={"name": "a", "manifest_text": MANIFEST})
    records.close()
    return where


def root(records: Records, site: SiteConfig) -> Person:
    return Person(records, site.system_root_token, site.system_user_uuid)


def change(path: Path, script: str) -> None:
    connection = sqlite3.connect(path)
    try:
        connection.executescript(script)
    finally:
        connection.close()


def version(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
    finally:
        connection.close()


def test_a_new_file_has_this_version(path: Path) -> None:
    assert version(path) == FORMAT


def test_an_index_that_is_missing_is_made(path: Path, site: SiteConfig) -> None:
    change(path, "DROP INDEX collections_owner_uuid")
    Records.open(path, site).close()
    connection = sqlite3.connect(path)
    try:
        plan = connection.execute(
            "EXPLAIN QUERY PLAN SELECT name FROM collections WHERE owner_uuid = 'a' AND uuid > 'b'"
            " ORDER BY uuid LIMIT 9"
        ).fetchall()
    finally:
        connection.close()
    # A page of a large project costs what is in the page: nothing is sorted.
    assert [row[3] for row in plan] == [
        "SEARCH collections USING INDEX collections_owner_uuid (owner_uuid=? AND uuid>?)"
    ]
    assert version(path) == FORMAT


def test_the_first_form_of_manifests_is_upgraded(path: Path, site: SiteConfig) -> None:
    change(
        path,
        """
        ALTER TABLE manifests RENAME TO new;
        CREATE TABLE manifests (
            portable_data_hash TEXT PRIMARY KEY, file_names TEXT NOT NULL, text TEXT NOT NULL
        );
        INSERT INTO manifests SELECT portable_data_hash, 'empty', text FROM new;
        DROP TABLE new;
        PRAGMA user_version = 1;
        """,
    )
    records = Records.open(path, site)
    try:
        ada = root(records, site)
        (item,) = ada.call("collections", "list")["items"]
        there = ada.call("collections", "get", uuid=item["uuid"], select=["uuid", "unsigned_manifest_text"])
        assert there["unsigned_manifest_text"] == MANIFEST
        found = ada.call("collections", "list", filters=[["file_names", "ilike", "%empty%"]])["items"]
        assert [one["uuid"] for one in found] == [item["uuid"]]
        ada.call("collections", "update", uuid=item["uuid"], replace_files={"/empty": ""})
        ada.call("collections", "create", collection={"name": "b", "manifest_text": MANIFEST})
        assert records.check() == []
    finally:
        records.close()
    assert version(path) == FORMAT


def test_version_1_with_the_tables_of_version_2_stays_as_it_is(path: Path, site: SiteConfig) -> None:
    change(path, "PRAGMA user_version = 1;")
    Records.open(path, site).close()
    assert version(path) == FORMAT


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("ALTER TABLE links DROP COLUMN properties;", "links has no column properties"),
        ("DROP TABLE state;", "no table state"),
        ("DROP TABLE manifests;", "manifests"),
        (
            "ALTER TABLE state RENAME TO other; "
            "CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER NOT NULL, more TEXT NOT NULL);",
            "state insists on a column more",
        ),
    ],
)
@pytest.mark.parametrize("old", [1, FORMAT])
def test_what_can_not_be_upgraded_is_told_at_the_start(
    path: Path, site: SiteConfig, script: str, words: str, old: int
) -> None:
    change(path, f"{script} PRAGMA user_version = {old};")
    before = path.read_bytes()
    with pytest.raises(TooOld) as caught:
        Records.open(path, site)
    sentence = str(caught.value)
    assert words in sentence
    assert "use another --data-dir, or move this one away" in sentence
    assert version(path) == old
    assert len(path.read_bytes()) == len(before)


def test_a_newer_version_is_not_touched(path: Path, site: SiteConfig) -> None:
    change(path, f"PRAGMA user_version = {FORMAT + 1};")
    with pytest.raises(ValueError, match="newer version"):
        Records.open(path, site)
    assert version(path) == FORMAT + 1


# Old events


@pytest.fixture
def context(site: SiteConfig) -> Iterator[Context]:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    connection.execute("CREATE TABLE logs (id INTEGER PRIMARY KEY, created_at TEXT)")
    caller = Caller(site.system_user_uuid, True, True, "", "")
    signer = Signer(site.blob_signing_key.encode(), 60)
    now = "2026-03-15T12:00:00.000000Z"
    yield Context(site, connection, caller, Permissions(), signer, now)
    connection.close()


def logged(context: Context, *days: int) -> None:
    for day in days:
        context.connection.execute(
            "INSERT INTO logs (created_at) VALUES (?)", (f"2026-03-{day:02}T12:00:00.000000Z",)
        )


def left(context: Context) -> list[int]:
    return [row[0] for row in context.connection.execute("SELECT id FROM logs ORDER BY id")]


def test_events_older_than_two_weeks_go(context: Context) -> None:
    logged(context, 1, 1, 2, 10, 15)
    context.connection.execute("UPDATE logs SET created_at = '2026-02-28T00:00:00.000000Z' WHERE id < 3")
    assert prune_logs(context) == 2
    assert left(context) == [3, 4, 5]


def test_all_but_the_newest_go(context: Context) -> None:
    logged(context, 15, 15, 15, 15, 15)
    assert prune_logs(context, kept=5) == 0
    assert prune_logs(context, kept=2) == 3
    assert left(context) == [4, 5]


def test_the_newest_stays_however_old(context: Context) -> None:
    logged(context, 1, 1)
    assert prune_logs(context, age=0.0, kept=0) == 1
    assert left(context) == [2]
    assert prune_logs(context) == 0


def test_ids_go_on_after_events_went(path: Path, site: SiteConfig) -> None:
    records = Records.open(path, site)
    try:
        before = records.last_event_id()
        records.sweep()
        change(path, "UPDATE logs SET created_at = '2001-01-01T00:00:00.000000Z'")
        records.sweep()
        assert [row.id for row in records.events_after(0)] == [before]
        root(records, site).call("collections", "create", collection={"name": "c", "manifest_text": ""})
        assert records.last_event_id() > before
    finally:
        records.close()
