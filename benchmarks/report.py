"""The table for people and the JSON file, from the summaries of all rows.

Used by the driver.
"""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.costs import Spent
from benchmarks.rows import Summary, rounded
from benchmarks.shared import PROJECT, STOCK_MOUNT

WIDTH = 144
"""Characters of the table; wide enough for every row on one line."""


COUNTS = ("requests", "blocks")
"""Units of what is counted."""


class Section(NamedTuple):
    """The rows of one workload. costs: what a turn cost each subject; seconds: how long all turns took."""

    name: str
    title: str
    summaries: Sequence[Summary]
    costs: Mapping[str, Spent]
    seconds: float


def number(value: float, unit: str) -> str:
    """A figure for a person."""
    if value >= 100 or unit in COUNTS:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _figure(summary: Summary, subject: str) -> str:
    if subject not in summary.medians:
        return ""
    text = number(summary.medians[subject], summary.row.unit)
    return f"> {text}" if subject in summary.bounds else text


def _ahead(summary: Summary) -> str:
    if summary.ahead is None:
        return ""
    sign = "> " if "stock" in summary.bounds else ""
    return f"{sign}{summary.ahead:,.3g}" if summary.ahead < 100 else f"{sign}{summary.ahead:,.0f}"


def _aim(summary: Summary) -> str:
    """`2 met, ≤ 150 missed`: what the row aims at, and whether this run got there. `open`: stock was given up
    too early to tell."""
    aim, most, ours = summary.row.aim, summary.row.most, summary.medians.get("ours")
    aims = []
    if aim is not None and summary.ahead is not None:
        short = "open" if "stock" in summary.bounds else "missed"
        aims.append(f"{aim:g} {'met' if summary.ahead >= aim else short}")
    if most is not None and ours is not None:
        aims.append(f"≤ {number(most, summary.row.unit)} {'met' if ours <= most else 'missed'}")
    return ", ".join(aims)


def _over(summary: Summary) -> str:
    """`1.2, ≤ 1.3 met`: how many times the null file system takes, and whether it was to be so near."""
    over, near = summary.over, summary.row.near
    if over is None:
        return ""
    return f"{over:.3g}" + ("" if near is None else f", ≤ {near:g} {'met' if over <= near else 'missed'}")


def table(section: Section) -> Table:
    """One workload. Medians of the rounds; ratios are medians of the rounds' ratios."""
    result = Table(title=section.title, title_justify="left", title_style="bold")
    result.add_column("", min_width=50)
    for column in ("unit", "ours", "stock", "better by", "aim", "null", "ours/null"):
        result.add_column(column, justify="right", min_width=len(column))
    for summary in section.summaries:
        result.add_row(
            summary.row.title,
            summary.row.unit,
            _figure(summary, "ours"),
            _figure(summary, "stock"),
            _ahead(summary),
            _aim(summary),
            _figure(summary, "null"),
            _over(summary),
        )
    return result


def cost_table(sections: Sequence[Section]) -> Table:
    """What a whole turn of each workload cost ours and stock: medians of the turns."""
    result = Table(
        title="What a turn of each workload cost: ours | stock", title_justify="left", title_style="bold"
    )
    result.add_column("")
    for column in ("CPU, s", "memory, MB", "API requests", "blocks fetched", "MB", "blocks stored", "MB"):
        result.add_column(column, justify="right")
    for section in sections:
        ours, stock = section.costs.get("ours"), section.costs.get("stock")
        if ours is not None and any(ours):
            pairs = zip(ours, stock or [None] * len(ours), strict=True)
            result.add_row(section.name, *(_pair(*pair) for pair in pairs))
    return result


def _pair(ours: float, stock: float | None) -> str:
    if not ours and not stock:
        return ""
    return " | ".join(
        f"{value:,.3g}" if value < 100 else f"{value:,.0f}" for value in (ours, stock) if value is not None
    )


def show(sections: Sequence[Section], facts: dict[str, Any], notes: Sequence[str], console: Console) -> None:
    """Print everything."""
    console.print(f"{facts['command']}, {facts['rounds']} rounds, source {facts['source']}")
    console.print(
        f"{facts['cores']} cores ({facts['processor']}), {facts['system']}, Python {facts['python']}; "
        f"load before: {facts['load_before']}, after: {facts['load_after']}; {facts['minutes']} minutes"
    )
    for section in sections:
        console.print(table(section))
    if any(section.costs for section in sections):
        console.print(cost_table(sections))
    for note in notes:
        console.print(f"- {note}")


def write(
    sections: Sequence[Section], facts: dict[str, Any], notes: Sequence[str], folder: Path, name: str
) -> list[Path]:
    """Write NAME.json and NAME.txt into `folder`; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "facts": facts,
        "notes": list(notes),
        "workloads": {
            section.name: [summary.as_json() for summary in section.summaries] for section in sections
        },
        "costs": {
            section.name: {name: spent.as_json() for name, spent in section.costs.items()}
            for section in sections
        },
    }
    paths = [folder / f"{name}.json", folder / f"{name}.txt"]
    paths[0].write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    with paths[1].open("w", encoding="utf-8") as text:
        show(sections, facts, notes, Console(file=text, width=WIDTH))
    return paths


def facts(command: str, rounds: int) -> dict[str, Any]:
    """What one must know to repeat a run."""
    return {
        "command": command,
        "rounds": rounds,
        "source": _source(),
        "stock": STOCK_MOUNT,
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": load(),
    }


def load() -> float | None:
    """Processes that wanted to run, on average over the last minute: what else the machine did."""
    return rounded(os.getloadavg()[0])


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _source() -> str:
    """The commit measured, and whether the tree differed from it."""
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"
