"""Our arv-mount beside stock arv-mount 3.2.1 and beside a file system that does nothing, in one run.

`make bench`, or `python -m benchmarks`. The mounts take turns (ours, stock, null; ours, stock, null; ...).
The table has the medians of all rounds; ratios are made within a round, and the table has their median.
docs/benchmarks.md says what each row means.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks import collection, faulty, growth, layers, names, plots, reading, report, starting, writing
from benchmarks.bench import QUICK, Bench, Sizes, Workload, null, ours, stock
from benchmarks.report import Section
from benchmarks.rows import Measured, summarise
from benchmarks.runs import Failed, Subject
from benchmarks.shared import StockMissing, stock_clients
from benchmarks.stage import Stage

RESULTS = Path(__file__).parent / "results"
WORKLOADS: tuple[Workload, ...] = (
    starting.START,
    reading.SLOW,
    reading.BLOCKS,
    reading.PARALLEL,
    faulty.FAULTY,
    *names.WALKS,
    names.PROJECT,
    names.FILES,
    names.THREADING,
    writing.SMALL,
    writing.LARGE,
    layers.LAYERS,
)
ENGINE = "collection"
"""The part that needs no mount."""
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
    rounds: list[dict[str, Measured]] = []
    out: set[str] = set()
    started = time.monotonic()
    for number in range(bench.sizes.rounds):
        measured: dict[str, Measured] = {}
        for subject in taking_part:
            if subject.name in out or subject.name not in workload.subjects:
                continue
            console.print(f"{workload.title}: round {number + 1}, {subject.name}", style="dim")
            try:
                measured[subject.name] = workload.run(bench, subject)
            except Failed as error:
                out.add(subject.name)
                bench.note(f"{workload.name}: {subject.name} failed: {error}")
        rounds.append(measured)
        for subject in taking_part:
            figures = measured.get(subject.name, {})
            # Patience once is enough: the next rounds compare with the same bound.
            if any(value.bound for value in figures.values()):
                out.add(subject.name)
        _repeat_bounds(rounds)
    console.print(f"{workload.title}: {time.monotonic() - started:.0f} s", style="dim")
    return Section(
        workload.name, workload.title, [summarise(row, rounds) for row in workload.rows(bench.sizes)]
    )


def _repeat_bounds(rounds: list[dict[str, Measured]]) -> None:
    """A mount that was given up keeps its figures of that round."""
    for name, figures in rounds[0].items():
        if any(value.bound for value in figures.values()):
            rounds[-1].setdefault(name, figures)


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
            found = growth.measure(bench, console)
        finally:
            bench.stage.stop()
    growth.show(found, console)
    console.print(f"Written to {growth.write(found, options.output)}")


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
            options.rounds or (1 if options.quick else 3),
            options.output / "collection.json",
            console,
        )
    if options.output.is_dir():
        for path in plots.draw(options.output):
            console.print(f"Drawn: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
