"""What options and the cluster's settings make of the layout, on a server that gives short pages.

A page of 50 records makes a project of 250 collections what one of 5,000 is on a cluster.
"""

import json
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from counting import Requests, request_counter
from drivers import TreeDriver, exists, read
from servers import LocalServer
from worlds import Maker, session

from arvados_fuse.tree.xattrs import FORMS, PREFIX

PAGE = 50
MANY = 5 * PAGE
TAGGED = PAGE + 10


@pytest.fixture(scope="module")
def paging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    server = LocalServer(tmp_path_factory.mktemp("paging") / "data")
    server.start()
    server.stop()
    path = server.data_dir / "site.json"
    more = {"max_items_per_page": PAGE, "forward_slash_substitution": " of "}
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
    try:
        yield server.start()
    finally:
        server.stop()


class Many(NamedTuple):
    """A project with many collections in it, more than a page of them with one tag; and as many tags."""

    maker: Maker
    project: str
    tag: str
    uuids: list[str]


@pytest.fixture(scope="module")
def many(paging: LocalServer) -> Many:
    maker = Maker(paging, paging.new_user(f"user{secrets.token_hex(4)}")[1])
    project, tag = maker.project("many"), f"tag {secrets.token_hex(4)}"
    text = maker.manifest({"f": b"f"})
    uuids = []
    for number in range(MANY):
        made = maker.make(
            "collections", name=f"c{number:03d}", manifest_text=text if number < 3 else "", owner_uuid=project
        )
        uuids.append(made["uuid"])
    for number in range(TAGGED):
        maker.make("links", link_class="tag", name=tag, head_uuid=uuids[number])
        maker.make("links", link_class="tag", name=f"{tag} {number}", head_uuid=uuids[0])
    return Many(maker, project, tag, uuids)


@pytest.fixture
def requests(paging: LocalServer) -> Requests:
    return request_counter(paging)


@pytest.fixture
def of_user(many: Many, tmp_path: Path) -> Any:
    """Mounts as the user of `many`."""

    def mount(mode: str, **options: Any) -> Any:
        options = {"refresh_time": 3600.0, **options}
        return session(many.maker.server, many.maker.token, tmp_path, mode=mode, **options)

    return mount


def test_first_and_second_look_at_a_large_project(many: Many, of_user: Any, requests: Requests) -> None:
    """`ls -l`: names, then stat and the attributes that the listing brought, of each."""
    with of_user("project", target=many.project) as built:
        root = TreeDriver(built.filesystem)
        requests()

        def look() -> None:
            names = root.names("")
            assert len(names) == MANY
            for name in names:
                assert root.stat(name).is_dir
                with root.at(name) as found:
                    assert root.fs.getxattr(found.ino, b"user.arvados.uuid")

        look()
        first = requests()
        assert len(first) <= 12, first
        assert not any("/collections" in line for line in first), "no manifest"
        look()
        for _ in range(1000):
            assert not exists(root, "not there")
        assert requests() == []


def test_all_pages_of_tags(many: Many, of_user: Any) -> None:
    with of_user("by_tag") as built:
        root = TreeDriver(built.filesystem)
        assert len([name for name in root.names("") if name.startswith(many.tag)]) == TAGGED + 1
        assert sorted(root.names(many.tag)) == sorted(many.uuids[:TAGGED])
        assert read(root, f"{many.tag}/{many.uuids[0]}/f") == b"f"


def filtered(built: Any, path: str = "") -> list[str]:
    return sorted(TreeDriver(built.filesystem).names(path))


@pytest.mark.parametrize(
    ("filters", "shown"),
    [
        ([["collections.name", "in", ["c000", "c249"]]], ["c000", "c249"]),
        ([["name", "like", "c24%"]], [f"c24{number}" for number in range(10)]),
        ([["groups.name", "=", "c000"]], None),
        ([["links.name", "=", "nothing"]], None),
        ([["collections.name", "<", "c002"], ["collections.name", ">", "c000"]], ["c001"]),
    ],
)
def test_filters_on_a_project(
    many: Many, of_user: Any, filters: Sequence[Sequence[Any]], shown: list[str] | None
) -> None:
    with of_user("all", filters=filters) as built:
        root = TreeDriver(built.filesystem)
        path = f"by_id/{many.project}"  # what is reached by its id is not filtered, what is in it is
        expected = shown if shown is not None else [f"c{number:03d}" for number in range(MANY)]
        assert filtered(built, path) == expected
        assert exists(root, f"{path}/c001") == ("c001" in expected)
        assert exists(root, f"by_id/{many.uuids[7]}")
        assert sorted(root.names(f"by_tag/{many.tag}") if exists(root, f"by_tag/{many.tag}") else []) == (
            [] if filters[0][0].startswith(("links", "name")) else sorted(many.uuids[:TAGGED])
        )


def test_the_clusters_sign_for_slashes(many: Many, of_user: Any) -> None:
    maker, project = many.maker, many.maker.project("slashes")
    for name in ("a/b", "x of y", "a/b/c", "_", "/"):
        maker.collection(name, {"name": name.encode()}, owner_uuid=project)
    with of_user("project", target=project) as built:
        root = TreeDriver(built.filesystem)
        expected = {"a of b": "a/b", "x of y": "x of y", "a of b of c": "a/b/c", "_": "_", " of ": "/"}
        assert sorted(root.names("")) == sorted(expected)
        for shown, name in expected.items():
            assert read(root, f"{shown}/name") == name.encode()
        built.filesystem.context.known_listing(f"project {project}").expire()
        for shown, name in expected.items():  # one by one
            assert read(root, f"{shown}/name") == name.encode()


def test_another_encoding(many: Many, of_user: Any) -> None:
    maker, project = many.maker, many.maker.project("encoding")
    maker.collection("caf\u00e9", {"\u00fc/\u00e4.txt": b"latin"}, owner_uuid=project)
    maker.collection("\u4e2d", {"f": b"f"}, owner_uuid=project)
    with of_user("project", target=project, encoding="latin-1") as built:
        fs = built.filesystem
        fh = fs.opendir(1)
        names = [entry.name for entry in fs.readdir(fh, 2)]
        fs.releasedir(fh)
        assert names == [b"caf\xe9"], "what can't be written in it is left out"
        found = [fs.lookup(1, b"caf\xe9")]
        for name in (b"\xfc", b"\xe4.txt"):
            found.append(fs.lookup(found[-1].ino, name))
        handle = fs.open(found[-1].ino, 0)
        assert bytes(fs.read(handle, 0, 10)) == b"latin"
        fs.release(handle)
        fs.forget([(each.ino, 1) for each in found])


def test_attributes_of_many_take_one_request_each_at_most(
    many: Many, of_user: Any, requests: Requests
) -> None:
    with of_user("project", target=many.project) as built:
        root = TreeDriver(built.filesystem)
        names = root.names("")[:20]
        requests()
        for name in names:
            with root.at(name) as found:
                for attribute in FORMS:
                    assert root.fs.getxattr(found.ino, f"{PREFIX}{attribute}".encode())
        assert len(requests()) == len(names)
