"""What a fault on the way costs: a cold block whose first try fails, beside one whose first try does not."""

from collections.abc import Sequence

from benchmarks.bench import Bench, Mounted, Sizes, Workload
from benchmarks.content import BLOCK
from benchmarks.rows import Measured, Row, Value
from benchmarks.runs import Subject
from benchmarks.stage import PARTS

PAGE = 4096
LIMIT = 120.0
"""Seconds that any of these may take."""
FAULTS: Sequence[tuple[str, str, dict[str, int]]] = (
    ("busy", "is answered with 503", {"status": 503}),
    ("cut", "is cut off in the middle", {"cut_at": BLOCK // 2}),
    ("wrong", "has a wrong byte at its end", {"wrong_at": -1}),
)
LEAST = 0.01
"""Seconds; less can't be told from nothing."""


def rows(_sizes: Sizes) -> Sequence[Row]:
    """See Workload."""
    return [
        Row(f"fault_{key}", f"more time for a block when the first try {what}", "s", aim=4, most=1)
        for key, what, _ in FAULTS
    ]


def run(bench: Bench, subject: Subject) -> Measured:
    """See Workload."""
    uuid = bench.stage.blocks(bench.sizes.blocks)
    last = bench.sizes.blocks // PARTS * BLOCK - PAGE
    found = {}
    with (
        bench.stage.faulty_line() as (environment, fail),
        bench.mounted(subject, environment=environment) as mounted,
    ):
        # The last block of a file each time: of other blocks the next one may be there already, read ahead.
        plain = _seconds(mounted, mounted.path(uuid, "part0"), last)
        for number, (key, _, fault) in enumerate(FAULTS, 1):
            fail(fault)
            more = _seconds(mounted, mounted.path(uuid, f"part{number}"), last) - plain
            found[f"fault_{key}"] = Value(max(LEAST, more))
    return found


def _seconds(mounted: Mounted, path: str, place: int) -> float:
    """Until the last page of a cold block is there, for which all of it has to come."""
    done = mounted.mount.run("reads_at", LIMIT, path=path, offsets=[place], size=PAGE, content="stored")
    return float(done.whole["seconds"])


FAULTY = Workload("faults", "A block whose first try fails", rows, run, ("ours", "stock"))
