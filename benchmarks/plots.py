"""Pictures of the results: how far ahead of stock each row is, and how costs grow.

`python -m benchmarks.plots [DIR]` draws what the JSON files in DIR (default: benchmarks/results) hold, as
SVG. `make bench` does so at its end.
"""

import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import COUNTS, number
from benchmarks.shared import PROJECT

RESULTS = PROJECT / "benchmarks" / "results"


def ratios(document: dict[str, Any], target: Path) -> None:
    """One bar for each row that stock was measured in, on a logarithmic axis; 1 is as good as stock."""
    plot = _pyplot()
    lines: list[tuple[str, dict[str, Any] | None]] = []
    for workload, rows in document["workloads"].items():
        compared = [row for row in rows if row["ours_ahead_of_stock"]]
        if compared:
            lines += [(workload, None), *((row["title"], row) for row in compared)]
    height = 0.2 * len(lines) + 1.2
    figure, axes = plot.subplots(figsize=(11, height))
    places = range(len(lines), 0, -1)
    bars = [(place, row) for place, (_, row) in zip(places, lines, strict=True) if row]
    ahead = [row["ours_ahead_of_stock"] for _, row in bars]
    colours = ["tab:green" if one >= 1 else "tab:red" for one in ahead]
    axes.barh([place for place, _ in bars], [one - 1 for one in ahead], left=1, color=colours)
    axes.set_xscale("log")
    # Room for the words beside the longest bars.
    axes.set_xlim(min([0.5, *ahead]) / 15, max([2, *ahead]) * 30)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(0.3, len(lines) + 0.7)
    axes.minorticks_off()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(places, [title.strip() for title, _ in lines], fontsize=7)
    for label, (title, row) in zip(axes.get_yticklabels(), lines, strict=True):
        label.set_fontweight("normal" if row else "bold")
        # Indented in the table: they say more about the row above.
        label.set_color("dimgrey" if title.startswith(" ") else "black")
    for place, row in bars:
        right = row["ours_ahead_of_stock"] >= 1
        axes.annotate(
            f" {_words(row)} ",
            (row["ours_ahead_of_stock"], place),
            va="center",
            ha="left" if right else "right",
            fontsize=7,
        )
    axes.set_xlabel(
        "times better than arv-mount 3.2.1 (logarithmic; beside each bar: ours, stock)", fontsize=8
    )
    facts = document["facts"]
    about = (
        f"{facts['command']}, rounds: {facts['rounds']}, cores: {facts['cores']}, source: {facts['source']}"
    )
    axes.set_title(textwrap.fill(about, 120), fontsize=9)
    _save(figure, target)


def _words(row: dict[str, Any]) -> str:
    """`63.3 (34.7, 2,199 ms)`; `>` where stock was given up."""
    least = "> " if "stock" in row["given_up"] else ""
    ours, stock = (number(row["median"][subject], row["unit"]) for subject in ("ours", "stock"))
    unit = "" if row["unit"] in COUNTS else f" {row['unit']}"
    return f"{least}{number(row['ours_ahead_of_stock'], '')} ({ours}, {least}{stock}{unit})"


def growth(document: dict[str, Any], target: Path) -> None:
    """One small picture for each workload: its cost over size, both logarithmic, beside a steady cost."""
    plot = _pyplot()
    kinds = document["growth"]
    columns = 4
    rows = -(-len(kinds) // columns)
    figure, grid = plot.subplots(rows, columns, figsize=(11, 2.6 * rows), squeeze=False)
    for axes in grid.flat[len(kinds) :]:
        axes.set_axis_off()
    for kind, axes in zip(kinds, grid.flat, strict=False):
        sizes = [cost["size"] for cost in kind["costs"]]
        costs = [max(cost[kind["figure"]], 0.01) for cost in kind["costs"]]
        axes.plot(sizes, [costs[0] * size / sizes[0] for size in sizes], color="lightgrey", linestyle="--")
        axes.plot(sizes, costs, marker="o", color="tab:red" if kind["grows"] else "tab:green")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.set_xticks(sizes, [f"{size:,.0f}" for size in sizes], fontsize=7)
        axes.set_yticks(costs, [number(cost, "") for cost in costs], fontsize=7)
        axes.set_xlabel(kind["unit"], fontsize=7)
        axes.set_ylabel("MB" if kind["figure"] == "memory" else "CPU seconds", fontsize=7)
        axes.set_title(f"{kind['title']}\nexponent {kind['exponent']:.2f}", fontsize=8)
    figure.suptitle("Cost over size; dashed: the same cost for each", fontsize=9)
    _save(figure, target)


def _save(figure: Any, target: Path) -> None:
    """The same picture for the same figures: without the time at which it was drawn."""
    figure.tight_layout()
    figure.savefig(target, metadata={"Date": None})


def draw(folder: Path) -> list[Path]:
    """Draw every result in `folder`; the pictures."""
    made = []
    for source in sorted(folder.glob("*.json")):
        document = json.loads(source.read_text(encoding="utf-8"))
        target = source.with_suffix(".svg")
        if "workloads" in document:
            ratios(document, target)
        elif "growth" in document:
            growth(document, target)
        else:
            continue
        made.append(target)
    return made


def _pyplot() -> Any:
    """matplotlib, which draws without a screen; only here, because it takes a second to load."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "arvados_fuse"
    matplotlib.rcParams["svg.fonttype"] = "none"  # letters as text, not as shapes
    from matplotlib import pyplot

    return pyplot


def main(given: Sequence[str]) -> int:
    """Draw; the exit code."""
    for path in draw(Path(given[0]) if given else RESULTS):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
