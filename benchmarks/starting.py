"""Start-up: from the command to a mount that answers."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import CACHED_BLOCKS, Bench, Sizes, Workload
from benchmarks.rows import Measured, Row, Value
from benchmarks.runs import Subject


def rows(_sizes: Sizes) -> Sequence[Row]:
    """See Workload."""
    return [
        Row("ready", "ready, cache empty", "s", ceiling=True),
        Row("ready_full", f"ready, {CACHED_BLOCKS:,} blocks cached", "s"),
        Row("memory", "most memory until then", "MB"),
        Row("requests", "API requests until ready", "requests"),
    ]


def run(bench: Bench, subject: Subject) -> Measured:
    """See Workload."""
    mark = bench.stage.api_mark()
    with bench.mounted(subject) as mounted:
        memory = mounted.mount.peak_memory()
        requests = bench.stage.api_requests(mark)
        empty = mounted.ready
    found = {"ready": Value(empty), "memory": memory}
    if subject.name == "null":
        return found
    if requests is not None:
        found["requests"] = Value(requests)
    with bench.mounted(subject, _filled(bench.stage.scratch / f"full-{subject.name}")) as mounted:
        found["ready_full"] = Value(mounted.ready)
    return found


def _filled(cache: Path) -> Path:
    """A cache directory with many small blocks in the layout that Arvados tools share."""
    if not cache.exists():
        for number in range(CACHED_BLOCKS):
            data = b"%04096d" % number
            md5 = hashlib.md5(data).hexdigest()
            target = cache / md5[:3] / f"{md5}.keepcacheblock"
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            target.write_bytes(data)
            target.chmod(0o600)
    return cache


START = Workload("start", "Start-up", rows, run)
