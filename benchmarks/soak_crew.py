"""The driver's side of the soak run's programs, and its judgement of their errors.

Threads: one reads what the programs' process says; the main one asks.
"""

import errno
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.shared import PROJECT

HANG = 150.0
"""Seconds: no call of a program may take longer. A write to a full disk may take two minutes, by design."""
PARKED_LIMIT = HANG + 30


class Failed(Exception):
    """The run failed; one sentence."""


class Window(NamedTuple):
    """While a fault lasts, and a while after: errors of these numbers are what programs must expect.

    begin, end: of the monotonic clock, which all processes share.
    """

    kind: str
    begin: float
    end: float
    tolerated: frozenset[int]

    def excuses(self, error: Mapping[str, Any]) -> bool:
        """Whether a program's error is one of those."""
        if not self.tolerated or error["end"] < self.begin or error["begin"] > self.end:
            return False
        if error["errno"]:
            return error["errno"] in self.tolerated
        # SQLite tells no number, and takes EIO of a read for damage. What is really damaged is found when
        # the database can be read again.
        if "malformed" in error["error"]:
            return errno.EIO in self.tolerated
        return str(error["error"]).startswith("OperationalError")


class Crew:
    """All programs. `start`, then `go`; `stop` lets them wait with nothing open."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given
        self._process: subprocess.Popen[str] | None = None
        self._parked = threading.Event()
        self._over = threading.Event()
        self.trouble = threading.Event()
        """Something was wrong: the run need not go on."""
        self.problems: list[str] = []
        self.errors: list[dict[str, Any]] = []
        self.tick: dict[str, Any] = {}
        self.ended: dict[str, Any] | None = None

    def start(self) -> None:
        """Begin; the programs wait for `go`."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.soak_load", json.dumps(self._given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
        )
        threading.Thread(target=self._listen, daemon=True).start()
        self.wait_parked()

    def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._heard(json.loads(line))
        self._over.set()

    def _heard(self, said: dict[str, Any]) -> None:
        if "wrong" in said:
            self.problem(said["wrong"])
        elif "error" in said:
            self.errors.append(said)
        elif "parked" in said:
            self._parked.set()
        elif "ended" in said:
            self.ended = said
        elif "tick" in said:
            self.tick = said["tick"]
            took, operation, path = said["longest"]
            if took > HANG:
                self.problem(f"{operation} of {path} hangs for {took:.0f} seconds")

    def problem(self, text: str) -> None:
        """Something that fails the run."""
        if text not in self.problems:
            self.problems.append(text)
        self.trouble.set()

    def pause(self, seconds: float) -> None:
        """Let time pass. Raises Failed when there is trouble."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            if self.trouble.wait(min(left, 0.2)):
                raise Failed(self.problems[0])
            if self._over.is_set():
                raise Failed("the process with the programs has ended")

    def go(self) -> None:
        """Go on."""
        self._parked.clear()
        self._say("go")

    def stop(self) -> None:
        """Park."""
        self._parked.clear()
        self._say("stop")

    def killed(self) -> None:
        """The mount is another one from now on."""
        self._say("killed")

    def wait_parked(self) -> None:
        """Until nothing is under way. Raises Failed."""
        self._wait(self._parked, PARKED_LIMIT, "the programs do not come to rest")

    def end(self) -> dict[str, Any]:
        """Let them look at everything a last time; what they did and what is there. Raises Failed."""
        self._say("end")
        self._wait(self._over, PARKED_LIMIT, "the programs do not end")
        if self.ended is None:
            raise Failed("the programs ended without a word")
        return self.ended

    def _wait(self, event: threading.Event, limit: float, otherwise: str) -> None:
        ends = time.monotonic() + limit
        while not event.wait(0.1):
            if self.trouble.is_set():
                raise Failed(self.problems[0])
            if time.monotonic() > ends or (self._over.is_set() and event is not self._over):
                raise Failed(otherwise)
        if self.trouble.is_set():
            raise Failed(self.problems[0])

    def _say(self, word: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{word}\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise Failed("the process with the programs has ended") from error

    def close(self) -> None:
        """Whatever happened."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def judge(self, windows: list[Window]) -> dict[str, dict[str, int]]:
        """Count errors by fault and number; those that no window excuses are problems."""
        counts: dict[str, Counter[str]] = {}
        unexcused: Counter[str] = Counter()
        for error in self.errors:
            excuse = next((window for window in windows if window.excuses(error)), None)
            name = errno.errorcode.get(error["errno"], "SQLite")
            if excuse is None:
                what = f"{error['program']}: {error['error']}"
                unexcused[what] += 1
                if unexcused[what] > 3:
                    continue
                near = [each.kind for each in windows if each.begin - 20 <= error["end"] <= each.end + 60]
                took = error["end"] - error["begin"]
                faults = ", ".join(near) or "no fault"
                self.problem(f"{what}, after {took:.1f} s, near: {faults}")
                continue
            counts.setdefault(excuse.kind, Counter())[name] += 1
        for what, count in unexcused.items():
            if count > 3:
                self.problem(f"{what}: {count} times")
        return {kind: dict(count) for kind, count in counts.items()}
