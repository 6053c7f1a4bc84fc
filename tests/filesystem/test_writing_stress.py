"""Many threads change two collections, each in directories of its own: nothing is lost, nothing hangs."""

import faulthandler
import os
import random
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from drivers import TreeDriver, WrittenFile, read, refused
from worlds import Maker, session
from writing_bench import compare, record_of, sdk_reads, shown
from writing_model import ModelDirectory, ModelFile, ModelTree
from writing_model import Path as TreePath

from arvados_fuse.cli.build import MountSession
from arvados_fuse.collection import Collection
from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.merge import merge_into

THREADS = 8
SECONDS = 6.0
WATCHDOG = 90.0
"""Seconds after which the threads' stacks are shown and the test run ends: nothing here may wait so long."""


class Worker:
    """Changes what is below `t<number>` of both collections, and knows what must be there."""

    def __init__(self, driver: TreeDriver, uuids: list[str], number: int) -> None:
        self.driver = driver
        self.uuids = uuids
        self.top = f"t{number}"
        self.chance = random.Random(number)
        self.model = ModelTree(2)
        self.open: list[tuple[WrittenFile, ModelFile]] = []
        for place in (0, 1):
            self.model.mkdir((place, self.top))
            driver.mkdir(f"{uuids[place]}/{self.top}")

    def path(self) -> TreePath:
        names = [self.chance.choice("abcd") for _ in range(self.chance.choice([1, 1, 2, 3]))]
        return (self.chance.choice([0, 0, 1]), self.top, *names)

    def real(self, path: TreePath) -> str:
        return "/".join([self.uuids[int(path[0])], *map(str, path[1:])])

    def step(self) -> None:
        path, other = self.path(), self.path()
        kind = self.chance.choice(
            ["open", "open", "write", "write", "close", "change", "change", "change", "read"]
        )
        if kind == "open" and len(self.open) < 4:
            flags = self.chance.choice(
                [os.O_RDWR | os.O_CREAT, os.O_RDWR | os.O_CREAT | os.O_TRUNC, os.O_RDWR]
            )
            try:
                expected = self.model.open(path, flags)
            except OSError as error:
                with refused(error.errno or 0):
                    self.driver.open_file(self.real(path), flags)
            else:
                self.open.append((self.driver.open_file(self.real(path), flags), expected))
        elif kind == "write" and self.open:
            file, model = self.chance.choice(self.open)
            offset, data = self.chance.randrange(5000), bytes([self.chance.randrange(256)]) * 700
            file.write(offset, data)
            model.write(offset, data)
            if self.chance.random() < 0.05:
                file.fsync()
        elif kind == "close" and self.open:
            file, _ = self.open.pop(self.chance.randrange(len(self.open)))
            file.close()
        elif kind == "read" and self.open:
            file, model = self.chance.choice(self.open)
            assert file.read(0, 100_000) == model.data
        elif kind == "change":
            self.change(path, other)

    def change(self, path: TreePath, other: TreePath) -> None:
        act = self.chance.choice(["mkdir", "rmdir", "unlink", "rename", "rename", "truncate"])
        more: tuple[object, ...] = {"rename": (other,), "truncate": (100,)}.get(act, ())
        real = [self.real(each) if isinstance(each, tuple) else each for each in (path, *more)]
        try:
            getattr(self.model, act)(path, *more)
        except OSError as error:
            with refused(error.errno or 0):
                getattr(self.driver, act)(*real)
        else:
            getattr(self.driver, act)(*real)

    def finish(self) -> None:
        for file, _ in self.open:
            file.close()
        self.open.clear()

    def tree(self, place: int) -> ModelDirectory:
        found = self.model.tops[place].entries[self.top]
        assert isinstance(found, ModelDirectory)
        return found


def disturb(built: MountSession, driver: TreeDriver, uuids: list[str], chance: random.Random) -> None:
    """What else happens: saves, memory pressure, events, listings."""
    uuid = chance.choice(uuids)
    state = built.filesystem.context.known_collection(uuid)
    assert state is not None
    what = chance.randrange(4)
    if what == 0:
        read(driver, f"{uuid}/.arvados#collection")
    elif what == 1:
        state.shrink()
    elif what == 2:
        state.expire()
    else:
        driver.names(f"{uuid}/t{chance.randrange(THREADS)}")
    built.filesystem.check()


def test_many_threads_change_two_collections(mine: Maker, tmp_path: Path) -> None:
    uuids = [str(mine.collection(secrets.token_hex(4), {})["uuid"]) for _ in range(2)]
    with session(mine.server, mine.token, tmp_path, mode="by_id", read_write=True) as built:
        driver = TreeDriver(built.filesystem)
        workers = [Worker(driver, uuids, number) for number in range(THREADS)]
        ends, chance = time.monotonic() + SECONDS, random.Random(0)
        failures: list[BaseException] = []

        def repeat(act: Callable[[], None]) -> None:
            try:
                while time.monotonic() < ends and not failures:
                    act()
            except BaseException as error:  # noqa: BLE001 - shown by the test
                failures.append(error)

        acts = [worker.step for worker in workers]
        acts += [lambda: disturb(built, driver, uuids, chance)] * 2
        threads = [threading.Thread(target=repeat, args=(act,), daemon=True) for act in acts]
        faulthandler.dump_traceback_later(WATCHDOG, exit=True)
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if failures:
                raise failures[0]
            for place, uuid in enumerate(uuids):
                expected: dict[str, bytes | None] = {worker.top: None for worker in workers}
                for worker in workers:
                    expected |= worker.tree(place).walk(f"{worker.top}/")
                compare(shown(driver, uuid), expected, "shown")
                read(driver, f"{uuid}/.arvados#collection")
                compare(sdk_reads(mine, str(record_of(mine, uuid)["manifest_text"])), expected, "the server")
            for worker in workers:
                worker.finish()
            built.filesystem.check()
            assert built.filesystem.open_handles() == (0, 0)
        finally:
            faulthandler.cancel_dump_traceback_later()


def test_an_answer_does_not_undo_what_was_done_to_a_directory_meanwhile() -> None:
    """The answer to a save comes after a directory that it has was removed, or one it does not have made."""
    empty, full = "", "./a/b d41d8cd98f00b204e9800998ecf8427e+0 0:0:\\056\n"
    for before, after in ((empty, full), (full, empty)):
        here = Collection.from_manifest(before)
        merged = merge_into(
            here.root, ManifestIndex(before), ManifestIndex(after), ours=lambda path: path == "a/b"
        )
        assert merged.changed == []
        assert here.manifest_text() == before
        merged = merge_into(here.root, ManifestIndex(before), ManifestIndex(after), ours=lambda _: False)
        assert here.manifest_text() == after
