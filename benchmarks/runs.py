"""Mounts under measurement, and the programs that use them: both as processes, looked at from outside.

Used by the workloads. CPU seconds and memory of a mount come from /proc; everything that touches a mount is a
child that can be killed, because a mount may be slow beyond patience.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from arvados_fuse.errors import ArvadosFuseError
from arvados_fuse.fuse.unmount import unmount
from benchmarks.processes import memory
from benchmarks.rows import Value
from benchmarks.shared import PROJECT

READY_LIMIT = 60.0
"""Seconds that a mount gets to be ready."""
LEAVE_LIMIT = 30.0
"""Seconds that a mount gets to end after it was taken away."""


class Failed(Exception):
    """A mount or a program that used it failed; one sentence with what it said."""


@dataclass(frozen=True)
class Done:
    """How a program ended. finished: False when its time was up; `figures["count"]` is how far it came."""

    finished: bool
    figures: Mapping[str, Any]

    @property
    def whole(self) -> Mapping[str, Any]:
        """The figures, for a row that has no bound. Raises Failed when its time was up."""
        if not self.finished:
            raise Failed(f"given up after {self.figures['seconds']:.0f} s, at {self.figures['count']:,}")
        return self.figures


class Load:
    """One run of `benchmarks.load`."""

    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        self._name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load", name, json.dumps(arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=PROJECT,
        )
        assert self._process.stdout is not None
        self._lines = _lines(self._process.stdout)

    def wait_for_start(self) -> None:
        """Until it said something for the first time."""
        next(self._lines(READY_LIMIT), None)

    def finish(self, limit: float) -> Done:
        """Its figures, or how far it came in `limit` seconds. Raises Failed."""
        last: dict[str, Any] = {}
        for line in self._lines(limit):
            last = json.loads(line)
        if self._process.poll() is None and "seconds" not in last:
            try:
                self._process.wait(1)
            except subprocess.TimeoutExpired:
                self.kill()
                return Done(False, {**last, "count": last.get("progress", 0), "seconds": limit})
        _, said = self._process.communicate()
        if self._process.returncode != 0:
            raise Failed(said.decode(errors="replace").strip() or f"{self._name} ended with an error")
        return Done(True, last)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=LEAVE_LIMIT)


def _lines(source: IO[bytes]) -> Any:
    """A function that gives the lines of a pipe as they come, until its end or until `limit` seconds
    passed."""
    pending = b""

    def read(limit: float) -> Iterator[bytes]:
        nonlocal pending
        give_up = time.monotonic() + limit
        while True:
            while b"\n" in pending:
                line, _, pending = pending.partition(b"\n")
                yield line
            left = give_up - time.monotonic()
            if left <= 0 or not select.select([source], [], [], left)[0]:
                return
            data = os.read(source.fileno(), 65536)
            if not data:
                return
            pending += data

    return read


@dataclass(frozen=True)
class Subject:
    """One of the things compared. command: what starts it, without options. content: of its files, in
    `content.CONTENTS`."""

    name: str
    command: Sequence[str]
    options: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    content: str = "stored"


class Mount:
    """One mount of a subject, from start to `close`."""

    def __init__(self, subject: Subject, root: Path, log: Path) -> None:
        self.subject = subject
        self.root = root
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process that serves the mount."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self, options: Sequence[str], environment: Mapping[str, str], sign: str) -> float:
        """Start it; seconds until `sign`, a path in the mount, could be stat'ed. Raises Failed."""
        self.root.mkdir(parents=True)
        watcher = Load("ready", {"path": str(self.root / sign)})
        watcher.wait_for_start()
        with self._log.open("wb") as output:
            started = time.monotonic()
            self._process = subprocess.Popen(
                [*self.subject.command, str(self.root), *self.subject.options, *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**environment, **self.subject.environment, "PYTHONFAULTHANDLER": "1"},
            )
        done = watcher.finish(READY_LIMIT)
        if not done.finished:
            raise Failed(f"it was not ready in {READY_LIMIT:.0f} s{self._why()}")
        return float(done.figures["at"]) - started

    def _why(self) -> str:
        """What is known about a mount that did not come up. One that still runs is ended with SIGABRT, so
        that Python's fault handler tells where it was."""
        assert self._process is not None
        code = self._process.poll()
        if code is None:
            self._process.send_signal(signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LEAVE_LIMIT)
        state = "it still ran" if code is None else f"it had ended with {code}"
        return f", {state}; its log: {self.said()}"

    def said(self) -> str:
        """The last of what it wrote."""
        return self._log.read_text(errors="replace").strip()[-500:]

    def peak_memory(self) -> Value:
        """The most MB that were resident so far; files that it maps count."""
        return Value(memory(self.pid)["peak"] / 1e6)

    def run(self, name: str, limit: float, **arguments: Any) -> Done:
        """Run a load on it for at most `limit` seconds. Raises Failed."""
        try:
            return Load(name, {"pid": self.pid, **arguments}).finish(limit)
        except Failed as error:
            assert self._process is not None
            if self._process.poll() is not None:
                raise Failed(f"the mount ended with {self._process.returncode}: {self.said()}") from error
            raise

    def close(self) -> None:
        """Take it away, in good order if it lets us."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ArvadosFuseError, OSError):
            unmount(self.root, timeout=10)
        try:
            process.wait(LEAVE_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            with contextlib.suppress(ArvadosFuseError, OSError):
                unmount(self.root, timeout=10)


class Caches:
    """Cache directories below a scratch directory: fresh ones where things shall be cold, else shared."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._count = 0

    def fresh(self) -> Path:
        """An empty one."""
        self._count += 1
        path = self._scratch / f"cache{self._count}"
        path.mkdir(mode=0o700)
        return path

    def drop(self, path: Path) -> None:
        """Remove one, so that the disk does not fill."""
        shutil.rmtree(path, ignore_errors=True)
