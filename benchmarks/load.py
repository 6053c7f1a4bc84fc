"""The programs that use a mount while it is measured; each run is a process of its own that can be given up.

`python -m benchmarks.load NAME ARGUMENTS_AS_JSON`, run by `benchmarks.runs`. Prints JSON objects, one to a
line: `{"progress": n}` now and then, and at the end the figures: `seconds`, `cpu` (seconds of the process
that serves the mount), `count` and what else it has. What is read is compared with what was stored: a fast
wrong answer is a failure.
"""

import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.content import BLOCK, CONTENTS, PIECE, SMALL_FILE
from benchmarks.event_load import latency, many_changes
from benchmarks.run_clock import Run, Wrong
from benchmarks.write_load import overwrite, untar, write_large, write_small

Figures = dict[str, Any]

READY_POLL = 0.002
"""Seconds between two looks at a mount that is starting."""
PAGE = 4096


def ready(path: str) -> Figures:
    """Wait until `path` is there; when that was, on the machine's monotonic clock."""
    print(json.dumps({"progress": 0}), flush=True)
    while True:
        try:
            os.stat(path)
            return {"seconds": 0.0, "count": 1, "at": time.monotonic()}
        except OSError:
            time.sleep(READY_POLL)


def read_whole(path: str, first_block: int, content: str) -> int:
    """Read one file from end to end in pieces of 1 MiB; its bytes."""
    buffer, expected, total = bytearray(PIECE), CONTENTS[content].at, 0
    ordinary = expected(PIECE, PIECE)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while got := os.readv(descriptor, [buffer]):
            place = total + first_block * BLOCK
            wanted = ordinary if place % BLOCK else expected(place, PIECE)
            if got != PIECE or buffer != wanted:
                raise Wrong(f"{path} at {total}: other bytes than stored")
            total += got
    finally:
        os.close(descriptor)
    return total


def sequential(pid: int, path: str, content: str) -> Figures:
    """One reader, one file."""
    run = Run(pid)
    return run.done(1, bytes=read_whole(path, 0, content))


def parallel(pid: int, paths: Sequence[str], blocks_each: int, content: str) -> Figures:
    """One reader for each file, all at once."""
    totals: list[int] = []

    def reader(number: int, path: str) -> None:
        totals.append(read_whole(path, number * blocks_each, content))

    threads = [threading.Thread(target=reader, args=pair) for pair in enumerate(paths)]
    run = Run(pid)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(totals) != len(paths):
        raise Wrong("a reader failed")
    return run.done(len(paths), bytes=sum(totals))


def reads_at(pid: int, path: str, offsets: Sequence[int], size: int, content: str) -> Figures:
    """Single reads at these offsets, in this order, with the kernel's read-ahead switched off.

    `first`: seconds of the first one.
    """
    first, expected = 0.0, CONTENTS[content].at
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        run = Run(pid)
        for number, offset in enumerate(offsets, 1):
            data = os.pread(descriptor, size, offset)
            if data != expected(offset, size):
                raise Wrong(f"{path} at {offset}: other bytes than stored")
            first = first or time.perf_counter() - run.start
            run.at(number)
        return run.done(len(offsets), first=first)
    finally:
        os.close(descriptor)


def touch(pid: int, path: str, blocks: int, content: str) -> Figures:
    """One page in each block."""
    numbers = random.Random(7)
    offsets = [block * BLOCK + PAGE * numbers.randrange(1, BLOCK // PAGE) for block in range(blocks)]
    return reads_at(pid, path, offsets, PAGE, content)


def random_reads(pid: int, path: str, blocks: int, count: int, content: str) -> Figures:
    """`count` pages anywhere, none twice: the second time it would come from the kernel."""
    pages = random.Random(8).sample(range(blocks * BLOCK // PAGE), count)
    return reads_at(pid, path, [PAGE * page for page in pages], PAGE, content)


def walk(pid: int, path: str) -> Figures:
    """`find`: every directory listed, nothing else asked about files. `first`: seconds of the first
    listing."""
    count, first, waiting = 0, 0.0, [path]
    run = Run(pid)
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                count += 1
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
        first = first or time.perf_counter() - run.start
        run.at(count, first=first)
    return run.done(count, first=first)


def list_long(pid: int, path: str) -> Figures:
    """`ls -l`: one directory, every entry's attributes."""
    run, count = Run(pid), 0
    for name in sorted(os.listdir(path)):
        os.lstat(f"{path}/{name}")
        count += 1
        run.at(count)
    return run.done(count)


def misses(pid: int, path: str, count: int) -> Figures:
    """One name that is not there, again and again."""
    run = Run(pid)
    for number in range(count):
        if os.path.exists(path):
            raise Wrong(f"{path} is there")
        run.at(number)
    return run.done(count)


def _below(path: str) -> list[str]:
    """All files two levels down, in order; lists the directories."""
    return [
        f"{path}/{directory}/{name}"
        for directory in sorted(os.listdir(path))
        for name in sorted(os.listdir(f"{path}/{directory}"))
    ]


def stat_storm(pid: int, path: str) -> Figures:
    """The attributes of every file two levels down, directories listed beforehand."""
    names, count = _below(path), 0
    random.Random(3).shuffle(names)
    run = Run(pid)
    for name in names:
        os.stat(name)
        count += 1
        run.at(count)
    return run.done(count)


def small_files(pid: int, path: str, content: str) -> Figures:
    """Open, read and close every file two levels down, directories listed beforehand."""
    names, count, expected = _below(path), 0, CONTENTS[content].small
    run = Run(pid)
    for name in names:
        descriptor = os.open(name, os.O_RDONLY)
        data = os.read(descriptor, 2 * SMALL_FILE)
        os.close(descriptor)
        if data != expected(count):
            raise Wrong(f"{name}: other bytes than stored")
        count += 1
        run.at(count)
    return run.done(count)


LOADS: dict[str, Callable[..., Figures]] = {
    each.__name__: each
    for each in (
        ready,
        sequential,
        parallel,
        reads_at,
        touch,
        random_reads,
        walk,
        list_long,
        misses,
        stat_storm,
        small_files,
        write_small,
        untar,
        write_large,
        overwrite,
        latency,
        many_changes,
    )
}


def main(name: str, arguments: str) -> int:
    """Run one and print its figures."""
    try:
        print(json.dumps(LOADS[name](**json.loads(arguments))), flush=True)
    except (OSError, Wrong) as error:
        print(f"{Path(sys.argv[0]).name} {name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
