"""Requests that no client sends by accident: refused with a reason, nothing changed, never a crash."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_world import Person, World

from arvados_fuse.local.records import ApiError
from arvados_fuse.local.records.schema import RESOURCES


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("hostile"))
    yield world
    world.close()


@pytest.fixture(scope="module")
def ann(world: World) -> Person:
    return world.person("ann")


def nested(depth: int, kind: type) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind is list else {"x": value}
    return value


@pytest.mark.parametrize("depth", [33, 900, 100_000])
@pytest.mark.parametrize("kind", [list, dict])
def test_deep_json_is_refused(ann: Person, depth: int, kind: type) -> None:
    deep = nested(depth, kind)
    before = ann.call("collections", "list")["items_available"]
    for name in ("properties", "name", "owner_uuid", "trash_at"):
        ann.refused(422, "collections", "create", collection={name: deep})
    for name in ("filters", "order", "select", "limit", "where", "count"):
        ann.refused(422, "collections", "list", **{name: deep})
    ann.refused(422, "collections", "create", replace_files=deep)
    ann.refused(422, "collections", "create", collection=deep if kind is list else {"properties": deep})
    assert ann.call("collections", "list")["items_available"] == before


@pytest.mark.parametrize(
    "values",
    [
        {"name": 7},
        {"name": ["x"]},
        {"name": {"x": 1}},
        {"name": True},
        {"name": "a\0b"},
        {"name": "\ud800"},
        {"name": "x" * 256},
        {"description": "x" * 100_000},
        {"description": 7},
        {"properties": "x"},
        {"properties": []},
        {"properties": {"x": float("nan")}},
        {"properties": {"x": float("inf")}},
        {"properties": {"x": 2**64}},
        {"properties": {"\0": 1}},
        {"properties": {"x": "\udfff"}},
        {"owner_uuid": "../../x"},
        {"owner_uuid": 7},
        {"replication_desired": 2**70},
        {"replication_desired": 1.5},
        {"replication_desired": True},
        {"storage_classes_desired": {"default": 1}},
        {"trash_at": "soon"},
        {"trash_at": 7},
        {"trash_at": "2030-02-30T00:00:00Z"},
        {"trash_at": "0001-01-01T00:00:00+23:00"},
        {"preserve_version": "yes"},
        {"manifest_text": ["x"]},
        {"portable_data_hash": 7},
        {"no_such_attribute": 1},
        {"secret_hash": "x"},
        {"uuid": "x"},
    ],
    ids=str,
)
def test_a_value_of_the_wrong_kind_is_refused(world: World, ann: Person, values: dict[str, Any]) -> None:
    made = ann.collection(None)
    before = ann.call("collections", "list")["items_available"]
    for method, more in (("create", {}), ("update", {"uuid": made["uuid"]})):
        with pytest.raises(ApiError) as caught:
            ann.call("collections", method, collection=values, **more)
        assert caught.value.status == (403 if "uuid" in values else 422)
        with pytest.raises(ApiError) as caught:
            world.root.call("collections", method, collection=values, **more)
        assert caught.value.status == 422
    assert ann.call("collections", "list")["items_available"] == before
    assert ann.call("collections", "get", uuid=made["uuid"]) == made


@pytest.mark.parametrize("body", [[], "x", 7, True, ["name", "x"], ""])
def test_a_body_of_the_wrong_kind_is_refused(ann: Person, body: Any) -> None:
    for resource in ("collections", "groups", "links", "users", "api_client_authorizations", "logs"):
        with pytest.raises(ApiError) as caught:
            ann.call(resource, "create", **{RESOURCES[resource].singular: body})
        assert caught.value.status in (403, 422)


@pytest.mark.parametrize(
    "uuid",
    ["../../etc/passwd", "", "x" * 100_000, "a\0b", "\ud800", None, 7, ["x"], {"x": 1}, "%", "0" * 32 + "+x"],
)
def test_what_is_no_uuid_finds_nothing(ann: Person, uuid: Any) -> None:
    for resource, method in (
        ("collections", "get"),
        ("collections", "update"),
        ("collections", "untrash"),
        ("groups", "get"),
        ("links", "delete"),
        ("users", "get"),
        ("logs", "get"),
        ("api_client_authorizations", "get"),
        ("keep_services", "get"),
        ("containers", "get"),
    ):
        with pytest.raises(ApiError) as caught:
            ann.call(resource, method, uuid=uuid)
        assert caught.value.status in (404, 422)
        assert len(str(caught.value)) < 1000


def test_a_uuid_is_never_missing_unnoticed(ann: Person) -> None:
    for resource in RESOURCES.values():
        for method in resource.methods:
            if "{uuid}" in method.path:
                with pytest.raises(ApiError) as caught:
                    ann.call(resource.name, method.name)
                assert caught.value.status in (403, 404, 422)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "v2",
        "v2/",
        "v2//",
        "v2/x/y",
        "v2/ztest-gj3su-000000000000000/x",
        "\ud800",
        "a\0b",
        "x" * 10**6,
        "é",
    ],
)
def test_a_wrong_token_is_refused(world: World, token: str) -> None:
    for resource, method in (
        ("users", "current"),
        ("collections", "create"),
        ("keep_services", "accessible"),
    ):
        with pytest.raises(ApiError) as caught:
            world.records.call(token, resource, method, {})
        assert caught.value.status == 401
        assert len(str(caught.value)) < 200


def test_a_token_with_anothers_uuid_is_refused(world: World, ann: Person) -> None:
    bob = world.person("bob")
    version, _, secret = ann.token.split("/")
    mixed = "/".join((version, bob.token.split("/")[1], secret))
    Person(world.records, mixed, "").refused(401, "users", "current")
    assert Person(world.records, secret, "").call("users", "current")["uuid"] == ann.uuid


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def own(ann: Person) -> dict[str, str]:
    """One record of ann's of each kind that she may change."""
    collection = ann.collection("mine", {"foo": b"foo"})
    tag = {"link_class": "tag", "name": "t", "head_uuid": collection["uuid"]}
    return {
        "collections": collection["uuid"],
        "groups": ann.project("mine")["uuid"],
        "links": ann.call("links", "create", link=tag)["uuid"],
        "users": ann.uuid,
        "api_client_authorizations": ann.call("api_client_authorizations", "create")["uuid"],
    }


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_value_crashes_a_change(ann: Person, own: dict[str, str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([*own, "logs", "keep_services"]))
    resource = RESOURCES[name]
    attributes = st.sampled_from([item.name for item in resource.attributes])
    body = data.draw(st.dictionaries(attributes, JSON, max_size=4) | JSON)
    optional = dict.fromkeys(("replace_files", "replace_segments", "select", "ensure_unique_name"), JSON)
    more = data.draw(st.fixed_dictionaries({}, optional=optional))
    calls: list[tuple[str, dict[str, str]]] = [("create", {})] + (
        [("update", {"uuid": own[name]})] if name in own else []
    )
    for method, where in calls:
        try:
            ann.call(name, method, **{resource.singular: body}, **more, **where)
        except ApiError as error:
            if error.status not in (403, 404, 422):
                raise
    for uuid in own.values():
        # Whatever it was, ann's records are there and can be shown.
        kind = next(item for item in RESOURCES.values() if item.kind == uuid[6:11])
        trash = {"include_trash": True} if kind.name in ("collections", "groups") else {}
        assert ann.call(kind.name, "get", uuid=uuid, **trash)["uuid"] == uuid


@pytest.mark.parametrize("name", ["collections", "groups", "links", "users", "api_client_authorizations"])
def test_no_attribute_crashes_when_it_is_taken_away(ann: Person, own: dict[str, str], name: str) -> None:
    resource = RESOURCES[name]
    for attribute in resource.attributes:
        try:
            ann.call(name, "update", uuid=own[name], **{resource.singular: {attribute.name: None}})
        except ApiError as error:
            if error.status not in (403, 422):
                raise
    assert ann.call(name, "get", uuid=own[name])["uuid"] == own[name]
