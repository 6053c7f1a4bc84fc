"""Others make a directory of a file that is in use here, or a file of a directory, or change what we have
just saved. Nothing of theirs goes that nobody here has seen, and nothing of ours stays unsaved."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from drivers import TreeDriver, read, refused, write
from servers import wait_for
from worlds import Maker, session
from writing_bench import record_of, sdk_reads, shown

from arvados_fuse.api import ApiClient
from arvados_fuse.cli import saving
from arvados_fuse.cli.build import MountSession
from arvados_fuse.errors import AccessDenied, Unreachable
from arvados_fuse.tree.collection_state import CollectionState
from arvados_fuse.writeback import latest
from arvados_fuse.writeback.latest import Latest


class Shared:
    """A collection, a mount of it that others hear nothing of, and what others do."""

    def __init__(self, maker: Maker, uuid: str, built: MountSession) -> None:
        self.maker = maker
        self.uuid = uuid
        self.built = built
        self.tree = TreeDriver(built.filesystem)

    @property
    def state(self) -> CollectionState:
        state = self.built.filesystem.context.known_collection(self.uuid)
        assert state is not None
        return state

    def others_have(self, files: dict[str, bytes]) -> None:
        """Others replace all there is."""
        self.maker.update("collections", self.uuid, manifest_text=self.maker.manifest(files))

    def hear(self) -> None:
        """The mount learns of it."""
        working = self.state.working
        assert working is not None
        taken = working.taken
        self.state.expire()
        self.tree.names("")
        wait_for(lambda: working.taken > taken, "the newer record is taken")

    def save(self) -> dict[str, bytes]:
        """Save all; the files that the server has then, conflict names without their time."""
        self.tree.fsync_directory("")
        return self.files()

    def files(self) -> dict[str, bytes]:
        found = sdk_reads(self.maker, record_of(self.maker, self.uuid)["manifest_text"])
        return {_plain(path): data for path, data in found.items() if data is not None}

    def shown(self) -> dict[str, bytes]:
        return {path: data for path, data in shown(self.tree, "").items() if data is not None}


def _plain(path: str) -> str:
    head, mark, _ = path.partition("~")
    return head + mark


Mount = Callable[[dict[str, bytes]], Shared]


@pytest.fixture
def mount(mine: Maker, tmp_path: Path) -> Iterator[Mount]:
    """Makes a collection of these files and a mount of it; `busy` in it stays open for writing."""
    open_sessions: list[Any] = []

    def begin(files: dict[str, bytes]) -> Shared:
        uuid = mine.collection("c", {**files, "busy": b""})["uuid"]
        held = session(mine.server, mine.token, tmp_path, read_write=True, mode="collection", target=uuid)
        shared = Shared(mine, uuid, held.__enter__())
        open_sessions.append((held, shared.tree.open_file("busy", os.O_RDWR)))
        return shared

    yield begin
    for held, busy in open_sessions:
        busy.close()
        held.__exit__(None, None, None)


def test_a_directory_becomes_a_file_while_a_file_in_it_is_written(mount: Mount) -> None:
    shared = mount({"d/f": b"old"})
    file = shared.tree.open_file("d/f", os.O_RDWR)
    shared.others_have({"d": b"THEIRS", "busy": b""})
    shared.hear()
    file.write(0, b"NEW")
    file.close()
    write(shared.tree, "unrelated", b"u")
    assert shared.save() == {"d/f": b"NEW", "d~": b"THEIRS", "unrelated": b"u", "busy": b""}


def test_a_file_becomes_a_directory_that_is_made_here_too(mount: Mount) -> None:
    shared = mount({"f": b"old"})
    file = shared.tree.open_file("f", os.O_RDWR)
    shared.others_have({"f/x": b"THEIRS", "busy": b""})
    shared.hear()
    shared.tree.rename("f", "f2")
    shared.tree.mkdir("f")
    write(shared.tree, "f/x", b"ours")
    file.close()
    assert shared.save() == {"f/x": b"ours", "f/x~": b"THEIRS", "f2": b"old", "busy": b""}


@pytest.mark.parametrize(("ours", "theirs"), [("d/f", "d"), ("f", "f/x")])
def test_what_was_only_open_here_gives_way_to_theirs(mount: Mount, ours: str, theirs: str) -> None:
    shared = mount({ours: b"old"})
    file = shared.tree.open_file(ours, os.O_RDWR)
    shared.others_have({theirs: b"THEIRS", "busy": b""})
    shared.hear()
    assert shared.shown() == {ours: b"old", "busy": b""}
    file.close()
    assert shared.shown() == {theirs: b"THEIRS", "busy": b""}
    with shared.tree.at(theirs):
        write(shared.tree, theirs, b"seen, and written anew")
    assert shared.save() == {theirs: b"seen, and written anew", "busy": b""}


@pytest.mark.parametrize("directory", ["d", "d/e"])
def test_a_directory_that_others_leave_empty_stays(mount: Mount, directory: str) -> None:
    shared = mount({f"{directory}/f": b"old"})
    file = shared.tree.open_file(f"{directory}/f", os.O_RDWR)
    empty = f"./{directory} d41d8cd98f00b204e9800998ecf8427e+0 0:0:\\056\n"
    text = shared.maker.manifest({"busy": b""}) + empty
    shared.maker.update("collections", shared.uuid, manifest_text=text)
    shared.hear()
    file.close()
    assert shared.tree.names(directory) == []
    shared.tree.mkdir(f"{directory}/new")
    assert shared.save() == {"busy": b""}
    assert shared.tree.names(directory) == ["new"]


def _append(shared: Shared) -> None:
    """What makes anew of what is shown has seen theirs, or leaves it."""
    file = shared.tree.open_file("f", os.O_RDWR)
    file.append(b"more")
    file.fsync()
    file.close()


def test_theirs_came_after_our_update_whose_answer_was_lost(
    mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours is found on the server, and replaced there before the record is fetched."""
    shared = mount({"f": b"old"})
    update, fetch = ApiClient.update_collection, Latest.fetch
    did: list[str] = []

    def lost(client: ApiClient, *arguments: Any, **options: Any) -> Any:
        answer = update(client, *arguments, **options)
        if "update" not in did:
            did.append("update")
            raise Unreachable("the answer is lost")
        return answer

    def late(known: Latest, uuid: str) -> Any:
        if "update" in did:
            did.append("fetch")
        if did.count("fetch") == 2:
            shared.others_have({"f": b"THEIRS", "busy": b""})
        return fetch(known, uuid)

    monkeypatch.setattr(ApiClient, "update_collection", lost)
    monkeypatch.setattr(Latest, "fetch", late)
    write(shared.tree, "f", b"ours")
    shared.tree.fsync_directory("")
    assert did.count("fetch") >= 2
    assert read(shared.tree, "f") == b"THEIRS"
    _append(shared)
    assert shared.save() == {"f": b"THEIRSmore", "busy": b""}


def test_theirs_came_between_our_update_and_what_is_fetched_after_it(
    mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of large collections the answer is worked out; where others were at work, it is asked for."""
    shared = mount({"f": b"old"})
    monkeypatch.setattr(latest, "LARGE", 1)
    update = ApiClient.update_collection
    did: list[str] = []

    def between(client: ApiClient, *arguments: Any, **options: Any) -> Any:
        if not did:
            shared.others_have({"f": b"old", "h": b"h", "busy": b""})
        answer = update(client, *arguments, **options)
        if not did:
            did.append("update")
            shared.others_have({"f": b"THEIRS", "h": b"h", "busy": b""})
        return answer

    monkeypatch.setattr(ApiClient, "update_collection", between)
    write(shared.tree, "f", b"ours")
    shared.tree.fsync_directory("")
    assert did
    assert read(shared.tree, "f") == b"THEIRS"
    _append(shared)
    assert shared.save() == {"f": b"THEIRSmore", "h": b"h", "busy": b""}


def leave_behind(mine: Maker, directory: Path, options: dict[str, Any], data: bytes) -> pytest.MonkeyPatch:
    """A mount ends with `f` unsaved, since updates are refused; so they are until what is given is undone."""

    def refuse(_client: ApiClient, uuid: str, *_: Any, **__: Any) -> Any:
        raise AccessDenied("not now", subject=uuid)

    refusing = pytest.MonkeyPatch()
    refusing.setattr(ApiClient, "update_collection", refuse)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "DRAIN", 0.1)
        with session(mine.server, mine.token, directory, **options) as built, suppress(OSError):
            write(TreeDriver(built.filesystem), "f", data)
    return refusing


@pytest.mark.parametrize("is_open", [False, True])
def test_what_a_dead_mount_left_is_saved_while_its_collection_is_changed(
    mine: Maker, tmp_path: Path, is_open: bool
) -> None:
    """It is what others have changed: it shows, and what was made of the older content takes nothing away."""
    uuid = mine.collection("c", {"f": b"old ", "busy": b""})["uuid"]
    options: dict[str, Any] = {"read_write": True, "mode": "collection", "target": uuid}
    refusing = leave_behind(mine, tmp_path, options, b"old and left")
    with session(mine.server, mine.token, tmp_path, **options) as built:
        shared = Shared(mine, uuid, built)
        busy = shared.tree.open_file("busy", os.O_RDWR)
        busy.write(0, b"b")
        early = shared.tree.open_file("f", os.O_RDWR) if is_open else None
        refusing.undo()
        assert built.filesystem.context.writeback is not None
        built.filesystem.context.writeback.retry()
        wait_for(lambda: shared.files()["f"] == b"old and left", "it is saved")
        wait_for(lambda: not built.filesystem.context.writeback.pending(uuid), "it is away")  # type: ignore[union-attr]
        if early is None:
            wait_for(lambda: read(shared.tree, "f") == b"old and left", "it shows")
            early = shared.tree.open_file("f", os.O_RDWR)
        early.append(b", ours")
        early.fsync()
        early.close()
        busy.close()
    expected = {"f": b"old , ours", "f~": b"old and left"} if is_open else {"f": b"old and left, ours"}
    assert shared.files() == {**expected, "busy": b"b"}


def test_what_a_dead_mount_left_is_saved_while_its_path_is_empty_for_a_moment(
    mine: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes back there came from the older content all the same."""
    uuid = mine.collection("c", {"f": b"old ", "busy": b""})["uuid"]
    options: dict[str, Any] = {"read_write": True, "mode": "collection", "target": uuid}
    refusing = leave_behind(mine, tmp_path, options, b"LEFT")
    put = saving.SavedSink.put
    did: list[str] = []
    with session(mine.server, mine.token, tmp_path, **options) as built:
        shared = Shared(mine, uuid, built)
        busy = shared.tree.open_file("busy", os.O_RDWR)
        busy.write(0, b"b")

        def around(sink: saving.SavedSink, saved: Any) -> None:
            if did or "f" not in saved.committed:
                put(sink, saved)
                return
            did.append("away")
            shared.tree.rename("f", "g")
            put(sink, saved)
            shared.tree.rename("g", "f")
            did.append("back")

        monkeypatch.setattr(saving.SavedSink, "put", around)
        refusing.undo()
        assert built.filesystem.context.writeback is not None
        built.filesystem.context.writeback.retry()
        wait_for(lambda: did == ["away", "back"], "what was left is saved")
        _append(shared)
        busy.close()
        shared.save()
    assert shared.files() == {"f": b"old more", "f~": b"LEFT", "busy": b"b"}


@pytest.mark.parametrize("text", ["", ". d41d8cd98f00b204e9800998ecf8427e+0 0:0:\\056\n"])
def test_rmdir_of_an_empty_collection(mine: Maker, tmp_path: Path, text: str) -> None:
    """Whatever words its manifest has."""
    uuid = mine.make("collections", name="c", manifest_text=text)["uuid"]
    with session(mine.server, mine.token, tmp_path, read_write=True, mode="all") as built:
        TreeDriver(built.filesystem).rmdir("home/c")
    assert mine.server.call("GET", f"collections/{uuid}", token=mine.token).status == 404


@pytest.mark.parametrize("was_changed_here", [False, True])
def test_rmdir_takes_no_collection_away_that_others_have_just_filled(
    mine: Maker, tmp_path: Path, was_changed_here: bool
) -> None:
    uuid = mine.collection("c", {"f": b"f"} if was_changed_here else {})["uuid"]
    with session(mine.server, mine.token, tmp_path, read_write=True, mode="all") as built:
        tree = TreeDriver(built.filesystem)
        tree.names("home/c")
        if was_changed_here:
            tree.unlink("home/c/f")
        mine.update("collections", uuid, manifest_text=mine.manifest({"f": b"f", "theirs": b"theirs"}))
        with refused(errno.ENOTEMPTY):
            tree.rmdir("home/c")
        assert "theirs" in sdk_reads(mine, record_of(mine, uuid)["manifest_text"])
