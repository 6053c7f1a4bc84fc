"""What each floor costs by itself, in process: CPU seconds of one thread, no kernel, no other program.

`python -m benchmarks.layers ours|null CACHE_DIR BLOCKS_UUID TREE_UUID`, run by the driver in a process of its
own with the environment of a mount; prints JSON. The figures hold still where the ones of whole mounts
depend on what else the machine does. `null` gives what the handlers of the null file system cost.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import llfuse

from arvados_fuse.api import ApiSettings
from arvados_fuse.cli.build import MountSession, build
from arvados_fuse.collection import Collection, File
from arvados_fuse.fuse.operations import Operations
from arvados_fuse.options import MountOptions
from benchmarks.bench import Bench, Sizes, Workload
from benchmarks.content import BLOCK
from benchmarks.null_fs import DIRECTORIES, LARGE, TREE_FILES, NullFileSystem
from benchmarks.rows import Measured, Row, Value
from benchmarks.runs import Failed, Subject
from benchmarks.shared import PROJECT

REPEATS = 5
COUNT = 20_000
BLOCKS = 4
FILES = 10_000
SMALL, LARGEST = 4096, 131072
"""Bytes that are read at once; the kernel asks for at most the larger."""

Step = Callable[[], Any]


def rows(_sizes: Sizes) -> Sequence[Row]:
    """See Workload."""
    return [
        Row("file_4k", "File.read: find the segment, 4 KiB, blocks in memory", "µs"),
        Row("cache_4k", "BlockCache.read, cached block, 4 KiB", "µs"),
        Row("filesystem_4k", "FileSystem.read, cached block, 4 KiB", "µs"),
        Row("operations_4k", "Operations.read, cached block, 4 KiB", "µs", ceiling=True),
        Row("operations_128k", "Operations.read, cached block, 128 KiB", "µs", ceiling=True),
        Row("lookup_new", "Operations.lookup of a file not looked up before", "µs", ceiling=True),
        Row("lookup_known", "Operations.lookup of a file looked up before", "µs", ceiling=True),
        Row("getattr", "Operations.getattr of a file", "µs", ceiling=True),
        Row("open_read_close", "open, read 4 KiB, release", "µs", ceiling=True),
        Row("readdir", "opendir, readdir, releasedir, for each of 100 entries", "µs", ceiling=True),
    ]


def run(bench: Bench, subject: Subject) -> Measured:
    """See Workload."""
    ids = [bench.stage.blocks(BLOCKS), bench.stage.tree(FILES)]
    cache = bench.stage.scratch / "layers"
    command = [sys.executable, "-m", "benchmarks.layers", subject.name, str(cache), *ids]
    environment = {**bench.stage.environment(), "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=PROJECT)
    if done.returncode != 0:
        raise Failed(done.stderr.strip()[-500:])
    return {key: Value(seconds * 1e6) for key, seconds in json.loads(done.stdout).items()}


def each(steps: Sequence[Step]) -> float:
    """CPU seconds of one step, the median of several passes over all of them."""
    return statistics.median(once(steps) for _ in range(REPEATS))


def once(steps: Sequence[Step]) -> float:
    """CPU seconds of one step."""
    start = time.thread_time()
    for step in steps:
        step()
    return (time.thread_time() - start) / len(steps)


def reads(read: Callable[[int, int], Any], size: int, count: int) -> Sequence[Step]:
    """Reads all over the blocks."""
    numbers = random.Random(5)
    offsets = [size * numbers.randrange(BLOCKS * BLOCK // size) for _ in range(count)]
    return [lambda offset=offset: read(offset, size) for offset in offsets]  # type: ignore[misc]


class InMemory:
    """A block store that has every block: the collection's own cost remains."""

    def __init__(self) -> None:
        self._block = memoryview(bytes(BLOCK))

    def read(self, _locator: str, offset: int, size: int) -> memoryview:
        """A view."""
        return self._block[offset : offset + size]

    def put(
        self, data: bytes | memoryview, *, storage_classes: Sequence[str] = (), file: str | None = None
    ) -> str:
        """Nothing is written here."""
        raise NotImplementedError


def collection_layer() -> dict[str, float]:
    """A file of many blocks, no cache, no server."""
    locators = " ".join(f"{number:032x}+{BLOCK}" for number in range(BLOCKS))
    collection = Collection.from_manifest(f". {locators} 0:{BLOCKS * BLOCK}:large\n", blocks=InMemory())
    file = collection.root.get("large")
    assert isinstance(file, File)
    return {"file_4k": each(reads(file.read, SMALL, COUNT))}


def kernel_layer(handlers: Any, large: int, tree: int) -> dict[str, float]:
    """The handlers that llfuse calls, with its lock held, on the inodes of a large file and a tree."""
    handle = handlers.open(large, os.O_RDONLY, None)
    for block in range(BLOCKS):  # so that blocks are cached and open
        for offset in range(0, BLOCK, LARGEST):
            handlers.read(handle, block * BLOCK + offset, LARGEST)
    found = {
        "operations_4k": each(reads(lambda at, size: handlers.read(handle, at, size), SMALL, COUNT)),
        "operations_128k": each(reads(lambda at, size: handlers.read(handle, at, size), LARGEST, 4_000)),
    }
    handlers.release(handle)
    directories = [handlers.lookup(tree, b"d%05d" % number, None).st_ino for number in range(FILES // 100)]
    pairs = [(directories[number // 100], b"f%06d" % number) for number in range(FILES)]
    for directory in directories:
        handlers.opendir(directory, None)
    random.Random(6).shuffle(pairs)
    inodes: list[int] = []
    looks: Sequence[Step] = [
        lambda pair=pair: inodes.append(handlers.lookup(*pair, None).st_ino)  # type: ignore[misc]
        for pair in pairs
    ]
    found["lookup_new"] = once(looks)
    found["lookup_known"] = each(looks)
    numbers = inodes[:FILES]
    found["getattr"] = each([lambda ino=ino: handlers.getattr(ino, None) for ino in numbers])  # type: ignore[misc]
    found["open_read_close"] = _open_read_close(handlers, numbers[:2_000])
    found["readdir"] = _readdir(handlers, directories)
    return found


def _open_read_close(handlers: Any, inodes: Sequence[int]) -> float:
    def work(ino: int) -> None:
        handle = handlers.open(ino, os.O_RDONLY, None)
        handlers.read(handle, 0, SMALL)
        handlers.release(handle)

    steps: Sequence[Step] = [lambda ino=ino: work(ino) for ino in inodes]  # type: ignore[misc]
    once(steps)
    return each(steps)


def _readdir(handlers: Any, directories: Sequence[int]) -> float:
    def work(ino: int) -> None:
        handle = handlers.opendir(ino, None)
        for _ in handlers.readdir(handle, 0):
            pass
        handlers.releasedir(handle)

    return each([lambda ino=ino: work(ino) for ino in directories]) / 100  # type: ignore[misc]


def ours(cache: Path, blocks_uuid: str, tree_uuid: str, environment: Mapping[str, str]) -> dict[str, float]:
    """All floors of this project."""
    settings = ApiSettings.load(environment)
    session: MountSession = build(MountOptions(mount_dir=cache, disk_cache_dir=cache), settings)
    try:
        session.start()
        handlers, files = Operations(session.filesystem), session.filesystem

        def find(parent: int, *names: str) -> int:
            for name in names:
                parent = handlers.lookup(parent, name.encode(), None).st_ino
            return parent

        llfuse.lock.acquire()
        by_id = find(llfuse.ROOT_INODE, "by_id")
        large, tree = find(by_id, blocks_uuid, "large"), find(by_id, tree_uuid)
        found = kernel_layer(handlers, large, tree)
        handle = files.open(large, os.O_RDONLY)
        found["filesystem_4k"] = each(reads(lambda at, size: files.read(handle, at, size), SMALL, COUNT))
        llfuse.lock.release()
        found["cache_4k"] = _cache(session, blocks_uuid)
        return found | collection_layer()
    finally:
        session.close()


def _cache(session: MountSession, uuid: str) -> float:
    context = session.filesystem.context
    record = context.api.get_collection(uuid)
    locators = str(record["manifest_text"]).split(" ")[1 : 1 + BLOCKS]
    return each(
        reads(lambda at, size: context.blocks.read(locators[at // BLOCK], at % BLOCK, size), SMALL, COUNT)
    )


def null() -> dict[str, float]:
    """The null file system's handlers."""
    options = argparse.Namespace(large=BLOCKS * BLOCK, parts=1, files=FILES, small=SMALL, flat=0)
    handlers = NullFileSystem(options)
    assert DIRECTORIES < TREE_FILES
    return kernel_layer(handlers, LARGE, handlers.lookup(llfuse.ROOT_INODE, b"tree").st_ino)


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    subject, cache, blocks_uuid, tree_uuid = arguments
    if subject == "null":
        found = null()
    else:
        Path(cache).mkdir(mode=0o700, exist_ok=True)
        found = ours(Path(cache), blocks_uuid, tree_uuid, os.environ)
    print(json.dumps(found))
    return 0


LAYERS = Workload("layers", "What each floor costs by itself (CPU, in process)", rows, run, ("ours", "null"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
