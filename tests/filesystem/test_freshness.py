"""What changes elsewhere is seen, what does not change is not asked about, what is open stays as it was."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from counting import Requests, request_counter
from drivers import TreeDriver, exists, read, walk
from servers import LocalServer, wait_for
from worlds import Maker, World, session

from arvados_fuse.api import ApiClient
from arvados_fuse.errors import NotFoundError

SOON = 0.2
"""Seconds of refresh time where a test waits for a refresh."""


@pytest.fixture
def project(mine: Maker) -> str:
    """A project for one test alone."""
    return mine.project("for a test")


@pytest.fixture
def requests(world: World) -> Requests:
    """What the server was asked since the last call."""
    return request_counter(world.server)


@pytest.fixture
def root(mine: Maker, project: str, tmp_path: Path) -> Iterator[TreeDriver]:
    with session(
        mine.server, mine.token, tmp_path, mode="project", target=project, refresh_time=SOON
    ) as built:
        yield TreeDriver(built.filesystem)


@pytest.fixture
def slow_root(mine: Maker, project: str, tmp_path: Path) -> Iterator[TreeDriver]:
    """Refreshes once an hour."""
    with session(
        mine.server, mine.token, tmp_path, mode="project", target=project, refresh_time=3600.0
    ) as built:
        yield TreeDriver(built.filesystem)


def test_changes_in_a_project(root: TreeDriver, mine: Maker, project: str) -> None:
    assert root.names("") == []
    assert not exists(root, "c")
    uuid = mine.collection("c", {"f": b"1"}, owner_uuid=project)["uuid"]
    wait_for(lambda: exists(root, "c"), "the new collection is found")
    wait_for(lambda: root.names("") == ["c"], "the new collection is listed")
    mine.update("collections", uuid, name="d")
    wait_for(lambda: root.names("") == ["d"], "the new name is listed")
    wait_for(lambda: not exists(root, "c"), "the old name is gone")
    assert read(root, "d/f") == b"1"
    mine.server.call("DELETE", f"collections/{uuid}", token=mine.token)
    wait_for(lambda: root.names("") == [], "the trashed collection is gone")
    wait_for(lambda: not exists(root, "d"), "its name is gone")
    mine.project("p", owner_uuid=project)
    wait_for(lambda: exists(root, "p"), "the new project is found")


def test_changes_in_a_collection(root: TreeDriver, mine: Maker, project: str) -> None:
    before = {"same/kept": b"kept", "same/changed": b"old", "same/removed": b"removed", "gone/x": b"x"}
    uuid = mine.collection("c", before, owner_uuid=project)["uuid"]
    wait_for(lambda: exists(root, "c"), "the collection is found")
    numbers = {path: told.ino for path, told in walk(root, "c")}
    opened = {name: root.open(f"c/same/{name}") for name in ("changed", "removed")}
    held = [root.fs.lookup(1, b"c")]
    held.append(root.fs.lookup(held[0].ino, b"same"))
    held += [root.fs.lookup(held[1].ino, name) for name in (b"kept", b"changed")]

    after = {"same/kept": b"kept", "same/changed": b"new content", "same/added": b"added", "gone": b"file"}
    mine.update("collections", uuid, manifest_text=mine.manifest(after))
    wait_for(lambda: exists(root, "c/same/added"), "the new file is found")
    files = {path: told for path, told in walk(root, "c") if not told.is_dir}
    assert sorted(files) == sorted(f"c/{name}" for name in after)
    for name, data in after.items():
        assert read(root, f"c/{name}") == data, name
    assert files["c/same/kept"].ino == numbers["c/same/kept"], "an unchanged file got another inode"
    assert files["c/same/changed"].ino != numbers["c/same/changed"], "cached pages would show the old file"
    assert root.stat("c/same").ino == numbers["c/same"]
    assert not exists(root, "c/same/removed")
    assert opened["changed"].read(0, 100) == b"old"
    assert opened["removed"].read(0, 100) == b"removed"
    for file in opened.values():
        file.close()
    root.fs.check()
    root.fs.forget([(each.ino, 1) for each in held])
    assert len(root.fs.inodes) == 1


def test_a_collection_that_is_gone(root: TreeDriver, mine: Maker, project: str) -> None:
    uuid: str = mine.collection("c", {"d/f": b"1"}, owner_uuid=project)["uuid"]
    wait_for(lambda: exists(root, "c/d"), "the collection is found")
    held = root.fs.lookup(1, b"c")
    file = root.open("c/d/f")
    mine.server.call("DELETE", f"collections/{uuid}", token=mine.token)

    def gone() -> bool:
        try:
            root.fs.lookup(held.ino, b"other name")
        except NotFoundError as error:
            return error.subject == str(uuid)
        return False

    wait_for(gone, "looking into the collection tells that it is gone")
    assert file.read(0, 10) == b"1"
    file.close()
    root.fs.forget([(held.ino, 1)])


def test_listing_once_is_enough(slow_root: TreeDriver, mine: Maker, project: str, requests: Requests) -> None:
    for number in range(30):
        mine.collection(f"c{number}", {}, owner_uuid=project)
    mine.project("p", owner_uuid=project)
    requests()
    assert len(slow_root.names("")) == 31
    for name in slow_root.names(""):
        assert slow_root.stat(name).is_dir
    assert len(requests()) == 2, "one for projects, one for collections"
    assert len(slow_root.names("")) == 31
    assert not exists(slow_root, "nothing")
    assert requests() == []


def test_a_miss_is_remembered(slow_root: TreeDriver, requests: Requests) -> None:
    requests()
    for _ in range(1000):
        assert not exists(slow_root, "nothing")
    assert len(requests()) == 1


def test_many_names_make_it_list(
    slow_root: TreeDriver, mine: Maker, project: str, requests: Requests
) -> None:
    for number in range(60):
        mine.collection(f"c{number}", {}, owner_uuid=project)
    requests()
    for number in range(60):
        assert exists(slow_root, f"c{number}")
    assert len(requests()) < 25


def test_a_miss_by_id_is_remembered(world: World, tmp_path: Path, requests: Requests) -> None:
    with session(world.server, world.token, tmp_path, mode="by_id", refresh_time=3600.0) as built:
        root = TreeDriver(built.filesystem)
        requests()
        for _ in range(100):
            assert not exists(root, "zzzzz-4zz18-000000000000000")
            assert not exists(root, "not an id")
        assert len(requests()) == 1


def test_refresh_asks_for_the_hash_only(
    mine: Maker, tmp_path: Path, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuid = mine.collection("c", {"d/f": b"1"})["uuid"]
    asked: list[Any] = []
    real = ApiClient.get_collection

    def spy(client: ApiClient, uuid: str, **options: Any) -> Any:
        asked.append(options.get("select"))
        return real(client, uuid, **options)

    monkeypatch.setattr(ApiClient, "get_collection", spy)
    with session(
        mine.server, mine.token, tmp_path, mode="collection", target=uuid, refresh_time=SOON
    ) as built:
        root = TreeDriver(built.filesystem)
        requests()
        wait_for(lambda: root.names("d") == ["f"] and len(asked) >= 4, "it refreshes a few times")
    assert asked[0] is None
    assert all(select is not None and "manifest_text" not in select for select in asked[1:])


def test_content_by_hash_is_asked_for_once(world: World, tmp_path: Path, requests: Requests) -> None:
    with session(world.server, world.token, tmp_path, mode="by_pdh", refresh_time=0.0) as built:
        root = TreeDriver(built.filesystem)
        requests()
        for _ in range(5):
            found = dict(walk(root, world.ids["plain_pdh"]))
            assert "README.txt" in {path.rpartition("/")[2] for path in found}
        assert len(requests()) == 1
        attributes = root.fs.lookup(1, world.ids["plain_pdh"].encode())
        assert attributes.timeout > 365 * 86400
        root.fs.forget([(attributes.ino, 1)])


def test_the_kernel_may_rely_on_a_uuid_for_the_refresh_time(world: World, tmp_path: Path) -> None:
    with session(world.server, world.token, tmp_path, mode="home", refresh_time=100.0) as built:
        fs = built.filesystem
        collection = fs.lookup(1, b"plain")
        directory = fs.lookup(collection.ino, b"data")
        file = fs.lookup(directory.ino, b"numbers.bin")
        for attributes in (collection, directory, file, fs.getattr(file.ino)):
            assert 80 < attributes.timeout <= 100
        fs.forget([(each.ino, 1) for each in (collection, directory, file)])


def test_the_record_is_the_saved_state(root: TreeDriver, mine: Maker, project: str) -> None:
    uuid = mine.collection("c", {"f": b"1"}, owner_uuid=project)["uuid"]
    wait_for(lambda: exists(root, "c"), "the collection is found")
    first = json.loads(read(root, "c/.arvados#collection"))
    changed = mine.update("collections", uuid, manifest_text=mine.manifest({"g": b"2"}))
    second = json.loads(read(root, "c/.arvados#collection"))
    assert first["portable_data_hash"] != second["portable_data_hash"] == changed["portable_data_hash"]


def test_the_record_is_asked_for_at_every_look(
    slow_root: TreeDriver, mine: Maker, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by one who comes while another waits for an answer that began before a change."""
    uuid = mine.collection("c", {"f": b"1"}, owner_uuid=project)["uuid"]
    fs = slow_root.fs
    root = fs.lookup(1, b"c")
    found = fs.lookup(root.ino, b".arvados#collection")
    assert found.timeout == 0, "the kernel asks each time"
    assert fs.getattr(found.ino).timeout == 0
    real, gate, asked = ApiClient.get_collection, threading.Event(), threading.Event()

    def slow(client: ApiClient, key: str, **options: Any) -> Any:
        record = real(client, key, **options)
        asked.set()
        gate.wait(30)
        return record

    monkeypatch.setattr(ApiClient, "get_collection", slow)
    first = threading.Thread(target=lambda: read(slow_root, "c/.arvados#collection"))
    first.start()
    assert asked.wait(30)
    changed = mine.update("collections", uuid, manifest_text=mine.manifest({"g": b"2"}))
    seen: list[str] = []
    second = threading.Thread(
        target=lambda: seen.append(json.loads(read(slow_root, "c/.arvados#collection"))["portable_data_hash"])
    )
    second.start()
    gate.set()
    first.join(30)
    second.join(30)
    assert seen == [changed["portable_data_hash"]]
    fs.forget([(root.ino, 1), (found.ino, 1)])


@pytest.fixture
def brief(fresh_server: LocalServer) -> Maker:
    """On a server whose signatures live for two seconds."""
    settings = json.loads((fresh_server.data_dir / "site.json").read_text())
    fresh_server.stop()
    (fresh_server.data_dir / "site.json").write_text(json.dumps({**settings, "blob_signature_ttl": 2}))
    fresh_server.start()
    return Maker(fresh_server, fresh_server.settings.token)


def test_signatures_are_renewed(fresh_server: LocalServer, brief: Maker, tmp_path: Path) -> None:
    """A file of 20 blocks is read for three times as long as a signature lives, without keeping any block."""
    mine = brief
    blocks = [bytes([number]) * 1000 for number in range(20)]
    text = f". {' '.join(mine.block(data) for data in blocks)} 0:20000:f\n"
    uuid = mine.make("collections", name="signed", manifest_text=text)["uuid"]
    token = fresh_server.settings.token
    with session(fresh_server, token, tmp_path, mode="collection", target=uuid) as built:
        root = TreeDriver(built.filesystem)
        file = root.open("f")
        for number, data in enumerate(blocks):
            _wait_until_refused(fresh_server, text.split()[1], every=number % 5 == 4)
            assert file.read(number * 1000, 1000) == data
        file.close()


def test_what_was_replaced_is_read_on_as_long_as_somebody_signs_for_it(
    fresh_server: LocalServer, brief: Maker, tmp_path: Path
) -> None:
    """An open file stays as it is. Others made another content of the collection meanwhile, so nobody has the
    one that is open; but while its blocks are in the new one, that signs for them."""
    blocks = [bytes([number]) * 1000 for number in range(20)]

    def text(*names: str) -> str:
        return f". {' '.join(brief.block(data) for data in blocks)} {' '.join(names)}\n"

    uuid = brief.make("collections", name="replaced", manifest_text=text("0:20000:f"))["uuid"]
    options = {"mode": "collection", "target": uuid, "refresh_time": 3600.0}
    with session(fresh_server, brief.token, tmp_path, **options) as built:
        file = TreeDriver(built.filesystem).open("f")
        assert file.read(0, 1000) == blocks[0]
        brief.update("collections", uuid, manifest_text=text("0:20000:moved"))
        _wait_until_refused(fresh_server, "", every=True)
        assert file.read(10_000, 1000) == blocks[10]
        brief.update("collections", uuid, manifest_text="")
        _wait_until_refused(fresh_server, "", every=True)
        with pytest.raises(PermissionError):
            file.read(5000, 1000)
        file.close()


def _wait_until_refused(server: LocalServer, locator: str, *, every: bool) -> None:
    """Wait until a signature of now has expired, as Keep itself sees it."""
    if not every:
        return
    mine = Maker(server, server.settings.token)
    fresh = mine.block(b"x")
    wait_for(lambda: server.keep("GET", f"/{fresh}").status in (401, 403), "the signature has expired")
