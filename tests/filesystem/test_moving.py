"""Renames from one collection into another."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from drivers import TreeDriver, read, refused, write
from worlds import Maker, session
from writing_bench import record_of, sdk_reads

from arvados_fuse.api import ApiClient
from arvados_fuse.tree import working
from arvados_fuse.tree.collection_state import CollectionState
from arvados_fuse.tree.inodes import Inodes

FILES = {"f": b"data", "g": b"more"}


class Two(NamedTuple):
    """Two collections of the same files, by their uuids, and their inodes. `one` is locked first."""

    tree: TreeDriver
    one: str
    other: str
    one_ino: int
    other_ino: int

    def state(self, uuid: str) -> CollectionState:
        """See `Context`."""
        state = self.tree.fs.context.known_collection(uuid)
        assert state is not None
        return state

    def forget(self, uuid: str) -> None:
        """What memory pressure does."""
        while self.state(uuid).shrink():
            pass

    def make(self, ino: int, name: bytes) -> None:
        """A new file, in what the kernel knows: no look at any name."""
        fh, made = self.tree.call(self.tree.fs.create_file, ino, name)
        self.tree.fs.release(fh)
        self.tree.fs.forget([(made.ino, 1)])

    def move(self) -> None:
        """Rename `f` from `one` to `other`, likewise."""
        self.tree.call(self.tree.fs.rename, self.one_ino, b"f", self.other_ino, b"moved")


@pytest.fixture
def two(mine: Maker, tmp_path: Path) -> Iterator[Two]:
    """`one` is being changed, and all is saved; of `other` nothing is in memory."""
    one, other = sorted(mine.collection(name, FILES)["uuid"] for name in ("a", "b"))
    with session(mine.server, mine.token, tmp_path, read_write=True, mode="by_id") as built:
        tree = TreeDriver(built.filesystem)
        with tree.at(one) as here, tree.at(other) as there:
            write(tree, f"{one}/new", b"new")
            tree.fsync_directory(one)
            assert sorted(tree.names(other)) == ["f", "g"]
            two = Two(tree, one, other, here.ino, there.ino)
            two.forget(other)
            yield two


class Late:
    """Questions about a collection wait until `go` is set. asked: there was one; answered: it went on."""

    def __init__(self, uuid: str, patch: pytest.MonkeyPatch) -> None:
        self.go, self.asked, self.answered = threading.Event(), threading.Event(), threading.Event()
        real = ApiClient.get_collection

        def get_collection(client: ApiClient, key: str, **options: Any) -> Any:
            if key == uuid:
                self.asked.set()
                self.go.wait(60)
                self.answered.set()
            return real(client, key, **options)

        patch.setattr(ApiClient, "get_collection", get_collection)


def test_who_works_in_one_does_not_wait_until_the_server_tells_of_the_other(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Late(two.other, monkeypatch)
    moving = threading.Thread(target=two.move)
    moving.start()
    assert late.asked.wait(30)
    two.make(two.one_ino, b"made")
    assert not late.answered.is_set(), "it waited for the server"
    late.go.set()
    moving.join(60)
    assert sorted(two.tree.names(two.one)) == ["g", "made", "new"]
    assert sorted(two.tree.names(two.other)) == ["f", "g", "moved"]
    assert read(two.tree, f"{two.other}/moved") == FILES["f"]


def test_one_may_come_to_rest_and_be_forgotten_while_the_server_tells_of_the_other(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Late(two.other, monkeypatch)
    moving = threading.Thread(target=two.move)
    moving.start()
    assert late.asked.wait(30)
    with monkeypatch.context() as patch:
        patch.setattr(working, "REST_AFTER", 0.0)
        assert sorted(two.tree.names(two.one)) == ["f", "g", "new"]
    assert two.state(two.one).working is None
    two.forget(two.one)
    late.go.set()
    moving.join(60)
    assert sorted(two.tree.names(two.one)) == ["g", "new"]
    assert read(two.tree, f"{two.other}/moved") == FILES["f"]
    for uuid in (two.one, two.other):
        two.tree.fsync_directory(uuid)
        assert two.state(uuid).current().collection.portable_data_hash() == two.state(uuid).current().pdh


class Places:
    """Two collections at two places each: `home/a` and `home/b`, and below `by_id`."""

    def __init__(self, mine: Maker, tree: TreeDriver, one: str, other: str) -> None:
        self.mine = mine
        self.tree = tree
        self.one, self.other = one, other

    def saved(self) -> list[dict[str, bytes | None]]:
        """What the server has of both once all is saved."""
        writeback = self.tree.fs.context.writeback
        assert writeback is not None
        writeback.save(None, deadline=30)
        return [
            sdk_reads(self.mine, record_of(self.mine, uuid)["manifest_text"])
            for uuid in (self.one, self.other)
        ]


@pytest.fixture
def places(mine: Maker, tmp_path: Path) -> Iterator[Places]:
    one = mine.collection("a", {"d/f": b"f", "moved/f": b"another f", "x": b"own x"})["uuid"]
    other = mine.collection("b", {"d/own": b"own"})["uuid"]
    with session(mine.server, mine.token, tmp_path, read_write=True, mode="all") as built:
        tree = TreeDriver(built.filesystem)
        tree.names("home")
        yield Places(mine, tree, one, other)


UNTOUCHED = {"moved": None, "moved/f": b"another f", "x": b"own x"}
"""What the first collection has after its `d` was moved away."""


def test_who_works_at_another_place_in_what_was_moved_changes_nothing_of_that_name(places: Places) -> None:
    tree = places.tree
    inside = tree.enter("home/a/d")
    with tree.at("home/a/d/f") as file:
        tree.rename(f"by_id/{places.one}/d", f"by_id/{places.other}/moved")
        with refused(errno.ENOENT):
            tree.call(tree.fs.unlink, inside._ino, b"f")
        with refused(errno.ENOENT):
            inside.make("new")
        with refused(errno.ENOENT):
            tree.call(tree.fs.open, file.ino, os.O_RDWR)
    inside.leave()
    assert places.saved() == [UNTOUCHED, {"d": None, "d/own": b"own", "moved": None, "moved/f": b"f"}]


def test_who_works_in_a_directory_goes_on_in_it_wherever_it_is_moved(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also between the move and that of its inode, and where there is another directory of its old name."""
    tree = places.tree
    inside = tree.enter("home/a/d")
    real = Inodes.rename

    def late(inodes: Inodes, *names: Any) -> None:
        assert inside.names() == ["f"]
        real(inodes, *names)

    monkeypatch.setattr(Inodes, "rename", late)
    tree.rename("home/a/d", "home/b/there")
    assert inside.names() == ["f"]
    inside.make("made")
    inside.leave()
    kept, gained = places.saved()
    assert kept == UNTOUCHED
    assert gained == {"d": None, "d/own": b"own", "there": None, "there/f": b"f", "there/made": b""}


def test_what_is_moved_before_it_is_open_is_not_written_elsewhere(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tries again where it gets ESTALE."""
    tree = places.tree
    real, todo = Inodes.adopt, ["new"]

    def adopt(inodes: Inodes, directory: Any, name: str, content: Any) -> Any:
        if name in todo:
            todo.remove(name)
            tree.rename(f"by_id/{places.one}/new", f"by_id/{places.other}/x")
        return real(inodes, directory, name, content)

    monkeypatch.setattr(Inodes, "adopt", adopt)
    with refused(errno.ESTALE):
        write(tree, "home/a/new", b"data")
    write(tree, "home/a/new", b"data")
    kept, gained = places.saved()
    assert kept == {"d": None, "d/f": b"f", **UNTOUCHED, "new": b"data"}
    assert gained == {"d": None, "d/own": b"own", "x": b""}
