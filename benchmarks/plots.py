"""Pictures of the results: how far ahead of stock each row is, and how costs grow.

`python -m benchmarks.plots [DIR]` draws what the JSON files in DIR (default: benchmarks/results) hold, as
SVG. `make bench` does so at its end.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.shared import PROJECT

RESULTS = PROJECT / "benchmarks" / "results"


def ratios(document: dict[str, Any], target: Path) -> None:
    """One bar for each row that stock was measured in, on a logarithmic axis; 1 is as good as stock."""
    plot = _pyplot()
    rows = [
        (row["title"].strip(), row["ours_ahead_of_stock"], bool(row["given_up"]))
        for workload in document["workloads"].values()
        for row in workload
        if row["ours_ahead_of_stock"]
    ]
    figure, axes = plot.subplots(figsize=(11, 0.28 * len(rows) + 1.2))
    places = range(len(rows), 0, -1)
    colours = ["tab:green" if ahead >= 1 else "tab:red" for _, ahead, _ in rows]
    axes.barh(places, [ahead - 1 for _, ahead, _ in rows], left=1, color=colours)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(places, [f"{title}{' (at least)' if bound else ''}" for title, _, bound in rows])
    for place, (_, ahead, _) in zip(places, rows, strict=True):
        axes.annotate(f" {ahead:.3g}", (ahead, place), va="center", fontsize=8)
    axes.set_xlabel("times better than arv-mount 3.2.1 (logarithmic)")
    facts = document["facts"]
    axes.set_title(f"{facts['command']}, {facts['rounds']} rounds, {facts['cores']} cores", fontsize=9)
    figure.tight_layout()
    figure.savefig(target)


def growth(document: dict[str, Any], target: Path) -> None:
    """One line for each workload: CPU seconds over size, both logarithmic."""
    plot = _pyplot()
    figure, axes = plot.subplots(figsize=(9, 6))
    for kind in document["growth"]:
        sizes = [cost["size"] for cost in kind["costs"]]
        label = f"{kind['title']} ({kind['unit']}), exponent {kind['exponent']:.2f}"
        axes.plot(sizes, [max(cost["cpu"], 0.01) for cost in kind["costs"]], marker="o", label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("size")
    axes.set_ylabel("CPU seconds of the mount")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(target)


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
    from matplotlib import pyplot

    return pyplot


def main(given: Sequence[str]) -> int:
    """Draw; the exit code."""
    for path in draw(Path(given[0]) if given else RESULTS):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
