"""A mount that is killed at any moment loses nothing that was closed, doubles nothing and leaves nothing."""

import hashlib
import os
import random
import secrets
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from faults.writeback_child import content
from saving_world import Mount, Site, Tree
from servers import PROJECT, LocalServer
from worlds import environment

from arvados_fuse.collection.segments import Segment
from arvados_fuse.errors import AccessDenied, RequestRefused, SaveFailed
from arvados_fuse.reporting.counters import Counters
from arvados_fuse.writeback import Owner, PathChange, discard, list_pending
from arvados_fuse.writeback.journal import Journal

CHILD = Path(__file__).parent / "writeback_child.py"


@pytest.fixture
def site(local_server: LocalServer) -> Iterator[Site]:
    made = Site(local_server, local_server.new_user(f"user{secrets.token_hex(4)}")[1])
    yield made
    made.close()


def child(site: Site, directory: Path, uuid: str, stage: str, count: int) -> "subprocess.Popen[str]":
    """Start a mount's write-back in a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(CHILD), str(directory), uuid, stage, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment(site.server, site.token), "PYTHONPATH": str(PROJECT)},
    )


def told(process: "subprocess.Popen[str]") -> list[str]:
    """What a process has told until its end; it must have been killed."""
    output, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, output
    return output.split()


def wanted(count: int) -> Tree:
    return {f"d{number % 3}/f{number}": content(number) for number in range(count)}


def nothing_left(directory: Path) -> bool:
    return [path.name for path in directory.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("stage", "recovery"),
    [("put", ""), ("before", ""), ("after", ""), ("put", "before"), ("before", "after"), ("after", "before")],
)
def test_killed_at_a_stage(site: Site, tmp_path: Path, stage: str, recovery: str) -> None:
    """recovery: the stage at which the process is killed that adopts what the first one left."""
    uuid = site.collection({"base": b"0"})
    directory = tmp_path / "writeback"
    recorded = told(child(site, directory, uuid, stage, 60))
    assert "saved" not in recorded
    number = len(recorded)
    if recovery:
        process = child(site, directory, uuid, recovery, 0)
        output, _ = process.communicate(timeout=60)
        # After an update that was done there may be nothing left to ask for.
        assert process.returncode == -signal.SIGKILL or stage == "after", output
    counters = Counters()
    mount = Mount(site, directory, counters=counters)
    mount.writeback.adopt()
    mount.save()
    tree = site.tree(uuid)
    missing = {path: data for path, data in wanted(number).items() if tree.get(path) != data}
    assert missing == {}
    assert tree.items() <= {"base": b"0", **wanted(60)}.items(), "no duplicate, no conflict, no half file"
    if stage == "before":
        assert counters.snapshot().get("writeback.blocks", 0) <= 1, "what was stored is not stored again"
    assert mount.close().is_clean()
    assert nothing_left(directory)


def test_killed_at_random_moments(site: Site, tmp_path: Path) -> None:
    """Each process goes on where the last one was killed, on top of what that one left."""
    directory = tmp_path / "writeback"
    chance = random.Random(6)
    for _ in range(5):
        uuid = site.collection()
        process = child(site, directory, uuid, "never", 5000)
        assert process.stdout is not None
        seen = 0
        for _ in range(chance.randrange(1, 1500)):
            seen += bool(process.stdout.readline())
        process.kill()
        seen += len(process.stdout.read().split("\n")) - 1
        process.stdout.close()
        process.wait(60)
        mount = Mount(site, directory)
        mount.writeback.adopt()
        mount.save()
        tree = site.tree(uuid)
        assert {path: data for path, data in wanted(seen).items() if tree.get(path) != data} == {}
        assert tree.items() <= wanted(5000).items()
        assert mount.close().is_clean()
        assert nothing_left(directory)


def test_what_is_pending_is_listed_without_a_server_and_may_be_discarded(site: Site, tmp_path: Path) -> None:
    uuid = site.collection()
    directory = tmp_path / "writeback"
    assert list_pending(directory) == []
    live = Mount(site, directory, start=False)
    live.write(uuid, "live", b"1")
    recorded = told(child(site, directory, uuid, "before", 60))
    (leftover,) = list_pending(directory)
    assert (leftover.owner, leftover.problem) == (site.owner, "")
    assert leftover.paths >= len(recorded)
    assert leftover.bytes == sum(len(content(number)) for number in range(leftover.paths))
    assert list_pending(directory) == [leftover], "looking changes nothing"
    discard(leftover)
    assert list_pending(directory) == []
    discard(leftover)
    assert live.writeback.adopt().adopted == []
    live.writeback.start()
    live.save()
    assert site.tree(uuid) == {"live": b"1"}
    live.close()


def test_what_a_live_mount_has_is_left_alone(site: Site, tmp_path: Path) -> None:
    uuid = site.collection()
    directory = tmp_path / "writeback"
    live = Mount(site, directory, start=False)
    live.write(uuid, "f", b"1")
    other = Mount(site, directory)
    adoption = other.writeback.adopt()
    assert (adoption.adopted, adoption.foreign) == ([], [])
    assert list_pending(directory) == []
    other.close()
    live.writeback.start()
    live.save()
    assert site.tree(uuid) == {"f": b"1"}
    assert live.close().is_clean()
    assert nothing_left(directory)


def test_a_journal_that_is_being_saved_cannot_be_discarded(site: Site, tmp_path: Path) -> None:
    uuid = site.collection()
    directory = tmp_path / "writeback"
    told(child(site, directory, uuid, "before", 3))
    (leftover,) = list_pending(directory)
    mount = Mount(site, directory, start=False)
    mount.writeback.adopt()
    with pytest.raises(SaveFailed, match="in use"):
        discard(leftover)
    assert mount.writeback.is_pending(uuid, "d0/f0")
    mount.writeback.start()
    mount.save()
    assert site.tree(uuid).items() <= wanted(3).items()
    mount.close()
    assert nothing_left(directory)


def test_other_owners_and_newer_versions_are_listed_and_left_alone(site: Site, tmp_path: Path) -> None:
    directory = tmp_path / "writeback"
    stranger = Mount(
        site, directory, start=False, owner=Owner("elsewhere:443", "zzzzz-tpzed-000000000000000")
    )
    stranger.write("zzzzz-4zz18-000000000000000", "f", b"theirs")
    stranger.writeback.close(timeout=0)
    newer = directory / "20300101T000000-1-00000000"
    newer.mkdir()
    Journal.create(newer / "journal.sqlite3", site.owner, 1.0).close()
    raw = Journal.open(newer / "journal.sqlite3")
    assert raw is not None
    raw.close()
    with sqlite3.connect(newer / "journal.sqlite3") as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    mount = Mount(site, directory)
    adoption = mount.writeback.adopt()
    assert adoption.adopted == []
    assert sorted((found.paths, bool(found.problem)) for found in adoption.foreign) == [(0, True), (1, False)]
    assert mount.close().is_clean()
    assert len(list_pending(directory)) == 2


def test_a_mount_that_could_not_save_leaves_it_to_the_next_one(site: Site, tmp_path: Path) -> None:
    uuid = site.collection({"f": b"0"})
    directory = tmp_path / "writeback"
    one = Mount(site, directory, start=False)
    one.write(uuid, "f", b"1", site.state(uuid, "f"))
    status = one.writeback.close(timeout=0)
    assert (status.files, status.bytes) == (1, 1)
    two = Mount(site, directory, start=False)
    assert [found.paths for found in two.writeback.adopt().adopted] == [1]
    two.write(uuid, "f", b"2", site.state(uuid, "f"))
    assert two.writeback.close(timeout=0).files == 2
    three = Mount(site, directory)
    assert len(three.writeback.adopt().adopted) == 2
    three.save()
    assert site.tree(uuid)["f"] == b"2", "the newer one is saved later"
    assert three.close().is_clean()
    assert nothing_left(directory)


def test_bytes_that_the_machine_lost_do_not_hold_up_the_others(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uuid = site.collection()
    directory = tmp_path / "writeback"
    one = Mount(site, directory, start=False)
    one.write(uuid, "whole", b"67890")
    one.write(uuid, "lost", b"12345")
    one.writeback.close(timeout=0)
    (room,) = (path for path in directory.iterdir() if path.is_dir())
    (spool,) = (room / "spool").iterdir()
    os.truncate(spool, 8)
    two = Mount(site, directory)
    two.writeback.adopt()
    two.save()
    assert site.tree(uuid) == {"whole": b"67890"}
    assert any("lost" in record.getMessage() and uuid in record.getMessage() for record in caplog.records)
    assert two.close().is_clean()
    assert nothing_left(directory)


def test_what_a_dead_mount_can_not_save_does_not_fail_new_saves(site: Site, tmp_path: Path) -> None:
    """Its row refers to a block that nobody has, which no server takes."""
    uuid = site.collection()
    directory = tmp_path / "writeback"
    dead = Mount(site, directory, start=False)
    nowhere = Segment(f"{'0' * 32}+3+A{'0' * 40}@7fffffff", 0, 3)
    dead.writeback.record(uuid, [PathChange("old", None, (nowhere,))])
    dead.writeback.close(timeout=0)
    mount = Mount(site, directory)
    mount.writeback.adopt()
    mount.write(uuid, "new", b"1")
    mount.save(uuid)
    mount.writeback.raise_refusal(uuid)
    assert site.tree(uuid) == {"new": b"1"}
    with pytest.raises(AccessDenied):
        mount.save()
    assert [(found.paths, found.bytes) for found in list_pending(directory)] == []
    assert mount.close().files == 1
    (leftover,) = list_pending(directory)
    assert (leftover.paths, leftover.bytes) == (1, 3)
    discard(leftover)
    assert nothing_left(directory)


class Refuses:
    """Real records, but updates that would store this block's file are refused as long as it is set."""

    def __init__(self, api: Any, block: str) -> None:
        self._api = api
        self.block = block

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)

    def update_collection(self, uuid: str, body: Mapping[str, Any], **more: Any) -> Any:
        if self.block and self.block in str(body.get("manifest_text")):
            raise RequestRefused("not this one", subject=uuid)
        return self._api.update_collection(uuid, body, **more)


def test_a_newer_change_wins_over_one_that_a_dead_mount_left(site: Site, tmp_path: Path) -> None:
    """Also when the older one is refused, and so is saved after it: under a conflict name then."""
    uuid = site.collection({"f": b"0", "d/x": b"0", "gone": b"0", "own": b"0"})
    directory = tmp_path / "writeback"
    dead = Mount(site, directory, start=False)
    for path in ("f", "d/x", "e", "own"):
        dead.write(uuid, path, b"older", site.state(uuid, path))
    dead.writeback.record(uuid, [PathChange("gone", site.state(uuid, "gone"), None)])
    dead.writeback.close(timeout=0)
    records = Refuses(site.api, hashlib.md5(b"older" * 4).hexdigest())
    mount = Mount(site, directory, records=records)
    mount.writeback.adopt()
    with pytest.raises(SaveFailed):
        mount.save()
    for path in ("f", "gone", "e/below"):
        mount.write(uuid, path, b"newer", site.state(uuid, path))
    mount.writeback.record(uuid, [PathChange("d/x", site.state(uuid, "d/x"), None)])
    mount.save(uuid)
    assert site.tree(uuid) == {"e/below": b"newer", "f": b"newer", "gone": b"newer", "own": b"0"}
    records.block = ""
    mount.writeback.retry()
    mount.save()
    assert site.tree(uuid) == {
        "d/x~conflict~": b"older",
        "e/below": b"newer",
        "e~conflict~": b"older",
        "f": b"newer",
        "f~conflict~": b"older",
        "gone": b"newer",
        "own": b"older",
    }
    assert mount.close().is_clean()
    assert nothing_left(directory)
