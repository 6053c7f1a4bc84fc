"""Counters add up from any number of threads, and the block cache counts what statistics need."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from unit.keep.keep_peer import Cluster

from arvados_fuse.errors import BlockNotFound
from arvados_fuse.keep import BlockCache, RamStore
from arvados_fuse.reporting.counters import Counters

DATA = bytes(range(256)) * 100


def test_counts_from_many_threads() -> None:
    counters = Counters()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: counters.add("a", number), range(1000)))
        list(pool.map(lambda _: counters.add("b"), range(1000)))
    assert counters.snapshot() == {"a": 499500, "b": 1000}
    assert counters.get("never") == 0


def test_what_the_statistics_are_made_of(make_cache: Callable[..., BlockCache], cluster: Cluster) -> None:
    cache = make_cache(RamStore(), replicas=1)
    first, second = cluster.peers
    locator = first.hold(DATA)
    second.hold(DATA)
    for offset in (0, 10, 20):
        cache.read(locator, offset, 5)
    with pytest.raises(BlockNotFound):
        cache.read("0" * 32 + "+5", 0, 5)
    stored = cache.put(b"new")
    cache.put(b"new")
    cache.read(stored, 0, 3)
    counted = cache.counters.snapshot()
    assert (counted["cache.hit"], counted["cache.miss"]) == (3, 2), "every request, answered or not, once"
    assert (counted["keep.put"], counted["keep.put_spared"]) == (2, 1)
    assert (counted["net.received_bytes"], counted["net.sent_bytes"]) == (len(DATA), 3)
