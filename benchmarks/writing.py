"""Writing: many small files, a tar, a large file, pages here and there."""

from collections.abc import Sequence

from benchmarks.bench import Bench, Sizes, Workload
from benchmarks.content import BLOCK
from benchmarks.costs import blocks, megabytes, new_blocks
from benchmarks.rows import Measured, Row, Value
from benchmarks.runs import Done, Subject
from benchmarks.write_load import PAGE

LARGE_LIMIT = 240.0
"""Seconds that a large file may take."""
OVERWRITES = 2_000
OVERWRITTEN = 256 << 20
"""Bytes of the file in which pages are overwritten."""
MOUNTS = ("ours", "stock")
"""The null file system can't be written to."""


def small_rows(sizes: Sizes) -> Sequence[Row]:
    """See Workload."""
    return [
        Row("small", f"{sizes.small_writes:,} files of 4 KiB, written and closed one by one", "s", aim=50),
        Row("small_saved", "  until all of it is on the server", "s"),
        Row("small_requests", "  API requests", "requests", most=10),
        Row("small_blocks", "  blocks stored", "blocks", most=3),
        Row("tar", f"a tar of {sizes.tar_files:,} files unpacked", "s", aim=100),
        Row("tar_saved", "  until all of it is on the server", "s"),
        Row("tar_requests", "  API requests", "requests"),
        Row("tar_blocks", "  blocks stored", "blocks"),
        Row("memory", "  most memory of the mount", "MB"),
    ]


def small_run(bench: Bench, subject: Subject) -> Measured:
    """See Workload."""
    stage, sizes = bench.stage, bench.sizes
    found: dict[str, Value] = {}
    loads = (("small", "write_small", sizes.small_writes), ("tar", "untar", sizes.tar_files))
    for key, load, count in loads:
        uuid = stage.empty()
        with bench.mounted(subject, options=["--read-write"]) as mounted:
            mark, kept = stage.api_mark(), blocks(stage.keep_dir)
            root = mounted.path(uuid).rstrip("/")
            done = mounted.mount.run(load, sizes.write_limit, path=f"{root}/new", root=root, count=count)
            found |= _times(key, done)
            requests = stage.api_requests(mark)
            if requests is not None:
                found[f"{key}_requests"] = Value(requests, bound=not done.finished)
            stored = new_blocks(stage.keep_dir, kept)
            found[f"{key}_blocks"] = Value(len(stored), bound=not done.finished)
            if not done.finished:
                bench.note(
                    f"{subject.name}: {load} was given up after {sizes.write_limit:.0f} s, "
                    f"at {done.figures['count']:,} of {count:,} files"
                )
            found["memory"] = mounted.mount.peak_memory()
    return found


def large_rows(sizes: Sizes) -> Sequence[Row]:
    """See Workload."""
    size = f"{sizes.large_write >> 20:,} MiB"
    return [
        Row("large", f"{size} written from end to end, closed", "MB/s", aim=1.5),
        Row("large_saved", "  until all of it is on the server", "MB/s"),
        Row("large_cpu", "  CPU of the mount until then", "s/GiB"),
        Row("large_memory", "  most memory of the mount", "MB", most=250),
        Row("large_blocks", "  blocks stored", "blocks", most=sizes.large_write / BLOCK),
        Row("overwrite", f"{OVERWRITES:,} pages anywhere in {OVERWRITTEN >> 20} MiB, then fsync", "s", aim=1),
        Row("overwrite_cpu", "  CPU of the mount", "s"),
        Row("overwrite_stored", "  stored", "MB", most=(2 * OVERWRITES * PAGE + BLOCK) / 1e6),
    ]


def large_run(bench: Bench, subject: Subject) -> Measured:
    """See Workload."""
    stage, size = bench.stage, bench.sizes.large_write
    uuid = stage.empty()
    found: dict[str, Value] = {}
    with bench.mounted(subject, options=["--read-write"]) as mounted:
        root, kept = mounted.path(uuid).rstrip("/"), blocks(stage.keep_dir)
        done = mounted.mount.run("write_large", LARGE_LIMIT, path=f"{root}/large", root=root, size=size)
        figures, bound = done.figures, not done.finished
        found["large"] = Value(figures["count"] / 1e6 / figures["seconds"], bound)
        if "saved" in figures:
            found["large_saved"] = Value(figures["count"] / 1e6 / figures["saved"])
            found["large_cpu"] = Value(figures["cpu"] * (1 << 30) / size)
        found["large_memory"] = mounted.mount.peak_memory()
        if done.finished:
            found["large_blocks"] = Value(len(new_blocks(stage.keep_dir, kept)))
            pages = f"{root}/pages"
            mounted.mount.run("write_large", LARGE_LIMIT, path=pages, root=root, size=min(size, OVERWRITTEN))
            kept = blocks(stage.keep_dir)
            done = mounted.mount.run("overwrite", LARGE_LIMIT, path=pages, root=root, count=OVERWRITES)
            found["overwrite"] = Value(done.figures["seconds"], not done.finished)
            found["overwrite_cpu"] = Value(done.figures.get("cpu", 0.0), not done.finished)
            stored = megabytes(new_blocks(stage.keep_dir, kept))
            found["overwrite_stored"] = Value(stored, not done.finished)
    return found


def _times(key: str, done: Done) -> dict[str, Value]:
    figures, bound = done.figures, not done.finished
    found = {key: Value(figures["seconds"], bound)}
    if "saved" in figures:
        found[f"{key}_saved"] = Value(figures["saved"])
    return found


SMALL = Workload("write-small", "Writing small files", small_rows, small_run, MOUNTS)
LARGE = Workload("write-large", "Writing large files", large_rows, large_run, MOUNTS)
