"""Names and attributes: large collections, projects with many collections, many small files."""

import functools
from collections.abc import Sequence
from typing import Any

from benchmarks.bench import Bench, Sizes, Workload
from benchmarks.rows import NEAR_NULL, Measured, Row, Value
from benchmarks.runs import Subject
from benchmarks.stage import SMALL_FILES

LIMIT = 180.0
"""Seconds that a listing of a project, or a storm of questions, may take."""
THREADS = (1, 2, 48)
"""Of the null file system: what it costs that requests go from thread to thread."""


def walk_rows(files: int, sizes: Sizes) -> Sequence[Row]:
    """See Workload."""
    large = files >= 100_000
    return [
        Row("first", f"first listing in a collection of {files:,} files", "s", ceiling=True),
        Row("walk", f"find over all of it (at most {sizes.walk_limit:.0f} s)", "s", ceiling=True),
        Row("memory", "  most memory of the mount", "MB"),
        *([] if large else [Row("requests", "  API requests", "requests")]),
    ]


def walk_run(files: int, bench: Bench, subject: Subject) -> Measured:
    """See Workload."""
    uuid, limit = bench.stage.tree(files), bench.sizes.walk_limit
    mark = bench.stage.api_mark()
    with bench.mounted(subject, null_files=files) as mounted:
        path = mounted.path(uuid, null="tree")
        ready_requests = bench.stage.api_requests(mark)
        done = mounted.mount.run("walk", limit, path=path)
        found = {"walk": Value(done.figures["seconds"], bound=not done.finished)}
        found["memory"] = mounted.mount.peak_memory()._replace(bound=not done.finished)
        requests = bench.stage.api_requests(mark)
        if requests is not None and ready_requests is not None:
            found["requests"] = Value(requests - ready_requests, bound=not done.finished)
        if done.figures.get("first"):
            found["first"] = Value(done.figures["first"])
        if not done.finished:
            bench.note(
                f"{subject.name}: find over {files:,} files was given up after {limit:.0f} s, "
                f"at {done.figures['count']:,} names"
            )
    return found


def project_rows(sizes: Sizes) -> Sequence[Row]:
    """See Workload."""
    count = f"{sizes.collections:,}"
    return [
        Row("misses", f"{sizes.misses:,} lookups of one name that is not there", "s"),
        Row("misses_requests", "  API requests", "requests"),
        Row("first", f"ls -l of a project of {count} collections", "s", aim=2, ceiling=True),
        Row("first_requests", "  API requests", "requests", most=12),
        Row("second", "the same again at once", "s", ceiling=True),
        Row("second_requests", "  API requests", "requests", most=0),
        Row("memory", "  most memory of the mount", "MB"),
    ]


def project_run(bench: Bench, subject: Subject) -> Measured:
    """See Workload."""
    uuid, stage = bench.stage.project(bench.sizes.collections), bench.stage
    found = {}
    with bench.mounted(subject) as mounted:
        path = mounted.path(uuid, null="flat")
        listing = {"path": path}
        steps: list[tuple[str, str, dict[str, Any]]] = [
            ("misses", "misses", {"path": f"{path}/nothing", "count": bench.sizes.misses}),
            ("first", "list_long", listing),
            ("second", "list_long", listing),
        ]
        for key, load, arguments in steps:
            if subject.name == "null" and key == "misses":
                continue
            mark = stage.api_mark()
            done = mounted.mount.run(load, LIMIT, **arguments)
            found[key] = Value(done.figures["seconds"], bound=not done.finished)
            requests = stage.api_requests(mark)
            if requests is not None:
                found[f"{key}_requests"] = Value(requests)
        found["memory"] = mounted.mount.peak_memory()
    return found


def files_rows(sizes: Sizes) -> Sequence[Row]:
    """See Workload."""
    title = f"open, read, close {SMALL_FILES:,} small files, blocks cached"
    storm = f"stat of {sizes.storm:,} files, names listed before"
    return [
        Row("small", title, "1/s", aim=2, ceiling=True),
        Row("small_cpu", "  CPU of the mount for 10,000 of them", "s", ceiling=True),
        Row("stat", storm, "1/s", aim=1, ceiling=True, near=NEAR_NULL),
        Row("stat_cpu", "  CPU of the mount for it", "s", ceiling=True),
        Row("stat_again", "the same again, from the kernel's cache", "1/s", ceiling=True),
    ]


def files_run(bench: Bench, subject: Subject) -> Measured:
    """See Workload."""
    small, tree = bench.stage.small_files(), bench.stage.tree(bench.sizes.storm)
    content, cache = subject.content, bench.caches.fresh()
    found = {}
    try:
        if content == "stored":
            with bench.mounted(subject, cache) as mounted:  # so that the blocks are cached
                mounted.mount.run("small_files", LIMIT, path=mounted.path(small), content=content)
        with bench.mounted(subject, cache, null_files=SMALL_FILES) as mounted:
            mount, path = mounted.mount, mounted.path(small, null="tree")
            done = mount.run("small_files", LIMIT, path=path, content=content)
            found["small"] = Value(done.whole["count"] / done.whole["seconds"])
            found["small_cpu"] = Value(done.whole["cpu"] * 10_000 / done.whole["count"])
        with bench.mounted(subject, cache, null_files=bench.sizes.storm) as mounted:
            path = mounted.path(tree, null="tree")
            for key in ("stat", "stat_again"):
                done = mounted.mount.run("stat_storm", LIMIT, path=path)
                found[key] = Value(done.whole["count"] / done.whole["seconds"])
                if key == "stat":
                    found["stat_cpu"] = Value(done.whole["cpu"])
    finally:
        bench.caches.drop(cache)
    return found


def threads_rows(sizes: Sizes) -> Sequence[Row]:
    """See Workload."""
    titles = [f"stat of {sizes.storm:,} files, {count} thread{'s' * (count > 1)}" for count in THREADS]
    return [Row(f"stat_{count}", title, "1/s") for count, title in zip(THREADS, titles, strict=True)]


def threads_run(bench: Bench, subject: Subject) -> Measured:
    """See Workload."""
    found = {}
    for count in THREADS:
        with bench.mounted(
            subject, null_files=bench.sizes.storm, null_options=["--workers", str(count)]
        ) as mounted:
            done = mounted.mount.run("stat_storm", LIMIT, path=mounted.path("", null="tree"))
            found[f"stat_{count}"] = Value(done.whole["count"] / done.whole["seconds"])
    return found


WALKS = tuple(
    Workload(
        f"walk-{files}",
        f"A collection of {files:,} files",
        functools.partial(walk_rows, files),
        functools.partial(walk_run, files),
        quick=files <= 100_000,
    )
    for files in (10_000, 100_000, 1_000_000)
)
PROJECT = Workload("project", "Projects", project_rows, project_run)
THREADING = Workload("threads", "Threads of a mount that does nothing", threads_rows, threads_run, ("null",))
FILES = Workload("files", "Small files", files_rows, files_run)
