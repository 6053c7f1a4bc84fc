"""A state machine over two collections of a mount, in process: every change, several handles at a time, and
saves, dropped caches, remounts, changes by another mount in between, against dictionaries and bytearrays."""

import os
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import pytest
from drivers import TreeDriver, WrittenFile, read, refused, write
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    multiple,
    rule,
    run_state_machine_as_test,
)
from servers import LocalServer, wait_for
from worlds import Maker, session
from writing_bench import compare, record_of, sdk_reads, shown
from writing_model import ModelDirectory, ModelFile, ModelTree
from writing_model import Path as TreePath
from writing_mounts import scale

from arvados_fuse.tree import working

NAMES = st.sampled_from(["a", "b", "d", "e f", "\\\u00fc"])
TOPS = st.sampled_from([0, 0, 1])
PATHS: st.SearchStrategy[TreePath] = st.one_of(
    st.tuples(TOPS, NAMES), st.tuples(TOPS, NAMES, NAMES), st.tuples(TOPS, NAMES, NAMES, NAMES)
)
DATA = st.binary(min_size=1, max_size=20) | st.integers(1, 255).map(lambda n: bytes([n]) * (n * 400))
PLACES = st.integers(0, 40) | st.integers(0, 100_000)
FLAGS = st.sampled_from(
    [
        os.O_RDONLY,
        os.O_RDWR,
        os.O_RDWR | os.O_CREAT,
        os.O_RDWR | os.O_CREAT | os.O_EXCL,
        os.O_WRONLY | os.O_TRUNC,
        os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    ]
)
PHASES = [phase for phase in Phase if phase is not Phase.shrink or os.environ.get("SHRINK")]
"""To find a shorter way to a failure takes long, as steps ask a server: it is done when SHRINK is set."""
START = {"a": b"one", "d/a": b"two", "d/b": b"", "d/e f/a": b"three" * 1000, "\\\u00fc/b": b"four"}


class Machine(RuleBasedStateMachine):
    """See the module. The class of a test has the server and a directory for caches."""

    server: ClassVar[LocalServer]
    base: ClassVar[Path]
    user: ClassVar[Maker]
    other: ClassVar[TreeDriver]
    """Another mount, which writes files that this one only looks at."""

    handles = Bundle("handles")
    """Open files and their models."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.open: list[tuple[WrittenFile, ModelFile]] = []
        self.model = ModelTree(2)
        self.uuids = [str(self.user.collection(secrets.token_hex(8), each)["uuid"]) for each in (START, {})]
        for path, data in START.items():
            *way, name = path.split("/")
            at = self.model.tops[0]
            for part in way:
                below = at.entries.setdefault(part, ModelDirectory())
                assert isinstance(below, ModelDirectory)
                at = below
            at.entries[name] = ModelFile(data)
        self.mount()

    def mount(self) -> None:
        self.built = self.stack.enter_context(
            session(self.server, self.user.token, self.base, mode="by_id", read_write=True)
        )
        self.driver = TreeDriver(self.built.filesystem)

    def teardown(self) -> None:
        try:
            self.save_and_compare()
            for opened, _ in self.open:
                opened.close()
            self.compare_here()
        finally:
            self.stack.close()

    def real(self, path: TreePath) -> str:
        return "/".join([self.uuids[int(path[0])], *map(str, path[1:])])

    def both(self, real: Callable[[], Any], model: Callable[[], Any]) -> tuple[Any, Any] | None:
        """Do it to both; None when both refuse it with the same errno."""
        try:
            expected = model()
        except OSError as error:
            with refused(error.errno or 0):
                real()
            return None
        return real(), expected

    # Files

    @rule(target=handles, path=PATHS, flags=FLAGS)
    def open_file(self, path: TreePath, flags: int) -> Any:
        if len(self.open) >= 4:
            return multiple()
        pair = self.both(
            lambda: self.driver.open_file(self.real(path), flags), lambda: self.model.open(path, flags)
        )
        if pair is None:
            return multiple()
        self.open.append(pair)
        return (*pair, flags)

    @rule(handle=handles, offset=PLACES, data=DATA)
    def write(self, handle: Any, offset: int, data: bytes) -> None:
        file, model, flags = handle
        if (file, model) in self.open and flags & (os.O_RDWR | os.O_WRONLY):
            file.write(offset, data)
            model.write(offset, data)

    @rule(handle=handles, data=DATA)
    def append(self, handle: Any, data: bytes) -> None:
        file, model, flags = handle
        if (file, model) in self.open and flags & (os.O_RDWR | os.O_WRONLY):
            file.append(data)
            model.write(len(model.data), data)

    @rule(handle=handles, size=PLACES)
    def truncate_open(self, handle: Any, size: int) -> None:
        file, model, flags = handle
        if (file, model) in self.open and flags & (os.O_RDWR | os.O_WRONLY):
            file.truncate(size)
            model.truncate(size)

    @rule(handle=handles, offset=PLACES, size=PLACES)
    def read_open(self, handle: Any, offset: int, size: int) -> None:
        file, model, _ = handle
        if (file, model) in self.open:
            assert file.read(offset, size) == model.data[offset : offset + size]
            assert file.size() == len(model.data)

    @rule(handle=handles)
    def fsync(self, handle: Any) -> None:
        file, model, _ = handle
        if (file, model) in self.open:
            file.fsync()
            for number, top in enumerate(self.model.tops):
                for path, linked in top.files().items():
                    if linked is model:
                        manifest = str(record_of(self.user, self.uuids[number])["manifest_text"])
                        assert sdk_reads(self.user, manifest)[path] == bytes(model.data)

    @rule(handle=consumes(handles))
    def close(self, handle: Any) -> None:
        file, model, _ = handle
        if (file, model) in self.open:
            self.open.remove((file, model))
            file.close()

    # Names

    @rule(path=PATHS)
    def mkdir(self, path: TreePath) -> None:
        self.both(lambda: self.driver.mkdir(self.real(path)), lambda: self.model.mkdir(path))

    @rule(path=PATHS)
    def mknod(self, path: TreePath) -> None:
        self.both(lambda: self.driver.mknod(self.real(path)), lambda: self.model.mknod(path))

    @rule(path=PATHS)
    def unlink(self, path: TreePath) -> None:
        self.both(lambda: self.driver.unlink(self.real(path)), lambda: self.model.unlink(path))

    @rule(path=PATHS)
    def rmdir(self, path: TreePath) -> None:
        self.both(lambda: self.driver.rmdir(self.real(path)), lambda: self.model.rmdir(path))

    @rule(path=PATHS, new_path=PATHS)
    def rename(self, path: TreePath, new_path: TreePath) -> None:
        self.both(
            lambda: self.driver.rename(self.real(path), self.real(new_path)),
            lambda: self.model.rename(path, new_path),
        )

    @rule(path=PATHS, size=PLACES)
    def truncate(self, path: TreePath, size: int) -> None:
        self.both(
            lambda: self.driver.truncate(self.real(path), size), lambda: self.model.truncate(path, size)
        )

    @rule(path=PATHS, moment=st.integers(1, 2_000_000_000))
    def utime(self, path: TreePath, moment: int) -> None:
        self.both(lambda: self.driver.utime(self.real(path), moment), lambda: self.model.utime(path, moment))

    @rule(path=PATHS)
    def read(self, path: TreePath) -> None:
        pair = self.both(
            lambda: read(self.driver, self.real(path)), lambda: self.model.open(path, os.O_RDONLY)
        )
        assert pair is None or pair[0] == pair[1].data

    # Others

    @rule(number=TOPS, name=st.sampled_from(["x", "y"]), data=DATA | st.none())
    def another_mount(self, number: int, name: str, data: bytes | None) -> None:
        """A file is written, or removed, by another mount, and shows here beside what is not saved yet."""
        uuid, top = self.uuids[number], self.model.tops[number]
        if data is not None:
            write(self.other, f"{uuid}/{name}", data)
            top.entries[name] = ModelFile(data)
        elif name in top.entries:
            self.other.unlink(f"{uuid}/{name}")
            del top.entries[name]
        read(self.other, f"{uuid}/.arvados#collection")
        state = self.built.filesystem.context.known_collection(uuid)
        if state is not None:
            state.expire()  # as an event does
        wait_for(lambda: self.content(f"{uuid}/{name}") == data, "what the other mount did is seen")

    def content(self, path: str) -> bytes | None:
        try:
            return read(self.driver, path)
        except FileNotFoundError:
            return None

    # What no program notices

    @rule()
    def compare_here(self) -> None:
        for number, top in enumerate(self.model.tops):
            compare(shown(self.driver, self.uuids[number]), top.walk(), "shown")
            for path, file in top.files().items():
                if file.mtime_ns is not None:
                    assert self.driver.stat(f"{self.uuids[number]}/{path}").mtime_ns == file.mtime_ns
        self.built.filesystem.check()

    @rule()
    def save_and_compare(self) -> None:
        for number, top in enumerate(self.model.tops):
            read(self.driver, f"{self.uuids[number]}/.arvados#collection")
            manifest = str(record_of(self.user, self.uuids[number])["manifest_text"])
            compare(sdk_reads(self.user, manifest), top.walk(), "the server")
        self.compare_here()

    @rule()
    def drop(self) -> None:
        for uuid in self.uuids:
            state = self.built.filesystem.context.known_collection(uuid)
            while state is not None and state.shrink():
                pass

    @rule()
    def rest(self) -> None:
        """What is saved and what nobody writes is no working copy any more."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(working, "REST_AFTER", 0.0)
            for uuid in self.uuids:
                self.driver.names(uuid)

    @rule()
    def remount(self) -> None:
        for opened, _ in self.open:
            opened.close()
        self.open.clear()
        self.stack.close()
        for top in self.model.tops:
            for file in top.files().values():
                file.mtime_ns = None
        self.mount()
        self.compare_here()


def test_machine(local_server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    maker = Maker(local_server, local_server.new_user(f"machine{secrets.token_hex(4)}")[1])
    cache = tmp_path_factory.mktemp("machine")
    with session(local_server, maker.token, cache / "other", mode="by_id", read_write=True) as built:

        class Bound(Machine):
            server, base, user = local_server, cache / "one", maker
            other = TreeDriver(built.filesystem)

        run_state_machine_as_test(
            Bound,
            settings=settings(
                max_examples=8 * scale(),
                phases=PHASES,
                stateful_step_count=50,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
