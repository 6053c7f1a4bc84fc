"""One cache directory under several processes, ours and the stock SDK's, with eviction going on all the time."""

import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

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

store = DiskStore(Path(work["directory"]), work["limit"])
cache = BlockCache(Directory(), store)
cache.start()
dice = random.Random(work["seed"])
for _ in range(work["reads"]):
    number = dice.randrange(len(work["locators"]))
    data = random.Random(number).randbytes(work["size"])
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
client = KeepClient(
    api_token=work["token"], proxy=" ".join(work["services"]), block_cache=block_cache, num_prefetch_threads=1
)
dice = random.Random(work["seed"])
for _ in range(work["reads"]):
    number = dice.randrange(len(work["locators"]))
    assert bytes(client.get(work["locators"][number])) == random.Random(number).randbytes(work["size"]), number
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


def test_processes_share_a_directory_and_hold_its_limit(
    local_server: LocalServer, locators: list[str], tmp_path: Path
) -> None:
    import json

    directory = tmp_path / "keep"
    directory.mkdir(mode=0o700)
    work = {
        "directory": str(directory),
        "limit": LIMIT,
        "locators": locators,
        "size": BLOCK,
        "token": local_server.settings.token,
        "services": list(local_server.settings.keep_services),
    }
    processes = []
    for seed, program in enumerate((OURS, OURS, STOCK)):
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps({**work, "seed": seed, "reads": 150 if program is OURS else 60}))
        process.stdin.close()
        processes.append(process)
    most = 0
    try:
        while any(process.poll() is None for process in processes):
            most = max(most, total(directory))
            time.sleep(0.02)
        said = [process.stdout.read() for process in processes if process.stdout is not None]
    finally:
        for process in processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
    assert [process.returncode for process in processes] == [0, 0, 0], "\n".join(said)
    # Each process sees what the others wrote after an eighth of the limit of its own; the SDK keeps 64 MiB open.
    assert most <= LIMIT + LIMIT // 2
    store = DiskStore(directory, LIMIT)
    store.look_after()
    assert total(directory) <= LIMIT
    for path in directory.glob(f"*/*{SUFFIX}"):
        if not path.name.startswith("tmp"):
            assert hashlib.md5(path.read_bytes()).hexdigest() == path.name[:32]


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


def test_a_killed_process_leaves_nothing_wrong(
    local_server: LocalServer, locators: list[str], tmp_path: Path
) -> None:
    import json

    directory = tmp_path / "keep"
    work = {
        "directory": str(directory),
        "limit": LIMIT,
        "locators": locators,
        "size": BLOCK,
        "token": local_server.settings.token,
        "services": list(local_server.settings.keep_services),
    }
    for seed in range(3):
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", OURS], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps({**work, "seed": seed, "reads": 100000}))
        process.stdin.close()
        wanted = (seed + 1) * 5
        wait_for(lambda: len(list(directory.glob(f"*/*{SUFFIX}"))) >= wanted, "blocks in the cache")
        process.kill()
        process.wait()
    for path in directory.glob("*/tmp*"):
        os.utime(path, (1, 1))
    DiskStore(directory, LIMIT).look_after()
    assert list(directory.glob("*/tmp*")) == []
    for path in directory.glob(f"*/*{SUFFIX}"):
        assert hashlib.md5(path.read_bytes()).hexdigest() == path.name[:32]
