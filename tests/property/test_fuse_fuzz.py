"""What llfuse may call is called with anything, from many threads, and on API answers that are damaged.

No kernel: the handlers of `Operations` are called as llfuse does, with its lock held.
Only FUSEError may come out, nothing may be an unexpected exception inside, and the tables are consistent at
the end.
"""

import faulthandler
import json
import logging
import os
import random
import secrets
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import llfuse
import pytest
from drivers import TreeDriver, read
from servers import LocalServer, wait_for
from worlds import PLAIN, Maker, World, session, world

from arvados_fuse.api.transport import Transport
from arvados_fuse.errors import ArvadosFuseError, BadAnswer
from arvados_fuse.fuse.operations import Operations
from arvados_fuse.tree import FileSystem

__all__ = ["world"]

SEED = int(os.environ.get("ARVADOS_FUSE_SEED", "1"))
SECONDS = float(os.environ.get("ARVADOS_FUSE_FUZZ", "6"))
THREADS = 6
PATIENCE = 45.0
"""Seconds in which a call must be over: more than any deadline here."""

ODD_NAMES = (
    b"", b".", b"..", b"a/b", b"/", b"\xff\xfe", b"nul\0nul", b"new\nline", b"x" * 255, b"x" * 5000,
    "\u00e9".encode(), b"\xed\xa0\x80", b".arvados#collection", b".arvados#project", b".trash", b".versions",
    b"README", b"by_id", b"home", b"shared", b"by_tag", b"%s%n", b"~conflict~",
)  # fmt: skip
NUMBERS = (0, 1, 2, 3, -1, 17, 1 << 31, (1 << 31) - 1, 1 << 32, (1 << 63) - 1, -(1 << 63), 1 << 64)
OFFSETS = (0, 1, 5, 4096, 65_536, 131_072, 1 << 20, 1 << 31, 1 << 47, 1 << 62, (1 << 63) - 1, -1, -4096)
SIZES = (0, 1, 10, 4096, 131_072, 1 << 20, -1, -131_072)


class Watched(Operations):
    """The handlers; and beside them what was noted as a failure."""

    def __init__(self, filesystem: FileSystem) -> None:
        super().__init__(filesystem)
        self.noted: list[tuple[str, Exception]] = []

    def note(self, operation: str, arguments: tuple[Any, ...], error: Exception) -> None:
        self.noted.append((operation, error))
        super().note(operation, arguments, error)


class Kernel:
    """A thread that calls handlers with what it was given, with what it gave back, and with anything."""

    def __init__(self, operations: Any, names: list[bytes], seed: str) -> None:
        self.operations = operations
        self.names = [*names, *ODD_NAMES]
        self.random = random.Random(seed)
        self.inodes: dict[int, int] = {}
        self.stale: list[int] = []
        self.files: list[int] = []
        self.directories: list[int] = []
        self.closed: list[int] = []
        self.calls = 0
        self.syncs = True
        """Where saving is asked for what no server can do, a sync waits for minutes, by design."""
        self.answers: Counter[str] = Counter()
        self.longest = 0.0

    def call(self, name: str, *arguments: Any) -> Any:
        """As llfuse does: under its lock. None when it gave an errno."""
        begun = time.monotonic()
        self.calls += 1
        with llfuse.lock:
            try:
                answer = getattr(self.operations, name)(*arguments)
                if name == "readdir":
                    answer = [next(answer, None) for _ in range(self.random.choice([0, 1, 5, 1000]))]
                self.answers["done"] += 1
                return answer
            except llfuse.FUSEError as error:
                self.answers[errno_name(error.errno)] += 1
                return None
            except BaseException as error:
                raise AssertionError(f"{name}{str(arguments)[:500]} raised {error!r}") from error
            finally:
                self.longest = max(self.longest, time.monotonic() - begun)

    def inode(self) -> int:
        """One that is known, most of the time."""
        chance = self.random.random()
        if self.inodes and chance < 0.8:
            return self.random.choice(list(self.inodes))
        if chance < 0.9:
            return int(llfuse.ROOT_INODE)
        return self.random.choice([*self.stale[-20:], *NUMBERS])

    def name(self) -> bytes:
        if self.random.random() < 0.1:
            return self.random.randbytes(self.random.choice([1, 8, 255, 300]))
        return self.random.choice(self.names)

    def handle(self, handles: list[int]) -> int:
        if handles and self.random.random() < 0.8:
            return self.random.choice(handles)
        numbers = [*self.files, *self.directories, *self.closed[-20:], *NUMBERS]
        return self.random.choice(numbers)

    def referred(self, found: Any) -> None:
        """The kernel has one reference more."""
        if found is not None and found.st_ino:
            self.inodes[found.st_ino] = self.inodes.get(found.st_ino, 0) + 1

    def lookup(self) -> None:
        self.referred(self.call("lookup", self.inode(), self.name()))

    def descend(self) -> None:
        """Into what there is."""
        ino = self.inode()
        fh = self.call("opendir", ino)
        if fh is None:
            return
        self.directories.append(fh)
        entries = [each for each in self.call("readdir", fh, 0) or [] if each is not None]
        for name, _, _ in self.random.sample(entries, min(3, len(entries))):
            if name not in (b".", b".."):
                self.referred(self.call("lookup", ino, name))

    def forget(self) -> None:
        if not self.inodes or self.random.random() < 0.1:
            self.call("forget", [(self.random.choice([*NUMBERS[3:], *self.stale[-9:]]), 1)])
            return
        ino = self.random.choice(list(self.inodes))
        count = self.random.randrange(1, self.inodes[ino] + 1)
        self.inodes[ino] -= count
        if not self.inodes[ino]:
            del self.inodes[ino]
            self.stale.append(ino)
        self.call("forget", [(ino, count)])

    def look(self) -> None:
        kind = self.random.choice(["getattr", "access", "statfs", "readlink", "getxattr", "listxattr"])
        ino = self.inode()
        if kind == "access":
            self.call(kind, ino, self.random.choice([0, os.R_OK, os.W_OK, os.X_OK, 7, -1]))
        elif kind == "statfs":
            self.call(kind)
        elif kind == "getxattr":
            names = [
                b"",
                b"user.",
                b"user.arvados.uuid",
                b"security.selinux",
                b"\xff",
                b"user." + self.name(),
            ]
            self.call(kind, ino, self.random.choice([*names, *(self.call("listxattr", ino) or [])]))
        else:
            self.call(kind, ino)

    def open(self) -> None:
        flags = self.random.choice(
            [os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_APPEND, -1, 1 << 40]
        )
        fh = self.call("open", self.inode(), flags)
        if fh is not None:
            self.files.append(fh)

    def use(self) -> None:
        kind = self.random.choice(["read", "read", "write", "write", "flush", "fsync", "readdir", "fsyncdir"])
        fh = self.handle(self.directories if "dir" in kind else self.files)
        offset = self.random.choice(OFFSETS)
        if kind == "read":
            self.call(kind, fh, offset, self.random.choice(SIZES))
        elif kind == "write":
            self.call(kind, fh, offset, self.random.randbytes(self.random.choice([0, 1, 4096, 100_000])))
        elif kind == "flush":
            self.call(kind, fh)
        elif kind == "readdir":
            self.call(kind, fh, self.random.choice([*OFFSETS, 2, 3, 4]))
        elif self.syncs and self.random.random() < 0.3:
            self.call(kind, fh, self.random.choice([True, False]))

    def close(self) -> None:
        handles = self.random.choice([self.files, self.directories])
        kind = "release" if handles is self.files else "releasedir"
        if handles and self.random.random() < 0.9:
            fh = handles.pop(self.random.randrange(len(handles)))
            self.closed.append(fh)
            if self.random.random() < 0.8 and kind == "release":
                self.call("flush", fh)
        else:
            fh = self.random.choice([*self.closed[-9:], *NUMBERS[5:]])
        self.call(kind, fh)

    def change(self) -> None:
        kind = self.random.choice(
            ["create", "create", "mknod", "mkdir", "unlink", "rmdir", "rename", "setattr", "symlink", "link"]
        )
        ino, name = self.inode(), self.name()
        if kind == "create":
            made = self.call(kind, ino, name, self.random.choice([0o644, -1]), os.O_RDWR)
            if made is not None:
                self.files.append(made[0])
                self.referred(made[1])
        elif kind == "mknod":
            mode = self.random.choice([stat.S_IFREG, stat.S_IFIFO, stat.S_IFBLK, 0, (1 << 32) - 1])
            self.referred(self.call(kind, ino, name, mode, self.random.choice(NUMBERS)))
        elif kind == "mkdir":
            self.referred(self.call(kind, ino, name, 0o755))
        elif kind in ("unlink", "rmdir"):
            self.call(kind, ino, name)
        elif kind == "rename":
            self.call(kind, ino, name, self.inode(), self.name())
        elif kind == "setattr":
            attributes = llfuse.EntryAttributes()
            attributes.st_size = self.random.choice([each for each in OFFSETS if each >= 0])
            attributes.st_mtime_ns = self.random.choice([0, -1, 1 << 40, (1 << 63) - 1])
            wanted = {f"update_{field}": self.random.random() < 0.5 for field in ("size", "mtime", "mode")}
            fh = self.random.choice([None, self.handle(self.files)])
            self.call(kind, ino, attributes, SimpleNamespace(**wanted), fh)
        elif kind == "symlink":
            self.call(kind, ino, name, self.name())
        else:
            self.call(kind, ino, self.inode(), name)

    def step(self) -> None:
        steps = [
            self.lookup,
            self.descend,
            self.forget,
            self.look,
            self.open,
            self.use,
            self.close,
            self.change,
        ]
        self.random.choices(steps, [6, 4, 3, 4, 5, 8, 4, 5])[0]()

    def leave(self) -> None:
        """Everything is given back."""
        for fh in self.files:
            self.call("release", fh)
        for fh in self.directories:
            self.call("releasedir", fh)
        self.call("forget", list(self.inodes.items()))


def errno_name(number: int) -> str:
    return os.strerror(number)


def play(kernels: list[Kernel], seconds: float) -> None:
    """All at once for so long; raises what any raised. No call takes longer than PATIENCE."""
    ends = time.monotonic() + seconds
    failures: list[BaseException] = []

    def run(kernel: Kernel) -> None:
        try:
            while time.monotonic() < ends and not failures:
                kernel.step()
            kernel.leave()
        except BaseException as error:  # noqa: BLE001  (shown by the test)
            failures.append(error)

    threads = [threading.Thread(target=run, args=(kernel,), daemon=True) for kernel in kernels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, ends + PATIENCE - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        faulthandler.dump_traceback()
    if failures:
        raise failures[0]
    assert not any(thread.is_alive() for thread in threads), "a call hangs"
    told = sum((kernel.answers for kernel in kernels), Counter())
    print(f"{sum(kernel.calls for kernel in kernels)} calls:", dict(told.most_common()))


def broken(operations: Watched) -> list[tuple[str, Exception]]:
    """Failures that are no errors of ours."""
    return [each for each in operations.noted if not isinstance(each[1], ArvadosFuseError)]


def known_names(world: World) -> list[bytes]:
    """What is somewhere in the tree, so that many lookups find something."""
    names = {part for path in PLAIN for part in path.split("/")} | set(world.ids.values())
    names |= {"plain", "blocks", "project", "inner", "odd names", "file", "spanning", "new", "other"}
    return sorted(os.fsencode(name) for name in names)


def unexpected(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Log records that tell of a mistake of ours."""
    return [
        f"{record.getMessage()}\n{caplog.handler.format(record)}"
        for record in caplog.records
        if record.exc_info and record.levelno >= logging.WARNING
    ]


@pytest.mark.parametrize("writing", [False, True], ids=["reading", "writing"])
def test_anything_is_called(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture, writing: bool
) -> None:
    options: dict[str, Any] = {"mode": "all", "refresh_time": 0.5, "directory_cache": 30_000}
    options["read_write"] = writing
    # On a writing mount objects of its own, so that those which other tests look at stay as they are.
    names = known_names(world)
    token = world.token
    if writing:
        mine = Maker(world.server, world.server.new_user(f"fuzz{secrets.token_hex(4)}")[1])
        token = mine.token
        project = mine.project("project")
        made = mine.collection("plain", PLAIN)
        mine.collection("inner", {"new": b"new", "data/file": b"x" * 70_000}, owner_uuid=project)
        names += [made["uuid"].encode(), made["portable_data_hash"].encode(), project.encode()]
    with session(world.server, token, tmp_path, **options) as built:
        operations = Watched(built.filesystem)
        play([Kernel(operations, names, f"{SEED} {at}") for at in range(THREADS)], SECONDS)
        assert not broken(operations), broken(operations)[:3]
        built.filesystem.check()
        assert built.filesystem.open_handles() == (0, 0)
        wait_for(lambda: len(built.filesystem.inodes) == 1, "nothing is left in the table")
        names_now = TreeDriver(built.filesystem).names("")
        assert {"by_id", "by_tag", "home", "shared"} <= set(names_now)
    assert not unexpected(caplog), unexpected(caplog)[0]


class Mutator:
    """Damages answers of the API server while `active`."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)
        self.active = False
        self.mutated = 0

    def answer(self, answer: Any) -> Any:
        """Changed in one place or a few, one time in two."""
        if not self.active or self.random.random() < 0.5:
            return answer
        self.mutated += 1
        copied = json.loads(json.dumps(answer))
        for _ in range(self.random.choice([1, 1, 2, 5])):
            copied = self._changed(copied)
        # A server's answer is an object: that is looked after where it is parsed.
        return copied if isinstance(copied, dict) else {"items": copied}

    def _changed(self, value: Any) -> Any:
        """One place of it is another, or missing."""
        if isinstance(value, dict) and value and self.random.random() < 0.95:
            key = self.random.choice(list(value))
            chance = self.random.random()
            if chance < 0.2:
                return {name: inside for name, inside in value.items() if name != key}
            if chance < 0.25:
                return {**value, self.random.choice(list(value)): value[key]}
            return {**value, key: self._changed(value[key])}
        if isinstance(value, list) and value and self.random.random() < 0.9:
            at = self.random.randrange(len(value))
            if self.random.random() < 0.2:
                return value[:at] + value[at + 1 :]
            if self.random.random() < 0.2:
                return [*value, *value]
            return [*value[:at], self._changed(value[at]), *value[at + 1 :]]
        if isinstance(value, str) and value and self.random.random() < 0.6:
            return self._text(value)
        return self.random.choice(
            [None, True, 0, -1, 1 << 70, 1.5, float("inf"), float("nan"), "", "x", "../..", "\0", "\ud800",
             "zzzzz-4zz18-" + "0" * 15, "d41d8cd98f00b204e9800998ecf8427e+0", "9999-99-99T00:00:00Z",
             "0000-00-00T00:00:00.000000000Z", [], {}, [None], {"a": {"b": []}}, ["x"], "x" * 100_000]
        )  # fmt: skip

    def _text(self, text: str) -> str:
        """A manifest, an uuid, a time, a name with some characters changed."""
        at = self.random.randrange(len(text))
        end = at + self.random.choice([0, 1, 1, 5, 50])
        new = self.random.choice(
            ["", " ", "\n", ":", "+", "/", "0", "-", ".", "\\", "\\057", "..", "\0", "9" * 30]
        )
        return text[:at] + new + text[end:]


@contextmanager
def damaged(mutator: Mutator) -> Iterator[None]:
    """What the API client gets is what the mutator makes of it."""
    original: Callable[..., Any] = Transport.send

    def send(self: Transport, *arguments: Any, **options: Any) -> Any:
        return mutator.answer(original(self, *arguments, **options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transport, "send", send)
        yield


@pytest.mark.parametrize("writing", [False, True], ids=["reading", "writing"])
def test_answers_are_damaged(
    local_server: LocalServer, world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture, writing: bool
) -> None:
    """Nothing ends the mount, nothing is unexpected, errors name the object; afterwards all is as it was."""
    mutator = Mutator(f"{SEED}")
    options: dict[str, Any] = {"mode": "all", "refresh_time": 0.2, "directory_cache": 20_000}
    options["read_write"] = writing
    mine = Maker(local_server, local_server.new_user(f"hurt{secrets.token_hex(4)}")[1])
    project = mine.project("project")
    made = mine.collection("plain", PLAIN)
    mine.collection("inner", {"new": b"new", "data/file": b"x" * 70_000}, owner_uuid=project)
    mine.collection("kept", PLAIN)
    content = made["portable_data_hash"]  # which nobody can change
    mine.make("links", link_class="tag", name="tag", head_uuid=made["uuid"])
    names = [*known_names(world), b"tag", made["uuid"].encode(), project.encode()]
    names.append(content.encode())
    with damaged(mutator), session(local_server, mine.token, tmp_path, deadline=5.0, **options) as built:
        operations = Watched(built.filesystem)
        mutator.active = True
        kernels = [Kernel(operations, names, f"{SEED} {at}") for at in range(THREADS)]
        for kernel in kernels:
            kernel.syncs = not writing
        play(kernels, SECONDS)
        mutator.active = False
        assert mutator.mutated > 20
        assert not broken(operations), broken(operations)[:3]
        nameless = [
            (name, error)
            for name, error in operations.noted
            if isinstance(error, BadAnswer) and not error.subject
        ]
        assert not nameless, nameless[:3]
        built.filesystem.check()
        assert built.filesystem.open_handles() == (0, 0)
        tree = TreeDriver(built.filesystem)

        def is_well() -> bool:
            try:
                return all(
                    bytes(read(tree, f"by_id/{content}/{path}")) == data for path, data in PLAIN.items()
                )
            except OSError:
                return False

        wait_for(is_well, "all can be read again", 20)
        if not writing:  # where things may have been moved away
            wait_for(lambda: {"plain", "project", "kept"} <= set(tree.names("home")), "listed again", 20)
    assert not unexpected(caplog), unexpected(caplog)[0]
