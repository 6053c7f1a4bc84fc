"""How costs grow: each workload at three sizes, and the exponent of the line through them.

`python -m benchmarks --only growth`. A cost per file, block or entry that stays the same gives the exponent
1; what should not depend on the size at all (saving one file in a large collection) gives 0. Ours only:
figures are CPU seconds of the mount, which other work on the machine moves least, and seconds beside them.
"""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.bench import Bench
from benchmarks.growth_kinds import KINDS, Cost, Kind
from benchmarks.report import WIDTH, facts, load, number
from benchmarks.rows import rounded

REPEATS = 2
"""The better of so many counts, so that one hiccup makes no exponent."""
STEADY = 1.15
"""The largest exponent that still counts as a steady cost: measurements differ by that much."""
LEAST = 0.01
"""Of a figure: CPU seconds are counted in hundredths."""


class Growth(NamedTuple):
    """One kind at its sizes."""

    kind: Kind
    costs: Sequence[Cost]

    @property
    def figures(self) -> list[float]:
        """What is looked at, by size."""
        return [max(getattr(cost, self.kind.figure), LEAST) for cost in self.costs]

    @property
    def exponent(self) -> float:
        """Of the figures, by least squares over the logarithms."""
        xs, ys = [math.log(cost.size) for cost in self.costs], [math.log(figure) for figure in self.figures]
        middle_x, middle_y = sum(xs) / len(xs), sum(ys) / len(ys)
        above = sum((x - middle_x) * (y - middle_y) for x, y in zip(xs, ys, strict=True))
        return above / sum((x - middle_x) ** 2 for x in xs)

    @property
    def grows(self) -> bool:
        """Whether each file, block or entry costs more, the more there are."""
        return self.exponent > STEADY

    def as_json(self) -> dict[str, Any]:
        """Everything, with few digits."""
        return {
            "title": self.kind.title,
            "unit": self.kind.unit,
            "figure": self.kind.figure,
            "exponent": rounded(self.exponent),
            "grows": self.grows,
            "costs": [
                {name: rounded(value) for name, value in cost._asdict().items()} for cost in self.costs
            ],
        }


def measure(bench: Bench, console: Console) -> tuple[list[Growth], dict[str, Any]]:
    """All kinds at all sizes, and what one must know to repeat it."""
    about, started, found = facts("python -m benchmarks --only growth", REPEATS), time.monotonic(), []
    for kind in KINDS:
        costs = []
        for size in kind.sizes:
            console.print(f"{kind.title}: {size:,} {kind.unit}", style="dim")
            tries = [kind.run(bench, size) for _ in range(REPEATS)]
            costs.append(min(tries, key=lambda cost: float(getattr(cost, kind.figure))))
        found.append(Growth(kind, costs))
    about |= {"minutes": round((time.monotonic() - started) / 60, 1), "load_after": load()}
    return found, about


def show(found: Sequence[Growth], about: dict[str, Any], console: Console) -> None:
    """One line for each kind."""
    console.print(
        f"{about['command']}, source {about['source']}, load before: {about['load_before']}, "
        f"after: {about['load_after']}; {about['minutes']} minutes"
    )
    table = Table(title="Growth", title_justify="left", title_style="bold")
    table.add_column("")
    for column in ("sizes", "seconds", "CPU of the mount, s", "exponent"):
        table.add_column(column, justify="right")
    for growth in found:
        unit = " MB" if growth.kind.figure == "memory" else ""
        table.add_row(
            f"{growth.kind.title} ({growth.kind.unit})",
            " / ".join(f"{cost.size:,}" for cost in growth.costs),
            " / ".join(number(cost.seconds, "") for cost in growth.costs),
            " / ".join(number(figure, "") for figure in growth.figures) + unit,
            f"{growth.exponent:.2f}{' grows' if growth.grows else ''}",
        )
    console.print(table)


def write(found: Sequence[Growth], about: dict[str, Any], folder: Path) -> Path:
    """Write growth.json and growth.txt into `folder`; the first."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"facts": about, "growth": [growth.as_json() for growth in found]}
    path = folder / "growth.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    with (folder / "growth.txt").open("w", encoding="utf-8") as text:
        show(found, about, Console(file=text, width=WIDTH))
    return path
