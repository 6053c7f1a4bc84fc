"""Pinned blocks stay: through eviction, other processes, tools that delete files, damage; until unpinned."""

import hashlib
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from unit.keep.keep_peer import Cluster

from arvados_fuse.errors import NoSpaceError, NotSupported
from arvados_fuse.keep import BlockCache, DiskStore, Pin, Pins, RamStore
from arvados_fuse.keep.disk_files import SUFFIX, block_path
from arvados_fuse.keep.store import SMALLEST_LIMIT

MIB = 1024 * 1024
SIZE = 4 * MIB
LIMIT = SMALLEST_LIMIT
PDH = "d41d8cd98f00b204e9800998ecf8427e+0"
MANIFEST = ". whatever\n"

MakeCache = Callable[..., BlockCache]


def data(number: int) -> bytes:
    return random.Random(number).randbytes(SIZE)


def name(number: int) -> str:
    return f"{hashlib.md5(data(number)).hexdigest()}+{SIZE}"


def pin(*numbers: int, key: str = PDH, path: str = "", pdh: str = PDH) -> Pin:
    return Pin(pdh, key, path, [name(number) for number in numbers])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "keep"


def file(directory: Path, number: int) -> Path:
    return Path(block_path(directory, name(number)[:32]))


def stream_past(cache: BlockCache, cluster: Cluster, first: int = 100) -> None:
    """Read twice as much as fits."""
    for number in range(first, first + 2 * LIMIT // SIZE):
        cache.read(cluster.hold(data(number)), 0, SIZE)


def test_what_is_pinned_is_not_evicted(make_cache: MakeCache, cluster: Cluster, directory: Path) -> None:
    store = DiskStore(directory, LIMIT)
    cache = make_cache(store)
    cache.pin(pin(1, 2), MANIFEST)
    cache.read(cluster.hold(data(1)), 0, SIZE)
    cache.read(cluster.hold(data(2)), 0, SIZE)
    cache.read(cluster.hold(data(3)), 0, SIZE)
    stream_past(cache, cluster)
    assert file(directory, 1).exists()
    assert file(directory, 2).exists()
    assert not file(directory, 3).exists()
    assert store.usage() <= LIMIT
    store.check()
    # Another process does not know of it, and has to make room as well.
    other = DiskStore(directory, LIMIT)
    other.look_after()
    other.evict(goal=0)
    assert file(directory, 1).exists()
    other.check()
    assert cache.pins is not None
    assert cache.pins.remove(PDH, "") == 1
    other.look_after()
    other.evict(goal=0)
    assert not file(directory, 1).exists()


def test_a_block_that_was_here_before_it_was_pinned(
    make_cache: MakeCache, cluster: Cluster, directory: Path
) -> None:
    cache = make_cache(DiskStore(directory, LIMIT))
    locator = cluster.hold(data(1))
    cache.read(locator, 0, SIZE)
    cache.pin(pin(1), MANIFEST)
    assert cache.preload(locator, threading.Event())
    stream_past(cache, cluster)
    assert file(directory, 1).exists()


def test_pins_outlive_the_process_and_tools_that_delete_files(
    make_cache: MakeCache, cluster: Cluster, directory: Path
) -> None:
    first = make_cache(DiskStore(directory, LIMIT))
    first.pin(pin(1, 2), MANIFEST)
    locators = [cluster.hold(data(number)) for number in (1, 2)]
    for locator in locators:
        first.read(locator, 0, SIZE)
    first.close()
    for peer in cluster:
        peer.blocks.clear()
    file(directory, 1).unlink()  # as the SDK does when its own limit is reached
    second = make_cache(DiskStore(directory, LIMIT))
    for number, locator in enumerate(locators, 1):
        assert second.read(locator, 0, SIZE) == data(number)
    file(directory, 2).unlink()
    DiskStore(directory, LIMIT).look_after()
    assert file(directory, 2).exists(), "the keeper gives names back"


def test_nothing_that_other_tools_look_at_is_added(
    make_cache: MakeCache, cluster: Cluster, directory: Path
) -> None:
    cache = make_cache(DiskStore(directory, LIMIT))
    cache.pin(pin(1, 2), MANIFEST)
    cache.read(cluster.hold(data(1)), 0, SIZE)
    blocks = [path for path in directory.rglob("*") if path.name.endswith(SUFFIX)]
    assert blocks == [file(directory, 1)]
    for path in (directory / "pins").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("how", ["flipped", "truncated"])
def test_a_damaged_pinned_block_is_fetched_and_pinned_again(
    make_cache: MakeCache, cluster: Cluster, directory: Path, how: str
) -> None:
    cache = make_cache(DiskStore(directory, LIMIT))
    cache.pin(pin(1), MANIFEST)
    locator = cluster.hold(data(1))
    cache.read(locator, 0, SIZE)
    if how == "truncated":
        os.truncate(file(directory, 1), 1000)
    else:
        with open(file(directory, 1), "r+b") as damaged:
            damaged.write(b"xxx")
    os.utime(file(directory, 1))
    assert cache.read(locator, 0, SIZE) == data(1)
    assert file(directory, 1).read_bytes() == data(1)
    assert file(directory, 1).stat().st_nlink == 2
    stream_past(cache, cluster)
    assert file(directory, 1).exists()


def test_pins_leave_room_for_what_is_read_besides(make_cache: MakeCache, directory: Path) -> None:
    cache = make_cache(DiskStore(directory, LIMIT))
    fits = LIMIT * 3 // 4 // SIZE
    with pytest.raises(NoSpaceError, match=r"--unpin.*--file-cache"):
        cache.pin(pin(*range(fits + 1)), MANIFEST)
    assert cache.pins is not None
    assert (cache.pins.all(), cache.pins.total()) == ([], 0)
    cache.pin(pin(*range(fits)), MANIFEST)
    assert cache.pins.total() == fits * SIZE
    with pytest.raises(NoSpaceError):
        cache.pin(pin(fits, key="other"), MANIFEST)
    # The same blocks once more take no more room.
    cache.pin(pin(0, 1, key="other"), MANIFEST)


def test_unpinning_keeps_what_others_pinned(directory: Path) -> None:
    pins = Pins(directory)
    pins.add(pin(1, 2, path="a"), MANIFEST, LIMIT)
    pins.add(pin(2, 3, path="a/b"), MANIFEST, LIMIT)
    pins.add(pin(3, 4, path="ab"), MANIFEST, LIMIT)
    assert pins.manifest(PDH) == MANIFEST
    assert pins.remove(PDH, "a") == 2
    assert sorted(os.listdir(directory / "pins/blocks")) == sorted([name(3), name(4)])
    assert pins.remove(PDH, "a") == 0
    assert pins.remove("unknown", "") == 0
    assert pins.remove(PDH, "") == 1
    assert pins.manifest(PDH) is None
    assert os.listdir(directory / "pins/blocks") == []


def test_pinning_a_changed_collection_lets_go_of_what_it_was(directory: Path) -> None:
    pins = Pins(directory)
    uuid = "zzzzz-4zz18-000000000000000"
    before, after = pin(1, 2, key=uuid), pin(2, 3, key=uuid, pdh="0" * 32 + "+7")
    pins.add(before, MANIFEST, LIMIT)
    pins.add(after, MANIFEST, LIMIT)
    assert pins.all() == [after]
    assert pins.manifest(PDH) is None
    assert pins.total() == 2 * SIZE


def test_files_with_other_links_of_somebody_are_evicted(
    make_cache: MakeCache, cluster: Cluster, directory: Path, tmp_path: Path
) -> None:
    store = DiskStore(directory, LIMIT)
    cache = make_cache(store)
    cache.read(cluster.hold(data(1)), 0, SIZE)
    os.link(file(directory, 1), tmp_path / "backup")
    stream_past(cache, cluster)
    assert not file(directory, 1).exists()


def test_memory_can_not_be_pinned(make_cache: MakeCache) -> None:
    cache = make_cache(RamStore())
    with pytest.raises(NotSupported, match="ram-cache"):
        cache.pin(pin(1), MANIFEST)


def test_a_directory_that_can_not_hold_pins(make_cache: MakeCache, directory: Path) -> None:
    cache = make_cache(DiskStore(directory, LIMIT))
    (directory / "pins").write_text("in the way")
    with pytest.raises(NoSpaceError, match="pins"):
        cache.pin(pin(1), MANIFEST)
    assert cache.pins is not None
    assert cache.pins.all() == []


def test_records_that_are_damaged_pin_nothing(directory: Path) -> None:
    pins = Pins(directory)
    pins.add(pin(1), MANIFEST, LIMIT)
    record = directory / "pins/collections" / PDH / "pinned"
    for text in ("", "{", "[1]", '[{"key": 1}]', "\xff"):
        record.write_text(text)
        assert pins.all() == []
