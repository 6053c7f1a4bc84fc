"""Others change, move and remove what we read, write or have listed."""

import errno
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.gate import Ask, Deed
from faults.writing_world import Worker, WritingMount, WritingWorld, attempt, write, writing
from mounting import drop_kernel_caches, needs_fuse
from servers import wait_for
from worlds import session

__all__ = ["writing"]

SECONDS = float(os.environ.get("ARVADOS_FUSE_STORM", "10"))
"""How long 32 threads create and rename while others do, too."""


class Others:
    """Another client of the same collection."""

    def __init__(self, writing: WritingWorld, uuid: str) -> None:
        self.writing = writing
        self.uuid = uuid

    def change(self, **changes: bytes | str | None) -> None:
        """New contents of files by name (None: removed; a text: moved from that path)."""
        files = {name: data for name, data in changes.items() if isinstance(data, bytes)}
        api = self.writing.site.api
        source = self.writing.site.collection(files)
        pdh = api.get_collection(source)["portable_data_hash"]
        wanted = {}
        for name, data in changes.items():
            path = "/" + name.replace("__", "/")
            if isinstance(data, bytes):
                wanted[path] = f"{pdh}/{name}"
            elif data is None:
                wanted[path] = ""
            else:
                wanted[path] = f"current/{data}"
                wanted[f"/{data}"] = ""
        api.update_collection(self.uuid, {}, replace_files=wanted)

    def trash(self) -> None:
        path = f"collections/{self.uuid}"
        assert self.writing.server.call("DELETE", path, token=self.writing.token).status == 200

    def untrash(self) -> None:
        path = f"collections/{self.uuid}/untrash"
        assert self.writing.server.call("POST", path, {}, token=self.writing.token).status == 200


@pytest.fixture
def here(writing: WritingWorld) -> Iterator[tuple[WritingMount, Path, Others]]:
    """A mount, a collection in it, and somebody else who changes that."""
    uuid = writing.site.collection({"a": b"old a", "b": b"old b", "sub/c": b"old c", "sub/d": b"old d"})
    with writing.mount() as mount:
        wait_for(lambda: (mount.root / uuid / "a").read_bytes() == b"old a", "the collection is there")
        yield mount, mount.root / uuid, Others(writing, uuid)


@needs_fuse
def test_what_we_read_is_replaced_removed_and_renamed(here: tuple[WritingMount, Path, Others]) -> None:
    """Who has it open goes on with what he opened; who looks sees the new state."""
    _, top, others = here
    with open(top / "a", "rb") as a, open(top / "b", "rb") as b, open(top / "sub/c", "rb") as c:
        assert (a.read(3), b.read(3), c.read(3)) == (b"old", b"old", b"old")
        others.change(a=b"new a", b=None, moved="sub/c")
        wait_for(lambda: sorted(os.listdir(top)) == ["a", "moved", "sub"], "the new names")
        wait_for(lambda: (top / "a").read_bytes() == b"new a", "the new content")
        assert (top / "moved").read_bytes() == b"old c"
        assert attempt((top / "b").stat) == errno.ENOENT
        drop_kernel_caches()
        assert (a.read(), b.read(), c.read()) == (b" a", b" b", b" c")


@needs_fuse
def test_what_we_write_is_replaced_removed_and_renamed(
    writing: WritingWorld, here: tuple[WritingMount, Path, Others]
) -> None:
    """Ours keeps the name; theirs is kept beside it."""
    mount, top, others = here
    with open(top / "a", "r+b") as a, open(top / "b", "r+b") as b, open(top / "sub/c", "r+b") as c:
        for file in (a, b, c):
            file.write(b"our")
            file.flush()
        others.change(a=b"their a", b=None, moved="sub/c")
        wait_for(lambda: "moved" in os.listdir(top), "the change is seen")
        assert {"a", "b"} <= set(os.listdir(top))
        assert (top / "a").read_bytes() == b"our a"
        for file in (a, b, c):
            file.seek(0, os.SEEK_END)
            file.write(b"!")
            file.flush()
            os.fsync(file.fileno())
    assert (top / "sub/c").read_bytes() == b"our c!"
    conflicts = [name for name in os.listdir(top) if "conflict" in name]
    assert len(conflicts) == 1
    assert (top / conflicts[0]).read_bytes() == b"their a"
    assert writing.tree(others.uuid) == {
        "a": b"our a!",
        "a~conflict~": b"their a",
        "b": b"our b!",
        "moved": b"old c",
        "sub/c": b"our c!",
        "sub/d": b"old d",
    }
    assert "others changed the same paths" in mount.log


@needs_fuse
def test_the_directory_around_us_is_removed_and_moved(
    writing: WritingWorld, here: tuple[WritingMount, Path, Others]
) -> None:
    _, top, others = here
    listing = os.listdir(top / "sub")
    assert sorted(listing) == ["c", "d"]
    with open(top / "sub/new", "wb") as new, open(top / "sub/c", "r+b") as c:
        new.write(b"new")
        new.flush()
        c.write(b"our")
        c.flush()
        others.change(elsewhere="sub")
        wait_for(lambda: "elsewhere" in os.listdir(top), "the change is seen")
        assert sorted(os.listdir(top / "elsewhere")) == ["c", "d"]
        os.fsync(new.fileno())
        os.fsync(c.fileno())
        write(top / "sub/after", b"after")
    wanted = {
        "a": b"old a",
        "b": b"old b",
        "elsewhere/c": b"old c",
        "elsewhere/d": b"old d",
        "sub/after": b"after",
        "sub/c": b"our c",
        "sub/new": b"new",
    }
    writing.wait_saved(others.uuid, wanted)
    wait_for(lambda: sorted(os.listdir(top / "sub")) == ["after", "c", "new"], "what is left is shown")


@needs_fuse
def test_the_collection_is_trashed_under_us(
    writing: WritingWorld, here: tuple[WritingMount, Path, Others]
) -> None:
    """Nothing vanishes: who syncs gets an error, the data waits, and is saved when the collection is back."""
    mount, top, others = here
    writing.gates.keep_rule(lambda ask: Deed(hold=ask.method == "PUT"))
    write(top / "closed", b"closed")
    with open(top / "open", "wb") as opened:
        opened.write(b"open")
        opened.flush()
        others.trash()
        writing.gates.clear()
        assert attempt(lambda: os.fsync(opened.fileno())) == errno.EIO
        opened.write(b" and more")
        assert attempt(opened.flush) == 0
        assert attempt(lambda: os.fsync(opened.fileno())) == errno.EIO
        assert attempt(opened.close) == errno.EIO
    assert f"{others.uuid}/closed and 1 more: not saved" in mount.log
    assert "not saved" in mount.log
    assert len(mount.unsaved()) == 1
    others.untrash()
    wanted = {
        "a": b"old a",
        "b": b"old b",
        "closed": b"closed",
        "open": b"open and more",
        "sub/c": b"old c",
        "sub/d": b"old d",
    }
    writing.wait_saved(others.uuid, wanted)
    wait_for(lambda: attempt(lambda: write(top / "last", b"last", sync=True)) == 0, "it can be written again")
    assert (top / "closed").read_bytes() == b"closed"


@needs_fuse
def test_a_trashed_collection_at_the_end_of_the_mount(writing: WritingWorld) -> None:
    """The mount says what it could not save and where it is."""
    uuid = writing.site.collection({"a": b"a"})
    others = Others(writing, uuid)
    with writing.mount(code=1) as mount:
        assert (mount.root / uuid / "a").read_bytes() == b"a"
        writing.gates.keep_rule(lambda ask: Deed(hold=ask.method == "PUT"))
        write(mount.root / uuid / "b", b"b")
        others.trash()
        writing.gates.clear()
    assert "1 changed path is not saved" in mount.log
    assert uuid in mount.log
    others.untrash()
    with writing.mount():
        writing.wait_saved(uuid, {"a": b"a", "b": b"b"})


@needs_fuse
def test_an_old_answer_comes_late(writing: WritingWorld, here: tuple[WritingMount, Path, Others]) -> None:
    """The record was asked for before a save of ours, and comes after: what we saved is still shown."""
    _, top, others = here
    held: list[Ask] = []

    def rule(ask: Ask) -> Deed:
        whole = ask.method == "GET" and ask.path.partition("?")[0].endswith(others.uuid)
        if not whole or "select" in ask.path or held:
            return Deed()
        held.append(ask)
        return Deed(hold_answer=True)

    write(top / "first", b"first", sync=True)
    writing.gates.api.rule = rule
    others.change(theirs=b"theirs")
    wait_for(lambda: os.listdir(top) and writing.gates.api.held, "the mount asks for the new content")
    write(top / "new", b"new", sync=True)
    writing.gates.clear()
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        assert "new" in os.listdir(top)
        assert (top / "new").read_bytes() == b"new"
    wait_for(lambda: "theirs" in os.listdir(top), "what others did is seen")


@needs_fuse
def test_what_a_dead_mount_left_is_shown_once_it_is_saved(writing: WritingWorld) -> None:
    """Also where it was listed before."""
    uuid = writing.site.collection({"a": b"a"})
    first = writing.begin()
    writing.gates.keep_rule(lambda ask: Deed(hold=ask.method == "PUT"))
    write(first.root / uuid / "b", b"b")
    first.kill()
    writing.gates.clear()
    writing.gates.api.rule = lambda ask: Deed(hold_answer=ask.changes(uuid))
    with writing.mount() as mount:
        writing.gates.api.wait_held()
        assert sorted(os.listdir(mount.root / uuid))[0] == "a"
        time.sleep(0.5)  # the event comes first
        writing.gates.clear()
        wait_for(lambda: sorted(os.listdir(mount.root / uuid)) == ["a", "b"], "it is shown", 5)


class Storm:
    """Threads on the tree below the kernel: they create, write, rename, remove and list; so do others."""

    def __init__(self, filesystem: Any, inode: int, number: int) -> None:
        self.filesystem = filesystem
        self.top = inode
        self.name = f"t{number}"
        self.random = random.Random(number)
        self.count = 0
        self.held: dict[bytes, bytes] = {}

    def run(self, until: float) -> None:
        while time.monotonic() < until:
            self.random.choices([self.create, self.move, self.remove, self.look], [4, 3, 2, 3])[0]()
            self.count += 1

    def create(self) -> None:
        name = f"{self.name}-{self.count}".encode()
        handle, attributes = self.filesystem.create_file(self.top, name)
        data = name * self.random.randrange(1, 50)
        self.filesystem.write(handle, 0, data)
        self.filesystem.flush(handle)
        assert bytes(self.filesystem.read(handle, 0, len(data))) == data
        self.filesystem.release(handle)
        self.filesystem.forget([(attributes.ino, 1)])
        self.held[name] = data

    def move(self) -> None:
        if self.held:
            old = self.random.choice(list(self.held))
            new = f"{self.name}-moved-{self.random.randrange(9)}".encode()
            self.filesystem.rename(self.top, old, self.top, new)
            self.held[new] = self.held.pop(old)

    def remove(self) -> None:
        if self.held:
            name = self.random.choice(list(self.held))
            self.filesystem.unlink(self.top, name)
            del self.held[name]

    def look(self) -> None:
        """What is mine is there, as it is, whatever others do."""
        for name in list(self.held)[:3]:
            attributes = self.filesystem.lookup(self.top, name)
            assert attributes.size == len(self.held[name])
            handle = self.filesystem.open(attributes.ino, os.O_RDONLY)
            assert bytes(self.filesystem.read(handle, 0, 10_000)) == self.held[name]
            self.filesystem.release(handle)
            self.filesystem.forget([(attributes.ino, 1)])


def test_a_storm_of_changes_here_and_there(writing: WritingWorld, tmp_path: Path) -> None:
    """32 threads here, one elsewhere, events on their way: the tables stay whole, and nothing is lost."""
    uuid = writing.site.collection({"sub/old": b"old", "theirs": b"0"})
    others = Others(writing, uuid)
    with session(
        writing.server,
        writing.token,
        tmp_path / "storm",
        mode="collection",
        target=uuid,
        read_write=True,
        listen_events=True,
    ) as built:
        filesystem = built.filesystem
        storms = [Storm(filesystem, 1, number) for number in range(32)]
        until = time.monotonic() + SECONDS
        workers = [Worker(lambda storm=storm: storm.run(until)) for storm in storms]  # type: ignore[misc]
        rounds = 0
        checks = 0
        while time.monotonic() < until:
            rounds += 1
            others.change(theirs=b"%d" % rounds, **{f"sub__n{rounds % 7}": b"%d" % rounds})
            filesystem.check()
            checks += 1
            time.sleep(0.05)
        for worker in workers:
            worker.result()
        filesystem.check()
        wanted = {name.decode(): data for storm in storms for name, data in storm.held.items()}
        theirs = {"theirs": b"%d" % rounds, "sub/old": b"old"}
        theirs |= {f"sub/n{at % 7}": b"%d" % at for at in range(max(1, rounds - 6), rounds + 1)}
        print(f"{sum(storm.count for storm in storms)} steps, {rounds} changes elsewhere, {checks} checks")
        writing.wait_saved(uuid, {**wanted, **theirs})

        def shown() -> bool:
            handle = filesystem.opendir(1)
            entries = [entry.name for entry in filesystem.readdir(handle, 0)]
            filesystem.releasedir(handle)
            return {os.fsdecode(name) for name in entries} - {".", ".."} == {*wanted, "theirs", "sub"}

        wait_for(shown, "all of it is shown")
        filesystem.check()
        context = built.filesystem.context
        assert context.writeback is not None
        wait_for(lambda: context.writeback.status().is_clean(), "nothing is unsaved")  # type: ignore[union-attr]
    assert writing.tree(uuid) == {**wanted, **theirs}
