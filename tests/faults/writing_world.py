"""What the tests of writing under faults need: real mounts that may be killed, behind gates, and what the
server has in the end."""

import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from faults.gate import Gates
from mounting import UNEXPECTED
from saving_world import Site, Tree
from servers import PROJECT, LocalServer, wait_for

from arvados_fuse.collection import Collection, Directory
from arvados_fuse.fuse.unmount import mounts_at, unmount

ROOM = "arv-mount-unsaved"


class WritingMount:
    """A `--read-write` mount that shows collections by uuid at its root. `start` it; `end` or `kill` it."""

    def __init__(self, base: Path, environment: Mapping[str, str], *options: str, cache: Path) -> None:
        number = sum(1 for _ in base.glob("mnt*"))
        self.top, self._log = base / f"mnt{number}", base / f"log{number}"
        self.top.mkdir()
        self.cache = cache
        self.killed = False
        command = [sys.executable, str(PROJECT / "bin/arv-mount"), "--foreground", "--read-write"]
        command += ["--mount-by-id", "by_id", "--disk-cache-dir", str(cache), *options, str(self.top)]
        with open(self._log, "wb") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **environment, "PYTHONPATH": str(PROJECT)},
            )

    @property
    def log(self) -> str:
        """What the process wrote so far."""
        return self._log.read_text(errors="replace")

    @property
    def root(self) -> Path:
        """Where collections are, by uuid."""
        return self.top / "by_id"

    def start(self) -> "WritingMount":
        """Wait until it is mounted."""

        def up() -> bool:
            assert self.process.poll() is None, f"the mount ended with {self.process.returncode}: {self.log}"
            return bool(mounts_at(self.top))

        wait_for(up, "the mount is there")
        self.top.stat()
        return self

    def kill(self) -> None:
        """As `kill -9` does, and take away what is left of the mount."""
        self.killed = True
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)
        unmount(self.top, timeout=1)

    def end(self) -> int:
        """Unmount, wait for the process; gives its exit code."""
        unmount(self.top, timeout=10)
        return self.process.wait(120)

    def unsaved(self) -> list[str]:
        """The rooms in its cache: its own while it lives, and what dead mounts left."""
        return rooms(self.cache)

    def kernel_number(self, field: str) -> int:
        """A field of /proc/PID/status in bytes."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the process is gone")


def rooms(cache: Path) -> list[str]:
    """What waits below a cache directory."""
    directory = cache / ROOM
    return sorted(path.name for path in directory.iterdir() if path.is_dir()) if directory.is_dir() else []


class WritingWorld:
    """A user, gates before the servers, mounts."""

    def __init__(self, server: LocalServer, base: Path) -> None:
        self.server = server
        self.base = base
        self.user, self.token = server.new_user(f"user{secrets.token_hex(4)}")
        self.site = Site(server, self.token)
        self.gates = Gates(server)
        self._mounts: list[WritingMount] = []

    def begin(
        self, *options: str, cache: str | Path = "cache", environment: Mapping[str, str] | None = None
    ) -> WritingMount:
        """A new mount behind the gates."""
        mount = WritingMount(
            self.base,
            self.gates.environment(self.token) if environment is None else environment,
            *options,
            cache=self.base / cache,
        )
        self._mounts.append(mount)
        return mount.start()

    @contextmanager
    def mount(
        self, *options: str, code: int = 0, expected: tuple[str, ...] = (), **more: Any
    ) -> Iterator[WritingMount]:
        """A mount that ends in good order: exit code, log and cache are looked at."""
        mount = self.begin(*options, **more)
        yield mount
        assert mount.end() == code, mount.log
        wrong = [word for word in UNEXPECTED if word in mount.log and word not in expected]
        assert not wrong, mount.log
        if not code:
            assert rooms(mount.cache) == [], mount.log

    def tree(self, uuid: str) -> Tree:
        """What the server has."""
        return self.site.tree(uuid)

    def exact_tree(self, uuid: str) -> dict[str, bytes]:
        """The same for files, with conflict names as they are."""
        record = self.site.api.get_collection(uuid)
        found: dict[str, bytes] = {}
        pending: list[tuple[str, Directory]] = [
            ("", Collection.from_record(record, blocks=self.site.blocks).root)
        ]
        while pending:
            way, directory = pending.pop()
            for name, entry in directory.entries():
                if isinstance(entry, Directory):
                    pending.append((f"{way}{name}/", entry))
                else:
                    found[f"{way}{name}"] = bytes(entry.read(0, entry.size()))
        return found

    def wait_saved(self, uuid: str, wanted: Mapping[str, bytes | None], deadline: float = 60.0) -> None:
        """Wait until the server has just this."""
        wait_for(lambda: self.tree(uuid) == wanted, "all is on the server", deadline)

    def close(self) -> None:
        """End everything that is left."""
        for mount in self._mounts:
            if mount.process.poll() is None:
                mount.process.kill()
                mount.process.wait(30)
            unmount(mount.top, timeout=10)
        self.gates.stop()
        self.site.close()


@pytest.fixture
def writing(local_server: LocalServer, tmp_path: Path) -> Iterator[WritingWorld]:
    """A world on the server of the whole run."""
    world = WritingWorld(local_server, tmp_path)
    yield world
    world.close()


def attempt(work: Callable[[], Any]) -> int:
    """The errno with which it fails; 0 when it doesn't."""
    try:
        work()
    except OSError as error:
        return error.errno or -1
    return 0


class Worker:
    """A thread of a test; `result` waits for it and raises what it raised."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._answer: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._answer = self._work()
        except BaseException as error:  # noqa: BLE001  (raised again by `result`)
            self._error = error

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def result(self, deadline: float = 60.0) -> Any:
        """What the work gave."""
        self._thread.join(deadline)
        assert self.done, "still at work"
        if self._error is not None:
            raise self._error
        return self._answer


def write(path: Path, data: bytes, *, sync: bool = False) -> None:
    """A new or replaced file, closed."""
    with open(path, "wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())
