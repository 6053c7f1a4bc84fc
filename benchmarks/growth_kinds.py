"""What is measured at three sizes each; see `benchmarks.growth`.

Each kind makes what it needs on the stage, mounts ours, runs one program and gives a `Cost`.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.bench import Bench, Mounted, ours
from benchmarks.content import BLOCK
from benchmarks.processes import memory

LIMIT = 600.0
"""Seconds that one measurement may take."""
NEW = map("new{}".format, itertools.count())
"""Names of directories that are not there yet."""
CACHED = 4
"""Blocks that random pages are read from, and written to."""


class Cost(NamedTuple):
    """What one size cost. seconds: until it was saved, where something is saved; cpu: seconds of the mount;
    memory: MB of its own that it grew by."""

    size: int
    seconds: float
    cpu: float
    memory: float


class Kind(NamedTuple):
    """unit: what sizes count. figure: `cpu` or `memory` of its `Cost`, whichever is looked at."""

    title: str
    unit: str
    run: Callable[[Bench, int], Cost]
    sizes: Sequence[int]
    figure: str = "cpu"


def _walk(bench: Bench, size: int) -> Cost:
    uuid = bench.stage.tree(size)
    with bench.mounted(ours()) as mounted:
        return _cost(size, mounted, "walk", path=mounted.path(uuid))


def _stat(bench: Bench, size: int) -> Cost:
    uuid = bench.stage.tree(size)
    with bench.mounted(ours()) as mounted:
        return _cost(size, mounted, "stat_storm", path=mounted.path(uuid))


def _list(bench: Bench, size: int) -> Cost:
    uuid = bench.stage.project(size)
    with bench.mounted(ours()) as mounted:
        return _cost(size, mounted, "list_long", path=mounted.path(uuid))


def _events(bench: Bench, size: int) -> Cost:
    project, server = bench.stage.empty_project(), str(bench.stage.server.data_dir)
    with bench.mounted(ours()) as mounted:
        path = mounted.path(project)
        return _cost(size, mounted, "many_changes", server=server, project=project, path=path, count=size)


def _read(bench: Bench, size: int) -> Cost:
    uuid = bench.stage.blocks(size)
    with bench.mounted(ours()) as mounted:
        return _cost(size, mounted, "sequential", path=mounted.path(uuid, "large"), content="stored")


def _read_pages(bench: Bench, size: int) -> Cost:
    uuid, cache = bench.stage.blocks(CACHED), bench.caches.fresh()
    try:
        with bench.mounted(ours(), cache) as mounted:  # so that the blocks are cached
            mounted.mount.run("sequential", LIMIT, path=mounted.path(uuid, "large"), content="stored")
        with bench.mounted(ours(), cache) as mounted:
            arguments = {"path": mounted.path(uuid, "large"), "blocks": CACHED, "content": "stored"}
            return _cost(size, mounted, "random_reads", count=size, **arguments)
    finally:
        bench.caches.drop(cache)


def _write(bench: Bench, size: int) -> Cost:
    return _written(bench, bench.stage.empty(), "write_small", size, count=size)


def _untar(bench: Bench, size: int) -> Cost:
    return _written(bench, bench.stage.empty(), "untar", size, count=size)


def _write_large(bench: Bench, size: int) -> Cost:
    return _written(bench, bench.stage.empty(), "write_large", size, size=size * BLOCK)


def _save_one(bench: Bench, size: int) -> Cost:
    return _written(bench, bench.stage.tree(size), "write_small", size, count=1)


def _written(bench: Bench, uuid: str, load: str, number: int, **arguments: int) -> Cost:
    with bench.mounted(ours(), options=["--read-write"]) as mounted:
        root = mounted.path(uuid).rstrip("/")
        return _cost(number, mounted, load, path=f"{root}/{next(NEW)}", root=root, **arguments)


def _overwrite(bench: Bench, size: int) -> Cost:
    uuid = bench.stage.empty()
    with bench.mounted(ours(), options=["--read-write"]) as mounted:
        root = mounted.path(uuid).rstrip("/")
        file = {"path": f"{root}/large", "root": root}
        mounted.mount.run("write_large", LIMIT, size=CACHED * BLOCK, **file)
        return _cost(size, mounted, "overwrite", count=size, **file)


def _cost(number: int, mounted: Mounted, load: str, **arguments: object) -> Cost:
    pid = mounted.mount.pid
    before = memory(pid)["own"]
    figures = mounted.mount.run(load, LIMIT, **arguments).whole
    grown = (memory(pid)["own"] - before) / 1e6
    return Cost(number, figures.get("saved", figures["seconds"]), figures["cpu"], grown)


TREES = (10_000, 30_000, 100_000)
KINDS: Sequence[Kind] = (
    Kind("find over a collection", "files", _walk, TREES),
    Kind("memory after find", "files", _walk, TREES, "memory"),
    Kind("stat, names listed before", "files", _stat, (3_000, 10_000, 30_000)),
    Kind("ls -l of a project", "collections", _list, (300, 1_000, 3_000)),
    Kind("changes made elsewhere", "collections", _events, (100, 300, 1_000)),
    Kind("cold blocks read in order", "blocks", _read, (4, 8, 16)),
    Kind("random pages, blocks cached", "pages", _read_pages, (3_000, 10_000, 30_000)),
    Kind("small files written", "files", _write, (300, 1_000, 3_000)),
    Kind("a tar unpacked", "files", _untar, (300, 1_000, 3_000)),
    Kind("one large file written", "blocks", _write_large, (2, 4, 8)),
    Kind("pages written anywhere, fsync", "pages", _overwrite, (1_000, 3_000, 9_000)),
    Kind("one file saved in a collection", "files", _save_one, TREES),
)
