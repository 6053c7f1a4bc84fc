"""Faults for minutes or hours under a mixed, verified load: is anything lost, wrong, stuck, or growing?

    python -m benchmarks.soak --minutes 60
An embedded Arvados behind proxies, a writing mount on a small disk and a reading one, programs that know what
they wrote, and faults in an order that the seed decides. docs/benchmarks.md says what fails a run.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arvados_fuse.errors import ArvadosFuseError
from benchmarks import report, soak_check
from benchmarks.shared import PROJECT, wait_for
from benchmarks.soak_content import Wrong
from benchmarks.soak_crew import Crew, Failed
from benchmarks.soak_faults import KINDS, Schedule, remounted
from benchmarks.soak_report import Figures, show, write
from benchmarks.soak_world import SAVING_LIMIT, Life, World, known_bytes, known_files, process_figures

RESULTS = Path(__file__).parent / "results"
WITH_KILLS = 0.55
"""The part of a run in which mounts are ended, too; in the rest one mount process is watched for growth."""
WARM_UP = 60.0
"""Seconds without faults, or a tenth of the run if that is less, before memory is measured the first time."""
MORE_MEMORY = 32 << 20
MORE_THREADS = 8
MORE_FILES = 16
"""What a mount may have more at the end than at the first measurement: bytes of its own memory, threads, open
files. Both are taken when nothing is open or unsaved."""
GIVEN_BACK = 150.0
"""Seconds in which a mount must have given back what it took for the last faults: two minutes for the memory
in which blocks are while the disk is full."""
WORK = ("small", "small2", "rename", "append", "stream", "move", "ledger")


class Soak:
    """One run. Raises Failed, Wrong, AssertionError at any place."""

    def __init__(self, seconds: float, seed: int, scratch: Path, without: Sequence[str] = ()) -> None:
        self.seconds = seconds
        self.random = random.Random(seed)
        self.seed = seed
        self.world = World(scratch)
        self.schedule = Schedule(random.Random(seed + 1), frozenset(without))
        self.crew: Crew
        self.writer: Life
        self.reader: Life
        self.figures = Figures(seed=seed)
        self.uuids: list[str] = []

    def run(self) -> None:
        """From start to verification."""
        try:
            self._prepare()
            self._load()
            ended = self._finish()
            self._verify(ended)
        finally:
            if hasattr(self, "crew"):
                self.crew.close()
                self._sum_up()
            self.world.stop()

    def _prepare(self) -> None:
        world = self.world
        world.start()
        if not world.disk.is_small:
            self.figures.notes.append("A small disk can't be mounted here: it never was full.")
        if not world.clock.can_jump:
            self.figures.notes.append("There is no C compiler here: the clock never jumped.")
        known = world.collection("known", known_bytes())
        one, two = (world.collection(f"work {number}", {}) for number in (1, 2))
        self.uuids = [known, one, two]
        self.mount_again()
        self.reader = world.life("reading", self.world.scratch / "cache")
        for uuid in (one, two):
            for name in WORK:
                (self.writer.root / "by_id" / uuid / name).mkdir()
        self.wait_saved()
        wait_for(lambda: (self.reader.root / "by_id" / one / WORK[0]).is_dir(), "the other mount shows it")
        self.crew = Crew(
            {
                "root": str(self.writer.root / "by_id"),
                "other": str(self.reader.root / "by_id"),
                "known": known,
                "one": one,
                "two": two,
                "seed": self.seed,
                "files": {name: list(state) for name, state in known_files().items()},
            }
        )
        self.crew.start()

    def mount_again(self) -> None:
        """The writing mount, at the same place as before."""
        self.writer = self.world.life("writing", self.world.disk.path / "cache", "--read-write")

    def _load(self) -> None:
        begin = time.monotonic()
        self.crew.go()
        self.crew.pause(min(5.0, self.seconds / 10))
        self._faults(begin + WITH_KILLS * self.seconds, mounts=True)
        remounted(self)
        self.crew.pause(min(WARM_UP, self.seconds / 10))
        self.crew.stop()
        self.crew.wait_parked()
        self.figures.at_first = self._measure()
        self.crew.go()
        self._faults(begin + self.seconds, mounts=False)
        self.crew.pause(min(10.0, self.seconds / 20))
        self.figures.seconds = time.monotonic() - begin

    def _faults(self, until: float, *, mounts: bool) -> None:
        calm = min(6.0, self.seconds / 40)
        while time.monotonic() < until:
            kind = self.schedule.next(self.world, mounts)
            report_line(f"{kind.name} ...")
            self.schedule.act(kind, self)
            self.crew.pause(self.random.uniform(calm / 3, calm))

    def _finish(self) -> dict[str, Any]:
        """The programs look at everything, and the mounts end in good order."""
        report_line("the programs look at everything ...")
        ended = self.crew.end()
        self.figures.at_last = self._measure()
        ends = time.monotonic() + GIVEN_BACK
        while self._grown() and time.monotonic() < ends:
            time.sleep(2)
            self.figures.at_last = self._measure()
        for life in (self.writer, self.reader):
            code = life.end()
            if code or life.rooms():
                raise Failed(f"a mount ended with {code}, and left {life.rooms()}")
        return ended

    def _measure(self) -> dict[str, dict[str, int]]:
        self.wait_saved()
        return {
            "writing": process_figures(self.writer.pid),
            "reading": process_figures(self.reader.pid),
        }

    def wait_saved(self) -> None:
        """Until the writing mount says that nothing is unsaved."""
        wait_for(lambda: not self._unsaved(), "nothing is unsaved", SAVING_LIMIT)

    def wait_taken(self) -> None:
        """Until nothing is unsaved because the server refused it."""
        wait_for(
            lambda: not any(each["refused"] for each in self._unsaved()), "nothing is refused", SAVING_LIMIT
        )

    def _unsaved(self) -> list[dict[str, Any]]:
        """Collections with unsaved paths, as the mount tells of them."""
        command = [
            sys.executable,
            str(PROJECT / "bin/arv-mount"),
            "--status",
            "--json",
            str(self.writer.root),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env=self.world.environment
        )
        if done.returncode:
            raise Failed(f"the mount does not tell how it is doing: {done.stderr}")
        collections: list[dict[str, Any]] = json.loads(done.stdout)["unsaved"]["collections"]
        return collections

    def _verify(self, ended: dict[str, Any]) -> None:
        report_line("everything is verified ...")
        known, one, _ = self.uuids
        expected = soak_check.expected_files(ended, known, known_files())
        ledger, last = f"{one}/ledger", int(ended["committed"])
        fresh = self.world.life("fresh", self.world.scratch / "fresh-cache", direct=True)
        for name, found in (
            ("mount", soak_check.on_mount(fresh.root / "by_id", self.uuids)),
            ("API", soak_check.on_server(self.world, self.uuids)),
        ):
            verified = soak_check.compare(found, expected, ledger, last, self.world.scratch)
            self.figures.verified[name] = verified._asdict()
        if fresh.end():
            raise Failed("the last mount ended with an error")
        self.figures.transactions = last
        for text in self._grown():
            self.crew.problem(text)

    def _grown(self) -> list[str]:
        """What is more than allowed."""
        allowed = {"memory": MORE_MEMORY, "threads": MORE_THREADS, "files": MORE_FILES}
        found = []
        for mount, last in self.figures.at_last.items():
            for what, more in allowed.items():
                first = self.figures.at_first[mount][what]
                if last[what] > first + more:
                    found.append(f"{what} of the {mount} mount grew from {first:,} to {last[what]:,}")
        return found

    def _sum_up(self) -> None:
        figures, crew = self.figures, self.crew
        figures.errors = crew.judge(self.schedule.windows)
        figures.mounts = soak_check.look_into_logs(self.world, crew.problem)
        figures.faults = {
            name: {"count": count, "seconds": round(self.schedule.seconds[name], 1)}
            for name, count in sorted(self.schedule.counts.items())
        }
        figures.load = crew.ended["ended"] if crew.ended else crew.tick
        figures.problems += [text for text in crew.problems if text not in figures.problems]


def report_line(text: str) -> None:
    """Where the run is, on standard error."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=60.0, metavar="N", help="how long (default 60)")
    parser.add_argument(
        "--seed", type=int, metavar="N", help="the same order of faults as a run that said this"
    )
    names = [kind.name for kind in KINDS]
    parser.add_argument(
        "--without",
        action="append",
        choices=names,
        default=[],
        metavar="FAULT",
        help=f"leave out: {', '.join(names)}",
    )
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="DIR", help="where the report goes")
    parser.add_argument(
        "--scratch", type=Path, metavar="DIR", help="where servers and mounts keep their files: 5 GB"
    )
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Run, report; the exit code: 1 when anything was wrong."""
    options = arguments(given)
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 30)
    command = f"python -m benchmarks.soak --minutes {options.minutes:g} --seed {seed}"
    command += "".join(f' --without "{name}"' for name in options.without)
    facts = report.facts(command, 1)
    scratch = Path(tempfile.mkdtemp(prefix="soak-", dir=options.scratch))
    soak = Soak(options.minutes * 60, seed, scratch, options.without)
    try:
        soak.run()
    except (Failed, Wrong, AssertionError, ArvadosFuseError, OSError) as error:
        text = f"{type(error).__name__}: {error}" if not isinstance(error, Failed | Wrong) else str(error)
        if text not in soak.figures.problems:
            soak.figures.problems.append(text)
    facts["load_after"] = report.load()
    for path in write(soak.figures, facts, options.output):
        report_line(f"written to {path}")
    print(show(soak.figures, facts))
    if soak.figures.problems:
        report_line(f"what the mounts and the server said is in {scratch}")
        return 1
    subprocess.run(["rm", "-rf", str(scratch)], check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
