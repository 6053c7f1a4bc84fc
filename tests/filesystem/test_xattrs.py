"""Extended attributes: which there are, what they say, what they cost."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from counting import Requests, request_counter
from drivers import TreeDriver, exists, read
from servers import wait_for
from worlds import Maker, World, session

from arvados_fuse.errors import AttributeMissing
from arvados_fuse.tree import xattrs
from arvados_fuse.tree.xattrs import FORMS, PREFIX

ALL = sorted(FORMS)


def attributes(root: TreeDriver, path: str) -> dict[str, str]:
    """All of a path's attributes, without the prefix."""
    with root.at(path) as found:
        names = [name.decode() for name in root.fs.listxattr(found.ino)]
        return {
            name.removeprefix(PREFIX): root.fs.getxattr(found.ino, name.encode()).decode() for name in names
        }


@pytest.fixture
def requests(world: World) -> Requests:
    return request_counter(world.server)


@pytest.fixture
def made(mine: Maker) -> dict[str, Any]:
    project = mine.project("described", properties={"b": 1, "a": "\u00e9"})
    properties = {"z": [1, 2], "name": "v\u00e9"}
    made = mine.collection("c", {"d/f": b"1"}, owner_uuid=project, properties=properties)
    return {**made, "project": project}


@pytest.fixture
def root(mine: Maker, tmp_path: Path, made: dict[str, Any]) -> Iterator[TreeDriver]:
    with session(
        mine.server, mine.token, tmp_path, mode="project", target=made["project"], refresh_time=3600.0
    ) as built:
        yield TreeDriver(built.filesystem)


def test_a_collection_and_all_in_it(root: TreeDriver, made: dict[str, Any]) -> None:
    for path in ("c", "c/d", "c/d/f"):
        found = attributes(root, path)
        assert sorted(found) == ALL, path
        assert found["uuid"] == made["uuid"]
        assert found["portable_data_hash"] == made["portable_data_hash"]
        assert found["owner_uuid"] == made["project"]
        assert found["modified_at"] == made["modified_at"]
        assert json.loads(found["properties"]) == made["properties"]
        assert found["properties"] == '{"name": "v\u00e9", "z": [1, 2]}', "readable, and always the same"
        assert found["storage_classes"] == ",".join(made["storage_classes_desired"])


def test_a_project(root: TreeDriver, made: dict[str, Any], mine: Maker) -> None:
    record = mine.server.call("GET", f"groups/{made['project']}", token=mine.token).body
    found = attributes(root, "")
    assert sorted(found) == ["modified_at", "owner_uuid", "properties", "uuid"]
    assert found["uuid"] == made["project"]
    assert found["owner_uuid"] == record["owner_uuid"]
    assert found["modified_at"] == record["modified_at"]
    assert json.loads(found["properties"]) == {"b": 1, "a": "\u00e9"}


def test_a_home(mine: Maker, tmp_path: Path) -> None:
    """It belongs to a user, who has no properties: what is named can be read."""
    user = mine.server.call("GET", "users/current", token=mine.token).body
    with session(mine.server, mine.token, tmp_path, mode="all") as built:
        found = attributes(TreeDriver(built.filesystem), "home")
    wanted = {name: user[name] for name in ("modified_at", "owner_uuid", "uuid")}
    assert found == wanted


def test_what_has_none(world: World, tmp_path: Path) -> None:
    with session(world.server, world.token, tmp_path, mode="all") as built:
        root = TreeDriver(built.filesystem)
        for path in ("", "README", "by_id", "shared", "by_tag", f"by_tag/{world.ids['tag']}"):
            assert attributes(root, path) == {}, path
        assert attributes(root, f"by_id/{world.ids['plain_pdh']}") == {
            "portable_data_hash": world.ids["plain_pdh"]
        }
        assert attributes(root, f"by_id/{world.ids['plain']}/README.txt")["uuid"] == world.ids["plain"]
        with root.at("home") as home:
            assert root.fs.getxattr(home.ino, b"user.arvados.uuid").decode() == world.user


@pytest.mark.parametrize(
    "name",
    [b"user.arvados.nothing", b"user.uuid", b"user.", b"user.arvados.", b"uuid", b"user.arvados.\xff", b""],
)
def test_names_that_do_not_exist(root: TreeDriver, name: bytes) -> None:
    for path in ("", "c", "c/d/f"):
        with root.at(path) as found, pytest.raises(AttributeMissing):
            root.fs.getxattr(found.ino, name)


def test_what_the_listing_brought_costs_nothing(root: TreeDriver, requests: Requests) -> None:
    root.names("")
    requests()
    with root.at("c") as found:
        for name in ("uuid", "portable_data_hash", "modified_at"):
            assert root.fs.getxattr(found.ino, f"{PREFIX}{name}".encode())
        root.fs.listxattr(found.ino)
    assert requests() == []


def test_the_rest_is_one_small_request(root: TreeDriver, requests: Requests) -> None:
    root.names("")
    requests()
    for _ in range(5):
        attributes(root, "c")
    assert len(requests()) == 1
    state = next(iter(root.fs.context._collections.values()))
    assert not state.footprint(), "no manifest was fetched"


def test_nothing_is_asked_where_the_content_is_loaded(root: TreeDriver, requests: Requests) -> None:
    assert read(root, "c/d/f") == b"1"
    requests()
    with root.at("c/d/f") as found:
        for name in FORMS:
            assert root.fs.getxattr(found.ino, f"{PREFIX}{name}".encode())
    assert requests() == []


def test_they_follow_changes(mine: Maker, tmp_path: Path, made: dict[str, Any]) -> None:
    with session(
        mine.server, mine.token, tmp_path, mode="project", target=made["project"], refresh_time=0.2
    ) as built:
        root = TreeDriver(built.filesystem)
        attributes(root, "c/d/f")
        mine.update("collections", made["uuid"], properties={"new": True})
        mine.update("groups", made["project"], properties={"new": False})
        wait_for(lambda: attributes(root, "c/d/f")["properties"] == '{"new": true}', "new properties")
        wait_for(lambda: attributes(root, "")["properties"] == '{"new": false}', "new properties")
        other = mine.update("collections", made["uuid"], manifest_text=mine.manifest({"g": b"2"}))
        wait_for(
            lambda: attributes(root, "c")["portable_data_hash"] == other["portable_data_hash"], "the new hash"
        )
        assert not exists(root, "c/d/f")


class Strange:
    """A record as no server of ours gives it."""

    described_by = tuple(form.field for form in FORMS.values())

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def field(self, name: str) -> Any:
        return self.fields.get(name)


@pytest.mark.parametrize(
    ("name", "field", "given", "shown"),
    [
        ("uuid", "uuid", 7, None),
        ("uuid", "uuid", "", None),
        ("uuid", "uuid", "\ud800", b"?"),
        ("owner_uuid", "owner_uuid", None, None),
        ("properties", "properties", {}, b"{}"),
        ("properties", "properties", {"lone": "\ud800"}, b'{"lone": "?"}'),
        ("properties", "properties", "text", None),
        ("storage_classes", "storage_classes_desired", [], None),
        ("storage_classes", "storage_classes_desired", ["b", "a"], b"b,a"),
        ("storage_classes", "storage_classes_desired", "text", None),
    ],
)
def test_strange_values(name: str, field: str, given: Any, shown: bytes | None) -> None:
    described = Strange(**{field: given})
    if shown is not None:
        assert xattrs.value(described, f"{PREFIX}{name}".encode()) == shown
    else:
        with pytest.raises(AttributeMissing):
            xattrs.value(described, f"{PREFIX}{name}".encode())
