"""A reader: when it reads ahead, how far, when it stops; and that it tells of wrong bytes."""

import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from unit.keep.keep_peer import Cluster

from arvados_fuse.errors import BlockCorrupt
from arvados_fuse.keep import Ahead, BlockCache, Company, Reader
from arvados_fuse.keep.flight import Watcher
from arvados_fuse.keep.reader import AHEAD_MOST, FORGET_SECONDS

MIB = 1024 * 1024
BLOCK = 64 * MIB

MakeCache = Callable[..., BlockCache]
MakeStore = Callable[..., Any]


class Recorder:
    """Stands below a reader and writes down what it asks for."""

    def __init__(self) -> None:
        self.fetched: list[str] = []
        self.dropped: list[str] = []
        self.held: list[str] = []
        self.speed = 0.0
        self.bytes = 4 * BLOCK

    def read_for(self, watcher: Watcher, locator: str, offset: int, size: int) -> bytes | memoryview:
        return b"x" * size

    def hold(self, md5: str) -> None:
        self.held.append(md5)

    def release(self, md5: str) -> None:
        self.held.remove(md5)

    def budget(self) -> int:
        return self.bytes

    def rate(self) -> float:
        return self.speed

    def fetch_ahead(self, locator: str) -> bool:
        self.fetched.append(locator[:32])
        return True

    def drop_ahead(self, md5s: Iterable[str]) -> None:
        self.dropped.extend(md5s)


class File:
    """A file of 64 MiB blocks, read through a reader as the tree does it."""

    def __init__(self, cache: Any, blocks: int) -> None:
        self.reader = Reader(cache)
        self.names = [f"{number:032x}" for number in range(blocks)]

    def read(self, offset: int, size: int = 131072) -> None:
        block, within = divmod(offset, BLOCK)
        self.reader.read(f"{self.names[block]}+{BLOCK}", within, size)
        ahead = self.reader.after(offset, size)
        if ahead is not None:
            self.reader.announce(ahead, [f"{name}+{BLOCK}" for name in self.blocks(ahead)])

    def blocks(self, ahead: Ahead) -> list[str]:
        return self.names[ahead.begin // BLOCK : -(-(ahead.begin + ahead.size) // BLOCK)]


def test_the_second_sequential_read_starts_it() -> None:
    below = Recorder()
    file = File(below, 8)
    file.read(0)
    assert below.fetched == []
    file.read(131072)
    assert below.fetched == file.names[:2]


def test_single_reads_at_random_places_never_start_it() -> None:
    below = Recorder()
    file = File(below, 8)
    for offset in (5 * MIB, 3 * BLOCK, BLOCK + 7, 9 * MIB, 2 * BLOCK):
        file.read(offset, 4096)
    assert below.fetched == []
    assert below.held == []


def test_it_keeps_ahead_but_not_further_than_its_window() -> None:
    below = Recorder()
    file = File(below, 8)
    for offset in range(0, 4 * BLOCK, MIB):
        file.read(offset, MIB)
        if offset:
            assert file.names[(offset + BLOCK // 2) // BLOCK] in below.fetched
            assert not set(file.names[(offset + 2 * BLOCK) // BLOCK + 1 :]) & set(below.fetched)
    assert set(below.fetched) == set(file.names[:5])


def test_it_reaches_further_the_faster_blocks_come_within_the_budget() -> None:
    reach = {}
    for speed, budget in ((0.0, 64 * BLOCK), (100e6, 64 * BLOCK), (1e10, 64 * BLOCK), (1e10, 2 * BLOCK)):
        below = Recorder()
        below.speed, below.bytes = speed, budget
        file = File(below, 80)
        file.read(0)
        file.read(131072)
        reach[speed, budget] = len(below.fetched)
    assert reach == {
        (0.0, 64 * BLOCK): 2,
        (100e6, 64 * BLOCK): 3,
        (1e10, 64 * BLOCK): AHEAD_MOST // BLOCK + 1,
        (1e10, 2 * BLOCK): 3,
    }


def test_random_access_stops_it_and_it_can_start_again() -> None:
    below = Recorder()
    file = File(below, 8)
    file.read(0)
    file.read(131072)
    file.read(5 * BLOCK)
    assert set(below.dropped) == set(below.fetched)
    below.fetched.clear()
    file.read(5 * BLOCK + 131072)
    assert below.fetched == file.names[5:7]


def test_what_was_read_is_not_dropped() -> None:
    below = Recorder()
    file = File(below, 8)
    for offset in (0, 131072, 262144):
        file.read(offset)
    file.read(BLOCK)
    assert file.names[0] not in below.dropped


def test_the_kernels_own_disorder_does_not_stop_it() -> None:
    below = Recorder()
    file = File(below, 8)
    file.read(0)
    file.read(131072)
    for offset in (393216, 262144, 655360, 524288):
        file.read(offset)
    assert below.dropped == []


def test_the_block_being_read_is_held_until_the_next_or_the_end() -> None:
    below = Recorder()
    file = File(below, 8)
    for offset in range(BLOCK - 4 * MIB, BLOCK + 4 * MIB, MIB):
        file.read(offset, MIB)
    assert below.held == [file.names[1]]
    file.reader.close()
    assert below.held == []


def test_closing_drops_what_was_fetched_ahead() -> None:
    below = Recorder()
    file = File(below, 8)
    file.read(0)
    file.read(131072)
    file.reader.close()
    assert set(below.dropped) == set(below.fetched)


def test_after_wrong_bytes_every_read_fails() -> None:
    # One failure could be one of the kernel's reading ahead, of which no program hears.
    reader = Reader(Recorder())
    reader.spoil("0" * 32, BlockCorrupt("wrong"))
    told = []
    for _ in range(3):
        with pytest.raises(BlockCorrupt) as caught:
            reader.read("0" * 32 + "+5", 0, 5)
        told.append(caught.value.told)
    assert told == [False, True, True], "one line in the log"


def test_all_who_share_the_kernels_pages_are_told() -> None:
    company = Company()
    readers = [Reader(Recorder(), company) for _ in range(3)]
    for reader in readers:
        company.join(reader)
    readers[0].close()
    readers[1].spoil("0" * 32, BlockCorrupt("wrong"))
    assert readers[0].read("0" * 32 + "+5", 0, 5) == b"xxxxx"
    for reader in readers[1:]:
        with pytest.raises(BlockCorrupt):
            reader.read("0" * 32 + "+5", 0, 5)
    # Who opens the file now gets it when the kernel has forgotten the wrong pages.
    late, begun = Reader(Recorder(), company), time.monotonic()
    company.join(late)
    assert FORGET_SECONDS / 2 < time.monotonic() - begun < FORGET_SECONDS + 5
    assert late.read("0" * 32 + "+5", 0, 5) == b"xxxxx"


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition, at most 20 seconds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def test_blocks_come_before_they_are_read(
    cluster: Cluster, make_cache: MakeCache, make_store: MakeStore
) -> None:
    blocks = [random.Random(number).randbytes(MIB) for number in range(10)]
    locators = [cluster.hold(block) for block in blocks]
    cache = make_cache(make_store())
    readers = [cache.reader() for _ in range(3)]
    for reader in readers:
        for offset in (0, 131072):
            assert reader.read(locators[0], offset, 131072) == blocks[0][offset : offset + 131072]
            ahead = reader.after(offset, 131072)
            if ahead is not None:
                reader.announce(ahead, locators)
    wait_until(lambda: cache.counters.get("net.received_bytes") == 10 * MIB, "not read ahead")
    # Three readers of one file share what was fetched.
    assert cluster.peers[0].count("GET") == 10
    wait_until(lambda: cache.fetch_ahead(locators[9]) is False, "not held")
    for number, locator in enumerate(locators[1:], start=1):
        assert readers[1].read(locator, 0, MIB) == blocks[number]
    assert cluster.peers[0].count("GET") == 10


def test_what_is_demanded_does_not_wait_for_what_is_read_ahead(
    cluster: Cluster, make_cache: MakeCache, make_store: MakeStore
) -> None:
    wanted = cluster.hold(b"wanted" * 1000)
    ahead = [cluster.hold(bytes([number]) * MIB) for number in range(30)]
    cluster.peers = cluster.peers[:1]
    gate = threading.Event()
    cluster.peers[0].gate = gate
    cache = make_cache(make_store(), carriers=4)
    for locator in ahead:
        assert cache.fetch_ahead(locator)
    wait_until(lambda: cluster.peers[0].count("GET") == 2, "not read ahead")
    reader = threading.Thread(target=lambda: cache.read(wanted, 0, 6))
    reader.start()
    wait_until(lambda: ("GET", wanted) in cluster.peers[0].requests, "the demanded block waits")
    assert cluster.peers[0].count("GET") == 3
    gate.set()
    reader.join()
