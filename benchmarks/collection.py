"""The collection engine beside the SDK's `Collection`, same manifests, one run.

Part of `python -m benchmarks` (`--only collection`); alone: `python -m benchmarks.collection`.

Each measurement is a process of its own; the two models take turns (ours, SDK, ours, SDK).
The table gives the medians and SDK / ours, so a ratio above 1 is how many times faster, or smaller, ours is.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.manifests import Layout, write_manifest

RESULTS = Path(__file__).parent / "results"
ROWS = {
    "load": "index",
    "first_names": "index and names of one directory",
    "first_listing": "index, names and sizes of one directory",
    "walk": "index and full walk",
    "change_and_serialise": "rename one file, serialise",
    "pdh": "portable data hash",
    "memory_loaded": "memory, indexed",
    "memory_walked": "memory, walked",
}
MODELS = ("ours", "sdk")


def measure(model: str, manifest: Path, directory: str) -> dict[str, Any]:
    """One process; raises CalledProcessError with its words when it fails."""
    environment = {**os.environ, "ARVADOS_API_HOST": "127.0.0.1:9", "ARVADOS_API_TOKEN": "none"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.collection_worker", model, str(manifest), directory],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parent.parent,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def compare(files: int, layout: Layout, rounds: int, folder: Path) -> dict[str, Any]:
    """Medians of both models for one manifest; checks that both saw the same collection."""
    manifest = folder / f"{layout}-{files}"
    size = write_manifest(manifest, files, layout)
    directory = "." if layout == "flat" else "lane0/batch0000/s000000"
    seen: dict[str, list[dict[str, Any]]] = {model: [] for model in MODELS}
    for _round in track(range(rounds), description=f"{files:,} files, {layout}"):
        for model in MODELS:
            seen[model].append(measure(model, manifest, directory))
    for key in ("files", "pdh_value", "changed"):
        values = {answer[key] for answers in seen.values() for answer in answers}
        if len(values) != 1:
            raise RuntimeError(f"the models disagree about {key} of {files} files, {layout}: {values}")
    manifest.unlink()
    medians = {
        model: {row: statistics.median(a["figures"][row] for a in answers) for row in ROWS}
        for model, answers in seen.items()
    }
    return {"files": files, "layout": layout, "manifest_bytes": size, "rounds": rounds, **medians}


def shown(row: str, value: float) -> str:
    """A figure for a person: MB, or seconds with three meaningful digits."""
    return f"{value / 1e6:,.1f} MB" if row.startswith("memory") else f"{value:.3g} s"


def report(results: Sequence[dict[str, Any]], console: Console) -> None:
    """Print one table per manifest."""
    for result in results:
        megabytes = result["manifest_bytes"] / 1e6
        table = Table(title=f"{result['files']:,} files, {result['layout']}, manifest {megabytes:.1f} MB")
        for column in ("", "ours", "SDK", "SDK / ours"):
            table.add_column(column, justify="left" if not column else "right")
        for row, title in ROWS.items():
            ours, sdk = result["ours"][row], result["sdk"][row]
            table.add_row(title, shown(row, ours), shown(row, sdk), f"{sdk / ours:,.1f}" if ours > 0 else "")
        console.print(table)


def run(quick: bool, rounds: int, output: Path, console: Console) -> None:
    """Measure all sizes and layouts, print the tables, write JSON."""
    sizes = (10_000, 100_000) if quick else (10_000, 100_000, 1_000_000)
    layouts: tuple[Layout, ...] = get_args(Layout)
    with tempfile.TemporaryDirectory() as folder:
        results = [compare(n, layout, rounds, Path(folder)) for n in sizes for layout in layouts]
    report(results, console)
    output.parent.mkdir(parents=True, exist_ok=True)
    machine = {"python": platform.python_version(), "cores": os.cpu_count(), "system": platform.system()}
    output.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")
    console.print(f"Written to {output}")


def main() -> None:
    """Run it alone."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="10^4 and 10^5 files only, under a minute")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each model (default 3)")
    parser.add_argument(
        "--output", type=Path, default=RESULTS / "collection.json", help="where the figures go"
    )
    arguments = parser.parse_args()
    run(arguments.quick, arguments.rounds, arguments.output, Console())


if __name__ == "__main__":
    main()
