"""The process of the soak run that uses the mounts: programs side by side, told when to stop and go on.

    python -m benchmarks.soak_load JSON
Its input is one word a line (`stop`: park, nothing open; `killed`: the mount is another one; `go`; `end`),
its output one JSON object a line (`error`, `wrong`, `parked`, `tick`, `ended`). A process of its own, because
one that hangs on a mount can only be ended as a whole.

Threads: one for each program, one that watches them, the main one reads the input.
"""

import json
import os
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.soak_content import State, Wrong
from benchmarks.soak_peers import Ledger, Mover, Watcher
from benchmarks.soak_programs import Appender, Program, Reader, Renamer, SmallFiles, Streamer

AFTER_AN_ERROR = 0.3
"""Seconds until a program tries again."""
AT_THE_END = 60.0
"""Seconds in which it must be able to look at everything."""

_output = threading.Lock()


def say(**what: Any) -> None:
    """One line to the driver."""
    with _output:
        print(json.dumps(what), flush=True)


class Signals:
    """What the driver wants of all programs."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.mounts = 0
        """How many mounts were killed."""
        self.ending = False


class Runner:
    """One program in a thread."""

    def __init__(self, program: Program, signals: Signals, on_killable: bool) -> None:
        self.program = program
        self.parked = False
        self.done = False
        self.steps = 0
        self._signals = signals
        self._on_killable = on_killable
        self._mounts = 0
        self._uncertain = False
        self._was_killed = False
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            while self._gate():
                self._attempt()
            self._finish()
        except Wrong as error:
            say(wrong=f"{self.program.name}: {error}")
        except BaseException:  # noqa: BLE001  (the edge of the thread; the driver fails the run)
            say(wrong=f"{self.program.name} broke: {traceback.format_exc()}")
        self.parked = self.done = True

    def _gate(self) -> bool:
        """Wait while all shall wait; False at the end."""
        signals = self._signals
        if not signals.go.is_set():
            self._guarded(self.program.park)
            self.parked = True
            signals.go.wait()
            self.parked = False
        return not signals.ending

    def _attempt(self) -> None:
        if self._mounts != self._signals.mounts and self._on_killable:
            self._mounts = self._signals.mounts
            self._uncertain = self._was_killed = True
        if self._uncertain:
            if not self._guarded(lambda: self.program.recover(self._was_killed)):
                return
            self._uncertain = self._was_killed = False
        if self._guarded(self.program.step):
            self.steps += 1

    def _finish(self) -> None:
        """Nothing open, and everything looked at."""
        ends = time.monotonic() + AT_THE_END
        while not (self._guarded(self.program.park) and self._guarded(lambda: self.program.recover(True))):
            if time.monotonic() > ends:
                raise Wrong("it can't look at its files at the end")

    def _guarded(self, work: Any) -> bool:
        """Do it; False when it failed, which is told."""
        clock, begin = self.program.clock, time.monotonic()
        try:
            work()
        except (OSError, sqlite3.Error) as error:
            number = getattr(error, "errno", None) or 0
            say(
                error=f"{type(error).__name__}: {error}",
                errno=number,
                program=self.program.name,
                begin=begin,
                end=time.monotonic(),
            )
            clock.now = None
            self._uncertain = True
            time.sleep(AFTER_AN_ERROR)
            return False
        return True


def programs(given: Mapping[str, Any]) -> list[tuple[Program, bool]]:
    """All of them, and whether their mount may be killed."""
    root, other, seed = Path(given["root"]), Path(given["other"]), int(given["seed"])
    one, two, known = given["one"], given["two"], given["known"]
    files = {name: State(*state) for name, state in given["files"].items()}
    found: list[tuple[Program, bool]] = [
        (SmallFiles("small", root, f"{one}/small", seed), True),
        (SmallFiles("small2", root, f"{two}/small2", seed), True),
        (Renamer("rename", root, f"{one}/rename", seed), True),
        (Appender("append", root, f"{two}/append", seed), True),
        (Streamer("stream", root, f"{two}/stream", seed), True),
        (Mover("move", root, f"{one}/move", f"{two}/move", seed), True),
        (Ledger("ledger", root, f"{one}/ledger", seed), True),
        (Reader("read", root, known, seed, files), True),
        (Reader("read2", other, known, seed, files), False),
        (Watcher("watch", other, one, seed, {"small", "rename"}), False),
        (Watcher("watch2", other, two, seed, {"small2", "append", "stream"}), False),
    ]
    return found


def figures(runners: list[Runner]) -> dict[str, Any]:
    """What was done so far."""
    counts: dict[str, int] = {}
    slowest: dict[str, float] = {}
    for runner in runners:
        for name, count in list(runner.program.clock.counts.items()):
            counts[name] = counts.get(name, 0) + count
        for name, took in list(runner.program.clock.slowest.items()):
            slowest[name] = max(took, slowest.get(name, 0.0))
    return {
        "counts": counts,
        "slowest": slowest,
        "written": sum(runner.program.clock.written for runner in runners),
        "verified": sum(runner.program.clock.verified for runner in runners),
        "steps": {runner.program.name: runner.steps for runner in runners},
    }


def watch(runners: list[Runner]) -> None:
    """Say twice a second how far they are, what takes long, and when all wait."""
    told = False
    while True:
        time.sleep(0.5)
        now = time.monotonic()
        at_work = [runner.program.clock.now for runner in runners]
        longest = max((now - each[2], each[0], each[1]) for each in [*at_work, ("", "", now)] if each)
        say(tick=figures(runners), longest=longest)
        parked = all(runner.parked for runner in runners)
        if parked and not told:
            say(parked=True)
        told = parked


def main() -> None:
    """See the module."""
    signals = Signals()
    runners = [Runner(program, signals, killable) for program, killable in programs(json.loads(sys.argv[1]))]
    for runner in runners:
        runner.thread.start()
    threading.Thread(target=watch, args=(runners,), daemon=True).start()
    for line in sys.stdin:
        word = line.strip()
        if word == "stop":
            signals.go.clear()
        elif word == "killed":
            signals.mounts += 1
        elif word == "go":
            signals.go.set()
        elif word == "end":
            signals.ending = True
            signals.go.set()
            for runner in runners:
                runner.thread.join()
            break
    expected = {
        runner.program.path: {name: list(state) for name, state in runner.program.expected().items()}
        for runner in runners
        if not isinstance(runner.program, Reader | Watcher | Ledger)
    }
    committed = next(r.program.committed for r in runners if isinstance(r.program, Ledger))
    say(ended=figures(runners), expected=expected, committed=committed)
    sys.stdout.flush()
    os._exit(0)  # a thread may still be in a call that its mount never answers


if __name__ == "__main__":
    main()
