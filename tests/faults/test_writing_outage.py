"""The servers are away, or fail often, in the middle of writing: nothing is lost, nobody who only looks
waits."""

import os
import random
import threading
import time
from pathlib import Path

import pytest
from faults.gate import Ask, Deed
from faults.writing_world import Worker, WritingWorld, attempt, write, writing
from mounting import needs_fuse
from servers import LocalServer, wait_for

__all__ = ["writing"]
pytestmark = needs_fuse

SECONDS = float(os.environ.get("ARVADOS_FUSE_OUTAGE", "4"))
"""How long the servers are away. (The promise is about 15.)"""
LOADED = 0.5
"""Seconds that a busy machine may add to the second that is promised."""
FAILING = int(os.environ.get("ARVADOS_FUSE_FAILING", "60"))
"""Files written while servers fail."""


class Looker:
    """Lists and stats again and again, and remembers the slowest look."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.slowest = 0.0
        self.looks = 0
        self.stopping = threading.Event()
        self._worker = Worker(self._run)

    def _run(self) -> None:
        while not self.stopping.is_set():
            begun = time.monotonic()
            names = os.listdir(self.directory)
            assert "old" in names
            assert (self.directory / "old").stat().st_size == 3
            self.slowest = max(self.slowest, time.monotonic() - begun)
            self.looks += 1
            time.sleep(0.05)

    def end(self) -> None:
        self.stopping.set()
        self._worker.result()


def is_away(writing: WritingWorld, away: str) -> None:
    """For SECONDS: refusing connections, or taking them and answering nothing."""
    if away == "refusing":
        writing.gates.outage(SECONDS)
        return
    for gate in writing.gates.all:
        gate.rule = lambda ask: Deed(hold=True)
    time.sleep(SECONDS)
    for gate in writing.gates.all:
        gate.drop()


@pytest.mark.parametrize("away", ["refusing", "silent"])
def test_servers_are_away(writing: WritingWorld, away: str) -> None:
    uuid = writing.site.collection({"old": b"old", "sub/old": b"old"})
    wanted: dict[str, bytes | None] = {"old": b"old", "sub/old": b"old"}
    with writing.mount() as mount:
        top = mount.root / uuid
        for directory in (top, top / "sub"):
            assert "old" in os.listdir(directory)
        stopping = threading.Event()

        def work(name: str) -> int:
            """Write, rename and remove all the time; a sync in the middle may wait, and may fail."""
            number = failed = 0
            while not stopping.is_set():
                data = os.urandom(1000 + number)
                path = top / f"{name}-{number}"
                if number % 10 == 9:
                    failed += attempt(lambda path=path, data=data: write(path, data, sync=True)) != 0  # type: ignore[misc]
                else:
                    write(path, data)
                wanted[path.name] = data
                if number % 3 == 0:
                    path.rename(top / "sub" / path.name)
                    wanted[f"sub/{path.name}"] = wanted.pop(path.name)
                elif number % 7 == 0:
                    path.unlink()
                    del wanted[path.name]
                number += 1
                time.sleep(0.02)
            return failed

        workers = [Worker(lambda name=f"w{at}": work(name)) for at in range(3)]  # type: ignore[misc]
        wait_for(lambda: "w0-0" in writing.tree(uuid) or "sub/w0-0" in writing.tree(uuid), "saving has begun")
        lookers = [Looker(top), Looker(top / "sub")]
        is_away(writing, away)
        for looker in lookers:
            looker.end()
        stopping.set()
        failed = sum(worker.result(120) for worker in workers)
        assert failed == 0  # a sync waits longer than that
        writing.wait_saved(uuid, wanted)
        slowest = max(looker.slowest for looker in lookers)
        assert slowest < 1.0 + LOADED, f"a look took {slowest:.2f} s"
        assert min(looker.looks for looker in lookers) > SECONDS * 3
    assert writing.tree(uuid) == wanted


def test_a_killed_server_comes_back(fresh_server: LocalServer, tmp_path: Path) -> None:
    """Nothing between the mount and the server; it is killed and started anew, twice."""
    writing = WritingWorld(fresh_server, tmp_path)
    try:
        uuid = writing.site.collection({"old": b"old"})
        wanted: dict[str, bytes | None] = {"old": b"old"}
        environment = {**fresh_server.settings.environment(), "ARVADOS_API_TOKEN": writing.token}
        with writing.mount(environment=environment) as mount:
            for at in range(2):
                for number in range(30):
                    name = f"f{at}-{number}"
                    data = os.urandom(50_000)
                    write(mount.root / uuid / name, data)
                    wanted[name] = data
                    if number == 15:
                        fresh_server.kill()
                fresh_server.start()
                write(mount.root / uuid / f"s{at}", b"synced", sync=True)
                wanted[f"s{at}"] = b"synced"
                assert writing.tree(uuid) == wanted
    finally:
        writing.close()


def fails_often(seed: int) -> "Flaky":
    return Flaky(random.Random(seed))


class Flaky:
    """30 % of the requests fail: an error, no answer, or an answer that is lost after all was done."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._lock = threading.Lock()
        self.failed = self.asked = 0

    def __call__(self, ask: Ask) -> Deed:
        with self._lock:
            self.asked += 1
            if self._chance.random() >= 0.3:
                return Deed()
            self.failed += 1
            return self._chance.choice([Deed(status=503), Deed(status=500), Deed(cut=True), Deed(lose=True)])


def test_servers_fail_often(writing: WritingWorld) -> None:
    """Everything is saved in the end, and no request that was done twice leaves a trace."""
    uuids = [writing.site.collection({"old": b"old"}) for _ in range(2)]
    wanted: dict[str, dict[str, bytes | None]] = {uuid: {"old": b"old"} for uuid in uuids}
    with writing.mount() as mount:
        for uuid in uuids:
            assert (mount.root / uuid / "old").read_bytes() == b"old"
        api, keep = fails_often(1), fails_often(2)
        writing.gates.api.rule = api
        writing.gates.keep_rule(keep)

        def work(uuid: str, name: str) -> None:
            top, mine = mount.root / uuid, wanted[uuid]
            for number in range(FAILING // 4):
                data = os.urandom(20_000)
                path = top / f"{name}-{number}"
                write(path, data, sync=number % 5 == 4)
                mine[path.name] = data
                if number % 4 == 1:
                    path.rename(top / f"{name}-moved")
                    mine[f"{name}-moved"] = mine.pop(path.name)
                if number % 4 == 3:
                    write(path, b"short")
                    mine[path.name] = b"short"

        workers = [
            Worker(lambda uuid=uuid, name=f"{at}": work(uuid, name))  # type: ignore[misc]
            for uuid in uuids
            for at in range(2)
        ]
        for worker in workers:
            worker.result(200)
        for uuid in uuids:
            writing.wait_saved(uuid, wanted[uuid], 120)
        assert api.failed > 0
        assert keep.failed > 0
        writing.gates.clear()
    for uuid in uuids:
        assert writing.tree(uuid) == wanted[uuid]
