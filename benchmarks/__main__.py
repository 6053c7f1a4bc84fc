"""Our arv-mount beside stock arv-mount 3.2.1 and beside a file system that does nothing, in one run.

`make bench`, or `python -m benchmarks`. The mounts take turns (ours, stock, null; ours, stock, null; ...).
The table has the medians of all rounds; ratios are made within a round, and the table has their median.
docs/benchmarks.md says what each row means.
"""

import argparse
import logging
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks import (
    collection,
    costs,
    events,
    faulty,
    growth,
    layers,
    names,
    plots,
    reading,
    report,
    starting,
    writing,
)
from benchmarks.bench import QUICK, Bench, Sizes, Workload, null, ours, stock
from benchmarks.costs import NOTHING, Spent
from benchmarks.report import Section
from benchmarks.rows import Measured, summarise
from benchmarks.runs import Failed, Subject
from benchmarks.shared import StockMissing, stock_clients
from benchmarks.stage import Stage
from benchmarks.turns import TRIES, Turns

logger = logging.getLogger(__name__)

RESULTS = Path(__file__).parent / "results"
WORKLOADS: tuple[Workload, ...] = (
    starting.START,
    reading.SLOW,
    reading.BLOCKS,
    reading.PARALLEL,
    faulty.FAULTY,
    *names.WALKS,
    names.PROJECT,
    events.EVENTS,
    names.FILES,
    names.THREADING,
    writing.SMALL,
    writing.LARGE,
    layers.LAYERS,
)
ENGINE = "collection"
"""The part that needs no mount."""
ENGINE_ROUNDS = 1
"""Unless told: the SDK needs two minutes for a million files, and differences are far above the noise."""
GROWTH = "growth"
"""The part that compares sizes."""


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = [each.name for each in WORKLOADS] + [ENGINE, GROWTH]
    parser.add_argument("--quick", action="store_true", help="smaller and fewer: under 5 minutes")
    parser.add_argument("--only", action="append", choices=known, metavar="NAME", help=", ".join(known))
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each mount has its turn")
    parser.add_argument(
        "--without-stock", action="store_true", help="ours and null only: for work on the mount"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", default=RESULTS, help="where table and figures go"
    )
    parser.add_argument(
        "--scratch", type=Path, metavar="DIR", help="where the servers' and the mounts' files go: 5 GB"
    )
    return parser.parse_args(given)


def subjects(without_stock: bool, console: Console, notes: list[str]) -> list[Subject]:
    """Those that can be measured here."""
    found = [ours()]
    if not without_stock:
        try:
            console.print("stock arv-mount 3.2.1 (installed from PyPI the first time) ...")
            clients = stock_clients()
            if clients.arv_mount is None:
                raise StockMissing("its FUSE library could not be built")
            found.append(stock(clients))
        except StockMissing as error:
            notes.append(f"Stock arv-mount is not in the table: {error}")
    return [*found, null()]


def measure(bench: Bench, workload: Workload, taking_part: Sequence[Subject], console: Console) -> Section:
    """All rounds of one workload."""
    turns, started = Turns(), time.monotonic()
    spent: dict[str, list[Spent]] = {}
    for number in range(bench.sizes.rounds):
        turns.new_round()
        for subject in taking_part:
            if subject.name not in workload.subjects or not turns.has_turn(subject.name):
                continue
            console.print(f"{workload.title}: round {number + 1}, {subject.name}", style="dim")
            begun, figures = time.monotonic(), _turn(bench, workload, subject)
            if figures is None:
                turns.failed(subject.name)
            else:
                turns.took(subject.name, figures, time.monotonic() - begun)
                spent.setdefault(subject.name, []).append(bench.spent)
    seconds = time.monotonic() - started
    console.print(f"{workload.title}: {seconds:.0f} s", style="dim")
    if bench.sizes.rounds > 1:
        for name in turns.once():
            bench.note(
                f"{workload.name}: {name} took so long that it had one turn, which counts in all rounds"
            )
    return Section(
        workload.name,
        workload.title,
        [summarise(row, turns.rounds) for row in workload.rows(bench.sizes)],
        {name: costs.median(values) for name, values in spent.items()},
        seconds,
    )


def _turn(bench: Bench, workload: Workload, subject: Subject) -> Measured | None:
    """One turn; None when it failed again and again. All failures are noted."""
    for attempt in range(1, TRIES + 1):
        bench.spent = NOTHING
        try:
            return workload.run(bench, subject)
        except Failed as error:
            bench.note(f"{workload.name}: {subject.name} failed, try {attempt} of {TRIES}: {error}")
        except Exception as error:
            # Whatever is wrong, all the others are still to be measured.
            logger.exception("%s, %s", workload.name, subject.name)
            bench.note(f"{workload.name}: {subject.name} failed, try {attempt} of {TRIES}: {error!r}")
    return None


def mounts(options: argparse.Namespace, console: Console) -> None:
    """Measure mounts, print the tables, write the files."""
    sizes = QUICK if options.quick else Sizes()
    if options.rounds:
        sizes = replace(sizes, rounds=options.rounds)
    wanted = options.only or [each.name for each in WORKLOADS if each.quick or not options.quick]
    chosen = [each for each in WORKLOADS if each.name in wanted]
    words = [f"--only {name}" for name in options.only or []] + ["--quick"] * options.quick
    if options.rounds:
        words.append(f"--rounds {options.rounds}")
    command = " ".join(["python -m benchmarks", *words])
    facts = report.facts(command, sizes.rounds)
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=options.scratch) as scratch:
        bench = Bench(Stage(Path(scratch)), sizes)
        taking_part = subjects(options.without_stock, console, bench.notes)
        try:
            bench.stage.start()
            sections = [measure(bench, workload, taking_part, console) for workload in chosen]
        finally:
            bench.stage.stop()
    facts["load_after"] = report.load()
    facts["minutes"] = round(sum(section.seconds for section in sections) / 60, 1)
    report.show(sections, facts, bench.notes, console)
    name = "mounts-quick" if options.quick else "mounts"
    if options.only:
        name += "-" + "-".join(options.only)
    for path in report.write(sections, facts, bench.notes, options.output, name):
        console.print(f"Written to {path}")


def grow(options: argparse.Namespace, console: Console) -> None:
    """Measure how costs grow."""
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=options.scratch) as scratch:
        bench = Bench(Stage(Path(scratch)), Sizes())
        try:
            bench.stage.start()
            found, about = growth.measure(bench, console)
        finally:
            bench.stage.stop()
    growth.show(found, about, console)
    console.print(f"Written to {growth.write(found, about, options.output)}")


def main(given: Sequence[str] | None = None) -> int:
    """Measure what was asked for; the exit code."""
    options = arguments(given)
    # So that a run that is ended from outside leaves no mounts behind.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    console = Console(width=report.WIDTH)
    if not options.only or set(options.only) - {ENGINE, GROWTH}:
        mounts(options, console)
    if GROWTH in (options.only or [] if options.quick else options.only or [GROWTH]):
        grow(options, console)
    if not options.only or ENGINE in options.only:
        collection.run(
            options.quick,
            options.rounds or ENGINE_ROUNDS,
            options.output / "collection.json",
            console,
        )
    if options.output.is_dir():
        for path in plots.draw(options.output):
            console.print(f"Drawn: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
