"""Pictures of the results: how far ahead of stock, and of the SDK, each row is, and how costs grow.

`python -m benchmarks.plots [DIR]` draws what the JSON files in DIR (default: benchmarks/results) hold, as
SVG. `make bench` does so at its end.
"""

import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import collection
from benchmarks.report import COUNTS, number
from benchmarks.shared import PROJECT

RESULTS = PROJECT / "benchmarks" / "results"


class Bar(NamedTuple):
    """One line of a picture of ratios: ahead: how many times better; words: beside the bar; None: a heading.

    minor: whether it says more about the line above.
    """

    title: str
    ahead: float | None = None
    words: str = ""
    minor: bool = False


def mounts(document: dict[str, Any], target: Path) -> None:
    """One bar for each row that stock was measured in."""
    lines: list[Bar] = []
    for workload, rows in document["workloads"].items():
        compared = [
            Bar(row["title"].strip(), row["ours_ahead_of_stock"], _words(row), row["title"].startswith(" "))
            for row in rows
            if row["ours_ahead_of_stock"]
        ]
        if compared:
            lines += [Bar(workload), *compared]
    facts = document["facts"]
    about = (
        f"{facts['command']}, rounds: {facts['rounds']}, cores: {facts['cores']}, source: {facts['source']}"
    )
    ratios(lines, about, "times better than arv-mount 3.2.1 (beside each bar: ours, stock)", target)


def _words(row: dict[str, Any]) -> str:
    """`63.3 (34.7, 2,199 ms)`; `>` where stock was given up."""
    least = "> " if "stock" in row["given_up"] else ""
    ours, stock = (number(row["median"][subject], row["unit"]) for subject in ("ours", "stock"))
    unit = "" if row["unit"] in COUNTS else f" {row['unit']}"
    return f"{least}{number(row['ours_ahead_of_stock'], '')} ({ours}, {least}{stock}{unit})"


def engine(document: dict[str, Any], target: Path) -> None:
    """One bar for each row of the collection engine beside the SDK."""
    lines: list[Bar] = []
    for result in document["results"]:
        lines.append(Bar(f"{result['files']:,} files, {result['layout']}"))
        for key, title in collection.ROWS.items():
            # Results of an earlier version may lack a row.
            ours, sdk = (result[model].get(key, 0.0) for model in collection.MODELS)
            if ours > 0 and sdk > 0:
                figures = f"({collection.shown(key, ours)}, {collection.shown(key, sdk)})"
                lines.append(Bar(title, sdk / ours, f"{number(sdk / ours, '')} {figures}"))
    ratios(lines, "collection engine", "times better than the SDK (beside each bar: ours, SDK)", target)


def ratios(lines: Sequence[Bar], about: str, axis: str, target: Path) -> None:
    """Bars on a logarithmic axis; 1 is as good as the other."""
    plot = _pyplot()
    figure, axes = plot.subplots(figsize=(11, 0.2 * len(lines) + 1.2))
    places = range(len(lines), 0, -1)
    bars = [
        (place, bar, bar.ahead) for place, bar in zip(places, lines, strict=True) if bar.ahead is not None
    ]
    ahead = [value for _, _, value in bars]
    colours = ["tab:green" if value >= 1 else "tab:red" for value in ahead]
    axes.barh([place for place, _, _ in bars], [value - 1 for value in ahead], left=1, color=colours)
    axes.set_xscale("log")
    # Room for the words beside the longest bars.
    axes.set_xlim(min([0.5, *ahead]) / 15, max([2, *ahead]) * 30)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(0.3, len(lines) + 0.7)
    axes.minorticks_off()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(places, [bar.title for bar in lines], fontsize=7)
    for label, bar in zip(axes.get_yticklabels(), lines, strict=True):
        label.set_fontweight("bold" if bar.ahead is None else "normal")
        label.set_color("dimgrey" if bar.minor else "black")
    for place, bar, value in bars:
        side = "left" if value >= 1 else "right"
        axes.annotate(f" {bar.words} ", (value, place), va="center", ha=side, fontsize=7)
    axes.set_xlabel(f"{axis}; logarithmic", fontsize=8)
    axes.set_title(textwrap.fill(about, 120), fontsize=9)
    _save(figure, target)


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
            mounts(document, target)
        elif "results" in document:
            engine(document, target)
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
