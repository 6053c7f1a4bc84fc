"""Storing blocks: replicas and classes reached, services chosen, nothing sent twice, bounded, honest
errors.
"""

import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from unit.keep.keep_peer import Cluster, Peer

from arvados_fuse.errors import InvalidArgument, Unreachable
from arvados_fuse.keep import BlockCache, DiskStore, RamStore, rendezvous
from arvados_fuse.keep.locator import MAX_BLOCK
from arvados_fuse.keep.upload import BLOCKS_AT_ONCE

DATA = random.Random(6).randbytes(300000)

MakeCache = Callable[..., BlockCache]
MakeStore = Callable[..., Any]


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition, at most 20 seconds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


@pytest.fixture
def four() -> Iterator[Cluster]:
    """Four Keep services."""
    peers = [Peer(number).start() for number in range(1, 5)]
    yield Cluster(*peers)
    for peer in peers:
        peer.stop()


def holders(cluster: Cluster, data: bytes) -> list[Peer]:
    """Who has the block, in the order in which services are asked for it."""
    md5 = hashlib.md5(data).hexdigest()
    by_uuid = {peer.uuid: peer for peer in cluster}
    order = [by_uuid[service.uuid] for service in rendezvous(md5, cluster.keep_services())]
    return [peer for peer in order if md5 in peer.blocks]


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_replicas_are_reached_at_the_first_services(
    four: Cluster, make_cache: MakeCache, make_store: MakeStore, replicas: int
) -> None:
    cache = make_cache(make_store(), directory=four, replicas=replicas)
    locator = cache.put(memoryview(DATA))
    assert locator.startswith(f"{hashlib.md5(DATA).hexdigest()}+{len(DATA)}+A")
    order = [service.uuid for service in rendezvous(locator[:32], four.keep_services())]
    assert [peer.uuid for peer in holders(four, DATA)] == order[:replicas]
    assert cache.counters.get("keep.put") == 1
    assert cache.counters.get("net.sent_bytes") == replicas * len(DATA)


def test_a_proxy_that_stores_several_is_asked_once(
    four: Cluster, make_cache: MakeCache, make_store: MakeStore
) -> None:
    for peer in four:
        peer.replicas = 2
    cache = make_cache(make_store(), directory=four, replicas=2)
    cache.put(DATA)
    # Two services may have been asked side by side, before the first said that it stored both.
    assert 1 <= len(holders(four, DATA)) <= 2
    sent = [one for peer in four for one in peer.headers]
    assert sent[0]["X-Keep-Desired-Replicas"] == "2"


def test_read_only_and_failing_services_are_passed_over(
    four: Cluster, make_cache: MakeCache, make_store: MakeStore
) -> None:
    order = rendezvous(hashlib.md5(DATA).hexdigest(), four.keep_services())
    by_uuid = {peer.uuid: peer for peer in four}
    by_uuid[order[0].uuid].read_only = True
    by_uuid[order[1].uuid].puts_status = 503
    cache = make_cache(make_store(), directory=four, replicas=2)
    cache.put(DATA)
    assert [peer.uuid for peer in holders(four, DATA)] == [order[2].uuid, order[3].uuid]
    assert by_uuid[order[0].uuid].requests == []


def test_storage_classes_are_asked_for_and_reached(
    four: Cluster, make_cache: MakeCache, make_store: MakeStore
) -> None:
    order = rendezvous(hashlib.md5(DATA).hexdigest(), four.keep_services())
    by_uuid = {peer.uuid: peer for peer in four}
    for service in order[:3]:
        by_uuid[service.uuid].classes = ("default",)
    by_uuid[order[3].uuid].classes = ("archive", "default")
    cache = make_cache(make_store(), directory=four, replicas=1)
    cache.put(DATA, storage_classes=["default", "archive"])
    assert by_uuid[order[3].uuid] in holders(four, DATA)
    assert by_uuid[order[0].uuid].headers[0]["X-Keep-Storage-Classes"] == "archive, default"
    assert by_uuid[order[3].uuid].headers[0]["X-Keep-Storage-Classes"] == "archive"


def test_classes_that_no_service_has_are_named_in_the_error(
    four: Cluster, make_cache: MakeCache, make_store: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    cache = make_cache(make_store(), directory=four)
    with pytest.raises(Unreachable, match=r"Keep write error: block .*\+300000: .*archive"):
        cache.put(DATA, storage_classes=["archive"])
    assert "Keep write error" in caplog.text


def test_services_that_know_no_classes_are_believed(
    four: Cluster, make_cache: MakeCache, make_store: MakeStore
) -> None:
    for peer in four:
        peer.classes = None
    cache = make_cache(make_store(), directory=four)
    assert cache.put(DATA, storage_classes=["archive"]).startswith(hashlib.md5(DATA).hexdigest())


def test_too_few_services_is_an_error_that_names_block_services_and_statuses(
    four: Cluster, make_cache: MakeCache, make_store: MakeStore
) -> None:
    for peer in list(four)[1:]:
        peer.puts_status = 503
    cache = make_cache(make_store(), directory=four, replicas=2, retries=1)
    with pytest.raises(Unreachable) as told:
        cache.put(DATA)
    text = str(told.value)
    assert f"{hashlib.md5(DATA).hexdigest()}+{len(DATA)}" in text
    assert "stored 1 of 2 replicas" in text
    assert f"127.0.0.1:{four.peers[1].port}: 503" in text
    assert "secrettoken" not in text


def test_trouble_that_passes_costs_a_retry(
    cluster: Cluster, make_cache: MakeCache, make_store: MakeStore
) -> None:
    for peer in cluster:
        peer.puts_status = 500
    cache = make_cache(make_store(), replicas=2, retries=8)
    with ThreadPoolExecutor(1) as pool:
        put = pool.submit(cache.put, DATA)
        wait_until(lambda: cache.counters.get("keep.retries"), "no retry")
        for peer in cluster:
            peer.puts_status = 0
        put.result(timeout=20)
    assert len(holders(cluster, DATA)) == 2


def test_a_block_that_the_server_has_is_not_sent_twice(
    cluster: Cluster, make_cache: MakeCache, make_store: MakeStore
) -> None:
    cache = make_cache(make_store())
    first = cache.put(DATA)
    assert cache.put(DATA) == first
    assert sum(peer.count("PUT") for peer in cluster) == 1
    assert cache.counters.get("keep.put_spared") == 1
    for peer in cluster:
        peer.blocks.clear()
    cache.put(DATA)
    assert len(holders(cluster, DATA)) == 1


def test_what_was_written_can_be_read_without_fetching(
    cluster: Cluster, make_cache: MakeCache, make_store: MakeStore
) -> None:
    store: DiskStore | RamStore = make_store()
    cache = make_cache(store)
    locator = cache.put(bytes(DATA))
    assert cache.read(locator, 1000, 5000) == DATA[1000:6000]
    assert sum(peer.count("GET") for peer in cluster) == 0
    store.check()


def test_empty_and_largest_blocks(cluster: Cluster, make_cache: MakeCache, make_store: MakeStore) -> None:
    cache = make_cache(make_store())
    assert cache.put(b"").startswith("d41d8cd98f00b204e9800998ecf8427e+0")
    largest = bytes(MAX_BLOCK)
    locator = cache.put(largest)
    assert cache.read(locator, MAX_BLOCK - 5, 5) == bytes(5)
    with pytest.raises(InvalidArgument):
        cache.put(bytes(MAX_BLOCK + 1))


def test_callers_wait_when_too_many_blocks_are_on_their_way(
    cluster: Cluster, make_cache: MakeCache, make_store: MakeStore
) -> None:
    most = [0]
    lock = threading.Lock()
    under_way: set[int] = set()
    for peer in cluster:
        _watch(peer, under_way, most, lock)
    cache = make_cache(make_store())
    blocks = [bytes([number]) * 50000 for number in range(30)]
    with ThreadPoolExecutor(30) as pool:
        locators = list(pool.map(cache.put, blocks))
    assert len(set(locators)) == 30
    assert 1 < most[0] <= BLOCKS_AT_ONCE


def _watch(peer: Peer, under_way: set[int], most: list[int], lock: threading.Lock) -> None:
    """Count how many PUT requests are being answered at one time."""
    hold = peer.hold

    def counted(data: bytes) -> str:
        with lock:
            under_way.add(threading.get_ident())
            most[0] = max(most[0], len(under_way))
        time.sleep(0.01)  # the work of a server
        with lock:
            under_way.discard(threading.get_ident())
        return hold(data)

    peer.hold = counted  # type: ignore[method-assign]


def test_close_breaks_off_what_is_on_its_way(
    cluster: Cluster, make_cache: MakeCache, make_store: MakeStore
) -> None:
    arrived, go_on = threading.Event(), threading.Event()
    for peer in cluster:
        _stall(peer, arrived, go_on)
    cache = make_cache(make_store())
    with ThreadPoolExecutor(1) as pool:
        put = pool.submit(cache.put, DATA)
        assert arrived.wait(20)
        cache.close()
        with pytest.raises(Unreachable):
            put.result(timeout=20)
        go_on.set()


def _stall(peer: Peer, arrived: threading.Event, go_on: threading.Event) -> None:
    hold = peer.hold

    def stalled(data: bytes) -> str:
        arrived.set()
        go_on.wait(20)
        return hold(data)

    peer.hold = stalled  # type: ignore[method-assign]


def test_a_file_with_the_block_becomes_the_cached_one(
    cluster: Cluster, make_cache: MakeCache, tmp_path: Path
) -> None:
    """By a second name, so that nothing is written again; it stays when the first name goes."""
    store = DiskStore(tmp_path / "cache")
    cache = make_cache(store)
    spool = tmp_path / "spool"
    spool.write_bytes(DATA)
    locator = cache.put(DATA, file=str(spool))
    cached = tmp_path / "cache" / locator[:3] / f"{locator[:32]}.keepcacheblock"
    assert cached.samefile(spool)
    spool.unlink()
    assert cache.read(locator, 1000, 5000) == DATA[1000:6000]
    assert sum(peer.count("GET") for peer in cluster) == 0
    store.check()
    assert store.usage() == len(DATA)


@pytest.mark.parametrize("found", ["another size", "nothing", "a link", "a name that is taken"])
def test_a_file_that_can_not_be_the_cached_one_is_copied(
    cluster: Cluster, make_cache: MakeCache, tmp_path: Path, found: str
) -> None:
    store = DiskStore(tmp_path / "cache")
    cache = make_cache(store)
    spool, md5 = tmp_path / "spool", hashlib.md5(DATA).hexdigest()
    cached = tmp_path / "cache" / md5[:3] / f"{md5}.keepcacheblock"
    if found == "another size":
        spool.write_bytes(DATA + b"more")
    elif found == "a link":
        (tmp_path / "elsewhere").write_bytes(DATA)
        spool.symlink_to(tmp_path / "elsewhere")
    elif found == "a name that is taken":
        spool.write_bytes(DATA)
        cached.parent.mkdir(parents=True)
        cached.write_bytes(b"damaged")
    locator = cache.put(DATA, file=str(spool))
    assert cache.read(locator, 1000, 5000) == DATA[1000:6000]
    assert cached.read_bytes() == DATA
    assert cached.stat().st_nlink == 1
    assert sum(peer.count("GET") for peer in cluster) == 0
    store.check()
    assert store.usage() == len(DATA)
