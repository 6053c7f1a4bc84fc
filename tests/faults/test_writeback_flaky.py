"""Two mounts change one collection while requests fail before and after they are done: all arrives, nothing
twice."""

import random
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from saving_world import Mount, Site, Tree
from servers import LocalServer

from arvados_fuse.errors import Unreachable
from arvados_fuse.writeback import Limits, PathChange, State

NAMES = ["a", "b", "c", "d/a", "d/b", "d/e/a", "d/e/b", "e/a"]


@pytest.fixture
def site(local_server: LocalServer) -> Iterator[Site]:
    made = Site(local_server, local_server.new_user(f"user{secrets.token_hex(4)}")[1])
    yield made
    made.close()


class Flaky:
    """Records and blocks of a real site; many requests fail, some of them after they were done."""

    def __init__(self, site: Site, seed: int) -> None:
        self._site = site
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self.failing = True

    def _maybe(self, share: float) -> None:
        with self._lock:
            fails = self.failing and self._chance.random() < share
        if fails:
            raise Unreachable("as the test wants it")

    def get_collection(self, uuid: str, *, select: Sequence[str] | None = None) -> dict[str, Any]:
        self._maybe(0.15)
        return self._site.api.get_collection(uuid, select=select)

    def create_collection(self, body: Mapping[str, Any], *, ensure_unique_name: bool = False) -> Any:
        return self._site.api.create_collection(body, ensure_unique_name=ensure_unique_name)

    def update_collection(
        self, uuid: str, body: Mapping[str, Any], *, replace_files: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        self._maybe(0.15)
        answer = self._site.api.update_collection(uuid, body, replace_files=replace_files)
        self._maybe(0.3)
        return answer

    def read(self, locator: str, offset: int, size: int) -> bytes | memoryview:
        return self._site.blocks.read(locator, offset, size)

    def put(
        self, data: bytes | memoryview, *, storage_classes: Sequence[str] = (), file: str | None = None
    ) -> str:
        self._maybe(0.15)
        locator = self._site.blocks.put(data, storage_classes=storage_classes, file=file)
        self._maybe(0.15)
        return locator


class Program:
    """Changes files below a directory of its own, and knows what must be there in the end."""

    def __init__(self, mount: Mount, uuid: str, top: str, seed: int) -> None:
        self.mount, self.uuid, self.top = mount, uuid, top
        self.chance = random.Random(seed)
        self.files: dict[str, bytes] = {}
        self.states: dict[str, State] = {}
        self.heard: dict[str, State] = {}

    def step(self) -> None:
        """One change: a file is written, removed, or takes the place of a directory, or a directory moves."""
        chance = self.chance
        new = dict(self.files)
        path = f"{self.top}/{chance.choice(NAMES)}"
        kind = chance.choice(["write", "write", "write", "remove", "clear", "move"])
        if kind == "write":
            self._clear(new, path)
            new[path] = chance.randbytes(chance.randrange(0, 3000))
        elif kind == "remove":
            new.pop(path, None)
        elif kind == "clear":
            self._clear(new, path.rpartition("/")[0])
        else:
            moved = {name: data for name, data in new.items() if name.startswith(f"{self.top}/d/")}
            target = f"{self.top}/moved{chance.randrange(3)}"
            self._clear(new, target)
            for name, data in moved.items():
                del new[name]
                new[target + name[len(self.top) + 2 :]] = data
        self._record(new)

    def _clear(self, files: dict[str, bytes], path: str) -> None:
        """Nothing shall be at a path, below it, or on the way to it but directories."""
        for name in list(files):
            if name == path or name.startswith(path + "/") or path.startswith(name + "/"):
                del files[name]

    def _record(self, new: dict[str, bytes]) -> None:
        while not self.mount.saved.empty():
            self.heard.update(self.mount.saved.get().committed)
        changes = []
        states = dict(self.states)
        for path in sorted({*new, *self.files}):
            if self.files.get(path) == new.get(path):
                continue
            data = new.get(path)
            state = None if data is None else self._state_of(data)
            changes.append(PathChange(path, self.heard.get(path), state))
            states[path] = state
        self.files, self.states = new, states
        self.mount.writeback.record(self.uuid, changes)

    def _state_of(self, data: bytes) -> State:
        """By reference when a file of ours has the bytes already, as a rename does."""
        for path, held in self.files.items():
            if held == data:
                return self.states[path]
        return self.mount.spooled(data)


@pytest.mark.parametrize("seed", range(4))
def test_flaky_servers(site: Site, tmp_path: Path, seed: int) -> None:
    uuid = site.collection({"base": b"0"})
    flaky = Flaky(site, seed)
    limits = Limits(quiet=0.005, longest=0.02, first_pause=0.02, longest_outage_pause=0.05)
    options: dict[str, Any] = {"records": flaky, "blocks": flaky, "limits": limits}
    mounts = [Mount(site, tmp_path / "writeback", **options) for _ in range(2)]
    programs = [Program(mount, uuid, f"m{n}", 10 * seed + n) for n, mount in enumerate(mounts)]

    def work(program: Program) -> None:
        for step in range(120):
            program.step()
            if step % 10 == 9:
                program.mount.save(uuid, deadline=60)

    threads = [threading.Thread(target=work, args=(program,)) for program in programs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted: Tree = {"base": b"0"}
    for program in programs:
        program.mount.save(deadline=60)
        wanted |= program.files
    tree = site.tree(uuid)
    assert {path: data for path, data in tree.items() if data is not None} == wanted
    for mount in mounts:
        assert mount.close().is_clean()
    assert [path.name for path in (tmp_path / "writeback").iterdir()] == [".lock"]
