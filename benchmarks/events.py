"""Changes made elsewhere: how soon a mount shows them."""

import statistics
from collections.abc import Sequence

from benchmarks.bench import Bench, Sizes, Workload
from benchmarks.rows import Measured, Row, Value
from benchmarks.runs import Subject

PATIENCE = 20.0
"""Seconds that one change may take: more than the time after which mounts look anew without events (15)."""
KINDS = (
    ("made", "a collection made in a project"),
    ("added", "a file added to a collection"),
    ("renamed", "a collection renamed"),
)


def rows(sizes: Sizes) -> Sequence[Row]:
    """See Workload."""
    return [
        row
        for key, title in KINDS
        for row in (
            Row(key, f"{title}: until it is listed, median of {sizes.events}", "ms"),
            Row(f"{key}_slowest", "  the slowest of them", "ms", most=1000),
        )
    ]


def run(bench: Bench, subject: Subject) -> Measured:
    """See Workload."""
    stage, count = bench.stage, bench.sizes.events
    project = stage.empty_project()
    with bench.mounted(subject) as mounted:
        done = mounted.mount.run(
            "latency",
            3 * count * PATIENCE,
            server=str(stage.server.data_dir),
            project=project,
            path=mounted.path(project).rstrip("/"),
            count=count,
            patience=PATIENCE,
        )
    found = {}
    for key, _ in KINDS:
        seconds = done.whole[key]
        bound = max(seconds) >= PATIENCE
        found[key] = Value(statistics.median(seconds) * 1000, bound)
        found[f"{key}_slowest"] = Value(max(seconds) * 1000, bound)
    return found


EVENTS = Workload("events", "Changes made through the API", rows, run, ("ours", "stock"))
