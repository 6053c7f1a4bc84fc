"""One cache directory under several processes, ours and the stock SDK's, with eviction going on."""

import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faults.conftest import ProxiedKeep
from servers import LocalServer, wait_for

from arvados_fuse.keep import BlockCache, DiskStore
from arvados_fuse.keep.disk_files import SUFFIX

MIB = 1024 * 1024
BLOCKS = 48
BLOCK = 4 * MIB
LIMIT = 96 * MIB

OURS = """
import json, random, sys
from pathlib import Path
from arvados_fuse.keep import BlockCache, DiskStore, KeepService
from arvados_fuse.keep.disk_files import SUFFIX

work = json.load(sys.stdin)

class Directory:
    def keep_services(self):
        return [KeepService.from_url(url, number) for number, url in enumerate(work["services"])]
    def token(self):
        return work["token"]

content = [random.Random(number).randbytes(work["size"]) for number in range(len(work["locators"]))]
store = DiskStore(Path(work["directory"]), work["limit"])
cache = BlockCache(Directory(), store)
cache.start()
dice = random.Random(work["seed"])
for _ in range(work["reads"]):
    number = dice.randrange(len(work["locators"]))
    data = content[number]
    offset = dice.randrange(work["size"])
    length = min(dice.choice([4096, 131072, work["size"]]), work["size"] - offset)
    assert bytes(cache.read(work["locators"][number], offset, length)) == data[offset:offset + length], number
store.look_after()
store.check()
print(cache.counters.snapshot())
cache.close()
"""

STOCK = """
import json, random, sys
from arvados.keep import KeepBlockCache, KeepClient

work = json.load(sys.stdin)
block_cache = KeepBlockCache(64 * 1024 * 1024, disk_cache=True, disk_cache_dir=work["directory"])
content = [random.Random(number).randbytes(work["size"]) for number in range(len(work["locators"]))]
client = KeepClient(
    api_token=work["token"], proxy=" ".join(work["services"]), block_cache=block_cache, num_prefetch_threads=1
)
dice = random.Random(work["seed"])
for _ in range(work["reads"]):
    number = dice.randrange(len(work["locators"]))
    assert bytes(client.get(work["locators"][number])) == content[number], number
"""


def total(directory: Path) -> int:
    """Bytes of the blocks in the directory, finished or not."""
    size = 0
    for folder in os.scandir(directory):
        for name in os.listdir(folder.path):
            if name.endswith(SUFFIX):
                try:
                    size += os.stat(os.path.join(folder.path, name)).st_blocks * 512
                except FileNotFoundError:
                    continue
    return size


@pytest.fixture(scope="module")
def locators(proxied_keep: ProxiedKeep) -> list[str]:
    """Blocks whose content follows from their number, on the server."""
    return [proxied_keep.hold(random.Random(number).randbytes(BLOCK)) for number in range(BLOCKS)]


Work = dict[str, Any]


@pytest.fixture
def work(local_server: LocalServer, locators: list[str], tmp_path: Path) -> Work:
    """What the programs are told."""
    (tmp_path / "keep").mkdir(mode=0o700)
    return {
        "directory": str(tmp_path / "keep"),
        "limit": LIMIT,
        "locators": locators,
        "size": BLOCK,
        "token": local_server.settings.token,
        "services": list(local_server.settings.keep_services),
    }


@contextlib.contextmanager
def running(program: str, work: Work, **more: Any) -> Iterator["subprocess.Popen[str]"]:
    """One of the programs in a process of its own; it does not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps({**work, **more}))
        process.stdin.close()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_processes_share_a_directory_and_hold_its_limit(work: Work) -> None:
    directory = Path(work["directory"])
    most = 0
    with (
        running(OURS, work, seed=1, reads=150) as first,
        running(OURS, work, seed=2, reads=150) as second,
        running(STOCK, work, seed=3, reads=60) as stock,
    ):
        processes = (first, second, stock)
        while any(process.poll() is None for process in processes):
            most = max(most, total(directory))
            time.sleep(0.02)
        said = [process.stdout.read() for process in processes if process.stdout is not None]
        assert [process.returncode for process in processes] == [0, 0, 0], "\n".join(said)
    assert all("'cache.evicted'" in one for one in said[:2])
    # Each process sees what the others wrote after it wrote an eighth of the limit; the SDK keeps 64 MiB.
    assert most <= LIMIT + LIMIT // 2
    DiskStore(directory, LIMIT).look_after()
    assert total(directory) <= LIMIT
    check_blocks(directory)


def check_blocks(directory: Path) -> None:
    """Every file under a block's name is that block."""
    for path in directory.glob(f"*/*{SUFFIX}"):
        if not path.name.startswith("tmp"):
            assert hashlib.md5(path.read_bytes()).hexdigest() == path.name[:32]


def test_a_killed_process_leaves_nothing_wrong(work: Work) -> None:
    directory = Path(work["directory"])

    def count() -> int:
        return len(list(directory.glob(f"*/*{SUFFIX}")))

    def has(wanted: int) -> bool:
        return count() >= wanted

    for seed in range(3):
        wanted = count() + 4
        with running(OURS, work, seed=seed, reads=100000) as process:
            wait_for(partial(has, wanted), "blocks in the cache")
            process.kill()
    for path in directory.glob("*/tmp*"):
        os.utime(path, (1, 1))
    DiskStore(directory, LIMIT).look_after()
    assert list(directory.glob("*/tmp*")) == []
    check_blocks(directory)


def test_ten_thousand_blocks_do_not_delay_the_start(keep: ProxiedKeep, tmp_path: Path, block: bytes) -> None:
    directory = tmp_path / "keep"
    directory.mkdir(mode=0o700)
    for number in range(10000):
        name = f"{number * 7919:032x}"[::-1]
        (directory / name[:3]).mkdir(exist_ok=True)
        (directory / name[:3] / (name + SUFFIX)).touch()
    locator = keep.hold(block)
    store = DiskStore(directory)
    cache = BlockCache(keep, store)
    cache.start()
    try:
        assert cache.read(locator, 0, 4096) == block[:4096]
        opened = [path for path in _open_files() if path.startswith(str(directory))]
        assert len(opened) <= 2
        wait_for(lambda: store.scans, "the scan beside")
        assert len(store.blocks) <= 1
    finally:
        cache.close()


def _open_files() -> list[str]:
    paths = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            paths.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue
    return paths
