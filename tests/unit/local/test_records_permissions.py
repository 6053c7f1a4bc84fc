"""Who may do what: owners, projects in projects, roles, permission links, administrators."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from records_world import Person, World

from arvados_fuse.local.records import ApiError

LEVELS = ("none", "can_read", "can_write", "can_manage")


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


def attempts(person: Person, collection: str, group: str, stranger: str) -> dict[str, int]:
    """The status of each of a few calls by `person`, 200 when it works."""
    calls: dict[str, tuple[str, str, dict[str, Any]]] = {
        "read": ("collections", "get", {"uuid": collection}),
        "read project": ("groups", "get", {"uuid": group}),
        "contents": ("groups", "contents", {"uuid": group}),
        "change": ("collections", "update", {"uuid": collection, "collection": {"description": "x"}}),
        "rename project": ("groups", "update", {"uuid": group, "group": {"description": "x"}}),
        "add": ("collections", "create", {"collection": {"owner_uuid": group}}),
        "share": (
            "links",
            "create",
            {
                "link": {
                    "link_class": "permission",
                    "name": "can_read",
                    "head_uuid": group,
                    "tail_uuid": stranger,
                }
            },
        ),
        "trash": ("collections", "trash", {"uuid": collection}),
    }
    found = {}
    for name, (resource, method, params) in calls.items():
        try:
            person.call(resource, method, **params)
            found[name] = 200
        except ApiError as error:
            found[name] = error.status
    return found


UNSEEN = {
    "read": 404,
    "read project": 404,
    "contents": 404,
    "change": 404,
    "rename project": 404,
    "add": 422,
    "share": 422,
    "trash": 404,
}
READ = {
    "read": 200,
    "read project": 200,
    "contents": 200,
    "change": 403,
    "rename project": 403,
    "add": 403,
    "share": 403,
    "trash": 403,
}
WRITE = READ | {"change": 200, "rename project": 200, "add": 200, "trash": 200}
MATRIX = {"none": UNSEEN, "can_read": READ, "can_write": WRITE, "can_manage": WRITE | {"share": 200}}


@pytest.mark.parametrize("through", ["link", "role", "role in role", "project above"])
@pytest.mark.parametrize("level", LEVELS)
def test_a_level_permits_what_it_says(
    world: World, ann: Person, bob: Person, level: str, through: str
) -> None:
    stranger = world.person("eve")
    top = ann.project("top")
    project = ann.project("p", owner_uuid=top["uuid"])
    collection = ann.collection("c", {"foo": b"foo"}, owner_uuid=project["uuid"])
    head = top["uuid"] if through == "project above" else project["uuid"]
    tail = bob.uuid
    if through.startswith("role"):
        role = ann.call("groups", "create", group={"name": "r", "group_class": "role"})
        ann.share("can_manage", role["uuid"], bob.uuid)
        tail = role["uuid"]
        if through == "role in role":
            inner = ann.call("groups", "create", group={"name": "inner", "group_class": "role"})
            ann.share("can_manage", inner["uuid"], tail)
            tail = inner["uuid"]
    if level != "none":
        ann.share(level, head, tail)
    assert attempts(stranger, collection["uuid"], project["uuid"], bob.uuid) == UNSEEN
    assert attempts(bob, collection["uuid"], project["uuid"], stranger.uuid) == MATRIX[level]


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_on_one_collection_is_for_that_alone(ann: Person, bob: Person, level: str) -> None:
    project = ann.project("p")
    shared = ann.collection("shared", {"foo": b"foo"}, owner_uuid=project["uuid"])
    other = ann.collection("other", owner_uuid=project["uuid"])
    if level != "none":
        ann.share(level, shared["uuid"], bob.uuid)
    bob.refused(404, "collections", "get", uuid=other["uuid"])
    bob.refused(404, "groups", "get", uuid=project["uuid"])
    assert bob.names("collections") == ([] if level == "none" else ["shared"])
    if level in ("can_write", "can_manage"):
        bob.call("collections", "update", uuid=shared["uuid"], collection={"name": "renamed"})
        # To take it out of the project needs the right to write in the project.
        bob.refused(403, "collections", "update", uuid=shared["uuid"], collection={"owner_uuid": bob.uuid})


def test_the_least_level_on_the_way_counts(ann: Person, bob: Person) -> None:
    project = ann.project("p")
    role = ann.call("groups", "create", group={"name": "r", "group_class": "role"})
    ann.share("can_manage", project["uuid"], role["uuid"])
    ann.share("can_read", role["uuid"], bob.uuid)
    found = bob.call("groups", "get", uuid=project["uuid"])
    assert (found["can_write"], found["can_manage"]) == (False, False)
    ann.share("can_write", role["uuid"], bob.uuid)
    found = bob.call("groups", "get", uuid=project["uuid"])
    assert (found["can_write"], found["can_manage"]) == (True, False)
    mine = ann.call("groups", "get", uuid=project["uuid"])
    assert (mine["can_write"], mine["can_manage"]) == (True, True)


def test_roles_in_a_circle_end(ann: Person, bob: Person) -> None:
    one, two = (
        ann.call("groups", "create", group={"name": name, "group_class": "role"}) for name in ("one", "two")
    )
    ann.share("can_write", one["uuid"], two["uuid"])
    ann.share("can_write", two["uuid"], one["uuid"])
    project = ann.project("p")
    ann.share("can_read", project["uuid"], two["uuid"])
    bob.refused(404, "groups", "get", uuid=project["uuid"])
    ann.share("can_write", one["uuid"], bob.uuid)
    assert bob.call("groups", "get", uuid=project["uuid"])["name"] == "p"


def test_to_read_a_user_is_not_to_read_what_is_theirs(world: World, ann: Person, bob: Person) -> None:
    made = ann.collection("c")
    assert bob.call("users", "get", uuid=ann.uuid)["first_name"] == "Ann"
    ann.share("can_write", ann.uuid, bob.uuid)
    bob.refused(404, "collections", "get", uuid=made["uuid"])
    ann.share("can_manage", ann.uuid, bob.uuid)
    assert bob.call("collections", "get", uuid=made["uuid"])["name"] == "c"
    assert bob.call("groups", "contents", uuid=ann.uuid)["items_available"] == 1


def test_a_permission_that_goes_is_gone_at_once(ann: Person, bob: Person) -> None:
    made = ann.collection("c")
    link = ann.share("can_write", made["uuid"], bob.uuid)
    bob.call("collections", "update", uuid=made["uuid"], collection={"name": "d"})
    ann.call("links", "update", uuid=link["uuid"], link={"name": "can_read"})
    bob.refused(403, "collections", "update", uuid=made["uuid"], collection={"name": "e"})
    ann.call("links", "delete", uuid=link["uuid"])
    bob.refused(404, "collections", "get", uuid=made["uuid"])


def test_moving_a_project_moves_its_permissions(ann: Person, bob: Person) -> None:
    shared, private = ann.project("shared"), ann.project("private")
    inner = ann.project("inner", owner_uuid=private["uuid"])
    made = ann.collection("c", owner_uuid=inner["uuid"])
    ann.share("can_read", shared["uuid"], bob.uuid)
    bob.refused(404, "collections", "get", uuid=made["uuid"])
    ann.call("groups", "update", uuid=inner["uuid"], group={"owner_uuid": shared["uuid"]})
    assert bob.call("collections", "get", uuid=made["uuid"])["name"] == "c"
    ann.call("groups", "update", uuid=inner["uuid"], group={"owner_uuid": ann.uuid})
    bob.refused(404, "collections", "get", uuid=made["uuid"])


def test_an_administrator_may_do_everything(world: World, ann: Person) -> None:
    admin = world.person("admin", is_admin=True)
    project = ann.project("p")
    made = ann.collection("c", {"foo": b"foo"}, owner_uuid=project["uuid"])
    assert attempts(admin, made["uuid"], project["uuid"], ann.uuid) == MATRIX["can_manage"]
    assert admin.call("groups", "get", uuid=project["uuid"])["can_write"]


def test_what_is_open_to_the_public_is_open_to_every_user(world: World, ann: Person, bob: Person) -> None:
    project = ann.project("p")
    anonymous = Person(
        world.records,
        world.records.create_token(world.site.anonymous_user_uuid),
        world.site.anonymous_user_uuid,
    )
    anonymous.refused(404, "groups", "get", uuid=project["uuid"])
    world.root.share("can_read", project["uuid"], world.site.anonymous_group_uuid)
    assert anonymous.call("groups", "get", uuid=project["uuid"])["name"] == "p"
    assert bob.call("groups", "get", uuid=project["uuid"])["name"] == "p"
    anonymous.refused(403, "collections", "create", collection={"owner_uuid": project["uuid"]})


# Links.


def test_links_have_what_arvados_documents(ann: Person) -> None:
    made = ann.collection("c")
    body = {"link_class": "tag", "name": "red", "head_uuid": made["uuid"], "properties": {"why": ["x"]}}
    link = ann.call("links", "create", link=body)
    assert {name: link[name] for name in body} == body
    assert (link["kind"], link["head_kind"]) == ("arvados#link", "arvados#collection")
    assert link["owner_uuid"] == ann.uuid
    assert ann.names("links", filters=[["link_class", "=", "tag"]], distinct=True, select=["name"]) == ["red"]
    ann.call("links", "update", uuid=link["uuid"], link={"name": "blue"})
    assert ann.names("links", filters=[["link_class", "=", "tag"]]) == ["blue"]
    ann.call("links", "create", link={"link_class": "star", "head_uuid": made["uuid"], "tail_uuid": ann.uuid})
    ann.call("links", "delete", uuid=link["uuid"])
    ann.refused(404, "links", "get", uuid=link["uuid"])


def test_a_tag_is_its_makers_own(ann: Person, bob: Person) -> None:
    made = ann.collection("c")
    link = ann.call("links", "create", link={"link_class": "tag", "name": "red", "head_uuid": made["uuid"]})
    bob.refused(404, "links", "get", uuid=link["uuid"])
    assert bob.names("links", filters=[["link_class", "=", "tag"]]) == []
    bob.refused(404, "links", "delete", uuid=link["uuid"])
    body = {"link_class": "tag", "name": "mine", "head_uuid": made["uuid"]}
    bob.refused(422, "links", "create", link=body)
    ann.share("can_read", made["uuid"], bob.uuid)
    bob.call("links", "create", link=body)


def test_a_permission_link_is_for_those_whom_it_concerns(world: World, ann: Person, bob: Person) -> None:
    eve = world.person("eve")
    project = ann.project("p")
    made = ann.collection("c", owner_uuid=project["uuid"])
    link = ann.share("can_read", made["uuid"], bob.uuid)
    assert link["owner_uuid"] == world.site.system_user_uuid
    on_it = [["head_uuid", "=", made["uuid"]]]
    for person, seen in ((ann, True), (bob, True), (eve, False), (world.root, True)):
        assert len(person.call("links", "list", filters=on_it)["items"]) == seen
        if not seen:
            person.refused(404, "links", "get", uuid=link["uuid"])
    bob.refused(403, "links", "delete", uuid=link["uuid"])
    bob.refused(403, "links", "update", uuid=link["uuid"], link={"name": "can_manage"})
    assert len(ann.call("links", "get_permissions", uuid=made["uuid"])["items"]) == 1
    bob.refused(403, "links", "get_permissions", uuid=made["uuid"])


@pytest.mark.parametrize(
    "change",
    [
        {"name": "can_fly"},
        {"name": None},
        {"head_uuid": "ztest-4zz18-000000000000000"},
        {"head_uuid": "nonsense"},
        {"head_uuid": None},
        {"tail_uuid": "ztest-tpzed-00000000000zzzz"},
        {"tail_uuid": "ztest-4zz18-000000000000000"},
        {"tail_uuid": None},
        {"link_class": None},
        {"link_class": ""},
        {"link_class": 5},
    ],
)
def test_a_permission_link_must_make_sense(ann: Person, bob: Person, change: dict[str, Any]) -> None:
    made = ann.collection("c")
    good = {"link_class": "permission", "name": "can_read", "head_uuid": made["uuid"], "tail_uuid": bob.uuid}
    ann.refused(422, "links", "create", link=good | change)
    link = ann.call("links", "create", link=good)
    if "name" in change or "link_class" in change:
        ann.refused(422, "links", "update", uuid=link["uuid"], link=change)


def test_nobody_shares_what_is_not_theirs(ann: Person, bob: Person) -> None:
    made = ann.collection("c")
    good = {
        "link_class": "permission",
        "name": "can_manage",
        "head_uuid": made["uuid"],
        "tail_uuid": bob.uuid,
    }
    bob.refused(422, "links", "create", link=good)
    ann.share("can_write", made["uuid"], bob.uuid)
    bob.refused(403, "links", "create", link=good)
    project = ann.project("p")
    assert "projects" in ann.refused(422, "links", "create", link=good | {"tail_uuid": project["uuid"]})
    mine = bob.collection("mine")
    link = bob.share("can_read", mine["uuid"], ann.uuid)
    bob.refused(422, "links", "update", uuid=link["uuid"], link={"head_uuid": made["uuid"]})


# Roles and groups.


def test_a_role_belongs_to_its_maker_and_is_not_in_anybodys_home(ann: Person, bob: Person) -> None:
    role = ann.call("groups", "create", group={"name": "r", "group_class": "role"})
    assert role["owner_uuid"] == "ztest-tpzed-000000000000000"
    assert role["can_manage"]
    bob.refused(404, "groups", "get", uuid=role["uuid"])
    ann.share("can_write", role["uuid"], bob.uuid)
    bob.refused(403, "groups", "update", uuid=role["uuid"], group={"name": "mine"})
    bob.refused(403, "groups", "delete", uuid=role["uuid"])
    ann.refused(422, "groups", "update", uuid=role["uuid"], group={"trash_at": "2030-01-01T00:00:00Z"})
    ann.call("groups", "delete", uuid=role["uuid"])
    ann.refused(404, "groups", "get", uuid=role["uuid"])
    assert ann.call("links", "list", filters=[["head_uuid", "=", role["uuid"]]])["items"] == []


def test_the_sites_own_groups_stay(world: World, ann: Person) -> None:
    group = world.site.all_users_group_uuid
    assert ann.call("groups", "get", uuid=group)["name"] == "All users"
    ann.refused(403, "groups", "update", uuid=group, group={"name": "mine"})
    ann.refused(403, "groups", "delete", uuid=group)
    world.root.refused(403, "groups", "delete", uuid=group)


def test_a_project_can_not_be_put_into_itself(ann: Person) -> None:
    top = ann.project("top")
    middle = ann.project("middle", owner_uuid=top["uuid"])
    bottom = ann.project("bottom", owner_uuid=middle["uuid"])
    for place in (top, middle, bottom):
        ann.refused(422, "groups", "update", uuid=top["uuid"], group={"owner_uuid": place["uuid"]})
    ann.refused(422, "groups", "update", uuid=top["uuid"], group={"group_class": "role"})
    ann.refused(422, "groups", "create", group={"name": "x", "group_class": "directory"})
    ann.refused(422, "groups", "create", group={"name": "", "group_class": "project"})
    ann.refused(422, "groups", "create", group={"group_class": "project"})
    ann.refused(422, "groups", "create", group={"name": "top", "group_class": "project"})
    assert ann.call(
        "groups", "create", group={"name": "top", "group_class": "project"}, ensure_unique_name=True
    )["name"].startswith("top (")
    ann.refused(422, "groups", "create", group={"name": "n" * 256, "group_class": "project"})


def test_the_trash_takes_a_project_with_all_that_is_in_it(ann: Person, bob: Person) -> None:
    top = ann.project("top")
    inner = ann.project("inner", owner_uuid=top["uuid"])
    made = ann.collection("c", {"foo": b"foo"}, owner_uuid=inner["uuid"])
    ann.share("can_read", made["uuid"], bob.uuid)
    assert bob.names("collections") == ["c"]
    gone = ann.call("groups", "trash", uuid=top["uuid"])
    assert gone["is_trashed"]
    for person in (ann, bob):
        person.refused(404, "collections", "get", uuid=made["uuid"])
        person.refused(404, "collections", "get", uuid=made["portable_data_hash"])
        assert person.names("collections") == []
        assert person.names("groups", filters=[["group_class", "=", "project"]]) == []
    ann.refused(404, "groups", "get", uuid=inner["uuid"])
    ann.refused(404, "groups", "contents", uuid=inner["uuid"])
    ann.refused(404, "collections", "update", uuid=made["uuid"], collection={"name": "x"})
    ann.refused(422, "collections", "create", collection={"owner_uuid": inner["uuid"]})
    assert ann.call("collections", "get", uuid=made["uuid"], include_trash=True)["name"] == "c"
    assert ann.call("groups", "contents", uuid=inner["uuid"], include_trash=True)["items_available"] == 1
    ann.project("top")
    ann.refused(422, "groups", "untrash", uuid=top["uuid"])
    back = ann.call("groups", "untrash", uuid=top["uuid"], ensure_unique_name=True)
    assert back["name"].startswith("top (")
    assert bob.names("collections") == ["c"]
    ann.refused(422, "groups", "untrash", uuid=top["uuid"])


def test_a_trashed_project_ends_with_all_that_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "short").mkdir()
    world = World(tmp_path / "short", default_trash_lifetime=0)
    ann = world.person("ann")
    top = ann.project("top")
    inner = ann.project("inner", owner_uuid=top["uuid"])
    made = ann.collection("c", {"foo": b"foo"}, owner_uuid=inner["uuid"])
    ann.call("groups", "trash", uuid=top["uuid"])
    assert world.records.sweep() == 3
    for resource, record in (("groups", top), ("groups", inner), ("collections", made)):
        ann.refused(404, resource, "get", uuid=record["uuid"], include_trash=True)
    assert world.records.check() == []
    world.close()
