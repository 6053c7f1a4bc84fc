"""How costs grow: each workload at three sizes, and the exponent of the line through them.

`python -m benchmarks --only growth`. A cost per file, block or entry that stays the same gives the exponent
1; what should not depend on the size at all (saving one file in a large collection) gives 0. Ours only:
figures are CPU seconds of the mount, which other work on the machine moves least, and seconds beside them.
"""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.bench import Bench, Mounted, ours
from benchmarks.content import BLOCK
from benchmarks.report import WIDTH, facts
from benchmarks.rows import rounded

LIMIT = 600.0
"""Seconds that one measurement may take."""
NEW = map("new{}".format, itertools.count())
"""Names of directories that are not there yet."""


class Cost(NamedTuple):
    """What one size cost. cpu: of the mount. Seconds."""

    size: int
    seconds: float
    cpu: float


class Growth(NamedTuple):
    """One workload at its sizes. unit: what is counted."""

    title: str
    unit: str
    costs: Sequence[Cost]

    @property
    def exponent(self) -> float:
        """Of the cost in CPU seconds, by least squares over the logarithms."""
        points = [(math.log(cost.size), math.log(max(cost.cpu, 0.01))) for cost in self.costs]
        middle_x = sum(x for x, _ in points) / len(points)
        middle_y = sum(y for _, y in points) / len(points)
        return sum((x - middle_x) * (y - middle_y) for x, y in points) / sum(
            (x - middle_x) ** 2 for x, _ in points
        )


def _walk(bench: Bench, size: int) -> Cost:
    uuid = bench.stage.tree(size)
    with bench.mounted(ours()) as mounted:
        return _cost(size, mounted, "walk", path=mounted.path(uuid))


def _list(bench: Bench, size: int) -> Cost:
    uuid = bench.stage.project(size)
    with bench.mounted(ours()) as mounted:
        return _cost(size, mounted, "list_long", path=mounted.path(uuid))


def _read(bench: Bench, size: int) -> Cost:
    uuid = bench.stage.blocks(size)
    with bench.mounted(ours()) as mounted:
        return _cost(size, mounted, "sequential", path=mounted.path(uuid, "large"), check=True)


def _write(bench: Bench, size: int) -> Cost:
    uuid = bench.stage.empty()
    with bench.mounted(ours(), options=["--read-write"]) as mounted:
        root = mounted.path(uuid).rstrip("/")
        return _cost(size, mounted, "write_small", path=f"{root}/new", root=root, count=size)


def _write_large(bench: Bench, size: int) -> Cost:
    uuid = bench.stage.empty()
    with bench.mounted(ours(), options=["--read-write"]) as mounted:
        root = mounted.path(uuid).rstrip("/")
        return _cost(size, mounted, "write_large", path=f"{root}/new", root=root, size=size * BLOCK)


def _save_one(bench: Bench, size: int) -> Cost:
    uuid = bench.stage.tree(size)
    with bench.mounted(ours(), options=["--read-write"]) as mounted:
        root = mounted.path(uuid).rstrip("/")
        return _cost(size, mounted, "write_small", path=f"{root}/{next(NEW)}", root=root, count=1)


def _cost(number: int, mounted: Mounted, load: str, **arguments: object) -> Cost:
    figures = mounted.mount.run(load, LIMIT, **arguments).figures
    return Cost(number, figures.get("saved", figures["seconds"]), figures["cpu"])


KINDS: Sequence[tuple[str, str, Callable[[Bench, int], Cost], Sequence[int]]] = (
    ("find over a collection", "files", _walk, (10_000, 30_000, 100_000)),
    ("ls -l of a project", "collections", _list, (300, 1_000, 3_000)),
    ("cold blocks read from end to end", "blocks", _read, (4, 8, 16)),
    ("small files written and closed", "files", _write, (300, 1_000, 3_000)),
    ("one large file written", "blocks", _write_large, (2, 4, 8)),
    ("one file saved in a collection", "files", _save_one, (10_000, 30_000, 100_000)),
)


def measure(bench: Bench, console: Console) -> list[Growth]:
    """All kinds at all sizes; each size the better of two, so that one hiccup makes no exponent."""
    found = []
    for title, unit, run, sizes in KINDS:
        costs = []
        for size in sizes:
            console.print(f"{title}: {size:,} {unit}", style="dim")
            costs.append(min((run(bench, size) for _ in range(2)), key=lambda cost: cost.cpu))
        found.append(Growth(title, unit, costs))
    return found


def show(found: Sequence[Growth], console: Console) -> None:
    """One line for each kind."""
    table = Table(title="Growth", title_justify="left", title_style="bold")
    table.add_column("", min_width=34)
    for column in ("sizes", "seconds", "CPU of the mount, s", "exponent"):
        table.add_column(column, justify="right")
    for growth in found:
        table.add_row(
            growth.title,
            " / ".join(f"{cost.size:,}" for cost in growth.costs) + f" {growth.unit}",
            " / ".join(f"{cost.seconds:.3g}" for cost in growth.costs),
            " / ".join(f"{cost.cpu:.3g}" for cost in growth.costs),
            f"{growth.exponent:.2f}",
        )
    console.print(table)


def write(found: Sequence[Growth], folder: Path) -> Path:
    """Write growth.json and growth.txt into `folder`; the first."""
    folder.mkdir(parents=True, exist_ok=True)
    about = facts("python -m benchmarks --only growth", 2)
    document = {
        "facts": about,
        "growth": [
            {
                "title": growth.title,
                "unit": growth.unit,
                "exponent": rounded(growth.exponent),
                "costs": [cost._asdict() for cost in growth.costs],
            }
            for growth in found
        ],
    }
    path = folder / "growth.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    with (folder / "growth.txt").open("w", encoding="utf-8") as text:
        console = Console(file=text, width=WIDTH)
        console.print(f"{about['command']}, source {about['source']}, load before: {about['load_before']}")
        show(found, console)
    return path
