"""Preloading: all of it arrives, failures are told by file, it can be stopped, few blocks at once."""

import hashlib
import random
import threading
from collections.abc import Callable

import pytest
from servers import wait_for
from unit.keep.keep_peer import SIGNATURE, Cluster

from arvados_fuse.errors import BlockNotFound, LocatorError, NoSpaceError
from arvados_fuse.keep import BlockCache, RamStore, Wanted, Warming
from arvados_fuse.keep.store import SMALLEST_LIMIT
from arvados_fuse.keep.warm import AT_ONCE

SIZE = 100_000


def data(number: int) -> bytes:
    return random.Random(number).randbytes(SIZE)


def locator(number: int) -> str:
    return f"{hashlib.md5(data(number)).hexdigest()}+{SIZE}{SIGNATURE}"


@pytest.fixture
def cache(make_cache: Callable[..., BlockCache], make_store: Callable[..., object]) -> BlockCache:
    return make_cache(make_store())


def test_everything_is_here_afterwards(cache: BlockCache, cluster: Cluster) -> None:
    for number in range(20):
        cluster.hold(data(number))
    files = [Wanted(f"file{number}", [locator(number), locator(number + 1)]) for number in range(19)]
    files.append(Wanted("empty", []))
    warming = Warming(cache, files)
    assert len(warming.blocks) == 20
    told = list(warming.run())
    assert warming.failures == []
    assert told[0][:4] == (1, 20, 0, 20 * SIZE)
    assert told[-1] == (20, 20, 20 * SIZE, 20 * SIZE, 0.0)
    assert [one.bytes for one in told] == sorted(one.bytes for one in told)
    asked = sum(peer.count("GET") for peer in cluster)
    for peer in cluster:
        peer.blocks.clear()
    for number in range(20):
        assert cache.read(locator(number), 0, SIZE) == data(number)
    assert sum(peer.count("GET") for peer in cluster) == asked
    # Once more: nothing to do.
    assert list(Warming(cache, files).run())[-1].files == 20
    assert sum(peer.count("GET") for peer in cluster) == asked


def test_failures_are_told_by_file_and_the_others_go_on(cache: BlockCache, cluster: Cluster) -> None:
    cluster.hold(data(1))
    cluster.hold(data(3))
    files = [
        Wanted("one", [locator(1)]),
        Wanted("missing", [locator(1), locator(2)]),
        Wanted("nonsense", ["nonsense"]),
        Wanted("three", [locator(3)]),
    ]
    warming = Warming(cache, files)
    last = list(warming.run())[-1]
    assert (last.files, last.all_files) == (2, 4)
    assert [(one.path, type(one.error)) for one in warming.failures] == [
        ("missing", BlockNotFound),
        ("nonsense", LocatorError),
    ]


def test_a_fault_that_passes_is_waited_for(cache: BlockCache, cluster: Cluster) -> None:
    cluster.hold(data(1))
    cluster.peers[0].status = 503
    warming = Warming(cache, [Wanted("one", [locator(1)])])
    steps = warming.run()
    next(steps)
    wait_for(lambda: cluster.peers[0].count("GET") > 1, "a second try: nobody reads it, but it is wanted")
    cluster.peers[0].status = 0
    assert list(steps)[-1].files == 1


def test_few_at_once_and_none_after_it_was_stopped(cache: BlockCache, cluster: Cluster) -> None:
    gate = threading.Event()
    for peer in cluster:
        peer.gate = gate
    for number in range(20):
        cluster.hold(data(number))
    steps = Warming(cache, [Wanted("all", [locator(number) for number in range(20)])]).run()
    next(steps)
    first = cluster.peers

    def asked() -> int:
        return sum(peer.count("GET") for peer in first)

    wait_for(lambda: asked() >= AT_ONCE, "the first blocks are asked for")
    next(steps)
    assert asked() == AT_ONCE
    steps.close()
    gate.set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("warm-")]
    assert cache.read(locator(19), 0, 10) == data(19)[:10]
    assert asked() <= AT_ONCE + 3


def test_what_does_not_fit_is_refused(make_cache: Callable[..., BlockCache]) -> None:
    cache = make_cache(RamStore(SMALLEST_LIMIT))
    cache.room_for([f"{number:032x}+{SMALLEST_LIMIT // 2}" for number in range(2)])
    with pytest.raises(NoSpaceError, match="file-cache"):
        cache.room_for([f"{number:032x}+{SMALLEST_LIMIT // 2}" for number in range(3)])
