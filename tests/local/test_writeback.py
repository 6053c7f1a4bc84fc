"""Changes recorded by hand and saved to a real server: what arrives, how often it is asked, what is kept."""

import errno
import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from saving_world import BRISK, Mount, Site, Tree
from servers import LocalServer, wait_for

from arvados_fuse.collection import Collection, portable_data_hash
from arvados_fuse.collection.content import Content
from arvados_fuse.collection.file import File
from arvados_fuse.collection.segments import ZEROS, Segment
from arvados_fuse.errors import AccessDenied, NoSpaceError, SaveFailed, Unreachable
from arvados_fuse.reporting.counters import Counters
from arvados_fuse.writeback import DIRECTORY, Limits, PathChange, State
from arvados_fuse.writeback.locators import expires

MIB = 1 << 20


@pytest.fixture
def site(local_server: LocalServer) -> Iterator[Site]:
    made = Site(local_server, local_server.new_user(f"user{secrets.token_hex(4)}")[1])
    yield made
    made.close()


@pytest.fixture
def open_mount(site: Site, tmp_path: Path) -> Iterator[Callable[..., Mount]]:
    """Makes mounts, which share a directory and are closed at the end."""
    mounts: list[Mount] = []

    def make(at: Site = site, **options: Any) -> Mount:
        mounts.append(Mount(at, tmp_path / "writeback", **options))
        return mounts[-1]

    yield make
    for mount in mounts:
        mount.close(timeout=0.0)


def test_many_small_files_go_in_few_updates_and_blocks(site: Site, tmp_path: Path) -> None:
    uuid = site.collection()
    files = {f"d{n % 7}/f{n}": b"%d " % n * 500 for n in range(1000)}
    mount = Mount(site, tmp_path / "writeback", limits=Limits())
    mount.write_all(uuid, files)
    mount.save(uuid)
    assert site.tree(uuid) == files
    assert site.updates(uuid) <= 10
    assert len(site.blocks_of(uuid)) <= 3
    assert mount.close().is_clean()
    assert list((tmp_path / "writeback").iterdir()) == [tmp_path / "writeback" / ".lock"]


def test_changes_are_saved_by_themselves_and_told(site: Site, open_mount: Callable[..., Mount]) -> None:
    uuid = site.collection({"old": b"1"})
    mount = open_mount()
    mount.write(uuid, "new", b"2")
    saved = mount.saved.get(timeout=20)
    assert (saved.uuid, saved.conflicts, list(saved.committed)) == (uuid, [], ["new"])
    assert saved.record["portable_data_hash"] == site.api.get_collection(uuid)["portable_data_hash"]
    assert Collection.from_record(saved.record, blocks=site.blocks).listdir() == ["new", "old"]
    wait_for(lambda: mount.writeback.status().is_clean(), "nothing is unsaved")
    assert mount.writeback.pending(uuid) == {}


def test_a_file_that_is_rewritten_many_times_is_sent_as_it_is_last(
    site: Site, open_mount: Callable[..., Mount]
) -> None:
    uuid = site.collection()
    counters = Counters()
    mount = open_mount(counters=counters, limits=Limits(quiet=1.0))
    for number in range(100):
        mount.write(uuid, "f", b"%d" % number * 1000)
    mount.save(uuid)
    assert site.tree(uuid) == {"f": b"99" * 1000}
    assert counters.get("writeback.block_bytes") == 2000
    assert counters.get("writeback.updates") == 1


def test_what_comes_and_goes_between_two_saves_never_reaches_the_server(
    site: Site, open_mount: Callable[..., Mount]
) -> None:
    uuid = site.collection()
    counters = Counters()
    mount = open_mount(counters=counters, limits=Limits(quiet=1.0))
    mount.write(uuid, "f", b"short-lived")
    mount.writeback.record(uuid, [PathChange("f", None, None)])
    mount.save(uuid)
    assert counters.snapshot().get("writeback.blocks", 0) == 0
    assert site.updates(uuid) == 0


STATES: list[tuple[str, Tree, dict[str, bytes | str | None], Tree]] = [
    ("a new directory", {}, {"d": None}, {"d": None}),
    ("a removed directory", {"d": None, "f": b"1"}, {"d": "gone"}, {"f": b"1"}),
    ("the last file of a directory", {"d/f": b"1"}, {"d/f": "gone", "d": None}, {"d": None}),
    ("the first file of a directory", {"d": None}, {"d": "gone", "d/f": b"1"}, {"d/f": b"1"}),
    ("a directory and its file", {"d/f": b"1", "e": b""}, {"d/f": "gone"}, {"e": b""}),
    ("one of two files", {"d/f": b"1", "d/g": b"2"}, {"d/f": "gone"}, {"d/g": b"2"}),
    ("a file becomes a directory", {"x": b"1"}, {"x": None}, {"x": None}),
    ("an empty directory becomes a file", {"x": None}, {"x": b"1"}, {"x": b"1"}),
    ("a file becomes a full directory", {"x": b"1"}, {"x": "gone", "x/y": b"2"}, {"x/y": b"2"}),
    ("a full directory becomes a file", {"x/y": b"1"}, {"x/y": "gone", "x": b"2"}, {"x": b"2"}),
    (
        "a directory is renamed",
        {"a/f": b"1", "a/g/h": b"2", "a/e": None},
        {"a/f": "gone", "a/g/h": "gone", "a/e": "gone", "b/f": b"1", "b/g/h": b"2", "b/e": None},
        {"b/f": b"1", "b/g/h": b"2", "b/e": None},
    ),
    ("names", {}, {"sp ace/\u00e9\n\\040": b"1", "...": b""}, {"sp ace/\u00e9\n\\040": b"1", "...": b""}),
]


@pytest.mark.parametrize("replaces", [True, False], ids=["replace_files", "old server"])
def test_every_kind_of_change_arrives(site: Site, open_mount: Callable[..., Mount], replaces: bool) -> None:
    """The same result from a server that takes single paths and from one that needs the whole manifest."""
    mount = open_mount(records=site.api if replaces else OldServer(site.api))
    for what, base, changes, result in STATES:
        uuid = site.collection()
        mount.writeback.record(
            uuid, [PathChange(path, None, mount.state(data)) for path, data in base.items()]
        )
        mount.save(uuid)
        committed = mount.saved.get(timeout=10).committed if base else {}
        mount.writeback.record(
            uuid,
            [
                PathChange(
                    path,
                    committed.get(path),
                    None if data == "gone" else mount.state(data),  # type: ignore[arg-type]
                )
                for path, data in changes.items()
            ],
        )
        mount.save(uuid)
        assert mount.saved.get(timeout=10).conflicts == []
        assert site.tree(uuid) == result, what


class OldServer:
    """A real server without `replace_files`: it would refuse nothing and replace everything."""

    knows_replace_files = False

    def __init__(self, api: Any) -> None:
        self._api = api

    def get_collection(self, uuid: str, *, select: Sequence[str] | None = None) -> dict[str, Any]:
        found: dict[str, Any] = self._api.get_collection(uuid, select=select)
        return found

    def create_collection(self, body: Mapping[str, Any], *, ensure_unique_name: bool = False) -> Any:
        return self._api.create_collection(body, ensure_unique_name=ensure_unique_name)

    def update_collection(
        self, uuid: str, body: Mapping[str, Any], *, replace_files: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        assert replace_files is None
        done: dict[str, Any] = self._api.update_collection(uuid, body)
        return done


def test_two_mounts_with_different_files_of_one_collection(
    site: Site, open_mount: Callable[..., Mount]
) -> None:
    uuid = site.collection({"base": b"0"})
    mounts = [open_mount(), open_mount()]
    wanted: Tree = {"base": b"0"}

    def work(number: int, mount: Mount) -> None:
        for step in range(60):
            mount.write(uuid, f"d{step % 3}/m{number}-{step}", b"%d %d" % (number, step))
            time.sleep(0.01)  # so that there are many saves, not to wait for anything

    for number in range(2):
        wanted |= {f"d{step % 3}/m{number}-{step}": b"%d %d" % (number, step) for step in range(60)}
    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(mounts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mount in mounts:
        mount.save()
    assert site.tree(uuid) == wanted
    assert site.updates(uuid) >= 2


def test_two_mounts_with_one_path_keep_both(site: Site, open_mount: Callable[..., Mount]) -> None:
    uuid = site.collection({"f": b"base"})
    before = site.state(uuid, "f")
    one, two = open_mount(), open_mount()
    one.write(uuid, "f", b"one", before)
    one.save(uuid)
    two.write(uuid, "f", b"two", before)
    two.save(uuid)
    assert one.saved.get(timeout=10).conflicts == []
    (conflict,) = two.saved.get(timeout=10).conflicts
    assert conflict.startswith("f~")
    assert site.tree(uuid) == {"f": b"two", "f~conflict~": b"one"}
    two.write(uuid, "f", b"two again", before)
    two.save(uuid)
    assert site.tree(uuid) == {"f": b"two again", "f~conflict~": b"one"}, "what we saved is no conflict"


class CountsManifests:
    """Real records; counts the answers that have a manifest. first: called before each update."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self.manifests = 0
        self.first: Callable[[], Any] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)

    def get_collection(self, uuid: str, **more: Any) -> Any:
        return self._counted(self._api.get_collection(uuid, **more))

    def update_collection(self, uuid: str, body: Mapping[str, Any], **more: Any) -> Any:
        self.first()
        return self._counted(self._api.update_collection(uuid, body, **more))

    def _counted(self, record: dict[str, Any]) -> dict[str, Any]:
        self.manifests += "manifest_text" in record
        return record


def large_collection(site: Site) -> str:
    """One whose manifest has more than a MiB."""
    locator = site.blocks.put(b"x")
    lines = (
        f"./d{number:04d} {locator} {' '.join(f'0:1:{name:03d}-{number:0100d}' for name in range(10))}\n"
        for number in range(1000)
    )
    return str(site.api.create_collection({"manifest_text": "".join(lines)})["uuid"])


def test_the_manifest_of_a_large_collection_is_not_fetched_again(
    site: Site, open_mount: Callable[..., Mount]
) -> None:
    uuid = large_collection(site)
    records = CountsManifests(site.api)
    mount = open_mount(records=records)
    before: State = None
    for number in range(3):
        mount.write(uuid, "d0000/f", b"%d" % number, before)
        mount.save(uuid)
        saved = mount.saved.get(timeout=10)
        before = saved.committed["d0000/f"]
        assert portable_data_hash(saved.record["manifest_text"]) == saved.record["portable_data_hash"]
        assert saved.record["portable_data_hash"] == site.api.get_collection(uuid)["portable_data_hash"]
    assert records.manifests == 1, "the first look"
    found = Collection.from_record(saved.record, blocks=site.blocks)
    new, old = (found.find(f"d0000/{name}") for name in ("f", f"000-{0:0100d}"))
    assert isinstance(new, File)
    assert isinstance(old, File)
    assert (bytes(new.read(0, 9)), bytes(old.read(0, 9))) == (b"2", b"x"), "both are signed"


def test_what_others_save_at_that_moment_in_a_large_collection_is_seen(
    site: Site, open_mount: Callable[..., Mount]
) -> None:
    uuid = large_collection(site)
    theirs = site.collection({"theirs": b"theirs"})
    pdh = site.api.get_collection(theirs)["portable_data_hash"]
    records = CountsManifests(site.api)
    mount = open_mount(records=records)
    records.first = lambda: site.api.update_collection(uuid, {}, replace_files={"/theirs": f"{pdh}/theirs"})
    mount.write(uuid, "ours", b"ours")
    mount.save(uuid)
    saved = mount.saved.get(timeout=10)
    assert records.manifests == 2, "the first look, and what the update made of it"
    found = Collection.from_record(saved.record, blocks=site.blocks)
    assert {"ours", "theirs", "d0999"} <= set(found.listdir())
    assert saved.record["portable_data_hash"] == site.api.get_collection(uuid)["portable_data_hash"]


class LosesAnswers:
    """Real records, but the answer to an update is lost as often as told; `always` sends it on first."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self.lost = 0
        self.after: Callable[[], None] = lambda: None
        self.updates = 0

    def get_collection(self, uuid: str, *, select: Sequence[str] | None = None) -> dict[str, Any]:
        found: dict[str, Any] = self._api.get_collection(uuid, select=select)
        return found

    def create_collection(self, body: Mapping[str, Any], *, ensure_unique_name: bool = False) -> Any:
        return self._api.create_collection(body, ensure_unique_name=ensure_unique_name)

    def update_collection(
        self, uuid: str, body: Mapping[str, Any], *, replace_files: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        self.updates += 1
        done: dict[str, Any] = self._api.update_collection(uuid, body, replace_files=replace_files)
        if self.lost:
            self.lost -= 1
            self.after()
            raise Unreachable("the answer is lost", subject=uuid)
        return done


def test_an_update_whose_answer_is_lost_is_recognised(site: Site, open_mount: Callable[..., Mount]) -> None:
    uuid = site.collection({"f": b"base", "gone": b"1"})
    before, gone = site.state(uuid, "f"), site.state(uuid, "gone")
    site.server.call("PUT", f"collections/{uuid}", {"collection": {}}, token=site.token)
    other = open_mount()
    other.write(uuid, "f", b"theirs", before)
    other.save(uuid)
    records = LosesAnswers(site.api)
    mount = open_mount(records=records)
    records.lost = 1
    mount.write(uuid, "f", b"ours", before)
    mount.write(uuid, "new", b"2")
    mount.writeback.record(uuid, [PathChange("gone", gone, None)])
    mount.save(uuid)
    assert site.tree(uuid) == {"f": b"ours", "f~conflict~": b"theirs", "new": b"2"}
    assert records.updates == 1


def test_what_changes_after_a_lost_answer_is_no_conflict(
    site: Site, open_mount: Callable[..., Mount]
) -> None:
    uuid = site.collection()
    records = LosesAnswers(site.api)
    mount = open_mount(records=records)
    records.lost = 1
    records.after = lambda: mount.write(uuid, "f", b"second")
    mount.write(uuid, "f", b"first")
    mount.save(uuid)
    mount.save(uuid)
    assert site.tree(uuid) == {"f": b"second"}
    assert records.updates == 2


def test_changes_during_a_save_are_kept_and_based_on_it(site: Site, open_mount: Callable[..., Mount]) -> None:
    uuid = site.collection()

    class Between(LosesAnswers):
        def update_collection(self, uuid: str, body: Any, *, replace_files: Any = None) -> dict[str, Any]:
            answer = super().update_collection(uuid, body, replace_files=replace_files)
            if self.updates == 1:
                mount.write(uuid, "changed", b"2")
                mount.writeback.record(uuid, [PathChange("removed", None, None)])
            return answer

    mount = open_mount(records=Between(site.api))
    mount.writeback.record(
        uuid,
        [PathChange(name, None, mount.spooled(b"1")) for name in ("changed", "removed", "same")],
    )
    mount.save(uuid)
    mount.save(uuid)
    assert site.tree(uuid) == {"changed": b"2", "same": b"1"}


@pytest.fixture
def shared(local_server: LocalServer) -> Iterator[tuple[Site, Site, str, str]]:
    """A guest who may write into a host's collection: host, guest, collection, the link that allows it."""
    host = Site(local_server, local_server.new_user(f"host{secrets.token_hex(4)}")[1])
    guest = Site(local_server, local_server.new_user(f"guest{secrets.token_hex(4)}")[1])
    project = host.server.call(
        "POST", "groups", {"group": {"group_class": "project", "name": "shared"}}, token=host.token
    ).body["uuid"]
    uuid = host.collection(owner_uuid=project)
    yield host, guest, uuid, project
    host.close()
    guest.close()


def allow(host: Site, guest: Site, project: str, what: str) -> str:
    """The host lets the guest do something; the link's uuid."""
    link = {
        "link_class": "permission",
        "name": what,
        "tail_uuid": guest.owner.user_uuid,
        "head_uuid": project,
    }
    made = host.server.call("POST", "links", {"link": link}, token=host.token)
    assert made.status == 200, made
    return str(made.body["uuid"])


def test_a_refused_save_is_told_kept_and_done_when_it_is_allowed_again(
    shared: tuple[Site, Site, str, str],
    open_mount: Callable[..., Mount],
    caplog: pytest.LogCaptureFixture,
) -> None:
    host, guest, uuid, project = shared
    allow(host, guest, project, "can_read")
    own = guest.collection()
    mount = open_mount(guest)
    with caplog.at_level(logging.INFO, "arvados.writeback"):
        mount.write(uuid, "f", b"precious")
        with pytest.raises(AccessDenied, match="kept in the journal") as caught:
            mount.save(uuid)
        assert caught.value.subject == f"{uuid}/f"
        assert caught.value.errno == errno.EACCES
        with pytest.raises(AccessDenied):
            mount.save(uuid)
        mount.write(own, "f", b"other")
        mount.save(own)
        status = mount.writeback.status()
        assert [(one.uuid, one.paths, one.refused) for one in status.collections] == [(uuid, 1, True)]
        assert "403" in status.collections[0].error
        allow(host, guest, project, "can_write")
        wait_for(lambda: mount.writeback.status().is_clean(), "the file is saved by itself")
    assert host.tree(uuid) == {"f": b"precious"}
    told = [
        record.getMessage()
        for record in caplog.records
        if record.name == "arvados.writeback" and record.levelno >= logging.WARNING
    ]
    assert len(told) == 1, told
    assert f"{uuid}/f" in told[0]
    assert "403" in told[0]


def test_a_collection_that_is_gone_fails_with_eio_and_can_be_given_up(
    site: Site, open_mount: Callable[..., Mount]
) -> None:
    uuid = site.collection()
    mount = open_mount()
    mount.write(uuid, "f", b"1")
    mount.save(uuid)
    site.server.call("DELETE", f"collections/{uuid}", token=site.token)
    mount.write(uuid, "g", b"2")
    with pytest.raises(SaveFailed) as caught:
        mount.save(uuid)
    assert caught.value.errno == errno.EIO
    mount.writeback.discard(uuid)
    mount.save(uuid)
    assert mount.close().is_clean()


def test_closing_tells_what_it_could_not_save_without_waiting_for_ever(
    site: Site, open_mount: Callable[..., Mount]
) -> None:
    uuid = site.collection()
    site.server.call("DELETE", f"collections/{uuid}", token=site.token)
    mount = open_mount()
    mount.write(uuid, "f", b"1")
    told: list[int] = []
    began = time.monotonic()
    status = mount.writeback.close(timeout=60, progress=lambda now: told.append(now.files))
    assert time.monotonic() - began < 30
    assert (status.files, status.is_clean()) == (1, False)
    assert told
    assert set(told) == {1}


def test_a_stopped_server_is_waited_for(fresh_server: LocalServer, tmp_path: Path) -> None:
    site = Site(fresh_server, fresh_server.settings.token, retries=0)
    uuid = site.collection()
    mount = Mount(site, tmp_path / "writeback")
    try:
        mount.write(uuid, "a", b"1")
        mount.save(uuid)
        fresh_server.stop()
        mount.write(uuid, "b", b"2")
        began = time.monotonic()
        with pytest.raises(Unreachable, match="kept in the journal"):
            mount.save(uuid, deadline=1.0)
        assert time.monotonic() - began < 5
        assert mount.writeback.status().collections[0].refused is False
        fresh_server.start()
        mount.save(uuid, deadline=60)
        assert site.tree(uuid) == {"a": b"1", "b": b"2"}
        assert mount.close().is_clean()
    finally:
        site.close()


def test_a_change_may_wait_longer_than_its_signatures_live(tmp_path: Path) -> None:
    server = LocalServer(tmp_path / "arvados", "--signature-ttl", "2").start()
    site = Site(server, server.settings.token)
    try:
        uuid = site.collection({"f": b"in the collection"})
        there = site.state(uuid, "f")
        assert isinstance(there, tuple)
        ours = (Segment(site.blocks.put(b"only in Keep"), 0, 12),)
        mount = Mount(site, tmp_path / "writeback", start=False)
        mount.writeback.record(uuid, [PathChange("g", None, there), PathChange("f", there, None)])
        mount.writeback.record(uuid, [PathChange("ours", None, ours)])
        ends = max(expires(str(segment.source)) for segment in (*there, *ours))
        wait_for(lambda: time.time() > ends + 0.1, "all signatures are too old", 10)
        mount.writeback.start()
        mount.save(uuid)
        assert site.tree(uuid) == {"g": b"in the collection", "ours": b"only in Keep"}
        assert mount.close().is_clean()
    finally:
        site.close()
        server.stop()


def test_unsaved_bytes_go_into_the_storage_classes_of_the_collection(
    site: Site, open_mount: Callable[..., Mount]
) -> None:
    class Listens:
        def __init__(self) -> None:
            self.classes: list[Sequence[str]] = []

        def put(self, data: Any, *, storage_classes: Sequence[str] = (), file: str | None = None) -> str:
            self.classes.append(tuple(storage_classes))
            return site.blocks.put(data, storage_classes=storage_classes)

        def read(self, locator: str, offset: int, size: int) -> Any:
            return site.blocks.read(locator, offset, size)

    blocks = Listens()
    uuid = site.collection(storage_classes_desired=["default"])
    mount = open_mount(blocks=blocks)
    mount.write(uuid, "f", b"1")
    mount.save(uuid)
    assert blocks.classes == [("default",)]


def test_zeros_are_stored_once(site: Site, open_mount: Callable[..., Mount]) -> None:
    uuid = site.collection()
    mount = open_mount()
    for name in ("one", "two"):
        start = mount.spooled(b"start")
        assert isinstance(start, tuple)
        state: State = (*start, Segment(ZEROS, 0, 70 * MIB))
        mount.writeback.record(uuid, [PathChange(name, None, state)])
    mount.save(uuid)
    found = Collection.from_record(site.api.get_collection(uuid), blocks=site.blocks)
    for name in ("one", "two"):
        file = found.find(name)
        assert isinstance(file, File)
        assert file.size() == 70 * MIB + 5
        assert bytes(file.read(0, 9)) == b"start\0\0\0\0"
    assert len(site.blocks_of(uuid)) == 2


# Files that are being written.


class Open:
    """A file that is open for writing on a mount."""

    def __init__(self, mount: Mount, uuid: str, name: str) -> None:
        self.mount, self.uuid, self.name = mount, uuid, name
        tree = Collection.from_manifest("", blocks=mount.site.blocks)
        tree.root.tree.new_spool = mount.writeback.new_spool
        tree.root.tree.upload_early = False
        self.tree = tree
        self.content: Content = tree.root.create(name).content()

    def write(self, offset: int, data: bytes) -> None:
        self.content.write(offset, data)
        self.mount.writeback.relieve(self.content)

    def close(self, before: State = None) -> None:
        change = PathChange(self.name, before, self.content.snapshot()[0], self.content)
        self.mount.writeback.record(self.uuid, [change])


def test_full_blocks_leave_while_a_large_file_is_written(
    site: Site, open_mount: Callable[..., Mount], tmp_path: Path
) -> None:
    uuid = site.collection()
    counters = Counters()
    mount = open_mount(counters=counters, limits=replace(BRISK, spool=256 * MIB))
    piece = secrets.token_bytes(MIB)
    file = Open(mount, uuid, "large")
    size = 200 * MIB
    for at in range(0, size, MIB):
        file.write(at, at.to_bytes(8, "big") + piece[8:])
    wait_for(
        lambda: counters.get("writeback.blocks") == 3, "three full blocks are stored before it is closed"
    )
    wait_for(lambda: file.content.unsaved() == 8 * MIB, "the content points to them")
    mount.writeback.new_spool()
    assert mount.writeback.status().spool < 80 * MIB, "of what is stored, a quarter of the limit is kept"
    file.close()
    mount.save(uuid)
    assert counters.get("writeback.blocks") == 4
    sizes = sorted(int(block.split("+")[1]) for block in site.blocks_of(uuid))
    assert sizes == [8 * MIB, 64 * MIB, 64 * MIB, 64 * MIB]
    found = Collection.from_record(site.api.get_collection(uuid), blocks=site.blocks).find("large")
    assert isinstance(found, File)
    for at in (0, 63 * MIB, 64 * MIB, 199 * MIB):
        assert bytes(found.read(at, MIB)) == at.to_bytes(8, "big") + piece[8:]
    assert file.content.unsaved() == 0
    wait_for(lambda: mount.writeback.status().spool == 0, "what is saved is kept no longer")


def test_random_overwrites_store_little_more_than_what_changed(
    site: Site, open_mount: Callable[..., Mount]
) -> None:
    uuid = site.collection()
    counters = Counters()
    mount = open_mount(counters=counters)
    file = Open(mount, uuid, "f")
    model = bytearray(8 * MIB)
    file.content.truncate(len(model))
    for number in range(500):
        at = int.from_bytes(secrets.token_bytes(4), "big") % (len(model) - 4096)
        data = number.to_bytes(2, "big") * 2048
        file.write(at, data)
        model[at : at + 4096] = data
    file.close()
    mount.save(uuid)
    assert counters.get("writeback.block_bytes") <= 500 * 4096
    found = Collection.from_record(site.api.get_collection(uuid), blocks=site.blocks).find("f")
    assert isinstance(found, File)
    assert bytes(found.read(0, len(model))) == model


def test_writers_wait_when_too_much_is_unsaved_and_go_on_when_it_is_not(
    site: Site, open_mount: Callable[..., Mount]
) -> None:
    """Many open files, none with a full block: their bytes leave all the same."""
    mount = open_mount(limits=Limits(spool=8 * MIB, patience=30))
    uuid = site.collection()
    files = [Open(mount, uuid, f"f{number}") for number in range(10)]
    for step in range(4):
        for number, file in enumerate(files):
            file.write(step * MIB, bytes([number, step]) * (MIB // 2))
            assert mount.writeback.status().spool <= 9 * MIB
    for file in files:
        file.close()
    mount.save(uuid)
    wanted = {f"f{n}": b"".join(bytes([n, step]) * (MIB // 2) for step in range(4)) for n in range(10)}
    assert site.tree(uuid) == wanted


def test_a_writer_who_waited_too_long_gets_an_error(fresh_server: LocalServer, tmp_path: Path) -> None:
    site = Site(fresh_server, fresh_server.settings.token, retries=0, deadline=2.0)
    uuid = site.collection()
    mount = Mount(site, tmp_path / "writeback", limits=Limits(spool=4 * MIB, patience=1.0))
    try:
        file = Open(mount, uuid, "f")
        fresh_server.stop()
        file.write(0, bytes(3 * MIB))
        with pytest.raises(NoSpaceError, match="wait to be saved"):
            file.write(3 * MIB, bytes(3 * MIB))
        file.close()
        fresh_server.start()
        mount.save(uuid, deadline=60)
        assert site.tree(uuid) == {"f": bytes(6 * MIB)}, "an error for the writer loses nothing"
        assert mount.close().is_clean()
    finally:
        site.close()


def test_many_threads_record_and_save(site: Site, open_mount: Callable[..., Mount]) -> None:
    mount = open_mount()
    uuids = [site.collection() for _ in range(3)]
    failures: queue.SimpleQueue[BaseException] = queue.SimpleQueue()

    def work(number: int) -> None:
        try:
            for step in range(20):
                mount.write(uuids[step % 3], f"t{number}/f{step}", b"%d-%d" % (number, step))
                if step % 7 == 0:
                    mount.save(uuids[step % 3])
        except BaseException as failure:
            failures.put(failure)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures.empty()
    mount.save()
    for third, uuid in enumerate(uuids):
        wanted = {f"t{n}/f{s}": b"%d-%d" % (n, s) for n in range(6) for s in range(20) if s % 3 == third}
        assert site.tree(uuid) == wanted
    assert BRISK.commits == 3
    assert mount.writeback.status().is_clean()
    assert DIRECTORY not in mount.writeback.pending(uuids[0]).values()
