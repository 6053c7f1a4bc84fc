"""Random changes here and by others of the same few paths, as files and as directories: nothing goes that
others saved unless it was seen here, all can be saved, and in the end the mount shows what the server has."""

import os
import random
from pathlib import Path

import pytest
from drivers import TreeDriver, TreeFile, write
from servers import wait_for
from worlds import Maker, session
from writing_bench import record_of, sdk_reads, shown

from arvados_fuse.tree import working

SEEDS = range(int(os.environ.get("BESIDE_SEEDS", "6")))
STEPS = 70
PATHS = ("a", "b", "a/x", "a/y", "b/x", "c")
LEGAL = (2, 17, 20, 21, 22, 39, 116)
"""errno of what is not there or of another kind by now: ENOENT, EEXIST, ENOTDIR, EISDIR, EINVAL, ENOTEMPTY,
ESTALE."""


class Game:
    """Each piece of data is a line of its own, `T...` of others and `O...` of ours."""

    def __init__(self, maker: Maker, uuid: str, tree: TreeDriver, seed: int) -> None:
        self.maker = maker
        self.uuid = uuid
        self.tree = tree
        self.random = random.Random(seed)
        self.log: list[str] = []
        self.open: list[TreeFile] = []
        self.theirs: dict[bytes, str] = {}
        """Lines of others that they have not taken away themselves, and where they put them."""
        self.seen: set[bytes] = set()
        """Those that a program here has seen: what it does then is its own affair."""

    def files(self) -> dict[str, bytes]:
        """What the server has."""
        found = sdk_reads(self.maker, record_of(self.maker, self.uuid)["manifest_text"])
        return {path: data for path, data in found.items() if data is not None}

    def look(self) -> dict[str, bytes]:
        """What the mount shows."""
        found = {path: data for path, data in shown(self.tree, "").items() if data is not None}
        for data in [*found.values(), *(file.read(0, 10_000) for file in self.open)]:
            self.seen.update(line for line in data.splitlines(True) if line.startswith(b"T"))
        return found

    def check(self) -> None:
        """Nothing of theirs is gone unseen."""
        there = b"".join(self.files().values())
        for line in [line for line in self.theirs if line not in there]:
            path = self.theirs.pop(line)
            assert line in self.seen, self.told(f"{line!r} of {path} is lost")

    def told(self, what: str) -> str:
        return "\n".join([what, f"server: {self.files()}", *self.log])

    def line(self, whose: str) -> bytes:
        return f"{whose}{len(self.log)}\n".encode()

    def step(self) -> None:
        """One change, here or elsewhere, or a look."""
        deed = self.random.choice(DEEDS)
        path, other = self.random.choice(PATHS), self.random.choice(PATHS)
        self.log.append(f"{deed} {path} {other}")
        try:
            self.look()
            getattr(self, f"do_{deed}")(path, other)
        except OSError as error:
            self.log.append(f"  {error}")
            if error.errno not in LEGAL:
                raise AssertionError(self.told(str(error))) from error

    def do_write(self, path: str, _: str) -> None:
        write(self.tree, path, self.line("O"))

    def do_append(self, path: str, _: str) -> None:
        file = self.tree.open_file(path, os.O_RDWR)
        try:
            file.append(self.line("O"))
        finally:
            file.close()

    def do_unlink(self, path: str, _: str) -> None:
        self.tree.unlink(path)

    def do_mkdir(self, path: str, _: str) -> None:
        self.tree.mkdir(path)

    def do_rmdir(self, path: str, _: str) -> None:
        self.tree.rmdir(path)

    def do_rename(self, path: str, other: str) -> None:
        self.tree.rename(path, other)

    def do_open(self, path: str, _: str) -> None:
        if len(self.open) < 3:
            self.open.append(self.tree.open_file(path, os.O_RDWR))

    def do_write_open(self, _: str, __: str) -> None:
        if self.open:
            self.random.choice(self.open).append(self.line("O"))

    def do_close(self, _: str, __: str) -> None:
        if self.open:
            self.open.pop(self.random.randrange(len(self.open))).close()

    def do_save(self, _: str, __: str) -> None:
        self.tree.fsync_directory("")
        self.check()

    def do_hear(self, _: str, __: str) -> None:
        self.tell()
        self.look()

    def tell(self) -> None:
        """The mount hears of what others did."""
        state = self.tree.fs.context.known_collection(self.uuid)
        if state is None:
            return

        def has_heard() -> bool:
            self.tree.names("")
            known = record_of(self.maker, self.uuid)["portable_data_hash"]
            return state.working is None or state.working.version.pdh == known

        state.expire()
        wait_for(has_heard, self.told("it has heard"))

    def do_theirs(self, path: str, _: str) -> None:
        """Others set a file, whatever was in its way, or remove one, or make a directory of it."""
        self.check()
        files, gone = self.files(), b""

        def drop(name: str) -> bytes:
            below = [each for each in files if each == name or each.startswith(f"{name}/")]
            return b"".join([files.pop(each) for each in below])

        kind, line = self.random.choice(("set", "set", "remove", "directory")), self.line("T")
        if kind == "directory":
            path = path.partition("/")[0]
            gone += drop(path)
            path += "/x"
        else:
            gone += drop(path) + drop(path.partition("/")[0] if "/" in path and path[0] in files else path)
        if kind != "remove":
            files[path] = line
            self.theirs[line] = path
        self.log.append(f"  {kind}: {files}")
        for each in gone.splitlines(True):
            self.theirs.pop(each, None)
        self.maker.update("collections", self.uuid, manifest_text=self.maker.manifest(files))


DEEDS = [name.removeprefix("do_") for name in vars(Game) if name.startswith("do_")] + ["theirs"]


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_of_others_goes_unseen(
    mine: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    uuid = mine.collection("c", {"a/x": b"T a\n", "b": b"T b\n", "c": b"T c\n"})["uuid"]
    with session(mine.server, mine.token, tmp_path, read_write=True, mode="collection", target=uuid) as built:
        game = Game(mine, uuid, TreeDriver(built.filesystem), seed)
        for _ in range(STEPS):
            game.step()
        for file in game.open:
            file.close()
        game.open = []
        game.tree.fsync_directory("")
        game.check()
        monkeypatch.setattr(working, "REST_AFTER", 0.0)
        game.tell()
        wait_for(lambda: game.look() == game.files(), game.told("the mount shows what the server has"))
