"""A mount is killed at every stage of saving: what was closed or synced is on the server in the end, once."""

import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from faults.gate import Ask, Deed, Gates
from faults.writing_world import Worker, WritingMount, WritingWorld, attempt, rooms, write, writing
from mounting import needs_fuse
from servers import wait_for

__all__ = ["writing"]
pytestmark = needs_fuse

UPLOAD, UPLOADED = "in an upload", "after an upload"
UPDATE, UPDATED = "before the update", "after the update"

ROUNDS = int(os.environ.get("ARVADOS_FUSE_KILLS", "5"))
"""How often a mount is killed while it works."""
SEED = int(os.environ.get("ARVADOS_FUSE_SEED", "1"))

HOLD = Deed(hold=True)
HOLD_ANSWER = Deed(hold_answer=True)


def hold_at(gates: Gates, stage: str, uuid: str) -> None:
    """Let the next request of this stage wait."""

    def update(ask: Ask) -> Deed:
        held = HOLD if stage == UPDATE else HOLD_ANSWER
        return held if ask.changes(uuid) else Deed()

    def block(ask: Ask) -> Deed:
        held = HOLD if stage == UPLOAD else HOLD_ANSWER
        return held if ask.method == "PUT" else Deed()

    if "upload" in stage:
        gates.keep_rule(block)
    else:
        gates.api.rule = update


def wait_held(gates: Gates, stage: str) -> None:
    if "upload" not in stage:
        gates.api.wait_held()
        return
    wait_for(lambda: any(gate.held for gate in gates.keep), "a block is held")


def drop(gates: Gates) -> None:
    for gate in gates.all:
        gate.drop()


@pytest.mark.parametrize(
    ("stage", "again"),
    [
        (UPLOAD, ""),
        (UPLOADED, UPLOADED),
        (UPDATE, UPDATED),
        (UPDATE, UPDATE),
        (UPDATED, ""),
    ],
)
def test_killed_at(writing: WritingWorld, stage: str, again: str) -> None:
    """And `again` in the recovery."""
    uuid = writing.site.collection({"old": b"old", "gone": b"gone", "from": b"moved"})
    before = writing.site.updates(uuid)
    gates = writing.gates
    mount = writing.begin()
    top = mount.root / uuid
    synced = os.urandom(100_000)
    write(top / "synced", synced, sync=True)
    with open(top / "open", "wb") as opened:
        opened.write(b"one")
        opened.flush()
        os.fsync(opened.fileno())
        assert writing.tree(uuid)["open"] == b"one"
        hold_at(gates, stage, uuid)
        write(top / "new", b"new")
        write(top / "old", b"changed")
        (top / "gone").unlink()
        (top / "from").rename(top / "to")
        (top / "sub").mkdir()
        write(top / "sub/file", synced * 2)
        opened.write(b"two")
        opened.flush()
        waiting = Worker(lambda: attempt(lambda: os.fsync(opened.fileno())))
        wait_held(gates, stage)
        mount.kill()
        assert waiting.result() != 0
        attempt(opened.close)
    drop(gates)
    wanted = {
        "synced": synced,
        "open": b"onetwo",
        "new": b"new",
        "old": b"changed",
        "to": b"moved",
        "sub/file": synced * 2,
    }
    if again:
        hold_at(gates, again, uuid)
        second = writing.begin()
        wait_held(gates, again)
        second.kill()
        drop(gates)
    with writing.mount():
        writing.wait_saved(uuid, wanted)
    assert rooms(mount.cache) == []
    assert writing.tree(uuid) == wanted
    assert writing.site.updates(uuid) - before <= 5


@pytest.mark.parametrize("seconds", [1.5, 7.0])
def test_what_was_left_behind_goes_before_what_comes(writing: WritingWorld, seconds: float) -> None:
    """A program that goes on right after the remount sees what it closed, soon, and changes that."""
    uuid = writing.site.collection({"a": b"old", "b": b"old"})
    gates = writing.gates
    mount = writing.begin()
    hold_at(gates, UPLOAD, uuid)
    write(mount.root / uuid / "a", b"closed")
    write(mount.root / uuid / "b", b"closed")
    mount.kill()
    drop(gates)
    hold_at(gates, UPLOAD, uuid)
    with writing.mount() as again:
        top = again.root / uuid
        timer = threading.Timer(seconds, gates.clear)
        timer.start()
        if seconds < 5:
            assert (top / "a").read_bytes() == b"closed"
        with open(top / "a", "ab") as file:
            file.write(b" and more")
        assert (top / "a").read_bytes() == b"closed and more"
        assert (top / "b").read_bytes() == b"closed"
        timer.join()
    assert writing.tree(uuid) == {"a": b"closed and more", "b": b"closed"}


NAMES = [f"f{number}" for number in range(12)]


class Writer:
    """One thread that changes files in a directory of its own, and knows what may be there after a crash.

    `may`: for each name what may be found: one content when it was closed or synced since, else more; None
    is no file. A rename that is under way is in `moving`.
    """

    def __init__(
        self, mount: WritingMount, directory: Path, seed: int, may: dict[str, set[bytes | None]]
    ) -> None:
        self.mount = mount
        self.directory = directory
        self.random = random.Random(seed)
        self.may = may
        self.moving: tuple[str, str] | None = None
        self.synced = self.steps = 0
        self._open: dict[str, tuple[Any, bytes]] = {}

    def run(self) -> None:
        """Until the mount dies."""
        steps = [self.create, self.overwrite, self.rename, self.unlink, self.append, self.grow]
        weights = [5, 3, 3, 2, 3, 4]
        try:
            while True:
                self.random.choices(steps, weights)[0]()
                self.steps += 1
        except OSError:
            if not self.mount.killed:
                raise
        finally:
            for file, _ in self._open.values():
                attempt(file.close)

    def present(self) -> list[str]:
        return [name for name in NAMES if name not in self._open and None not in self.may[name]]

    def content(self) -> bytes:
        return self.random.randbytes(self.random.choice([0, 10, 5000, 200_000]))

    def closed(self, name: str, data: bytes) -> None:
        self.may[name] = {data}

    def finish(self, name: str, file: Any, data: bytes) -> None:
        """Close it, synced or not."""
        if self.random.random() < 0.2:
            os.fsync(file.fileno())
            self.synced += 1
            self.closed(name, data)
        file.close()
        self.closed(name, data)

    def create(self) -> None:
        name = self.random.choice([name for name in NAMES if name not in self._open])
        data = self.content()
        self.may[name] |= {b"", data[: len(data) // 2], data}
        with open(self.directory / name, "wb", buffering=0) as file:
            file.write(data[: len(data) // 2])
            file.write(data[len(data) // 2 :])
            self.finish(name, file, data)

    def overwrite(self) -> None:
        if not self.present():
            return
        name = self.random.choice(self.present())
        (old,) = self.may[name]
        assert old is not None
        data, at = self.random.randbytes(3000), self.random.randrange(len(old) + 1)
        new = old[:at] + data + old[at + len(data) :]
        self.may[name].add(new)
        with open(self.directory / name, "r+b", buffering=0) as file:
            file.seek(at)
            file.write(data)
            self.finish(name, file, new)

    def append(self) -> None:
        """To a file that stays open; what was not synced may be lost."""
        if len(self._open) > 2 or not self.present():
            return
        name = self.random.choice(self.present())
        (old,) = self.may[name]
        assert old is not None
        self._open[name] = open(self.directory / name, "ab", buffering=0), old  # noqa: SIM115

    def grow(self) -> None:
        """One of those: more bytes, and sometimes it is synced, or closed."""
        if not self._open:
            return
        name = self.random.choice(list(self._open))
        file, old = self._open[name]
        data = old + self.random.randbytes(2000)
        self.may[name].add(data)
        file.write(data[len(old) :])
        self._open[name] = file, data
        chance = self.random.random()
        if chance < 0.3:
            os.fsync(file.fileno())
            self.synced += 1
            self.closed(name, data)
        elif chance < 0.6:
            del self._open[name]
            file.close()
            self.closed(name, data)

    def rename(self) -> None:
        if not self.present():
            return
        old = self.random.choice(self.present())
        new = self.random.choice([name for name in NAMES if name not in self._open])
        if old == new:
            return
        self.moving = old, new
        (self.directory / old).rename(self.directory / new)
        self.moving = None
        self.may[new], self.may[old] = self.may[old], {None}

    def unlink(self) -> None:
        if not self.present():
            return
        name = self.random.choice(self.present())
        self.may[name].add(None)
        (self.directory / name).unlink()
        self.may[name] = {None}

    def check(self, found: dict[str, bytes]) -> None:
        """Whether this is what may be there; remembers it."""
        assert set(found) <= set(NAMES), f"more than was ever made: {sorted(found)}"
        worlds = [self.may]
        if self.moving is not None:
            old, new = self.moving
            worlds.append({**self.may, new: self.may[old], old: {None}})
        wrong: list[str] = []
        for world in worlds:
            wrong = [name for name in NAMES if found.get(name) not in world[name]]
            if not wrong:
                break
        assert not wrong, {
            name: (
                None if name not in found else len(found[name]),
                [one and len(one) for one in self.may[name]],
                self.moving,
            )
            for name in wrong
        }
        self.moving = None
        for name in NAMES:
            self.may[name] = {found.get(name)}


THREADS = 4


def test_killed_at_any_moment(writing: WritingWorld) -> None:
    """Rounds of writing and killing with one cache; each mount saves what the one before left."""
    chance = random.Random(SEED)
    uuids = [writing.site.collection({f"d{number}/f0": b"" for number in range(THREADS)}) for _ in range(2)]
    states: dict[tuple[str, int], dict[str, set[bytes | None]]] = {}
    for uuid in uuids:
        for number in range(THREADS):
            states[uuid, number] = {name: {b"" if name == "f0" else None} for name in NAMES}
    steps = synced = 0
    for round_number in range(ROUNDS):
        mount = writing.begin()
        writers = []
        for at, ((uuid, number), may) in enumerate(states.items()):
            if at % len(uuids) == round_number % 2 or number < 2:
                seed = chance.randrange(1 << 30)
                writers.append((uuid, number, Writer(mount, mount.root / uuid / f"d{number}", seed, may)))
        workers = [Worker(writer.run) for _, _, writer in writers]
        time.sleep(chance.choice([0.05, 0.3, 0.7, 1.2, 2.5]) * chance.random())
        mount.kill()
        for worker in workers:
            worker.result()
        steps += sum(writer.steps for _, _, writer in writers)
        synced += sum(writer.synced for _, _, writer in writers)
        # Half of the time the one that saves is killed, too.
        if chance.random() < 0.5:
            second = writing.begin()
            time.sleep(0.2 * chance.random())
            second.kill()
        with writing.mount() as last:
            wait_for(lambda m=last: len(m.unsaved()) <= 1, "what was left is saved")  # type: ignore[misc]
        trees = {uuid: writing.tree(uuid) for uuid in uuids}
        for uuid, number, writer in writers:
            prefix = f"d{number}/"
            found = {
                path[len(prefix) :]: data for path, data in trees[uuid].items() if path.startswith(prefix)
            }
            writer.check({name: data for name, data in found.items() if data is not None})
        for uuid in uuids:
            known = {f"d{number}" for number in range(THREADS)}
            assert {path.partition("/")[0] for path in trees[uuid]} <= known
    print(f"{ROUNDS} rounds, {steps} steps, {synced} of them synced")
    assert steps > 10 * ROUNDS
