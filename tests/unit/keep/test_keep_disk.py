"""The cache on disk: the shared layout and its locks, found files, damage, eviction, bad days."""

import errno
import fcntl
import hashlib
import multiprocessing
import os
import random
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.keep.keep_peer import Cluster

from arvados_fuse.keep import BlockCache, DiskStore, disk_files, disk_keeper
from arvados_fuse.keep.disk_files import SUFFIX

MIB = 1024 * 1024
BLOCK = random.Random(5).randbytes(MIB + 5)
MD5 = hashlib.md5(BLOCK).hexdigest()

MakeCache = Callable[..., BlockCache]


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition, at most 20 seconds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def path_of(directory: Path, locator: str) -> Path:
    """Where the shared layout has the block."""
    return directory / locator[:3] / (locator[:32] + ".keepcacheblock")


def plant(directory: Path, data: bytes) -> Path:
    """Put a block file there as another tool would; returns its path."""
    path = path_of(directory, hashlib.md5(data).hexdigest())
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def sizes(directory: Path) -> int:
    """Bytes in all cache files."""
    return sum(path.stat().st_size for path in directory.glob("*/*"))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "keep"


def test_layout_and_modes(cluster: Cluster, make_cache: MakeCache, directory: Path) -> None:
    locator = cluster.hold(BLOCK)
    cache = make_cache(DiskStore(directory))
    cache.read(locator, 0, len(BLOCK))
    path = path_of(directory, locator)
    assert path.read_bytes() == BLOCK
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert list(directory.glob("*/tmp*")) == []


def test_nothing_has_the_final_name_before_the_check(
    cluster: Cluster, make_cache: MakeCache, directory: Path
) -> None:
    locator = cluster.hold(BLOCK)
    for peer in cluster:
        peer.blocks[locator[:32]] = BLOCK[:-1] + b"x"
    cache = make_cache(DiskStore(directory), retries=0)
    with pytest.raises(Exception, match="hash check"):
        cache.read(locator, 0, len(BLOCK))
    wait_until(lambda: list(directory.glob("*/*")) == [], "files are left")


def test_a_block_that_another_tool_left_is_hashed_and_used(
    cluster: Cluster, make_cache: MakeCache, directory: Path
) -> None:
    plant(directory, BLOCK)
    cache = make_cache(DiskStore(directory))
    locator = f"{hashlib.md5(BLOCK).hexdigest()}+{len(BLOCK)}"
    assert cache.read(locator, 7, 70) == BLOCK[7:77]
    assert cache.read(locator, 0, len(BLOCK)) == BLOCK
    assert all(not peer.requests for peer in cluster)


@pytest.mark.parametrize("position", [0, len(BLOCK) // 2, len(BLOCK) - 1])
def test_a_damaged_file_is_never_served(
    cluster: Cluster, make_cache: MakeCache, directory: Path, position: int
) -> None:
    locator = cluster.hold(BLOCK)
    bad = bytearray(BLOCK)
    bad[position] ^= 1
    path = path_of(directory, locator)
    path.parent.mkdir(parents=True)
    path.write_bytes(bad)
    cache = make_cache(DiskStore(directory))
    assert cache.read(locator, position, 1) == BLOCK[position : position + 1]
    assert cache.read(locator, 0, len(BLOCK)) == BLOCK
    assert path.read_bytes() == BLOCK
    assert cache.counters.get("cache.damaged") == 1


@pytest.mark.parametrize("data", [b"", BLOCK[:-1], BLOCK + b"x"])
def test_a_file_of_a_wrong_length_is_never_served(
    cluster: Cluster, make_cache: MakeCache, directory: Path, data: bytes
) -> None:
    locator = cluster.hold(BLOCK)
    path_of(directory, locator).parent.mkdir(parents=True)
    path_of(directory, locator).write_bytes(data)
    cache = make_cache(DiskStore(directory))
    assert cache.read(locator, 0, 10) == BLOCK[:10]
    assert cache.read(locator, 0, len(BLOCK)) == BLOCK


def damage(path: Path, how: str) -> None:
    """What a disk, an administrator or another program may do to a cache file."""
    if how == "removed":
        path.unlink()
    elif how == "truncated":
        os.truncate(path, 1000)
    elif how == "emptied":
        os.truncate(path, 0)
    elif how == "replaced":
        path.unlink()
        path.write_bytes(b"x" * len(BLOCK))
    elif how == "directory":
        path.unlink()
        path.mkdir()
    elif how == "link":
        path.unlink()
        path.symlink_to("/etc/passwd")
    else:
        with open(path, "r+b") as file:
            file.seek(500)
            file.write(bytes([BLOCK[500] ^ 0x10]))


DAMAGE = ["removed", "truncated", "emptied", "replaced", "directory", "link", "flipped"]


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("while_open", [True, False])
def test_what_happens_to_a_file_later_harms_nobody(
    cluster: Cluster, make_cache: MakeCache, directory: Path, how: str, while_open: bool
) -> None:
    locator = cluster.hold(BLOCK)
    cache = make_cache(DiskStore(directory))
    assert cache.read(locator, 0, len(BLOCK)) == BLOCK
    if not while_open:
        cache.close()
        cache = make_cache(DiskStore(directory))
    damage(path_of(directory, locator), how)
    for offset in (0, 400, len(BLOCK) - 200):
        assert cache.read(locator, offset, 200) == BLOCK[offset : offset + 200]
    assert cache.read(locator, 0, len(BLOCK)) == BLOCK


def test_a_checked_file_is_not_hashed_again_unless_it_changed(
    cluster: Cluster, make_cache: MakeCache, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locator = cluster.hold(BLOCK)
    make_cache(DiskStore(directory)).read(locator, 0, 1)
    path = path_of(directory, locator)
    wait_until(path.exists, "not stored")
    content = disk_files.open_block(directory, locator[:32])
    assert content is not None
    if not disk_files.is_checked(content):
        pytest.skip("this file system keeps no user attributes")
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    assert not disk_files.is_checked(disk_files.open_block(directory, locator[:32]) or content)
    disk_files.mark_checked(content.identify())
    assert disk_files.is_checked(content)
    # Another boot, or a check too long ago: hash it again.
    later = time.time() + disk_files.TRUST_SECONDS + 1
    monkeypatch.setattr("arvados_fuse.keep.disk_files.time.time", lambda: later)
    assert not disk_files.is_checked(content)
    monkeypatch.undo()
    monkeypatch.setattr("arvados_fuse.keep.disk_files._boot_id", lambda: b"x" * 16)
    assert not disk_files.is_checked(content)


def test_leftovers_are_removed_but_not_what_is_being_written(
    cluster: Cluster, make_cache: MakeCache, directory: Path
) -> None:
    (directory / "abc").mkdir(parents=True)
    names = {name: directory / "abc" / f"tmp{name}{SUFFIX}" for name in ("old", "new", "locked")}
    for path in names.values():
        path.write_bytes(b"x")
    for name in ("old", "locked"):
        os.utime(names[name], (1, 1))
    foreign = directory / "abc" / "notes.txt"
    foreign.write_text("mine")
    with open(names["locked"]) as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        store = DiskStore(directory)
        make_cache(store)
        wait_until(lambda: store.scans, "no scan")
    assert not names["old"].exists()
    assert names["new"].exists()
    assert names["locked"].exists()
    assert foreign.exists()


def test_starting_reads_no_directory(
    cluster: Cluster, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    scan = disk_files.scan

    def slow_scan(where: Path) -> Any:
        gate.wait(20)
        return scan(where)

    monkeypatch.setattr("arvados_fuse.keep.disk_files.scan", slow_scan)
    plant(directory, BLOCK)
    other = cluster.hold(b"other" * 1000)
    cache = BlockCache(cluster, DiskStore(directory))
    cache.start()
    # Both a block that is there and one that is not can be read while the scan has not even begun.
    assert cache.read(f"{hashlib.md5(BLOCK).hexdigest()}+{len(BLOCK)}", 0, 5) == BLOCK[:5]
    assert cache.read(other, 0, 5) == b"other"
    gate.set()
    cache.close()


def test_found_files_count_and_the_longest_unused_go_first(
    cluster: Cluster, make_cache: MakeCache, directory: Path
) -> None:
    found = [bytes([number]) * (10 * MIB) for number in range(10)]
    for number, data in enumerate(found):
        path = plant(directory, data)
        os.utime(path, (1000 + number, 1000))
    store = DiskStore(directory, 64 * MIB)
    make_cache(store)
    wait_until(lambda: store.scans, "no scan")
    store.check()
    there = {path.name[:32] for path in directory.glob("*/*")}
    assert there == {hashlib.md5(data).hexdigest() for data in found[4:]}


def test_files_in_use_by_another_process_stay(
    cluster: Cluster, make_cache: MakeCache, directory: Path
) -> None:
    kept, dropped = (plant(directory, bytes([number]) * (40 * MIB)) for number in (1, 2))
    os.utime(kept, (1000, 1000))
    holding, done = multiprocessing.Event(), multiprocessing.Event()
    process = multiprocessing.Process(target=_hold, args=(kept, holding, done))
    process.start()
    assert holding.wait(20)
    store = DiskStore(directory, 64 * MIB)
    make_cache(store)
    wait_until(lambda: store.scans, "no scan")
    assert kept.exists()
    assert not dropped.exists()
    done.set()
    process.join()


def _hold(path: Path, holding: Any, done: Any) -> None:
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        holding.set()
        done.wait(20)


def test_open_blocks_are_locked_for_others(cluster: Cluster, make_cache: MakeCache, directory: Path) -> None:
    locator = cluster.hold(BLOCK)
    cache = make_cache(DiskStore(directory))
    cache.read(locator, 0, len(BLOCK))
    with open(path_of(directory, locator)) as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    cache.close()
    with open(path_of(directory, locator)) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_file_about_to_be_deleted_is_not_waited_for(
    cluster: Cluster, make_cache: MakeCache, directory: Path
) -> None:
    locator = cluster.hold(BLOCK)
    with open(plant(directory, BLOCK)) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        cache = make_cache(DiskStore(directory))
        assert cache.read(locator, 0, 10) == BLOCK[:10]


def test_open_files_are_bounded(cluster: Cluster, make_cache: MakeCache, directory: Path) -> None:
    blocks = [bytes([number]) * 100 for number in range(60)]
    locators = [cluster.hold(block) for block in blocks]
    store = DiskStore(directory, open_files=8)
    cache = make_cache(store)
    for _ in range(2):
        for number, locator in enumerate(locators):
            assert cache.read(locator, 0, 100) == blocks[number]
            assert _open_blocks(directory) <= 8 + 1
    store.check()
    assert sum(peer.count("GET") for peer in cluster if peer is cluster.peers[0]) == 60
    cache.close()
    assert _open_blocks(directory) == 0


def _open_blocks(directory: Path) -> int:
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{fd}").startswith(str(directory))
        except OSError:
            continue
    return count


@pytest.mark.parametrize("passes", [0, 1, 2, 3])
def test_the_block_read_last_stays_also_when_it_was_closed_since(
    cluster: Cluster, make_cache: MakeCache, directory: Path, passes: int
) -> None:
    locators = [cluster.hold(bytes([number]) * 100) for number in range(4)]
    store = DiskStore(directory)
    cache = make_cache(store)
    for number in (0, 1, 2, 3, 2, 0):
        cache.read(locators[number], 0, 100)
    wait_until(lambda: len(store.blocks) == 4, "all are there")
    for number in (2, 0):
        cache.read(locators[number], 0, 100)
    for _ in range(passes):
        store.look_after()
    left = [0, 1, 2, 3]
    for number in (1, 3, 2, 0):
        store.evict(goal=store.usage() - 50)
        left.remove(number)
        assert [each for each in range(4) if path_of(directory, locators[each]).exists()] == left
    store.check()


def test_a_reader_keeps_its_block_while_it_is_evicted(
    cluster: Cluster, make_cache: MakeCache, directory: Path
) -> None:
    locator = cluster.hold(BLOCK)
    store = DiskStore(directory)
    cache = make_cache(store)
    cache.read(locator, 0, len(BLOCK))
    content = store.blocks[locator[:32]].content
    assert content is not None
    store.evict(goal=0)
    assert not path_of(directory, locator).exists()
    assert content.read(0, len(BLOCK)) == BLOCK
    assert cache.read(locator, 5, 5) == BLOCK[5:10]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("when", ["open", "write", "rename"])
def test_a_disk_that_fails_costs_no_byte(
    cluster: Cluster,
    make_cache: MakeCache,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
    when: str,
) -> None:
    calls = []

    def fail(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        if when != "write" or len(calls) > 2:
            raise OSError(number, os.strerror(number))
        return pwrite(*arguments)

    pwrite = os.pwrite
    target = {"open": "tempfile.mkstemp", "write": "os.pwrite", "rename": "os.rename"}[when]
    locators = [cluster.hold(block) for block in (BLOCK, BLOCK[::-1])]
    store = DiskStore(directory)
    cache = make_cache(store)
    wait_until(lambda: store.scans, "no scan")
    monkeypatch.setattr(f"arvados_fuse.keep.disk_files.{target}", fail)
    reader = cache.reader()
    for _ in range(2):
        for offset in range(0, len(BLOCK), 65536):
            size = min(65536, len(BLOCK) - offset)
            assert reader.read(locators[0], offset, size) == BLOCK[offset : offset + size]
    assert cache.read(locators[1], 0, len(BLOCK)) == BLOCK[::-1]
    monkeypatch.undo()
    assert calls
    assert caplog.text.count("can't be written") <= 1
    third = cluster.hold(b"later" * 1000)
    cache.read(third, 0, 5000)
    assert path_of(directory, third).exists()


def test_a_disk_that_is_really_full(cluster: Cluster, make_cache: MakeCache, tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=3m tmpfs {mount} 2>/dev/null") != 0:
        pytest.skip("no small file system can be mounted here")
    try:
        blocks = [random.Random(number).randbytes(MIB) for number in range(8)]
        locators = [cluster.hold(block) for block in blocks]
        cache = make_cache(DiskStore(mount / "keep", 64 * MIB))
        for _ in range(2):
            for number, locator in enumerate(locators):
                assert cache.read(locator, 0, MIB) == blocks[number]
        assert cache.counters.get("cache.trouble") >= 1
        cache.close()
    finally:
        os.system(f"umount {mount}")


def test_a_directory_of_another_user(cluster: Cluster, make_cache: MakeCache, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    locator = cluster.hold(BLOCK)
    cache = make_cache(DiskStore(tmp_path / "file" / "keep"))
    assert cache.read(locator, 0, len(BLOCK)) == BLOCK
    assert cache.read(locator, 0, 5) == BLOCK[:5]
    assert cache.counters.get("net.received_bytes") == len(BLOCK)


def test_out_of_file_descriptors(
    cluster: Cluster, make_cache: MakeCache, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = [bytes([number]) * 100 for number in range(20)]
    locators = [cluster.hold(block) for block in blocks]
    store = DiskStore(directory)
    cache = make_cache(store)
    for locator in locators:
        cache.read(locator, 0, 100)
    real_open = os.open

    def scarce(path: Any, *arguments: Any, **named: Any) -> int:
        if str(path).startswith(str(directory)) and _open_blocks(directory) > 12:
            raise OSError(errno.EMFILE, "Too many open files")
        return real_open(path, *arguments, **named)

    monkeypatch.setattr("arvados_fuse.keep.disk_files.os.open", scarce)
    cache.close()
    cache = make_cache(DiskStore(directory))
    for number, locator in enumerate(locators):
        assert cache.read(locator, 0, 100) == blocks[number]


def test_the_automatic_limit_is_that_of_the_sdk(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    total, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
    assert disk_files.automatic_limit(tmp_path, 0) <= min(total // 10, free // 4 + MIB * 64)
    assert disk_files.automatic_limit(tmp_path, 1 << 60) == total // 10


def test_idle_files_are_closed_so_that_others_may_evict_them(
    cluster: Cluster, make_cache: MakeCache, directory: Path
) -> None:
    locator = cluster.hold(BLOCK)
    store = DiskStore(directory)
    cache = make_cache(store)
    cache.read(locator, 0, len(BLOCK))
    store.look_after()
    assert _open_blocks(directory) == 1
    store.look_after()
    assert _open_blocks(directory) == 0
    store.check()
    fetched = cache.counters.get("net.received_bytes")
    assert cache.read(locator, 0, len(BLOCK)) == BLOCK
    assert cache.counters.get("net.received_bytes") == fetched


def test_a_full_disk_is_given_back_some_of_the_cache(
    cluster: Cluster, make_cache: MakeCache, directory: Path
) -> None:
    planted = [plant(directory, bytes([number]) * (24 * MIB)) for number in range(8)]
    store = DiskStore(directory, 1 << 40)
    make_cache(store)
    wait_until(lambda: store.scans, "no scan")
    store.trouble(OSError(errno.EROFS, "read-only"))
    assert all(path.exists() for path in planted)
    store.trouble(OSError(errno.ENOSPC, "no space"))
    assert sum(path.exists() for path in planted) == 2
    # While the disk fails, no more is fetched at once than memory can hold.
    assert store.room() == store.spill.room()


def test_memory_is_given_back_when_the_disk_is_well_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DiskStore(directory)
    sink = store.spill.begin(MD5, len(BLOCK))
    sink.room(0, memoryview(BLOCK))[:] = BLOCK
    sink.commit(0)
    store.trouble(OSError(errno.EIO, "broken"))
    store.look_after()
    assert store.reopen(MD5, len(BLOCK)) is not None, "the disk failed just now"
    monkeypatch.setattr(disk_keeper, "WARN_SECONDS", 0.0)
    store.look_after()
    assert store.spill.usage() == 0
    assert store.reopen(MD5, len(BLOCK)) is None
    store.close()
