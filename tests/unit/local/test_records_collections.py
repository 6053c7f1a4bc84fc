"""Collections: content, signatures, names, trash, versions."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from records_world import Person, World, bare, sdk_collection, stripped

from arvados_fuse.local.records import ApiError, collections, service

EMPTY_HASH = "d41d8cd98f00b204e9800998ecf8427e+0"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture
def ann(world: World) -> Person:
    return world.person("ann")


@pytest.fixture
def bob(world: World) -> Person:
    return world.person("bob")


def test_a_collection_has_what_arvados_documents(ann: Person) -> None:
    made = ann.collection("c", {"foo": b"foo", "d/bar": b"barbar"}, properties={"k": [1]}, description="text")
    manifest = f". {bare(b'foo')} 0:3:foo\n./d {bare(b'barbar')} 0:6:bar\n"
    assert stripped(made["manifest_text"]) == manifest
    assert made["portable_data_hash"] == sdk_collection(manifest).portable_data_hash()
    assert (made["file_count"], made["file_size_total"]) == (2, 9)
    assert made["kind"] == "arvados#collection"
    assert made["uuid"] == made["current_version_uuid"]
    assert made["owner_uuid"] == made["modified_by_user_uuid"] == ann.uuid
    assert made["properties"] == {"k": [1]}
    assert made["created_at"] == made["modified_at"]
    assert made["storage_classes_desired"] == ["default"]
    assert made["version"] == 1
    assert (made["is_trashed"], made["trash_at"], made["preserve_version"]) == (False, None, False)
    assert ann.call("collections", "get", uuid=made["uuid"]) == made
    assert ann.call("collections", "get", uuid=made["uuid"], select=["uuid", "file_count"]) == {
        "kind": "arvados#collection",
        "uuid": made["uuid"],
        "file_count": 2,
    }
    unsigned = ann.call("collections", "get", uuid=made["uuid"], select=["unsigned_manifest_text"])
    assert unsigned["unsigned_manifest_text"] == manifest


def test_times_are_written_as_arvados_writes_them(ann: Person) -> None:
    made = ann.collection("c", trash_at="2099-02-03 04:05:06.7+02:00")
    assert made["trash_at"] == "2099-02-03T02:05:06.700000000Z"
    assert made["delete_at"] > made["trash_at"]
    assert len(made["created_at"]) == 30


def test_a_collection_without_anything_is_empty(ann: Person) -> None:
    made = ann.call("collections", "create")
    assert made["manifest_text"] == ""
    assert made["portable_data_hash"] == EMPTY_HASH
    assert made["name"] is None
    assert ann.call("collections", "create")["uuid"] != made["uuid"]


def test_attributes_may_come_without_their_wrapping(ann: Person) -> None:
    made = ann.call("collections", "create", name="bare", manifest_text=ann.manifest({"a": b"a"}))
    assert made["name"] == "bare"
    changed = ann.call("collections", "update", uuid=made["uuid"], name="still", manifest_text="")
    assert (changed["name"], changed["manifest_text"]) == ("still", "")


def test_each_reader_gets_signatures_of_its_own(ann: Person, bob: Person) -> None:
    made = ann.collection("c", {"foo": b"foo"})
    ann.share("can_read", made["uuid"], bob.uuid)
    for person in (ann, bob):
        text = person.call("collections", "get", uuid=made["uuid"])["manifest_text"]
        person.records.signer.verify(text.split()[1], person.token)
    stolen = ann.call("collections", "get", uuid=made["uuid"])["manifest_text"]
    assert "not valid for this token" in bob.refused(
        403, "collections", "create", collection={"manifest_text": stolen}
    )


def test_blocks_need_a_good_signature(ann: Person) -> None:
    late = ann.block(b"foo", int(time.time()) - 10)
    for locator, words in (
        (bare(b"foo"), "no signature"),
        (late, "expired"),
        (ann.block(b"foo").replace("acbd", "acbe"), "not valid"),
    ):
        body = {"manifest_text": f". {locator} 0:3:foo\n"}
        assert words in ann.refused(403, "collections", "create", collection=body)
    empty = ann.call("collections", "create", collection={"manifest_text": f". {EMPTY_HASH} 0:0:x\n"})
    assert empty["file_count"] == 1
    for locator in (bare(b"foo"), late):
        body = {"manifest_text": f". {locator} 0:3:foo\n"}
        ann.refused(403, "collections", "update", uuid=empty["uuid"], collection=body)
    assert ann.call("collections", "get", uuid=empty["uuid"])["modified_at"] == empty["modified_at"]


def test_what_was_read_can_be_saved_again(ann: Person) -> None:
    made = ann.collection("c", {"foo": b"foo"})
    again = ann.call("collections", "create", collection={"manifest_text": made["manifest_text"]})
    assert again["portable_data_hash"] == made["portable_data_hash"]


def test_the_hash_that_a_client_claims_must_be_right(ann: Person) -> None:
    text = ann.manifest({"foo": b"foo"})
    right = sdk_collection(stripped(text)).portable_data_hash()
    wrong = "1" * 32 + "+45"
    body = {"manifest_text": text, "portable_data_hash": wrong}
    assert right in ann.refused(422, "collections", "create", collection=body)
    made = ann.call("collections", "create", collection=body | {"portable_data_hash": right})
    assert made["portable_data_hash"] == right
    ann.refused(422, "collections", "update", uuid=made["uuid"], collection=body)
    ann.refused(422, "collections", "update", uuid=made["uuid"], collection={"portable_data_hash": wrong})
    ann.refused(422, "collections", "create", collection={"portable_data_hash": right})
    ann.call("collections", "update", uuid=made["uuid"], collection={"portable_data_hash": right})


def test_an_illegal_manifest_changes_nothing(ann: Person) -> None:
    made = ann.collection("c", {"foo": b"foo"})
    for text in ("x", f"./../a {ann.block(b'foo')} 0:3:x\n", 7, ["x"], {"a": 1}):
        ann.refused(422, "collections", "update", uuid=made["uuid"], collection={"manifest_text": text})
        ann.refused(422, "collections", "create", collection={"manifest_text": text})
    assert ann.call(
        "collections", "get", uuid=made["uuid"], select=["modified_at", "portable_data_hash"]
    ) == {
        "kind": "arvados#collection",
        "modified_at": made["modified_at"],
        "portable_data_hash": made["portable_data_hash"],
    }


def test_content_can_be_had_by_its_hash(ann: Person, bob: Person) -> None:
    made = ann.collection("c", {"foo": b"foo"})
    found = ann.call("collections", "get", uuid=made["portable_data_hash"])
    assert found.keys() == {"portable_data_hash", "manifest_text", "trash_at"}
    assert stripped(found["manifest_text"]) == stripped(made["manifest_text"])
    with_hint = ann.call(
        "collections", "get", uuid=made["portable_data_hash"] + "+Kzzzzz", select=["trash_at"]
    )
    assert with_hint == {"trash_at": None}
    bob.refused(404, "collections", "get", uuid=made["portable_data_hash"])
    ann.share("can_read", made["uuid"], bob.uuid)
    bob.records.signer.verify(
        bob.call("collections", "get", uuid=made["portable_data_hash"])["manifest_text"].split()[1], bob.token
    )
    ann.call("collections", "delete", uuid=made["uuid"])
    for person in (ann, bob):
        person.refused(404, "collections", "get", uuid=made["portable_data_hash"])
    ann.refused(404, "collections", "get", uuid="0" * 32 + "+7")


def test_names_are_unique_in_their_owner(ann: Person, bob: Person) -> None:
    first = ann.collection("same")
    assert "taken" in ann.refused(422, "collections", "create", collection={"name": "same"})
    second = ann.call("collections", "create", collection={"name": "same"}, ensure_unique_name=True)
    third = ann.call("collections", "create", collection={"name": "same"}, ensure_unique_name=True)
    assert len({first["name"], second["name"], third["name"]}) == 3
    assert second["name"].startswith("same (")
    project = ann.project("same")
    ann.collection("same", owner_uuid=project["uuid"])
    bob.collection("same")
    ann.collection(None)
    ann.collection(None)
    ann.refused(422, "collections", "update", uuid=second["uuid"], collection={"name": "same"})
    ann.refused(
        422,
        "collections",
        "update",
        uuid=second["uuid"],
        collection={"name": "same", "owner_uuid": project["uuid"]},
    )
    renamed = ann.call(
        "collections", "update", uuid=second["uuid"], collection={"name": "same"}, ensure_unique_name=True
    )
    assert renamed["name"] != "same"
    ann.call("collections", "update", uuid=first["uuid"], collection={"name": "same", "description": "mine"})


def test_a_name_in_the_trash_is_free(ann: Person) -> None:
    first = ann.collection("same")
    ann.call("collections", "trash", uuid=first["uuid"])
    ann.collection("same")
    ann.refused(422, "collections", "untrash", uuid=first["uuid"])
    back = ann.call("collections", "untrash", uuid=first["uuid"], ensure_unique_name=True)
    assert back["name"].startswith("same (")
    assert (back["is_trashed"], back["trash_at"], back["delete_at"]) == (False, None, None)


def test_a_slash_in_a_name_depends_on_the_site(tmp_path: Path, ann: Person) -> None:
    assert ann.collection("a/b")["name"] == "a/b"
    (tmp_path / "strict").mkdir()
    strict = World(tmp_path / "strict", forward_slash_substitution="")
    eve = strict.person("eve")
    assert "'/'" in eve.refused(422, "collections", "create", collection={"name": "a/b"})
    assert "'/'" in eve.refused(422, "groups", "create", group={"name": "a/b", "group_class": "project"})
    strict.close()


def test_the_trash_hides_and_gives_back(ann: Person) -> None:
    made = ann.collection("c", {"foo": b"foo"})
    for method in ("delete", "trash"):
        gone = ann.call("collections", method, uuid=made["uuid"])
        assert gone["is_trashed"]
        assert gone["delete_at"] > gone["trash_at"] <= gone["modified_at"]
        ann.refused(404, "collections", "get", uuid=made["uuid"])
        ann.refused(404, "collections", "update", uuid=made["uuid"], collection={"name": "x"})
        assert ann.names("collections") == []
        assert ann.names("collections", include_trash=True) == ["c"]
        assert ann.call("collections", "get", uuid=made["uuid"], include_trash=True)["is_trashed"]
        again = ann.call("collections", method, uuid=made["uuid"])
        assert again["trash_at"] == gone["trash_at"]
        assert not ann.call("collections", "untrash", uuid=made["uuid"])["is_trashed"]
        assert ann.call("collections", "get", uuid=made["uuid"])["manifest_text"]
    ann.refused(422, "collections", "untrash", uuid=made["uuid"])


def test_a_collection_can_be_due_for_the_trash(ann: Person) -> None:
    made = ann.collection("c", trash_at="2099-01-01T00:00:00Z")
    assert not made["is_trashed"]
    assert ann.names("collections") == ["c"]
    past = ann.call(
        "collections", "update", uuid=made["uuid"], collection={"trash_at": "2001-01-01T00:00:00Z"}
    )
    assert past["is_trashed"]
    assert past["trash_at"] > "2020"
    assert ann.names("collections") == []


def test_what_has_been_in_the_trash_for_its_time_is_removed(tmp_path: Path) -> None:
    world = World(tmp_path, default_trash_lifetime=0)
    ann = world.person("ann")
    kept = ann.collection("kept", {"foo": b"foo"})
    gone = ann.collection("gone", {"foo": b"foo", "bar": b"bar"}, preserve_version=True)
    ann.call("collections", "update", uuid=gone["uuid"], collection={"name": "renamed"})
    tag = ann.call("links", "create", link={"link_class": "tag", "name": "t", "head_uuid": gone["uuid"]})
    assert world.records.sweep() == 0
    ann.call("collections", "trash", uuid=gone["uuid"])
    assert world.records.sweep() == 2
    ann.refused(404, "collections", "get", uuid=gone["uuid"], include_trash=True)
    ann.refused(404, "links", "get", uuid=tag["uuid"])
    ann.refused(
        422, "collections", "create", collection={"name": "x"}, replace_files={"/a": f"{gone['uuid']}/x"}
    )
    assert ann.call("collections", "get", uuid=kept["uuid"])["manifest_text"] == kept["manifest_text"]
    types = [(row.event_type, row.object_uuid) for row in world.records.events_after(0)]
    assert types.count(("delete", gone["uuid"])) == 1
    world.close()


def test_a_collection_moves_between_owners(ann: Person, bob: Person) -> None:
    project = ann.project("p")
    made = ann.collection("c")
    moved = ann.call("collections", "update", uuid=made["uuid"], collection={"owner_uuid": project["uuid"]})
    assert moved["owner_uuid"] == project["uuid"]
    ann.refused(403, "collections", "update", uuid=made["uuid"], collection={"owner_uuid": bob.uuid})
    for nowhere in ("ztest-j7d0g-000000000000001", "nonsense", made["uuid"], "", 5):
        if nowhere == "":
            continue
        ann.refused(422, "collections", "update", uuid=made["uuid"], collection={"owner_uuid": nowhere})
    role = ann.call("groups", "create", group={"name": "r", "group_class": "role"})
    assert "can't own" in ann.refused(
        422, "collections", "update", uuid=made["uuid"], collection={"owner_uuid": role["uuid"]}
    )


def test_storage_classes_and_replication_are_checked(tmp_path: Path) -> None:
    world = World(tmp_path, storage_classes={"fast": True, "archive": False})
    ann = world.person("ann")
    assert ann.collection("c")["storage_classes_desired"] == ["fast"]
    made = ann.collection("d", storage_classes_desired=["archive"], replication_desired=3)
    assert (made["storage_classes_desired"], made["replication_desired"]) == (["archive"], 3)
    mistakes: tuple[dict[str, Any], ...] = (
        {"storage_classes_desired": ["tape"]},
        {"storage_classes_desired": "fast"},
        {"replication_desired": -1},
        {"replication_desired": "2"},
        {"storage_classes_desired": [{}]},
    )
    for wrong in mistakes:
        ann.refused(422, "collections", "update", uuid=made["uuid"], collection=wrong)
    world.close()


def test_what_the_server_decides_can_not_be_set(world: World, ann: Person) -> None:
    made = ann.collection("c", {"a": b"a"})
    whole = ann.call("collections", "get", uuid=made["uuid"])
    changed = ann.call(
        "collections", "update", uuid=made["uuid"], collection=whole | {"name": "sent back whole"}
    )
    assert changed["name"] == "sent back whole"
    assert changed["modified_at"] > made["modified_at"]
    for name, value in (
        ("version", 7),
        ("file_count", 99),
        ("file_size_total", 0),
        ("current_version_uuid", "x"),
    ):
        assert "read-only" in ann.refused(
            422, "collections", "update", uuid=made["uuid"], collection={name: value}
        )
    ann.call(
        "collections",
        "update",
        uuid=made["uuid"],
        collection={"created_at": "2001-01-01T00:00:00Z", "etag": "x"},
    )
    assert ann.call("collections", "get", uuid=made["uuid"])["created_at"] == made["created_at"]
    chosen = "ztest-4zz18-abcdefghijklmno"
    assert "administrator" in ann.refused(403, "collections", "create", collection={"uuid": chosen})
    assert world.root.call("collections", "create", collection={"uuid": chosen})["uuid"] == chosen
    assert "taken" in world.root.refused(422, "collections", "create", collection={"uuid": chosen})
    world.root.refused(422, "collections", "create", collection={"uuid": "ztest-j7d0g-abcdefghijklmno"})


# Versions.


def versions(person: Person, uuid: str) -> list[Any]:
    filters = [["current_version_uuid", "=", uuid]]
    listed = person.call("collections", "list", filters=filters, include_old_versions=True, order=["version"])
    return list(listed["items"])


def test_a_past_version_is_kept_when_asked_for(ann: Person, bob: Person) -> None:
    made = ann.collection("one", {"foo": b"foo"})
    ann.call("collections", "update", uuid=made["uuid"], collection={"name": "two"})
    assert [item["name"] for item in versions(ann, made["uuid"])] == ["two"]
    kept = ann.call("collections", "update", uuid=made["uuid"], collection={"preserve_version": True})
    assert (kept["preserve_version"], kept["version"]) == (True, 2)
    stays = ann.call("collections", "update", uuid=made["uuid"], collection={"preserve_version": False})
    assert stays["preserve_version"]
    changed = ann.call("collections", "update", uuid=made["uuid"], collection={"manifest_text": ""})
    assert (changed["version"], changed["preserve_version"], changed["uuid"]) == (3, False, made["uuid"])
    past, present = versions(ann, made["uuid"])
    assert (past["name"], past["version"], past["portable_data_hash"]) == (
        "two",
        2,
        made["portable_data_hash"],
    )
    assert past["uuid"] != present["uuid"] == made["uuid"]
    assert ann.call("collections", "get", uuid=past["uuid"])["manifest_text"] == made["manifest_text"]
    assert ann.call("collections", "get", uuid=made["portable_data_hash"])["manifest_text"]
    assert ann.names("collections") == ["two"]
    assert "past version" in ann.refused(
        403, "collections", "update", uuid=past["uuid"], collection={"name": "x"}
    )
    bob.refused(404, "collections", "get", uuid=past["uuid"])
    ann.refused(
        422,
        "links",
        "create",
        link={
            "link_class": "permission",
            "name": "can_read",
            "head_uuid": past["uuid"],
            "tail_uuid": bob.uuid,
        },
    )
    ann.share("can_read", made["uuid"], bob.uuid)
    assert bob.call("collections", "get", uuid=past["uuid"])["version"] == 2
    assert len(versions(bob, made["uuid"])) == 2


def test_past_versions_follow_the_present_one(ann: Person) -> None:
    project = ann.project("p")
    made = ann.collection("one", {"foo": b"foo"}, preserve_version=True)
    ann.call(
        "collections", "update", uuid=made["uuid"], collection={"name": "two", "owner_uuid": project["uuid"]}
    )
    past = versions(ann, made["uuid"])[0]
    assert past["owner_uuid"] == project["uuid"]
    ann.call("collections", "trash", uuid=made["uuid"])
    ann.refused(404, "collections", "get", uuid=past["uuid"])
    assert versions(ann, made["uuid"]) == []
    ann.call("collections", "untrash", uuid=made["uuid"])
    assert len(versions(ann, made["uuid"])) == 2


def test_a_rested_collection_keeps_its_past_by_itself(tmp_path: Path) -> None:
    world = World(tmp_path, preserve_version_if_idle=0)
    ann = world.person("ann")
    made = ann.collection("one")
    for name in ("two", "three"):
        ann.call("collections", "update", uuid=made["uuid"], collection={"name": name})
    assert [item["name"] for item in versions(ann, made["uuid"])] == ["one", "two", "three"]
    ann.call("collections", "update", uuid=made["uuid"], collection={"replication_desired": 2})
    assert len(versions(ann, made["uuid"])) == 3
    world.close()


# replace_files and replace_segments through the API.


def test_files_of_several_collections_are_combined(ann: Person, bob: Person) -> None:
    one = ann.collection("one", {"foo": b"foo", "d/x": b"x"})
    two = ann.collection("two", {"bar": b"bar"})
    made = ann.call(
        "collections",
        "create",
        collection={"name": "both", "manifest_text": ann.manifest({"new": b"new"})},
        replace_files={
            "/one": f"{one['portable_data_hash']}/",
            "/y": f"{two['portable_data_hash']}/bar",
            "/z": "manifest_text/new",
        },
    )
    assert stripped(made["manifest_text"]) == (
        f". {bare(b'bar')} {bare(b'new')} 0:3:y 3:3:z\n"
        f"./one {bare(b'foo')} 0:3:foo\n./one/d {bare(b'x')} 0:1:x\n"
    )
    assert (made["file_count"], made["file_size_total"]) == (4, 10)
    ann.records.signer.verify(made["manifest_text"].split()[1], ann.token)
    bob.refused(
        404, "collections", "create", collection={}, replace_files={"/one": f"{one['portable_data_hash']}/"}
    )
    ann.refused(404, "collections", "create", collection={}, replace_files={"/one": f"{'0' * 32}+5/"})


def test_two_clients_that_replace_different_files_both_keep_them(ann: Person) -> None:
    made = ann.collection("c", {"a": b"a", "b": b"b"})
    for name in ("a", "b"):
        ann.call(
            "collections",
            "update",
            uuid=made["uuid"],
            collection={"manifest_text": ann.manifest({f"{name}2": b"2" + name.encode()})},
            replace_files={f"/{name}": f"manifest_text/{name}2"},
        )
    text = ann.call("collections", "get", uuid=made["uuid"])["manifest_text"]
    assert stripped(text) == f". {bare(b'2a')} {bare(b'2b')} 0:2:a 2:2:b\n"


def test_a_replacement_with_a_mistake_changes_nothing(ann: Person) -> None:
    made = ann.collection("c", {"a": b"a", "d/b": b"b"})
    signed = ann.manifest({"n": b"n"})
    unsigned = stripped(signed)
    for status, more in (
        (422, {"replace_files": {"/x": "current/a", "/y": "current/missing"}}),
        (422, {"replace_files": {"/d": "current/d", "/d/x": ""}}),
        (422, {"replace_files": {"/../x": "current/a"}}),
        (422, {"replace_files": "/a"}),
        (422, {"replace_files": {"/x": "manifest_text/n"}}),
        (422, {"replace_files": {"/x": "current/a"}, "collection": {"manifest_text": signed}}),
        (403, {"replace_files": {"/x": "manifest_text/n"}, "collection": {"manifest_text": unsigned}}),
        (
            422,
            {
                "replace_files": {"/x": "current/a"},
                "collection": {"name": "c", "replication_desired": "many"},
            },
        ),
        (422, {"replace_segments": {"x": "y"}}),
        (403, {"replace_segments": {f"{bare(b'a')} 0 1": f"{bare(b'xyz')} 0 1"}}),
    ):
        ann.refused(status, "collections", "update", uuid=made["uuid"], **more)
    assert ann.call("collections", "get", uuid=made["uuid"])["modified_at"] == made["modified_at"]


def test_blocks_are_repacked(ann: Person) -> None:
    made = ann.collection("c", {"a": b"aa", "b": b"bbb"})
    packed = ann.block(b"aabbb")
    changed = ann.call(
        "collections",
        "update",
        uuid=made["uuid"],
        replace_segments={f"{bare(b'aa')} 0 2": f"{packed} 0 2", f"{ann.block(b'bbb')} 0 3": f"{packed} 2 3"},
    )
    assert stripped(changed["manifest_text"]) == f". {bare(b'aabbb')} 0:2:a 2:3:b\n"
    again = ann.call(
        "collections",
        "update",
        uuid=made["uuid"],
        collection={"manifest_text": ann.manifest({"c": b"ccc"})},
        replace_segments={f"{bare(b'ccc')} 0 3": f"{ann.block(b'xcccx')} 1 3"},
    )
    assert stripped(again["manifest_text"]) == f". {bare(b'xcccx')} 1:3:c\n"


def test_a_change_in_between_is_not_lost(world: World, ann: Person) -> None:
    """The content is put together before the transaction; when it is outdated by then, it is done again."""
    made = ann.collection("c", {"a": b"a"})
    listened: list[int] = []
    original = collections.prepare_update

    def prepare_and_be_overtaken(context: Any, parameters: Any) -> Any:
        prepared = original(context, parameters)
        if "/x" in parameters.get("replace_files", {}):
            listened.append(1)
            ann.call("collections", "update", uuid=made["uuid"], replace_files={"/y": "current/a"})
        return prepared

    prepare = service._PREPARE["collections"]
    prepare["update"] = prepare_and_be_overtaken
    try:
        ann.call("collections", "update", uuid=made["uuid"], replace_files={"/x": "current/a"})
    finally:
        prepare["update"] = original
    assert listened == [1]
    text = ann.call("collections", "get", uuid=made["uuid"])["manifest_text"]
    assert stripped(text) == f". {bare(b'a')} 0:1:a 0:1:x 0:1:y\n"


def test_many_threads_replace_files_at_once(ann: Person) -> None:
    made = ann.collection("c", {"a": b"a"})

    def work(number: int) -> None:
        for step in range(5):
            source = {f"/f{number}-{step}": "current/a"}
            ann.call("collections", "update", uuid=made["uuid"], replace_files=source, select=["uuid"])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert ann.call("collections", "get", uuid=made["uuid"])["file_count"] == 21


def test_a_large_manifest_is_quick(ann: Person) -> None:
    locator = ann.block(b"0123456789")
    tokens = " ".join(f"0:10:file{number}" for number in range(1000))
    text = "".join(f"./d{number:03} {locator} {tokens}\n" for number in range(200))
    begin = time.process_time()
    made = ann.call("collections", "create", collection={"manifest_text": text})
    assert (made["file_count"], made["file_size_total"]) == (200_000, 2_000_000)
    ann.call("collections", "update", uuid=made["uuid"], replace_files={"/d000/new": "current/d001/file1"})
    assert time.process_time() - begin < 20


def test_a_refusal_names_no_secret(ann: Person) -> None:
    with pytest.raises(ApiError) as caught:
        ann.call("collections", "create", collection={"manifest_text": f". {bare(b'x')} 0:1:x\n"})
    assert ann.token.split("/")[-1] not in str(caught.value)
