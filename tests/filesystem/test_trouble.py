"""Servers that hang, die or say nonsense: every request ends, says what it was about; the rest goes on."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from drivers import TreeDriver, read
from servers import LocalServer, wait_for
from worlds import Maker, World, session

from arvados_fuse.api import ApiClient
from arvados_fuse.errors import ArvadosFuseError, Unreachable
from arvados_fuse.tree import FileSystem

DEADLINE = 2.0
"""Seconds that a call to the API server may take in these tests."""


@pytest.fixture
def own(fresh_server: LocalServer) -> Maker:
    return Maker(fresh_server, fresh_server.settings.token)


@pytest.fixture
def stopped(own: Maker) -> Iterator[Callable[[], None]]:
    """Stops the server as a hung one: it accepts connections and never answers."""
    pid = own.server.pid

    def stop() -> None:
        os.kill(pid, signal.SIGSTOP)

    yield stop
    os.kill(pid, signal.SIGCONT)


@pytest.fixture
def fs(own: Maker, tmp_path: Path) -> Iterator[FileSystem]:
    own.collection("known", {"d/f": b"known\n"})
    own.collection("other", {"f": b"other\n"})
    with session(own.server, own.token, tmp_path, mode="all", refresh_time=0.3, deadline=DEADLINE) as built:
        built.filesystem.context.deadline = DEADLINE + 1
        yield built.filesystem


def took(begun: float) -> float:
    return time.monotonic() - begun


def test_a_server_that_hangs(fs: FileSystem, own: Maker, stopped: Callable[[], None]) -> None:
    root = TreeDriver(fs)
    assert read(root, "home/known/d/f") == b"known\n"
    assert sorted(root.names("home")) == ["known", "other"]
    stopped()
    # What was known goes on being shown, old or not.
    begun = time.monotonic()
    for _ in range(3):
        assert sorted(root.names("home")) == ["known", "other"]
        assert read(root, "home/known/d/f") == b"known\n"
    assert took(begun) < 5
    # What was never seen ends at its deadline, and the error names it.
    held = fs.lookup(fs.lookup(1, b"home").ino, b"other")
    begun = time.monotonic()
    with pytest.raises(Unreachable) as caught:
        fs.opendir(held.ino)
    assert took(begun) < DEADLINE + 3
    assert held.is_directory
    assert "-4zz18-" in f"{caught.value} {caught.value.subject}"
    fs.forget([(held.ino, 1), (held.ino, 1), (fs.inodes.get(held.ino).parent.ino, 1)])  # type: ignore[union-attr]


def answered(root: TreeDriver, path: str) -> bytes | None:
    """The content, or None while the server is still too slow for the short deadline of these tests."""
    try:
        return read(root, path)
    except OSError:
        return None


def test_one_hanging_look_does_not_stop_the_others(
    fs: FileSystem, own: Maker, stopped: Callable[[], None]
) -> None:
    """A first look by id is answered before the server has; the waiting is inside."""
    root = TreeDriver(fs)
    assert read(root, "home/known/d/f") == b"known\n"
    uuid = own.collection("third", {"f": b"third\n"})["uuid"].encode()
    by_id = fs.lookup(1, b"by_id")
    stopped()
    begun = time.monotonic()
    found = fs.lookup(by_id.ino, uuid)
    assert took(begun) < DEADLINE
    assert found.is_directory
    assert found.timeout == 0
    assert root.names("by_id") == ["README"], "it is not known to exist"

    failed: list[Exception] = []

    def look() -> None:
        try:
            fs.opendir(found.ino)
        except ArvadosFuseError as error:
            failed.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    begun = time.monotonic()
    assert read(root, "home/known/d/f") == b"known\n"
    assert took(begun) < DEADLINE + 2
    thread.join()
    assert isinstance(failed[0], Unreachable)
    os.kill(own.server.pid, signal.SIGCONT)
    third = f"by_id/{uuid.decode()}/f"
    wait_for(lambda: answered(root, third) == b"third\n", "it is there once the server answers")
    fs.forget([(found.ino, 1), (by_id.ino, 1)])


def test_a_server_that_dies(fs: FileSystem, own: Maker) -> None:
    root = TreeDriver(fs)
    assert read(root, "home/known/d/f") == b"known\n"
    assert sorted(root.names("home")) == ["known", "other"]
    own.server.kill()
    assert read(root, "home/known/d/f") == b"known\n"
    assert sorted(root.names("home")) == ["known", "other"]
    with pytest.raises(OSError, match="Input/output error"):
        root.names("home/other")


def test_blocks_that_cannot_be_had(fs: FileSystem, own: Maker) -> None:
    root = TreeDriver(fs)
    file = root.open("home/known/d/f")
    own.server.kill()
    begun = time.monotonic()
    with pytest.raises(OSError, match="Input/output error"):
        file.read(0, 100)
    file.close()
    assert took(begun) < 150  # a block is tried for again for somewhat over a minute


def answering(monkeypatch: pytest.MonkeyPatch, uuid: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """The API server says what `change` makes of its record of one collection."""
    real = ApiClient.get_collection

    def get(client: ApiClient, key: str, **options: Any) -> Any:
        record = real(client, key, **options)
        return change(record) if key == uuid else record

    monkeypatch.setattr(ApiClient, "get_collection", get)


EMPTY = "d41d8cd98f00b204e9800998ecf8427e+0"
HOSTILE: dict[str, Any] = {
    "no manifest": None,
    "a number": 5,
    "nonsense": "nonsense\n",
    "no end of line": f". {EMPTY} 0:0:f",
    "above": f"./../x {EMPTY} 0:0:f\n",
    "bad locator": ". xyz+5 0:5:f\n",
    "outside": f". {EMPTY} 0:5:f\n",
    "huge": f". {'0' * 32}+5 0:{'9' * 40}:f\n",
    "file and directory": f". {EMPTY} 0:0:a\n./a {EMPTY} 0:0:b\n",
}
"""What the API server gives as a manifest."""


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_records(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """An error on that object, and everything else as before."""
    answering(monkeypatch, world.ids["plain"], lambda record: {**record, "manifest_text": HOSTILE[kind]})
    with session(world.server, world.token, tmp_path, mode="home") as built:
        root = TreeDriver(built.filesystem)
        assert "plain" in root.names("")
        with pytest.raises(OSError, match="Input/output error"):
            root.names("plain")
        with pytest.raises(OSError, match="Input/output error"):
            root.stat("plain/README.txt")
        assert read(root, "blocks/spanning/file") == world.spanning


@pytest.mark.parametrize("text", ["", "\ud800"], ids=["empty", "no Unicode"])
def test_other_content_under_a_hash(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    pdh = world.ids["plain_pdh"]
    answering(monkeypatch, pdh, lambda record: {**record, "manifest_text": text})
    with (
        session(world.server, world.token, tmp_path, mode="by_pdh") as built,
        pytest.raises(OSError, match="other content"),
    ):
        TreeDriver(built.filesystem).names(pdh)


def test_records_without_a_uuid(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Can't be asked for, so they are not shown; what else is in the project is. In the trash neither."""
    real = ApiClient.project_contents
    mine = Maker(world.server, world.token)
    for name in ("thrown", "away"):
        made = mine.collection(name, {})
        world.server.call("DELETE", f"collections/{made['uuid']}", token=world.token)

    def contents(client: ApiClient, owner: str, **options: Any) -> Iterator[dict[str, Any]]:
        for record in real(client, owner, **options):
            yield {**record, "uuid": ""} if record["name"] in ("plain", "project", "away") else record

    monkeypatch.setattr(ApiClient, "project_contents", contents)
    with session(world.server, world.token, tmp_path, mode="home") as built:
        root = TreeDriver(built.filesystem)
        names = root.names("")
        assert "blocks" in names
        assert not {"plain", "project"} & set(names)
        trash = root.names(".trash")
        assert "thrown" in trash
        assert "away" not in trash


def test_names_that_no_kernel_takes(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left out of the listing, which would fail as a whole otherwise."""
    long = "x" * 1_000_000
    text = f". d41d8cd98f00b204e9800998ecf8427e+0 0:0:{long} 0:0:{'y' * 255} 0:0:{'z' * 1024}\n"
    answering(monkeypatch, world.ids["plain"], lambda record: {**record, "manifest_text": text})
    with session(world.server, world.token, tmp_path, mode="home") as built:
        assert TreeDriver(built.filesystem).names("plain") == ["y" * 255, "z" * 1024]


def test_a_record_with_strange_fields(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strange = {"modified_at": "yesterday", "file_size_total": -5, "name": None, "uuid": 7}
    strange |= {"storage_classes_desired": 1.5}
    answering(monkeypatch, world.ids["plain"], lambda record: {**record, **strange})
    with session(world.server, world.token, tmp_path, mode="home", read_write=True) as built:
        root = TreeDriver(built.filesystem)
        assert read(root, "plain/README.txt") == b"hello\n"
        assert root.stat("plain/README.txt").mtime_ns == 0
        file = root.open_file("plain/new", os.O_CREAT | os.O_RDWR)
        assert file.write(0, b"new") == 3
        file.close()
        root.unlink("plain/new")
        assert json.loads(read(root, "plain/.arvados#collection"))["modified_at"] == "yesterday"
