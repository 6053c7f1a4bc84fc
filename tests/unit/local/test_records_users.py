"""Users and their tokens."""

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from records_world import Person, World

from arvados_fuse.local.records import ApiError, Records
from arvados_fuse.local.records.identifiers import format_time
from arvados_fuse.local.site import SiteConfig


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture
def ann(world: World) -> Person:
    return world.person("ann", last_name="Ng")


def test_a_user_has_what_arvados_documents(world: World, ann: Person) -> None:
    me = ann.call("users", "current")
    assert me["uuid"] == ann.uuid
    assert (me["email"], me["full_name"], me["username"]) == ("ann@example.com", "Ann Ng", "ann")
    assert (me["is_active"], me["is_admin"], me["kind"]) == (True, False, "arvados#user")
    assert ann.call("users", "get", uuid=ann.uuid) == me
    assert ann.call("users", "current", select=["uuid"]) == {"kind": "arvados#user", "uuid": ann.uuid}
    assert world.root.call("users", "current")["is_admin"]
    system = ann.call("users", "system")
    assert system["uuid"] == world.site.system_user_uuid


def test_users_of_a_site_see_each_other(world: World, ann: Person) -> None:
    bob = world.person("bob")
    listed = ann.call("users", "list", order=["email"])
    assert [item["email"] for item in listed["items"]] == ["ann@example.com", "bob@example.com"]
    assert bob.call("users", "get", uuid=ann.uuid)["first_name"] == "Ann"
    assert len(world.root.call("users", "list")["items"]) == 4


def test_only_administrators_make_users(world: World, ann: Person) -> None:
    ann.refused(403, "users", "create", user={"email": "x@example.com"})
    ann.refused(403, "users", "update", uuid=ann.uuid, user={"is_admin": True})
    ann.refused(403, "users", "update", uuid=ann.uuid, user={"is_active": False})
    ann.refused(403, "users", "update", uuid=ann.uuid, user={"username": "root"})
    ann.refused(403, "users", "delete", uuid=ann.uuid)
    bob = world.person("bob")
    ann.refused(403, "users", "update", uuid=bob.uuid, user={"first_name": "Bobby"})
    assert ann.call("users", "update", uuid=ann.uuid, user={"prefs": {"a": 1}, "first_name": "Anna"})[
        "prefs"
    ] == {"a": 1}
    assert ann.call("users", "current")["first_name"] == "Anna"
    world.root.call("users", "update", uuid=ann.uuid, user={"is_admin": True})
    assert ann.call("users", "create", user={"email": "x@example.com"})["username"] == "x"


def test_usernames_are_unique(world: World, ann: Person) -> None:
    made = world.root.call("users", "create", user={"email": "ann@example.org"})
    assert made["username"] == "ann2"
    world.root.refused(422, "users", "update", uuid=made["uuid"], user={"username": "ann"})
    world.root.refused(422, "users", "create", user={"username": "no blanks"})
    assert world.root.call("users", "create", user={"email": "...@example.org"})["username"] is None


def test_an_inactive_user_may_do_nothing(world: World) -> None:
    eve = world.person("eve", is_active=False)
    assert not eve.call("users", "current")["is_active"]
    eve.refused(403, "collections", "list")
    eve.refused(403, "collections", "create")
    world.root.call("users", "activate", uuid=eve.uuid)
    assert eve.names("collections") == []
    world.root.call("users", "update", uuid=eve.uuid, user={"is_active": False})
    eve.refused(403, "groups", "contents", uuid=eve.uuid)


def test_a_user_who_owns_nothing_can_be_removed(world: World, ann: Person) -> None:
    made = ann.collection("c")
    world.root.refused(422, "users", "delete", uuid=ann.uuid)
    bob = world.person("bob")
    world.root.call("users", "delete", uuid=bob.uuid)
    bob.refused(401, "users", "current")
    ann.refused(404, "users", "get", uuid=bob.uuid)
    world.root.refused(403, "users", "delete", uuid=world.site.system_user_uuid)
    assert ann.call("collections", "get", uuid=made["uuid"])["name"] == "c"


# Tokens.


def test_a_token_is_made_shown_once_and_ended(world: World, ann: Person) -> None:
    made = ann.call("api_client_authorizations", "create")
    other = Person(world.records, f"v2/{made['uuid']}/{made['api_token']}", ann.uuid)
    assert other.call("users", "current")["uuid"] == ann.uuid
    assert Person(world.records, made["api_token"], "").call("users", "current")["uuid"] == ann.uuid
    mine = other.call("api_client_authorizations", "current")
    assert (mine["uuid"], mine["api_token"], mine["scopes"]) == (made["uuid"], None, ["all"])
    listed = ann.call("api_client_authorizations", "list")["items"]
    assert {item["uuid"] for item in listed} == {made["uuid"], ann.token.split("/")[1]}
    ann.call("api_client_authorizations", "delete", uuid=made["uuid"])
    other.refused(401, "users", "current")
    assert ann.call("users", "current")


def test_a_token_expires(world: World, ann: Person) -> None:
    for seconds, works in ((3600, True), (-1, False)):
        moment = format_time(time.time() + seconds)
        body = {"expires_at": moment}
        made = ann.call("api_client_authorizations", "create", api_client_authorization=body)
        assert made["expires_at"] == moment
        other = Person(world.records, made["api_token"], ann.uuid)
        if works:
            assert other.call("users", "current")["uuid"] == ann.uuid
        else:
            assert "expired" in other.refused(401, "users", "current")
            other.refused(401, "collections", "create")


def test_nobody_sees_or_ends_anothers_token(world: World, ann: Person) -> None:
    bob = world.person("bob")
    uuid = ann.token.split("/")[1]
    bob.refused(404, "api_client_authorizations", "get", uuid=uuid)
    bob.refused(404, "api_client_authorizations", "delete", uuid=uuid)
    bob.refused(
        404, "api_client_authorizations", "update", uuid=uuid, api_client_authorization={"expires_at": None}
    )
    bob.refused(403, "api_client_authorizations", "create", api_client_authorization={"owner_uuid": ann.uuid})
    bob.refused(403, "api_client_authorizations", "create_system_auth")
    made = world.root.call(
        "api_client_authorizations", "create", api_client_authorization={"owner_uuid": ann.uuid}
    )
    assert Person(world.records, made["api_token"], "").call("users", "current")["uuid"] == ann.uuid
    mistake = {"user_uuid": ["x"]}
    world.root.refused(422, "api_client_authorizations", "create", api_client_authorization=mistake)
    system = world.root.call("api_client_authorizations", "create_system_auth")
    assert Person(world.records, system["api_token"], "").call("users", "current")["is_admin"]


def test_scopes_narrow_a_token(world: World, ann: Person) -> None:
    collection = ann.collection("c")
    scopes = ["GET /arvados/v1/users/current", "GET /arvados/v1/collections/"]
    made = ann.call("api_client_authorizations", "create", api_client_authorization={"scopes": scopes})
    narrow = Person(world.records, made["api_token"], ann.uuid)
    assert narrow.call("users", "current")["uuid"] == ann.uuid
    assert narrow.call("collections", "get", uuid=collection["uuid"])["name"] == "c"
    narrow.refused(403, "collections", "list")
    narrow.refused(403, "collections", "update", uuid=collection["uuid"], collection={"name": "d"})
    narrow.refused(403, "api_client_authorizations", "create")


def test_secrets_are_not_in_the_database(world: World, ann: Person) -> None:
    made = ann.call("api_client_authorizations", "create")
    world.records.call(ann.token, "users", "current", {})
    files = list(world.path.parent.iterdir())
    assert files
    for path in files:
        content = path.read_bytes()
        for secret in (ann.token.split("/")[2], made["api_token"], world.site.system_root_token):
            assert secret.encode() not in content


def test_the_database_is_for_its_owner_alone(world: World) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in world.path.parent.iterdir()}
    assert set(modes.values()) == {0o600}, modes


def test_authenticate_tells_who_a_token_stands_for(world: World, ann: Person) -> None:
    assert world.records.authenticate(ann.token).user_uuid == ann.uuid
    assert ann.token not in repr(world.records.authenticate(ann.token))
    with pytest.raises(ApiError) as caught:
        world.records.authenticate("wrong")
    assert caught.value.status == 401
    with pytest.raises(ApiError) as caught:
        world.records.create_token("ztest-tpzed-00000000000none")
    assert caught.value.status == 404


# The file.


def test_records_are_there_again_after_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path)
    ann = world.person("ann")
    made = ann.collection("c", {"foo": b"foo"})
    world.close()
    ann.refused(503, "users", "current")
    again = Records.open(world.path, world.site)
    assert again.call(ann.token, "collections", "get", {"uuid": made["uuid"]})["name"] == "c"
    assert again.check() == []
    again.close()


def test_records_of_another_site_are_refused(world: World) -> None:
    with pytest.raises(ValueError, match="belong to the site ztest"):
        Records.open(world.path, SiteConfig.new("abcde"))


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    path.write_bytes(b"something else entirely" * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        Records.open(path, SiteConfig.new())
    assert path.read_bytes() == b"something else entirely" * 1000


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.close()
    connection = sqlite3.connect(world.path)
    connection.execute("PRAGMA user_version = 99")
    connection.commit()
    connection.close()
    with pytest.raises(ValueError, match="newer version"):
        Records.open(world.path, world.site)


def test_keep_services_are_registered_by_administrators(world: World, ann: Person) -> None:
    body = {"service_host": "127.0.0.1", "service_port": 25107, "service_type": "disk"}
    ann.refused(403, "keep_services", "create", keep_service=body)
    made = world.root.call("keep_services", "create", keep_service=body)
    listed = ann.call("keep_services", "accessible")
    assert [item["uuid"] for item in listed["items"]] == [made["uuid"]]
    item = listed["items"][0]
    assert (item["service_port"], item["service_ssl_flag"], item["read_only"]) == (25107, False, False)
    assert ann.call("keep_services", "get", uuid=made["uuid"]) == item
    world.root.call("keep_services", "update", uuid=made["uuid"], keep_service={"read_only": True})
    assert ann.call("keep_services", "list", filters=[["read_only", "=", True]])["items_available"] == 1
    mistakes: tuple[dict[str, Any], ...] = (
        {"service_port": 0},
        {"service_port": 65536},
        {"service_host": ""},
    )
    for wrong in mistakes:
        world.root.refused(422, "keep_services", "create", keep_service=body | wrong)
    ann.refused(403, "keep_services", "delete", uuid=made["uuid"])
    world.root.call("keep_services", "delete", uuid=made["uuid"])
    assert ann.call("keep_services", "accessible")["items"] == []
