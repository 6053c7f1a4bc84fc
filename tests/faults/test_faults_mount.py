"""What happens to blocks and to the cache, as programs on a mount meet it: right bytes or an error."""

import hashlib
import json
import os
import random
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from faults.conftest import ProxiedKeep
from faults.proxy import Fault
from faults.test_faults_fetch import FAULTS
from faults.test_faults_shared import check_blocks, total
from mounting import Mounted, mounted, needs_fuse
from servers import LocalServer, StockClients
from worlds import Maker, environment

from arvados_fuse.keep.disk_files import block_path
from arvados_fuse.keep.dispatch import CARRIERS
from arvados_fuse.keep.store import SMALLEST_LIMIT

pytestmark = needs_fuse

MIB = 1024 * 1024
QUICK = [name for name in FAULTS if not name.startswith("hang")] + ["hang-middle"]
"""A hang takes its 15 seconds: one position stands for all, the others are tried without a kernel."""


class Stage:
    """A mount whose way to Keep is through the proxies, and files on it."""

    def __init__(self, mount: Mounted, keep: ProxiedKeep, cache: Path) -> None:
        self.mount = mount
        self.keep = keep
        self._cache = cache
        self._maker = Maker(keep.server, keep.server.settings.token)

    def file(self, data: bytes) -> Path:
        """A file of one block, not cached; both services have the block."""
        self.keep.hold(data)
        return self.files({"file": data}) / "file"

    def files(self, contents: dict[str, bytes]) -> Path:
        """A directory of such files; one service has the blocks."""
        made = self._maker.collection(secrets.token_hex(8), contents)
        return self.mount.root / str(made["portable_data_hash"])

    def cached(self, data: bytes) -> Path:
        """Where the block is in the cache."""
        return Path(block_path(self._cache, hashlib.md5(data).hexdigest()))


@pytest.fixture(scope="module")
def module_stage(proxied_keep: ProxiedKeep, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    base = tmp_path_factory.mktemp("mount")
    urls = " ".join(f"http://127.0.0.1:{proxy.port}/" for proxy in proxied_keep.proxies.values())
    server = proxied_keep.server
    told = {**environment(server, server.settings.token), "ARVADOS_KEEP_SERVICES": urls}
    with mounted(base, told, "--by-pdh") as mount:
        yield Stage(mount, proxied_keep, base / "cache")


@pytest.fixture
def stage(module_stage: Stage, keep: ProxiedKeep) -> Stage:
    """Without faults at first."""
    return module_stage


@pytest.fixture
def data() -> bytes:
    """Bytes that no other test has."""
    return secrets.token_bytes(3 * MIB + 11)


def outcome(path: Path) -> bytes | None:
    """What a program gets that reads the whole file; None when it gets an error."""
    try:
        return path.read_bytes()
    except OSError:
        return None


@pytest.mark.parametrize("name", QUICK)
def test_a_program_gets_the_right_bytes_or_an_error(stage: Stage, data: bytes, name: str) -> None:
    path = stage.file(data)
    first = stage.keep.order(f"{hashlib.md5(data).hexdigest()}")[0]
    first.set(FAULTS[name])
    found = outcome(path)
    # What went by before its check may have been wrong: then the program is told, at the latest at the end.
    assert found == data or (found is None and name.startswith("wrong"))
    stage.keep.clear()
    assert outcome(path) == data


def test_a_file_in_the_cache_that_is_cut_while_it_is_read(stage: Stage, data: bytes) -> None:
    path = stage.file(data)
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(file.fileno(), 4096, len(data) - 4096) == data[-4096:]
        os.truncate(stage.cached(data), 1000)
        assert os.pread(file.fileno(), 4096, MIB) == data[MIB : MIB + 4096]
    assert path.read_bytes() == data
    assert stage.cached(data).read_bytes() == data


def test_a_file_in_the_cache_that_vanishes_while_it_is_read(stage: Stage, data: bytes) -> None:
    path = stage.file(data)
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(file.fileno(), 4096, len(data) - 4096) == data[-4096:]
        stage.cached(data).unlink()
        assert os.pread(file.fileno(), 4096, MIB) == data[MIB : MIB + 4096]
    assert path.read_bytes() == data


def test_200_readers_at_once(stage: Stage) -> None:
    """Each of its own file and block, over a line that keeps them all waiting."""
    chance = random.Random(200)
    contents = {f"file{number}": chance.randbytes(200_000) for number in range(200)}
    root = stage.files(contents)
    paths = [root / name for name in contents]
    for proxy in stage.keep.proxies.values():
        proxy.set(Fault(latency=0.3))
    process = Path(f"/proc/{stage.mount.process.pid}")
    before = _count(process / "task"), _count(process / "fd")
    wrong: list[Path] = []

    def read(path: Path, right: bytes) -> None:
        if path.read_bytes() != right:
            wrong.append(path)

    threads = [
        threading.Thread(target=read, args=pair) for pair in zip(paths, contents.values(), strict=True)
    ]
    for thread in threads:
        thread.start()
    most_threads = most_files = 0
    while any(thread.is_alive() for thread in threads):
        most_threads = max(most_threads, _count(process / "task"))
        most_files = max(most_files, _count(process / "fd"))
        time.sleep(0.01)
    assert wrong == []
    assert most_threads <= before[0] + CARRIERS
    # A connection and a file for each thread that fetches, the cache files open, and some for the API.
    assert most_files <= before[1] + 2 * CARRIERS + len(paths) + 20
    assert stage.mount.memory() < 150 * MIB


def _count(folder: Path) -> int:
    return len(os.listdir(folder))


BLOCKS = 40
SIZE = 4 * MIB

STOCK = """
import json, random, sys
from arvados.keep import KeepBlockCache, KeepClient

work = json.load(sys.stdin)
cache = KeepBlockCache(64 * 1024 * 1024, disk_cache=True, disk_cache_dir=work["directory"])
client = KeepClient(
    api_token=work["token"], proxy=" ".join(work["services"]), block_cache=cache, num_prefetch_threads=1
)
dice = random.Random(3)
for _ in range(40):
    number = dice.randrange(len(work["locators"]))
    right = random.Random(number).randbytes(work["size"])
    assert bytes(client.get(work["locators"][number])) == right, number
"""


def test_two_mounts_and_the_stock_sdk_share_a_cache_that_evicts(
    local_server: LocalServer, stock: StockClients, tmp_path: Path
) -> None:
    maker = Maker(local_server, local_server.settings.token)
    contents = [random.Random(number).randbytes(SIZE) for number in range(BLOCKS)]
    locators = [maker.block(one) for one in contents]
    text = f". {' '.join(locators)} 0:{BLOCKS * SIZE}:large\n"
    pdh = maker.make("collections", name=secrets.token_hex(8), manifest_text=text)["portable_data_hash"]
    cache = tmp_path / "cache"
    options = ("--by-pdh", "--disk-cache-dir", str(cache), "--file-cache", str(SMALLEST_LIMIT))
    told = environment(local_server, maker.token)
    failures: list[str] = []
    most = 0

    def read(root: Path, seed: int) -> None:
        dice = random.Random(seed)
        try:
            with open(root / pdh / "large", "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                for _ in range(40):
                    number, offset = dice.randrange(BLOCKS), dice.randrange(SIZE)
                    length = min(dice.choice([4096, MIB, SIZE]), SIZE - offset)
                    found = os.pread(file.fileno(), length, number * SIZE + offset)
                    if found != contents[number][offset : offset + length]:
                        failures.append(f"{root}: block {number} at {offset}")
        except OSError as error:
            failures.append(f"{root}: {error}")

    def sdk() -> None:
        work = {
            "directory": str(cache),
            "locators": locators,
            "size": SIZE,
            "token": maker.token,
            "services": list(local_server.settings.keep_services),
        }
        failures.extend(_run_stock(stock, work))

    with mounted(tmp_path, told, *options) as one, mounted(tmp_path, told, *options) as other:
        programs: list[Callable[[], None]] = [sdk]
        programs += [partial(read, mount.root, seed) for mount in (one, other) for seed in (1, 2)]
        threads = [threading.Thread(target=program) for program in programs]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            most = max(most, total(cache))
            time.sleep(0.02)
        assert failures == []
        for mount in (one, other):
            assert "WARNING" not in mount.log, mount.log
    # Each sees what the others wrote after it wrote an eighth of the limit, or after a minute.
    assert SMALLEST_LIMIT // 2 < most <= 2 * SMALLEST_LIMIT
    check_blocks(cache)


def _run_stock(stock: StockClients, work: dict[str, object]) -> list[str]:
    done = subprocess.run(
        [str(stock.python), "-W", "ignore", "-c", STOCK],
        input=json.dumps(work),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return [] if done.returncode == 0 else [done.stderr]
