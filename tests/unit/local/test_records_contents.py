"""What projects, homes and filter groups hold, and what is shared."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import arvados.util
import pytest
from records_world import Person, World

from arvados_fuse.local.site import SiteConfig


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


@pytest.fixture
def tree(ann: Person) -> dict[str, Any]:
    """top: a, b, inner; inner: c, deep; deep: d. home: top, h."""
    top = ann.project("top")
    inner = ann.project("inner", owner_uuid=top["uuid"])
    deep = ann.project("deep", owner_uuid=inner["uuid"])
    ann.collection("b", {"x": b"bb"}, owner_uuid=top["uuid"], properties={"n": 2})
    ann.collection("a", {"x": b"a"}, owner_uuid=top["uuid"], properties={"n": 1})
    ann.collection("c", owner_uuid=inner["uuid"])
    ann.collection("d", owner_uuid=deep["uuid"])
    ann.collection("h")
    return {"top": top, "inner": inner, "deep": deep}


def names(person: Person, uuid: str = "", **params: Any) -> list[str]:
    listed = person.call("groups", "contents", uuid=uuid, **({"order": ["name"]} | params))
    return [item["name"] for item in listed["items"]]


def test_a_project_holds_what_it_owns(ann: Person, tree: dict[str, Any]) -> None:
    top = tree["top"]["uuid"]
    listed = ann.call("groups", "contents", uuid=top, order=["name"])
    assert [(item["kind"], item["name"]) for item in listed["items"]] == [
        ("arvados#collection", "a"),
        ("arvados#collection", "b"),
        ("arvados#group", "inner"),
    ]
    assert (listed["items_available"], listed["limit"], listed["offset"]) == (3, 100, 0)
    assert listed["items"][2]["can_write"]
    assert "manifest_text" not in listed["items"][0]
    assert names(ann, ann.uuid) == ["h", "top"]
    assert names(ann, top, recursive=True) == ["a", "b", "c", "d", "deep", "inner"]
    assert "items_available" not in ann.call("groups", "contents", uuid=top, count="none")
    assert names(ann) == ["a", "b", "c", "d", "deep", "h", "inner", "top"]


def test_filters_may_name_a_kind(ann: Person, tree: dict[str, Any]) -> None:
    top = tree["top"]["uuid"]
    assert names(ann, top, filters=[["collections.name", "=", "a"]]) == ["a", "inner"]
    assert names(ann, top, filters=[["name", "=", "a"]]) == ["a"]
    assert names(ann, top, filters=[["uuid", "is_a", "arvados#collection"]]) == ["a", "b"]
    assert names(ann, top, filters=[["uuid", "is_a", ["arvados#group"]]]) == ["inner"]
    assert names(ann, top, filters=[["groups.group_class", "in", ["filter"]]]) == ["a", "b"]
    assert names(ann, top, filters=[["collections.properties.n", ">", 1]]) == ["b", "inner"]
    assert names(ann, top, filters=[["properties.n", ">", 1]]) == ["b"]
    assert names(ann, top, filters=[["file_count", ">=", 1]]) == ["a", "b"]
    assert names(ann, top, filters=[["group_class", "=", "project"]]) == ["inner"]
    assert names(
        ann, top, filters=[["container_requests.state", "=", "Final"], ["workflows.name", "=", "x"]]
    ) == [
        "a",
        "b",
        "inner",
    ]
    for wrong in (
        ["nothing", "=", "x"],
        ["collections.nothing", "=", "x"],
        ["workflows.nothing", "=", "x"],
        ["groups.name", "near", "x"],
        "x",
        ["name"],
        [["name"], "=", "x"],
    ):
        ann.refused(422, "groups", "contents", uuid=top, filters=[wrong])


def test_contents_come_in_the_order_that_was_asked_for(ann: Person, tree: dict[str, Any]) -> None:
    top = tree["top"]["uuid"]
    assert names(ann, top, order=["name desc"]) == ["inner", "b", "a"]
    assert names(ann, top, order="name desc") == ["inner", "b", "a"]
    assert names(ann, top, order=["created_at asc"]) == ["inner", "b", "a"]
    assert names(ann, top, order=["collections.name", "uuid"]) == ["a", "b", "inner"]
    assert names(ann, top, order=[]) == ["inner", "a", "b"]
    assert names(ann, top, order=["name"], limit=1, offset=1) == ["b"]
    assert names(ann, top, limit=0) == []
    for wrong in (
        ["nothing"],
        ["name; drop table groups"],
        ["name up"],
        [["name"]],
        {"name": 1},
        ["planets.name"],
    ):
        ann.refused(422, "groups", "contents", uuid=top, order=wrong)


@pytest.mark.parametrize("kind", ["arvados#collection", "arvados#group"])
@pytest.mark.parametrize(
    "order", [[], ["name desc"], ["created_at"], ["file_count desc"], ["groups.name"], ["uuid desc"]]
)
@pytest.mark.parametrize("select", [None, ["uuid", "name", "modified_at"], ["uuid", "properties"]])
def test_one_kind_alone_is_as_it_is_among_the_others(
    ann: Person, tree: dict[str, Any], kind: str, order: list[str], select: list[str] | None
) -> None:
    ann.project("sub", owner_uuid=tree["top"]["uuid"])
    ann.collection("e", {"x": b"eee", "y": b""}, owner_uuid=tree["top"]["uuid"])
    arguments: dict[str, Any] = {"uuid": tree["top"]["uuid"], "order": order}
    if select:
        arguments["select"] = select
    among = [item for item in ann.call("groups", "contents", **arguments)["items"] if item["kind"] == kind]
    filters = [["uuid", "is_a", kind]]
    alone = ann.call("groups", "contents", **arguments, filters=filters)
    assert alone["items"] == among
    assert alone["items_available"] == len(among) >= 2
    second = ann.call("groups", "contents", **arguments, filters=filters, limit=1, offset=1)
    assert second["items"] == among[1:2]
    neither = ann.call("groups", "contents", **arguments, filters=[["uuid", "is_a", "arvados#link"]])
    assert (neither["items"], neither["items_available"]) == ([], 0)


def test_a_selection_shows_what_each_kind_has_of_it(ann: Person, tree: dict[str, Any]) -> None:
    listed = ann.call(
        "groups",
        "contents",
        uuid=tree["top"]["uuid"],
        select=["name", "file_count", "group_class"],
        order=["name"],
    )
    assert listed["items"] == [
        {"kind": "arvados#collection", "name": "a", "file_count": 1},
        {"kind": "arvados#collection", "name": "b", "file_count": 1},
        {"kind": "arvados#group", "name": "inner", "group_class": "project"},
    ]
    only = ann.call("groups", "contents", uuid=tree["top"]["uuid"], select=["file_count"], order=["uuid"])
    assert [item.get("file_count") for item in only["items"]] == [1, 1, None]
    ann.refused(422, "groups", "contents", uuid=tree["top"]["uuid"], select=["nothing"])
    hidden = ann.call("groups", "contents", uuid=tree["top"]["uuid"], select=["uuid", "manifest_text"])
    assert all("manifest_text" not in item for item in hidden["items"])


def test_owners_can_be_included(ann: Person, bob: Person, tree: dict[str, Any]) -> None:
    listed = ann.call(
        "groups", "contents", uuid=ann.uuid, recursive=True, include=["owner_uuid"], select=["uuid"]
    )
    owners = {ann.uuid, *(tree[name]["uuid"] for name in ("top", "inner", "deep"))}
    assert {item["uuid"] for item in listed["included"]} == owners
    assert all(item["owner_uuid"] in owners for item in listed["items"])
    ann.refused(422, "groups", "contents", uuid=ann.uuid, include=["etag"])
    ann.refused(422, "groups", "contents", uuid=ann.uuid, include=7)


def test_what_is_not_visible_has_no_contents(ann: Person, bob: Person, tree: dict[str, Any]) -> None:
    bob.refused(404, "groups", "contents", uuid=tree["top"]["uuid"])
    bob.refused(404, "groups", "contents", uuid="ztest-j7d0g-000000000000009")
    bob.refused(404, "groups", "contents", uuid="../../etc/passwd")
    bob.refused(422, "groups", "contents", uuid=["x"])
    assert names(bob, ann.uuid) == []
    ann.share("can_read", tree["inner"]["uuid"], bob.uuid)
    assert names(bob, ann.uuid) == []
    assert names(bob, tree["inner"]["uuid"], recursive=True) == ["c", "d", "deep"]


def test_a_large_project_can_be_paged_by_key(world: World, ann: Person) -> None:
    project = ann.project("large")
    for number in range(30):
        if number % 3:
            ann.collection(f"c{number}", owner_uuid=project["uuid"])
        else:
            ann.project(f"p{number}", owner_uuid=project["uuid"])
    for order in ("uuid", "created_at", "modified_at", "name"):
        found = []
        params: dict[str, Any] = {"uuid": project["uuid"]}

        def page(**more: Any) -> Any:
            class Request:
                def execute(self, num_retries: int = 0) -> Any:
                    return ann.call("groups", "contents", **{**more, "limit": 7})

            return Request()

        for item in arvados.util.keyset_list_all(page, order_key=order, **params):
            found.append(item["uuid"])
        assert len(found) == len(set(found)) == 30


# Filter groups.


def filter_group(person: Person, name: str, filters: Any, **more: Any) -> Any:
    body = {"name": name, "group_class": "filter", "properties": {"filters": filters}, **more}
    return person.call("groups", "create", group=body)


def test_a_filter_group_shows_what_its_filters_find(ann: Person, bob: Person, tree: dict[str, Any]) -> None:
    named = filter_group(
        ann, "f", [["collections.name", "in", ["a", "c"]], ["uuid", "is_a", "arvados#collection"]]
    )
    assert names(ann, named["uuid"]) == ["a", "c"]
    assert names(ann, named["uuid"], filters=[["name", "=", "c"]]) == ["c"]
    wide = filter_group(ann, "g", [["collections.name", "=", "a"], ["groups.name", "like", "%e%"]])
    assert names(ann, wide["uuid"]) == ["a", "deep", "inner"]
    properties = filter_group(
        ann, "p", [["collections.properties.n", "=", 2], ["uuid", "is_a", "arvados#collection"]]
    )
    assert names(ann, properties["uuid"]) == ["b"]
    assert names(ann, filter_group(ann, "all", [])["uuid"]).count("all") == 1
    ann.share("can_read", named["uuid"], bob.uuid)
    assert names(bob, named["uuid"]) == []
    bob.collection("a")
    assert names(bob, named["uuid"]) == ["a"]
    assert "can't own" in ann.refused(422, "collections", "create", collection={"owner_uuid": named["uuid"]})


@pytest.mark.parametrize(
    "filters",
    [
        None,
        "x",
        {"name": 1},
        [["name", "=", "x"]],
        [["planets.name", "=", "x"]],
        [["collections.nothing", "=", "x"]],
        [["collections.name", "near", "x"]],
        [["collections.name", "="]],
        [["collections.name", "in", "x"]],
        ["x"],
        [[["x"], "=", 1]],
        [["uuid", "is_a", 7]],
    ],
)
def test_a_filter_group_needs_filters_that_make_sense(ann: Person, filters: Any) -> None:
    body = {"name": "f", "group_class": "filter", "properties": {"filters": filters}}
    ann.refused(422, "groups", "create", group=body)
    good = filter_group(ann, "f", [["collections.name", "=", "x"]])
    ann.refused(422, "groups", "update", uuid=good["uuid"], group={"properties": {"filters": filters}})


def test_a_filter_group_goes_to_the_trash_like_a_project(ann: Person) -> None:
    made = filter_group(ann, "f", [["collections.name", "=", "x"]])
    ann.call("groups", "delete", uuid=made["uuid"])
    ann.refused(404, "groups", "contents", uuid=made["uuid"])
    ann.call("groups", "untrash", uuid=made["uuid"])
    assert names(ann, ann.uuid) == ["f"]


# What others share.


def test_shared_shows_the_top_of_what_others_share(world: World, ann: Person, bob: Person) -> None:
    top = ann.project("top")
    inner = ann.project("inner", owner_uuid=top["uuid"])
    alone = ann.project("alone", owner_uuid=top["uuid"])
    bob.project("own")
    projects = [["group_class", "in", ["project", "filter"]]]
    assert bob.names("groups", filters=projects) == ["own"]
    assert bob.call("groups", "shared", filters=projects)["items"] == []
    ann.share("can_read", alone["uuid"], bob.uuid)
    listed = bob.call("groups", "shared", filters=projects, include="owner_uuid")
    assert [item["uuid"] for item in listed["items"]] == [alone["uuid"]]
    assert listed["included"] == []
    ann.share("can_read", top["uuid"], bob.uuid)
    listed = bob.call("groups", "shared", filters=projects, include="owner_uuid", order=["name"])
    assert [item["name"] for item in listed["items"]] == ["top"]
    assert [(item["kind"], item["uuid"]) for item in listed["included"]] == [("arvados#user", ann.uuid)]
    assert listed["items_available"] == 1
    assert ann.call("groups", "shared", filters=projects)["items"] == []
    everything = world.root.call("groups", "shared", filters=projects, order=["name"])["items"]
    assert [item["name"] for item in everything] == ["own", "top"]
    assert inner["uuid"] not in {item["uuid"] for item in everything}


def test_shared_collections_come_without_the_own_home(ann: Person, bob: Person) -> None:
    loose = ann.collection("loose")
    project = ann.project("p")
    ann.collection("inside", owner_uuid=project["uuid"])
    bob.collection("own")
    own = bob.project("own project")
    bob.collection("own too", owner_uuid=own["uuid"])
    ann.share("can_read", loose["uuid"], bob.uuid)
    ann.share("can_read", project["uuid"], bob.uuid)
    assert names(bob, exclude_home_project=True) == ["loose", "p"]


def test_a_page_is_never_longer_than_the_site_allows(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    world = World(tmp_path / "w", max_items_per_page=5)
    ann = world.person("ann")
    for number in range(7):
        ann.collection(f"c{number}")
    listed = ann.call("groups", "contents", uuid=ann.uuid, limit=1000)
    assert (len(listed["items"]), listed["limit"], listed["items_available"]) == (5, 5, 7)
    assert SiteConfig.new().max_items_per_page == 1000
    world.close()
