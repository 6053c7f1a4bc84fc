"""The programs of the soak run: each uses a mount as programs do, knows what it wrote, and verifies it.

Run by `soak_load`, each in a thread of its own. `step` does one thing and may raise OSError at any place;
`recover` then looks at everything again and finds out what is there, or raises Wrong.
"""

import os
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from benchmarks.soak_content import Known, Maybe, State, Wrong, begun, text, whole

PIECE = 1 << 20
"""Bytes written or read at once."""
SHOWN_AFTER = 30.0
"""Seconds in which a mount that took over what a dead one left must show it."""


class Clock:
    """What a program is doing, how often it did what, how long it took. One thread writes, others look."""

    def __init__(self) -> None:
        self.now: tuple[str, str, float] | None = None
        self.counts: dict[str, int] = {}
        self.slowest: dict[str, float] = {}
        self.written = self.verified = 0

    @contextmanager
    def at(self, operation: str, path: Path) -> Iterator[None]:
        """One operation."""
        begin = time.monotonic()
        self.now = operation, str(path), begin
        try:
            yield
        finally:
            took = time.monotonic() - begin
            self.counts[operation] = self.counts.get(operation, 0) + 1
            self.slowest[operation] = max(took, self.slowest.get(operation, 0.0))
            self.now = None


def write_all(file: IO[bytes], data: bytes) -> None:
    """Write to an unbuffered file: the kernel may take a part, and tell only next time why no more."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


class Program(ABC):
    """One program in a directory of its own below a collection."""

    def __init__(self, name: str, root: Path, path: str, seed: int) -> None:
        """root: of the mount. path: of the program's directory, from there."""
        self.name = name
        self.path = path
        self.directory = root / path
        self.random = random.Random(f"{seed} {name}")
        self.clock = Clock()
        self.known = Known()
        self.version = 0
        self.moving: tuple[str, str, list[Maybe]] | None = None
        """A rename that was begun: the content must be at one of both names."""

    @abstractmethod
    def step(self) -> None:
        """One thing."""

    def park(self) -> None:  # noqa: B027  (most have nothing open between two steps)
        """Close what is open."""

    def recover(self, was_killed: bool) -> None:
        """Something failed: find out what is there. was_killed: on another mount. Raises Wrong."""
        ends = time.monotonic() + (SHOWN_AFTER if was_killed else 0)
        while True:
            try:
                self.look_at_all()
                return
            except Wrong:
                if time.monotonic() > ends:
                    raise
            time.sleep(0.2)

    def look_at_all(self) -> None:
        """Everything that is there is what may be there. Raises Wrong; the same again may be asked then."""
        found: dict[str, bytes] = {}
        pending = [""]
        while pending:
            inside = pending.pop()
            with self.clock.at("list", self.directory / inside):
                entries = [(entry.name, entry.is_dir()) for entry in os.scandir(self.directory / inside)]
            for name, is_directory in entries:
                if is_directory:
                    pending.append(f"{inside}{name}/")
                else:
                    found[f"{inside}{name}"] = self.read(f"{inside}{name}")
        self.known.found_all(found)
        before = dict(self.known.may)
        try:
            for name in before:
                self.known.found(name, found.get(name))
            if self.moving is not None:
                old, new, states = self.moving
                data = [found[name] for name in (old, new) if name in found]
                if not any(state is not None and state.holds(one) for state in states for one in data):
                    raise Wrong(f"the rename of {old} to {new} lost the file")
        except Wrong:
            self.known.may = before
            raise
        self.moving = None

    def expected(self) -> dict[str, State]:
        """What is there at the end, by path below the program's directory."""
        return {name: self.known.only(name) for name in self.known.present()}

    # What programs do.

    def write(self, name: str, data: bytes, *, sync: bool = False) -> None:
        """A file from its beginning, closed."""
        path = self.directory / name
        with self.clock.at("create", path):
            file = open(path, "wb", buffering=0)  # noqa: SIM115
        try:
            for at in range(0, len(data), PIECE):
                with self.clock.at("write", path):
                    write_all(file, data[at : at + PIECE])
            if sync:
                with self.clock.at("fsync", path):
                    os.fsync(file.fileno())
        finally:
            with self.clock.at("close", path):
                file.close()
        self.clock.written += len(data)

    def put(self, name: str, size: int, *, sync: bool = False) -> None:
        """A new version of a file."""
        self.version += 1
        label = self.name
        self.known.perhaps(name, begun(label, self.version, size))
        self.write(name, text(label, self.version, size), sync=sync)
        self.known.sure(name, whole(label, self.version, size))

    def read(self, name: str) -> bytes:
        """All of a file, not from the kernel's pages."""
        path = self.directory / name
        with self.clock.at("open", path):
            file = open(path, "rb", buffering=0)  # noqa: SIM115
        with file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            pieces = []
            while True:
                with self.clock.at("read", path):
                    piece = file.read(PIECE)
                if not piece:
                    break
                pieces.append(piece)
        data = b"".join(pieces)
        self.clock.verified += len(data)
        return data

    def check(self, name: str) -> None:
        """A file is what it must be. Raises Wrong."""
        try:
            self.known.found(name, self.read(name))
        except FileNotFoundError:
            self.directory.stat()  # raises when it is the mount that is gone
            self.known.found(name, None)

    def unlink(self, name: str) -> None:
        """Remove a file."""
        self.known.perhaps(name, None)
        with self.clock.at("unlink", self.directory / name):
            (self.directory / name).unlink()
        self.known.sure(name, None)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, which may be taken."""
        states = self.known.get(old)
        self.moving = old, new, states
        self.known.perhaps(old, None)
        self.known.perhaps(new, *states)
        with self.clock.at("rename", self.directory / old):
            (self.directory / old).rename(self.directory / new)
        self.moving = None
        self.known.sure(old, None)
        self.known.may[new] = states


class SmallFiles(Program):
    """Makes, replaces, removes and reads small files in a few directories."""

    NAMES = tuple(f"d{number % 4}/f{number:02d}" for number in range(60))

    def step(self) -> None:
        """One file."""
        name = self.random.choice(self.NAMES)
        kind = self.random.random()
        if name not in self.known.present() or kind < 0.35:
            parent = (self.directory / name).parent
            if not parent.is_dir():
                with self.clock.at("mkdir", parent):
                    parent.mkdir(exist_ok=True)
            self.put(name, self.random.choice([64, 1000, 8000, 60_000]), sync=self.random.random() < 0.05)
        elif kind < 0.45:
            self.unlink(name)
        else:
            self.check(name)


class Renamer(Program):
    """Replaces files as editors do: a new file beside, then renamed over the old; moves directories, too."""

    def step(self) -> None:
        """One replacement, or one move of a directory with what is in it."""
        name = f"current{self.random.randrange(6)}"
        self.put("new", self.random.choice([500, 5000, 300_000]), sync=self.random.random() < 0.3)
        self.rename("new", name)
        self.check(name)
        if self.random.random() < 0.3:
            self._move()

    def _move(self) -> None:
        here, there = self.directory / "box-a", self.directory / "box-b"
        if not here.is_dir():
            here, there = there, here
        if not here.is_dir():
            with self.clock.at("mkdir", here):
                here.mkdir()
        name, moved = f"{here.name}/inside", f"{there.name}/inside"
        self.put(name, 2000)
        states = self.known.get(name)
        self.moving = name, moved, states
        self.known.perhaps(moved, *states)
        self.known.perhaps(name, None)
        with self.clock.at("rename", here):
            here.rename(there)
        self.moving = None
        self.known.may[moved] = states
        self.known.sure(name, None)
        self.check(moved)


class Appender(Program):
    """Keeps log files open, appends to them, syncs now and then."""

    SIZE = 400_000

    def __init__(self, name: str, root: Path, path: str, seed: int) -> None:
        super().__init__(name, root, path, seed)
        self._open: dict[str, IO[bytes]] = {}

    def step(self) -> None:
        """One record more, or a look at a closed one."""
        name = f"log{self.random.randrange(3)}"
        if name not in self._open:
            self._reopen(name)
        file, state = self._open[name], self.known.get(name)[-1]
        assert state is not None
        size = min(self.random.randrange(1, 9000), self.SIZE - state.high)
        record = text(*state[:3])[state.high : state.high + size]
        longer = state._replace(high=state.high + size)
        # An old version stays possible until the new one is closed or synced.
        self.known.may[name][-1] = longer
        with self.clock.at("append", self.directory / name):
            write_all(file, record)
        self.clock.written += len(record)
        if self.random.random() < 0.1:
            with self.clock.at("fsync", self.directory / name):
                os.fsync(file.fileno())
            self.known.sure(name, longer._replace(low=longer.high))
        if longer.high == self.SIZE or self.random.random() < 0.1:
            self._close(name)
            self.check(name)

    def _reopen(self, name: str) -> None:
        """To go on with it, or to begin anew when it is full."""
        if name not in self.known.present() or self.known.only(name).high == self.SIZE:
            self.version += 1
            self.known.perhaps(name, State(self.name, self.version, self.SIZE, 0, 0))
            mode = "wb"
        else:
            mode = "ab"
        with self.clock.at("open", self.directory / name):
            self._open[name] = open(self.directory / name, mode, buffering=0)  # noqa: SIM115

    def _close(self, name: str) -> None:
        file = self._open.pop(name)
        with self.clock.at("close", self.directory / name):
            file.close()
        state = self.known.get(name)[-1]
        assert state is not None
        self.known.sure(name, state._replace(low=state.high))

    def park(self) -> None:
        """Close all."""
        for name in list(self._open):
            self._close(name)

    def recover(self, was_killed: bool) -> None:
        """What was open is given up first."""
        for name in list(self._open):
            file = self._open.pop(name)
            try:
                file.close()
            except OSError:
                continue  # its mount is dead, or refuses: what is there now is looked at next
        super().recover(was_killed)


class Streamer(Program):
    """Writes and reads back large files."""

    def step(self) -> None:
        """One file."""
        name = f"large{self.random.randrange(3)}"
        self.put(name, self.random.randrange(1 << 20, 12 << 20), sync=self.random.random() < 0.3)
        self.check(name)


class Reader(Program):
    """Reads known files of a collection that nobody changes: whole, or pieces anywhere."""

    def __init__(self, name: str, root: Path, path: str, seed: int, files: dict[str, State]) -> None:
        super().__init__(name, root, path, seed)
        for file, state in files.items():
            self.known.sure(file, state)

    def step(self) -> None:
        """One file."""
        name = self.random.choice(self.known.present())
        state = self.known.only(name)
        if state.size < PIECE or self.random.random() < 0.1:
            self.check(name)
            return
        path = self.directory / name
        with self.clock.at("open", path):
            file = open(path, "rb", buffering=0)  # noqa: SIM115
        with file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            for _ in range(8):
                offset = self.random.randrange(state.size)
                with self.clock.at("read", path):
                    file.seek(offset)
                    data = file.read(self.random.choice([100, 4096, 200_000]))
                if not data or data != text(*state[:3])[offset : offset + len(data)]:
                    raise Wrong(f"{name} has wrong bytes in {len(data)} from {offset}")
                self.clock.verified += len(data)

    def look_at_all(self) -> None:
        """Nothing of its own to find out."""

    def expected(self) -> dict[str, State]:
        """The driver knows them."""
        return {}
