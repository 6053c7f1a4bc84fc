"""Reading blocks: over a slow line, as fast as it goes, from the cache, in parallel, at random."""

import random
from collections.abc import Sequence

from benchmarks.bench import Bench, Mounted, Sizes, Workload
from benchmarks.content import BLOCK
from benchmarks.rows import NEAR_NULL, Measured, Row, Value
from benchmarks.runs import Done, Subject
from benchmarks.stage import PARTS

RATE = 50e6
"""Bytes per second of the slow line."""
LATENCY = 0.02
"""Seconds before each of its answers."""
NEAR = 256 * 1024
"""Bytes from the start of a block that count as near it."""
LIMIT = 180.0
"""Seconds that any of these may take."""
GIB = 1 << 30
MEMORY = 150.0
"""MB that ours shall need at most while it reads."""


def slow_rows(sizes: Sizes) -> Sequence[Row]:
    """See Workload."""
    count = sizes.slow_blocks
    return [
        Row("first_byte", "first byte of a cold 64 MiB block", "ms", aim=50),
        Row("near", f"4 KiB near the start of {count} cold blocks, each", "ms", aim=50),
        Row("anywhere", f"4 KiB anywhere in {count} cold blocks, each", "ms", aim=1.8),
    ]


def slow_run(bench: Bench, subject: Subject) -> Measured:
    """See Workload."""
    count = bench.sizes.slow_blocks
    uuid = bench.stage.blocks(count)
    numbers = random.Random(11)
    near = [block * BLOCK + 4096 * numbers.randrange(1, NEAR // 4096) for block in range(count)]
    # Spread evenly over the length of a block, so that few reads have the same average as many.
    places = [(2 * block + 1) * BLOCK // (2 * count) // 4096 * 4096 for block in range(count)]
    numbers.shuffle(places)
    anywhere = [block * BLOCK + place for block, place in enumerate(places)]
    numbers.shuffle(anywhere)
    found = {}
    with bench.stage.slow_line(RATE, LATENCY) as environment:
        with bench.mounted(subject, environment=environment) as mounted:
            path = mounted.path(uuid, "large")
            done = mounted.mount.run("reads_at", LIMIT, path=path, offsets=near, size=4096, content="stored")
            found["first_byte"] = Value(done.whole["first"] * 1000)
            found["near"] = Value(done.whole["seconds"] * 1000 / count)
        with bench.mounted(subject, environment=environment) as mounted:
            path = mounted.path(uuid, "large")
            done = mounted.mount.run(
                "reads_at", LIMIT, path=path, offsets=anywhere, size=4096, content="stored"
            )
            found["anywhere"] = Value(done.whole["seconds"] * 1000 / count)
    return found


def rows(sizes: Sizes) -> Sequence[Row]:
    """See Workload."""
    return [
        Row("cold", f"sequential, {sizes.blocks} cold blocks", "MB/s", aim=2, ceiling=True),
        Row("cold_cpu", "  CPU of the mount for it", "s/GiB", aim=2, ceiling=True),
        Row("cold_memory", "  most memory of the mount", "MB", most=MEMORY),
        Row("again", "the same again, from the kernel's page cache", "MB/s", ceiling=True),
        Row("cached", "sequential from the mount's cache", "MB/s", aim=1.5, ceiling=True, near=NEAR_NULL),
        Row("cached_cpu", "  CPU of the mount for it", "s/GiB", aim=2, ceiling=True),
        Row("cached_memory", "  most memory of the mount", "MB", most=MEMORY),
        Row("touch", "first 4 KiB of a cached block after mounting", "ms", ceiling=True),
        Row("random", "random 4 KiB from cached blocks", "1/s", aim=2, ceiling=True, near=NEAR_NULL),
        Row("random_cpu", "  CPU of the mount for 10,000 of them", "s", ceiling=True),
    ]


def run(bench: Bench, subject: Subject) -> Measured:
    """See Workload. The cache that the cold run fills is what the later mounts find."""
    blocks, content = bench.sizes.blocks, subject.content
    uuid = bench.stage.blocks(blocks)
    cache = bench.caches.fresh()
    found = {}
    try:
        with bench.mounted(subject, cache) as mounted:
            path = mounted.path(uuid, "large", null="large")
            found.update(_sequential("cold", mounted, path, content))
            done = mounted.mount.run("sequential", LIMIT, path=path, content=content)
            found["again"] = Value(_rate(done))
        with bench.mounted(subject, cache) as mounted:
            path = mounted.path(uuid, "large", null="large")
            found.update(_sequential("cached", mounted, path, content))
        with bench.mounted(subject, cache) as mounted:
            path, count = mounted.path(uuid, "large", null="large"), bench.sizes.random_reads
            done = mounted.mount.run("touch", LIMIT, path=path, blocks=blocks, content=content)
            found["touch"] = Value(done.whole["seconds"] * 1000 / blocks)
            done = mounted.mount.run(
                "random_reads", LIMIT, path=path, blocks=blocks, count=count, content=content
            )
            found["random"] = Value(count / done.whole["seconds"])
            found["random_cpu"] = Value(done.whole["cpu"] * 10_000 / count)
    finally:
        bench.caches.drop(cache)
    return found


def _sequential(key: str, mounted: Mounted, path: str, content: str) -> dict[str, Value]:
    done = mounted.mount.run("sequential", LIMIT, path=path, content=content)
    return _transfer(key, mounted, done)


def _transfer(key: str, mounted: Mounted, done: Done) -> dict[str, Value]:
    return {
        key: Value(_rate(done)),
        f"{key}_cpu": Value(done.whole["cpu"] * GIB / done.whole["bytes"]),
        f"{key}_memory": mounted.mount.peak_memory(),
    }


def _rate(done: Done) -> float:
    return float(done.whole["bytes"] / done.whole["seconds"] / 1e6)


def parallel_rows(sizes: Sizes) -> Sequence[Row]:
    """See Workload."""
    title = f"{PARTS} readers at once, {sizes.blocks // PARTS} cold blocks each"
    return [
        Row("parallel", title, "MB/s", aim=2, ceiling=True),
        Row("parallel_cpu", "  CPU of the mount for it", "s/GiB", aim=2, ceiling=True),
        Row("parallel_memory", "  most memory of the mount", "MB", most=MEMORY),
    ]


def parallel_run(bench: Bench, subject: Subject) -> Measured:
    """See Workload."""
    each, content = bench.sizes.blocks // PARTS, subject.content
    uuid = bench.stage.blocks(bench.sizes.blocks)
    with bench.mounted(subject) as mounted:
        paths = [mounted.path(uuid, f"part{part}", null=f"part{part}") for part in range(PARTS)]
        done = mounted.mount.run("parallel", LIMIT, paths=paths, blocks_each=each, content=content)
        return _transfer("parallel", mounted, done)


SLOW = Workload(
    "slow-line", "Looking into cold blocks over a slow line", slow_rows, slow_run, ("ours", "stock")
)
BLOCKS = Workload("blocks", "Reading blocks", rows, run)
PARALLEL = Workload("parallel", "Several readers", parallel_rows, parallel_run)
