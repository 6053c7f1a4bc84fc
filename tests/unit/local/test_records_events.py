"""Events: one for each change, with what it may tell, to those who may see it."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from records_world import Person, World

from arvados_fuse.local.records import ApiError, database
from arvados_fuse.local.records.logs import LogRow


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture
def ann(world: World) -> Person:
    return world.person("ann")


def events(world: World, uuid: str) -> list[LogRow]:
    return [row for row in world.records.events_after(0) if row.object_uuid == uuid]


def test_every_change_makes_one_event(world: World, ann: Person) -> None:
    project = ann.project("p")
    made = ann.collection("c", {"foo": b"foo"})
    call = ann.call
    call("collections", "update", uuid=made["uuid"], collection={"name": "d"})
    call("collections", "update", uuid=made["uuid"], collection={"owner_uuid": project["uuid"]})
    changed = call("collections", "update", uuid=made["uuid"], replace_files={"/bar": "current/foo"})
    call("collections", "trash", uuid=made["uuid"])
    call("collections", "untrash", uuid=made["uuid"])
    rows = events(world, made["uuid"])
    assert [row.event_type for row in rows] == ["create", "update", "update", "update", "trash", "untrash"]
    assert [row.id for row in rows] == sorted(row.id for row in rows)
    first, renamed, moved, rewritten, trashed, _ = rows
    base = {"owner_uuid": ann.uuid, "portable_data_hash": made["portable_data_hash"], "is_trashed": False}
    assert first.properties == {"old_attributes": None, "new_attributes": base | {"name": "c"}}
    assert renamed.properties == {
        "old_attributes": base | {"name": "c"},
        "new_attributes": base | {"name": "d"},
    }
    assert moved.properties["old_attributes"]["owner_uuid"] == ann.uuid
    assert moved.properties["new_attributes"]["owner_uuid"] == moved.object_owner_uuid == project["uuid"]
    assert rewritten.properties["new_attributes"]["portable_data_hash"] == changed["portable_data_hash"]
    assert trashed.properties["new_attributes"]["is_trashed"]
    assert first.object_kind == "arvados#collection"
    assert first.event_at == made["created_at"]
    link = call("links", "create", link={"link_class": "tag", "name": "t", "head_uuid": made["uuid"]})
    call("links", "delete", uuid=link["uuid"])
    assert [row.event_type for row in events(world, link["uuid"])] == ["create", "delete"]
    assert events(world, link["uuid"])[1].properties["new_attributes"] is None
    assert [row.event_type for row in events(world, project["uuid"])] == ["create"]


def test_what_is_refused_or_secret_makes_no_event(world: World, ann: Person) -> None:
    before = world.records.last_event_id()
    ann.refused(422, "collections", "create", collection={"name": 7})
    ann.refused(404, "collections", "trash", uuid="ztest-4zz18-000000000000000")
    ann.call("api_client_authorizations", "create")
    ann.call("collections", "list")
    assert world.records.last_event_id() == before
    assert world.records.events_after(before) == []


def test_events_come_in_pages(world: World, ann: Person) -> None:
    before = world.records.last_event_id()
    made = [ann.collection(f"c{number}")["uuid"] for number in range(5)]
    first = world.records.events_after(before, 2)
    rest = world.records.events_after(first[-1].id, 100)
    assert [row.object_uuid for row in first + rest] == made


def test_an_event_is_seen_by_those_who_see_its_object(world: World, ann: Person) -> None:
    bob = world.person("bob")
    project = ann.project("p")
    made = ann.collection("c", owner_uuid=project["uuid"])
    other = ann.collection("other")
    row = events(world, made["uuid"])[0]
    unseen = events(world, other["uuid"])[0]
    assert world.records.visible_to(ann.token, row)
    assert world.records.visible_to(world.root.token, row)
    assert not world.records.visible_to(bob.token, row)
    link = ann.share("can_read", project["uuid"], bob.uuid)
    assert world.records.visible_to(bob.token, row)
    assert not world.records.visible_to(bob.token, unseen)
    assert [item["object_uuid"] for item in logs(bob, made["uuid"])] == [made["uuid"]]
    assert logs(bob, other["uuid"]) == []
    bob.refused(404, "logs", "get", uuid=unseen.uuid)
    assert bob.call("logs", "get", uuid=row.uuid)["event_type"] == "create"
    ann.call("links", "delete", uuid=link["uuid"])
    assert not world.records.visible_to(bob.token, row)
    assert logs(bob, made["uuid"]) == []


def logs(person: Person, uuid: str) -> list[Any]:
    filters = [["object_uuid", "=", uuid], ["event_type", "in", ["create", "update"]]]
    return list(person.call("logs", "list", filters=filters, order=["id asc"])["items"])


def test_logs_can_be_polled(world: World, ann: Person) -> None:
    first = ann.collection("one")
    last = ann.call("logs", "list", order=["id desc"], limit=1)["items"][0]["id"]
    second = ann.collection("two")
    newer = ann.call("logs", "list", filters=[["id", ">", last]], order=["id asc"])["items"]
    assert [item["object_uuid"] for item in newer] == [second["uuid"]]
    item = newer[0]
    assert (item["kind"], item["object_kind"], item["event_type"]) == (
        "arvados#log",
        "arvados#collection",
        "create",
    )
    assert item["properties"]["new_attributes"]["name"] == "two"
    assert first["uuid"] not in str(newer)


def test_a_client_writes_log_entries_of_its_own(world: World, ann: Person) -> None:
    bob = world.person("bob")
    made = ann.collection("c")
    body = {"event_type": "note", "object_uuid": made["uuid"], "summary": "s", "properties": {"k": "v"}}
    entry = ann.call("logs", "create", log=body)
    assert (entry["summary"], entry["properties"], entry["owner_uuid"]) == ("s", {"k": "v"}, ann.uuid)
    assert world.records.events_after(0)[-1].uuid == entry["uuid"]
    bob.refused(422, "logs", "create", log=body)
    bob.refused(404, "logs", "get", uuid=entry["uuid"])
    ann.refused(404, "logs", "delete", uuid=entry["uuid"])


def test_listeners_hear_of_changes_that_are_already_there(world: World, ann: Person) -> None:
    heard: list[tuple[int, int, str]] = []

    def listen(log_id: int) -> None:
        heard.append((log_id, world.records.last_event_id(), threading.current_thread().name))

    def fail(log_id: int) -> None:
        raise RuntimeError("a listener that fails")

    world.records.on_change(fail)
    world.records.on_change(listen)
    made = ann.collection("c")
    ann.call("collections", "list")
    ann.refused(422, "collections", "create", collection={"name": "c"})
    assert ann.call("collections", "get", uuid=made["uuid"])["name"] == "c"
    assert heard == [
        (world.records.last_event_id(), world.records.last_event_id(), threading.current_thread().name)
    ]


# Threads.


def test_readers_do_not_wait_for_a_writer(world: World, ann: Person) -> None:
    made = ann.collection("before")
    entered, leave = threading.Event(), threading.Event()
    base = database.Database(world.path)
    base.open()

    def write() -> None:
        with base.writing() as connection:
            connection.execute("UPDATE collections SET name = 'after'")
            entered.set()
            leave.wait(30)

    writer = threading.Thread(target=write)
    writer.start()
    assert entered.wait(30)
    begin = time.monotonic()
    assert ann.call("collections", "get", uuid=made["uuid"])["name"] == "before"
    assert ann.names("collections") == ["before"]
    assert time.monotonic() - begin < 10
    leave.set()
    writer.join(30)
    base.close()
    assert ann.names("collections") == ["after"]


def test_a_full_disk_is_told_and_harms_nothing(world: World, ann: Person) -> None:
    made = ann.collection("before", {"foo": b"foo"})
    base = database.Database(world.path)
    base.open()
    with base.writing() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")

    def fill() -> None:
        with base.writing() as connection:
            connection.execute("UPDATE collections SET name = 'lost'")
            connection.execute("INSERT INTO manifests VALUES ('x', 0, ?)", ("x" * 1_000_000,))

    with pytest.raises(ApiError, match="full") as caught:
        fill()
    assert caught.value.status == 503
    with base.writing() as connection:
        connection.execute("UPDATE collections SET name = 'after'")
    base.close()
    assert ann.call("collections", "get", uuid=made["uuid"])["name"] == "after"
    assert world.records.check() == []


def test_a_reading_call_has_a_deadline(world: World, ann: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        ann.collection(f"c{number}")
    monkeypatch.setattr(database, "READ_SECONDS", 0.1)
    contains = ["storage_classes_desired", "contains", ["default"] * 1000]
    begin = time.process_time()
    assert "too long" in ann.refused(422, "collections", "list", filters=[contains] * 200)
    assert time.process_time() - begin < 20
    assert len(ann.names("collections")) == 20


def test_threads_write_and_read_at_once(world: World, ann: Person) -> None:
    def work(number: int) -> int:
        files = 0
        for step in range(15):
            made = ann.collection(f"c{number}-{step}", {"foo": b"%d" % step})
            files += ann.call("collections", "get", uuid=made["uuid"])["file_count"]
            assert len(ann.call("groups", "contents", uuid=ann.uuid, limit=5)["items"]) <= 5
        return files

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(work, range(6))) == [15] * 6
    assert ann.call("collections", "list", limit=0)["items_available"] == 90
    ids = [row.id for row in world.records.events_after(0)]
    assert ids == sorted(set(ids))
