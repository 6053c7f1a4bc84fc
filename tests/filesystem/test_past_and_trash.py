"""`.versions` of a collection, `.trash` of a project: what they show, and the way back."""

import errno
import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from counting import request_counter
from drivers import TreeDriver, exists, read, refused, walk
from servers import wait_for
from worlds import Maker, session

from arvados_fuse.api import ApiClient
from arvados_fuse.errors import ExistsError, RequestRefused
from arvados_fuse.tree import xattrs
from arvados_fuse.tree.attributes import Missing
from arvados_fuse.tree.collection_nodes import CollectionRoot
from arvados_fuse.tree.inodes import ROOT
from arvados_fuse.tree.trash import Trashed, restore, trashed_at

Record = dict[str, Any]


def versions(mine: Maker) -> list[Record]:
    """A collection that was saved five times, of which four are kept; its records after each."""
    files: list[dict[str, bytes]] = [
        {"f": b"one", "d/same": b"same"},
        {"f": b"two, longer", "d/same": b"same"},
        {"f": b"not kept"},
        {"g": b"four"},
        {"f": b"five"},
    ]
    made = mine.collection("c", files[0], preserve_version=True, properties={"n": 1})
    records = [made]
    for number, content in enumerate(files[1:], start=2):
        kept = number != 3
        change: Record = {"manifest_text": mine.manifest(content), "properties": {"n": number}}
        if kept:
            change["preserve_version"] = True
        records.append(mine.update("collections", made["uuid"], **change))
    return records


def test_versions_are_there_and_stay_what_they_were(mine: Maker, tmp_path: Path) -> None:
    records = versions(mine)
    uuid = records[0]["uuid"]
    filters = quote(json.dumps([["current_version_uuid", "=", uuid]]))
    path = f"collections?include_old_versions=true&filters={filters}"
    listed = mine.server.call("GET", path, token=mine.token).body["items"]
    numbers = sorted(record["version"] for record in listed)
    assert len(numbers) > 3, "the server keeps versions"
    with session(mine.server, mine.token, tmp_path, mode="home", refresh_time=0.3) as built:
        root = TreeDriver(built.filesystem)
        assert ".versions" not in root.names("c")
        assert sorted(map(int, root.names("c/.versions"))) == numbers
        assert read(root, "c/.versions/1/f") == b"one"
        assert read(root, "c/.versions/1/d/same") == b"same"
        assert read(root, "c/.versions/2/f") == b"two, longer"
        assert root.names("c/.versions/4") == ["g"]
        assert read(root, f"c/.versions/{numbers[-1]}/f") == b"five"
        for name in ("0", "01", "99", "x", "-1", "1 "):
            assert not exists(root, f"c/.versions/{name}"), name
        assert not exists(root, "c/.versions/1/.versions")
        assert not exists(root, "c/d/.versions")

        record = json.loads(read(root, "c/.versions/1/.arvados#collection"))
        assert record["portable_data_hash"] == records[0]["portable_data_hash"]
        assert record["version"] == 1
        assert "+A" in record["manifest_text"]
        with root.at("c/.versions/2/f") as found:
            assert json.loads(root.fs.getxattr(found.ino, b"user.arvados.properties")) == {"n": 2}
            pdh = root.fs.getxattr(found.ino, b"user.arvados.portable_data_hash").decode()
            assert pdh == records[1]["portable_data_hash"]
        told = {number: root.stat(f"c/.versions/{number}").mtime_ns for number in (1, 2, 4)}
        assert len(set(told.values())) == 3, "each has its own time"

        # One more: the present one becomes a past one, and stays under its number.
        opened = root.open(f"c/.versions/{numbers[-1]}/f")
        mine.update("collections", uuid, manifest_text=mine.manifest({"f": b"six"}), preserve_version=True)
        wait_for(lambda: len(root.names("c/.versions")) == len(numbers) + 1, "the new version shows")
        assert read(root, "c/f") == b"six"
        assert opened.read(0, 10) == b"five"
        assert read(root, f"c/.versions/{numbers[-1]}/f") == b"five"
        opened.close()


def test_versions_are_read_only(mine: Maker, tmp_path: Path) -> None:
    uuid = versions(mine)[0]["uuid"]
    with session(mine.server, mine.token, tmp_path, mode="collection", target=uuid) as built:
        root = TreeDriver(built.filesystem)
        assert read(root, ".versions/1/f") == b"one"
        with root.at(".versions/1") as found:
            node = built.filesystem.inodes.get(found.ino)
            assert isinstance(node, CollectionRoot)
            assert node.state.read_only
            assert not node.state.writable


def test_listing_versions_needs_no_manifest(mine: Maker, tmp_path: Path) -> None:
    versions(mine)
    requests = request_counter(mine.server)
    with session(mine.server, mine.token, tmp_path, mode="home", refresh_time=3600.0) as built:
        root = TreeDriver(built.filesystem)
        read(root, "c/f")
        requests()
        for name in root.names("c/.versions"):
            assert root.stat(f"c/.versions/{name}").size > 0
        assert len(requests()) == 1


def test_a_real_name_comes_first(mine: Maker, tmp_path: Path) -> None:
    uuid = mine.collection("c", {".versions/1/f": b"really"})["uuid"]
    project = mine.project("p")
    mine.collection(".trash", {"f": b"really"}, owner_uuid=project)
    with session(mine.server, mine.token, tmp_path, mode="all") as built:
        root = TreeDriver(built.filesystem)
        assert read(root, f"by_id/{uuid}/.versions/1/f") == b"really"
        assert ".versions" in root.names(f"by_id/{uuid}")
        assert read(root, "home/p/.trash/f") == b"really"
        assert not exists(root, "shared/.trash")
        assert not exists(root, "by_id/.trash")


class Bin:
    """A project with things in its trash, and the mount."""

    def __init__(self, mine: Maker, root: TreeDriver, project: str) -> None:
        self.mine = mine
        self.root = root
        self.project = project
        self.other = mine.project("other", owner_uuid=project)
        self.uuids = {
            name: mine.collection(name, {f"{name}.txt": name.encode()}, owner_uuid=project)["uuid"]
            for name in ("one", "two", "stays")
        }
        self.sub = mine.project("sub", owner_uuid=project)
        self.inner = mine.collection("inner", {"in": b"in"}, owner_uuid=self.sub)["uuid"]
        mine.project("subsub", owner_uuid=self.sub)
        for name in ("one", "two"):
            self.throw(f"collections/{self.uuids[name]}")
        self.throw(f"groups/{self.sub}")

    def throw(self, path: str) -> None:
        assert self.mine.server.call("DELETE", path, token=self.mine.token).status == 200

    def trashed(self, name: str) -> Trashed:
        with self.root.at(".trash") as found:
            trashed = trashed_at(self.root.fs.inodes.directory(found.ino), name)
        assert trashed is not None
        return trashed

    def restore(self, name: str, owner_uuid: str, new: str) -> None:
        restore(self.root.fs.context, self.trashed(name), owner_uuid=owner_uuid, name=new)


@pytest.fixture
def thrown(mine: Maker, tmp_path: Path) -> Iterator[Bin]:
    project = mine.project("with trash")
    with session(
        mine.server, mine.token, tmp_path, mode="project", target=project, refresh_time=3600.0
    ) as built:
        yield Bin(mine, TreeDriver(built.filesystem), project)


def test_what_is_in_the_trash(thrown: Bin) -> None:
    root = thrown.root
    assert sorted(root.names("")) == ["other", "stays"]
    assert sorted(root.names(".trash")) == ["one", "sub", "two"]
    assert root.names("other/.trash") == []
    assert root.stat(".trash/one").size == 3
    assert root.names(".trash/one") == ["one.txt"]
    assert root.stat(".trash/one/one.txt").size == 3
    assert sorted(root.names(".trash/sub")) == ["inner", "subsub"]
    assert root.names(".trash/sub/inner") == ["in"]
    assert root.names(".trash/sub/subsub") == []
    assert not exists(root, ".trash/stays")
    assert not exists(root, ".trash/.trash")
    assert not exists(root, ".trash/one/.versions")
    with root.at(".trash/one") as found:
        assert (
            xattrs.value(root.fs.inodes.get(found.ino).described(), b"user.arvados.uuid").decode()
            == (thrown.uuids["one"])
        )
        node = root.fs.inodes.get(found.ino)
        assert isinstance(node, CollectionRoot)
        assert not node.state.writable
    paths = [path for path, _ in walk(root, ".trash")]
    assert len(paths) == 8
    root.fs.check()


def test_names_taken_twice_in_the_trash(thrown: Bin) -> None:
    again = thrown.mine.collection("one", {"again": b"again"}, owner_uuid=thrown.project)["uuid"]
    thrown.throw(f"collections/{again}")
    names = sorted(thrown.root.names(".trash"))
    assert len(names) == 4
    ones = [name for name in names if name.startswith("one")]
    contents = {read(thrown.root, f".trash/{name}/{thrown.root.names(f'.trash/{name}')[0]}") for name in ones}
    assert contents == {b"one", b"again"}


def test_the_way_back(thrown: Bin) -> None:
    root = thrown.root
    assert sorted(root.names(".trash")) == ["one", "sub", "two"]
    thrown.restore("one", thrown.project, "one")
    assert read(root, "one/one.txt") == b"one"
    assert sorted(root.names("")) == ["one", "other", "stays"]
    assert sorted(root.names(".trash")) == ["sub", "two"]
    thrown.restore("two", thrown.other, "renamed")
    assert read(root, "other/renamed/two.txt") == b"two"
    thrown.restore("sub", thrown.project, "back")
    assert read(root, "back/inner/in") == b"in"
    assert root.names(".trash") == []
    record = thrown.mine.server.call(
        "GET", f"collections/{thrown.uuids['two']}", token=thrown.mine.token
    ).body
    assert (record["name"], record["owner_uuid"], record["is_trashed"]) == ("renamed", thrown.other, False)


def test_a_name_that_is_taken(thrown: Bin) -> None:
    """It stays in the trash; also where its old name is taken now, another one can be given."""
    with pytest.raises(ExistsError):
        thrown.restore("one", thrown.project, "stays")
    assert sorted(thrown.root.names(".trash")) == ["one", "sub", "two"]
    thrown.mine.collection("one", {"new": b"new"}, owner_uuid=thrown.project)
    thrown.restore("one", thrown.project, "free")
    assert read(thrown.root, "free/one.txt") == b"one"
    assert read(thrown.root, "one/new") == b"new"


def test_what_is_not_in_the_trash(thrown: Bin) -> None:
    directory = thrown.root.fs.inodes.directory(ROOT)
    assert trashed_at(directory, "stays") is None
    with pytest.raises(Missing):
        thrown.trashed("stays")
    with pytest.raises(RequestRefused):
        restore(
            thrown.root.fs.context, Trashed(thrown.uuids["stays"]), owner_uuid=thrown.project, name="stays"
        )
    assert read(thrown.root, "stays/stays.txt") == b"stays"


def test_the_trash_of_others_stays_theirs(mine: Maker, tmp_path: Path) -> None:
    """Who may only read a project can look into its trash and take nothing out."""
    server = mine.server
    reader, token = server.new_user(f"reader{secrets.token_hex(4)}", first_name="R", last_name="R")
    project = mine.project("shared with a reader")
    uuid = mine.collection("thrown", {"f": b"f"}, owner_uuid=project)["uuid"]
    mine.make("links", link_class="permission", name="can_read", tail_uuid=reader, head_uuid=project)
    server.call("DELETE", f"collections/{uuid}", token=mine.token)
    with session(server, token, tmp_path, mode="project", target=project) as built:
        root = TreeDriver(built.filesystem)
        assert root.names(".trash") == ["thrown"]
        with pytest.raises(Exception, match="403"):
            restore(built.filesystem.context, Trashed(uuid), owner_uuid=project, name="thrown")
        assert root.names(".trash") == ["thrown"]


def test_a_cluster_that_signs_nothing_in_the_trash(thrown: Bin, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Arvados' controller does it: names and sizes are there, contents once it is back."""
    real = ApiClient.get_collection

    def unsigned(client: ApiClient, key: str, **options: Any) -> Any:
        record = real(client, key, **options)
        if options.get("include_trash") and "manifest_text" in record:
            record["manifest_text"] = re.sub(r"\+A[0-9a-f]{40}@[0-9a-f]{8}", "", record["manifest_text"])
        return record

    monkeypatch.setattr(ApiClient, "get_collection", unsigned)
    assert thrown.root.names(".trash/one") == ["one.txt"]
    assert thrown.root.stat(".trash/one/one.txt").size == 3
    with refused(errno.EACCES):
        read(thrown.root, ".trash/one/one.txt")
    thrown.restore("one", thrown.project, "one")
    assert read(thrown.root, "one/one.txt") == b"one"


def test_home_has_a_trash(mine: Maker, tmp_path: Path) -> None:
    uuid = mine.collection("thrown", {"f": b"f"})["uuid"]
    mine.server.call("DELETE", f"collections/{uuid}", token=mine.token)
    with session(mine.server, mine.token, tmp_path, mode="all", refresh_time=0.2) as built:
        root = TreeDriver(built.filesystem)
        assert root.names("home/.trash") == ["thrown"]
        mine.server.call("POST", f"collections/{uuid}/untrash", {}, token=mine.token)
        wait_for(lambda: root.names("home/.trash") == [], "it is gone from the trash")
