"""The block cache on a small Keep: right bytes, one fetch for all, the right error, nothing left behind."""

import contextlib
import os
import queue
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from servers import wait_for
from unit.keep.keep_peer import SIGNATURE, Cluster, Peer

from arvados_fuse.errors import (
    AccessDenied,
    ArvadosFuseError,
    BlockCorrupt,
    BlockNotFound,
    InvalidArgument,
    LocatorError,
    SignatureRefused,
    Unreachable,
)
from arvados_fuse.keep import BlockCache, BlockReplaced, DiskStore, KeepService, RamStore
from arvados_fuse.keep.services import rendezvous
from arvados_fuse.keep.transfer import Timeouts

MIB = 1024 * 1024
BLOCK = random.Random(4).randbytes(2 * MIB + 17)

MakeCache = Callable[..., BlockCache]
MakeStore = Callable[..., Any]


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition, at most 20 seconds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def first_for(cluster: Cluster, locator: str) -> Peer:
    """The peer that is asked first for a block."""
    service = rendezvous(locator[:32], cluster.keep_services())[0]
    return next(peer for peer in cluster if peer.uuid == service.uuid)


def on_all(cluster: Cluster, data: bytes) -> str:
    """Put a block on every peer."""
    return [peer.hold(data) for peer in cluster][-1]


@pytest.mark.parametrize("size", [1, 100, 65535, 65536, 65537, 300000, len(BLOCK)])
def test_any_range_is_right_cold_and_cached(cache: BlockCache, cluster: Cluster, size: int) -> None:
    data = BLOCK[:size]
    locator = cluster.hold(data)
    dice = random.Random(size)
    for _ in range(50):
        offset = dice.randrange(size)
        length = dice.randrange(size - offset + 1)
        assert cache.read(locator, offset, length) == data[offset : offset + length]
    assert cache.read(locator, 0, size) == data
    assert sum(peer.count("GET") for peer in cluster) <= 2
    assert cache.counters.get("net.received_bytes") == size


def test_the_empty_block_needs_no_server(cache: BlockCache, cluster: Cluster) -> None:
    assert cache.read("d41d8cd98f00b204e9800998ecf8427e+0", 0, 0) == b""
    assert all(not peer.requests for peer in cluster)


def test_a_read_waits_for_its_own_bytes_only(
    cluster: Cluster, make_cache: MakeCache, make_store: MakeStore
) -> None:
    # The peer sends half of the block and then waits: reads in that half are answered.
    slow = SlowService(BLOCK, len(BLOCK) // 2).start()
    cluster.extra.append(slow.service)
    locator = f"{Peer.hold(cluster.peers[0], BLOCK)[:32]}+{len(BLOCK)}+K@{slow.service.uuid}{SIGNATURE}"
    for peer in cluster:
        peer.blocks.clear()
    cache = make_cache(make_store())
    assert cache.read(locator, 0, 4096) == BLOCK[:4096]
    assert cache.read(locator, MIB - 65536, 1000) == BLOCK[MIB - 65536 : MIB - 64536]
    with ThreadPoolExecutor(1) as pool:
        last = pool.submit(cache.read, locator, len(BLOCK) - 10, 10)
        assert not last.done()
        slow.go_on.set()
        assert last.result(timeout=20) == BLOCK[-10:]
    slow.stop()


class SlowService:
    """Answers any request with the data, but pauses at one point until told to go on."""

    def __init__(self, data: bytes, pause_at: int) -> None:
        import socket

        self.data, self.pause_at = data, pause_at
        self.go_on = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.service = KeepService("zzzzz-bi6l4-00000000000slow", "127.0.0.1", self._socket.getsockname()[1])

    def start(self) -> "SlowService":
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def stop(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection, contextlib.suppress(ConnectionError):  # who asked may have gone
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self.data))
            connection.sendall(self.data[: self.pause_at])
            self.go_on.wait(30)
            connection.sendall(self.data[self.pause_at :])
            connection.recv(1)


def test_many_readers_share_one_fetch(cache: BlockCache, cluster: Cluster) -> None:
    locator = on_all(cluster, BLOCK)
    gate = threading.Event()
    for peer in cluster:
        peer.gate = gate
    with ThreadPoolExecutor(40) as pool:
        reads = [
            pool.submit(cache.read, locator, offset, 1000) for offset in range(0, len(BLOCK) - 1000, 53000)
        ]
        wait_until(lambda: any(peer.requests for peer in cluster), "no request")
        gate.set()
        for number, one in enumerate(reads):
            assert one.result(timeout=20) == BLOCK[number * 53000 : number * 53000 + 1000]
    assert sum(peer.count("GET") for peer in cluster) == 1


def test_not_found(cache: BlockCache, cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    locator = f"{'0' * 32}+100{SIGNATURE}"
    with pytest.raises(BlockNotFound, match="Block not found error: " + "0" * 32) as told:
        cache.read(locator, 0, 10)
    assert [peer.count("GET") for peer in cluster] == [1, 1]
    assert told.value.subject == "0" * 32 + "+100"
    assert "Block not found error" in caplog.text
    text = str(told.value) + caplog.text
    assert "secrettoken" not in text
    assert SIGNATURE not in text


def test_found_on_the_second_service(cache: BlockCache, cluster: Cluster) -> None:
    locator = on_all(cluster, BLOCK)
    first_for(cluster, locator).blocks.clear()
    assert cache.read(locator, 5, 10) == BLOCK[5:15]
    assert [peer.count("GET") for peer in cluster] == [1, 1]


@pytest.mark.parametrize("status", [401, 403])
def test_refused(cache: BlockCache, cluster: Cluster, status: int) -> None:
    locator = on_all(cluster, BLOCK)
    for peer in cluster:
        peer.status = status
    with pytest.raises(SignatureRefused):
        cache.read(locator, 0, 10)
    assert [peer.count("GET") for peer in cluster] == [1, 1]
    for peer in cluster:
        peer.status = 0
    assert cache.read(locator, 0, 10) == BLOCK[:10]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_service_in_trouble_is_asked_again(cache: BlockCache, cluster: Cluster, status: int) -> None:
    locator = cluster.hold(BLOCK)
    for peer in cluster:
        peer.status = status
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(cache.read, locator, 0, 10)
        wait_until(lambda: cache.counters.get("keep.retries") > 0, "no second round")
        for peer in cluster:
            peer.status = 0
        assert read.result(timeout=20) == BLOCK[:10]


def test_trouble_that_stays_is_an_error_after_the_retries(cache: BlockCache, cluster: Cluster) -> None:
    locator = cluster.hold(BLOCK)
    for peer in cluster:
        peer.status = 503
    with pytest.raises(Unreachable, match="503"):
        cache.read(locator, 0, 10)
    assert [peer.count("GET") for peer in cluster] == [4, 4]


def test_wrong_bytes_are_fetched_elsewhere(cache: BlockCache, cluster: Cluster) -> None:
    locator = on_all(cluster, BLOCK)
    bad = first_for(cluster, locator)
    bad.blocks[locator[:32]] = BLOCK[:-1] + bytes([BLOCK[-1] ^ 1])
    assert cache.read(locator, 0, len(BLOCK)) == BLOCK
    assert cache.counters.get("keep.wrong") == 1


def test_a_wrong_length_is_fetched_elsewhere(cache: BlockCache, cluster: Cluster) -> None:
    locator = on_all(cluster, BLOCK)
    first_for(cluster, locator).blocks[locator[:32]] = BLOCK[:-1]
    assert cache.read(locator, 0, len(BLOCK)) == BLOCK


def test_only_wrong_copies(cache: BlockCache, cluster: Cluster) -> None:
    locator = on_all(cluster, BLOCK)
    for peer in cluster:
        peer.blocks[locator[:32]] = bytes(len(BLOCK))
    with pytest.raises(BlockCorrupt):
        cache.read(locator, 0, len(BLOCK))
    for peer in cluster:
        peer.hold(BLOCK)
    assert cache.read(locator, 0, len(BLOCK)) == BLOCK


def test_bytes_handed_out_before_a_failed_check_are_told(cache: BlockCache, cluster: Cluster) -> None:
    locator = on_all(cluster, BLOCK)
    bad = first_for(cluster, locator)
    bad.blocks[locator[:32]] = b"\0" + BLOCK[1:] if BLOCK[0] else b"\1" + BLOCK[1:]
    slow, fresh = cache.reader(), cache.reader()
    got = bytearray()
    error: ArvadosFuseError | None = None
    for offset in range(0, len(BLOCK), 4096):
        try:
            got += slow.read(locator, offset, min(4096, len(BLOCK) - offset))
        except BlockCorrupt as told:
            error = told
            break
    # Either the wrong byte was never handed out, or the reader got an error before the end.
    assert bytes(got) == BLOCK or error is not None
    assert fresh.read(locator, 0, len(BLOCK)) == BLOCK
    if error is not None:
        with pytest.raises(BlockCorrupt):
            slow.read(locator, 0, len(BLOCK))


@pytest.mark.parametrize(("offset", "size"), [(-1, 5), (0, -1), (0, 11), (10, 1), (1 << 70, 1)])
def test_ranges_outside_the_block(cache: BlockCache, cluster: Cluster, offset: int, size: int) -> None:
    locator = cluster.hold(b"0123456789")
    for _ in range(2):
        with pytest.raises(InvalidArgument):
            cache.read(locator, offset, size)
        assert cache.read(locator, 0, 10) == b"0123456789"


def test_an_illegal_locator(cache: BlockCache) -> None:
    with pytest.raises(LocatorError):
        cache.read("../../etc/passwd", 0, 1)
    with pytest.raises(LocatorError):
        cache.read("", 0, 0)


def test_not_started_or_closed_is_an_error_not_a_wait(cluster: Cluster, make_store: MakeStore) -> None:
    locator = cluster.hold(BLOCK)
    store = make_store()
    cache = BlockCache(cluster, store)
    with pytest.raises(Unreachable):
        cache.read(locator, 0, 1)
    cache.start()
    assert cache.read(locator, 0, 1) == BLOCK[:1]
    wait_for(lambda: len(store.blocks) == 1, "all of the block is there")
    cache.close()
    with pytest.raises(Unreachable):
        cache.read(locator, 0, 1)


def test_close_ends_threads_and_waiting_readers(
    cluster: Cluster, make_cache: MakeCache, make_store: MakeStore
) -> None:
    before = threading.active_count()
    peer = cluster.peers[0]
    peer.gate = threading.Event()
    cluster.peers = [peer]
    locator = cluster.hold(BLOCK)
    cache = make_cache(make_store())
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(cache.read, locator, 0, 1)
        wait_until(lambda: peer.count("GET") == 1, "no request")
        cache.close()
        with pytest.raises(Unreachable):
            read.result(timeout=20)
    peer.gate.set()
    wait_until(lambda: threading.active_count() <= before, "threads are left")
    assert not [one.name for one in threading.enumerate() if one.name.startswith("keep-")]


def test_threads_and_files_stay_bounded_under_many_readers(
    cluster: Cluster, make_cache: MakeCache, make_store: MakeStore
) -> None:
    blocks = [bytes([number]) * 100000 for number in range(120)]
    locators = [on_all(cluster, block) for block in blocks]
    store = make_store()
    cache = make_cache(store, carriers=8)
    most = [0, 0]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            names = [one.name for one in threading.enumerate()]
            most[0] = max(most[0], sum(name.startswith("keep-") for name in names))
            most[1] = max(most[1], len(os.listdir("/proc/self/fd")))

    files_before = len(os.listdir("/proc/self/fd"))
    watcher = threading.Thread(target=watch)
    watcher.start()

    def read(number: int) -> bool:
        one = number % len(blocks)
        return bytes(cache.read(locators[one], 1000, 5000)) == blocks[one][1000:6000]

    with ThreadPoolExecutor(200) as pool:
        assert all(pool.map(read, range(600)))
    stop.set()
    watcher.join()
    assert most[0] <= 8 + 1
    # Cached files, and both ends of the connections to the peers in this process.
    assert most[1] - files_before <= len(blocks) + 4 * 8 + 32
    # Shared, though a block that somebody looked into may have made way for others and be fetched again.
    assert sum(peer.count("GET") for peer in cluster) < 2 * len(blocks)


@pytest.mark.parametrize("limit", [1, 70 * MIB])
def test_a_tiny_limit_still_works(
    cluster: Cluster, make_cache: MakeCache, make_store: MakeStore, limit: int
) -> None:
    blocks = [bytes([number]) * (24 * MIB) for number in range(6)]
    locators = [cluster.hold(block) for block in blocks]
    store = make_store(limit)
    cache = make_cache(store)
    for _ in range(2):
        for number, locator in enumerate(locators):
            assert cache.read(locator, 5, 100) == blocks[number][5:105]
            assert cache.read(locator, 24 * MIB - 100, 100) == blocks[number][:100]
            assert store.usage() <= store.limit
    store.check()
    assert cache.counters.get("cache.evicted") >= 6


def test_a_stream_leaves_what_is_used_again(
    cluster: Cluster, make_cache: MakeCache, make_store: MakeStore
) -> None:
    store = make_store(64 * MIB)
    cache = make_cache(store)
    blocks = [bytes([number]) * (4 * MIB) for number in range(40)]
    locators = [cluster.hold(block) for block in blocks]
    genome = locators[:8]
    for _ in range(2):
        for locator in genome:
            cache.read(locator, 4 * MIB - 100, 100)
            cache.read(locator, 0, 100)
    for locator in locators[8:]:
        for offset in range(0, 4 * MIB, MIB):
            cache.read(locator, offset, MIB)
    fetched = cache.counters.get("net.received_bytes")
    for number, locator in enumerate(genome):
        assert cache.read(locator, 10, 10) == blocks[number][:10]
    assert cache.counters.get("net.received_bytes") == fetched


def test_counters(cache: BlockCache, cluster: Cluster) -> None:
    locator = cluster.hold(BLOCK)
    cache.read(locator, 0, len(BLOCK))
    cache.read(locator, 0, 10)
    cache.read(locator, 0, 10)
    assert cache.counters.get("cache.miss") == 1
    assert cache.counters.get("cache.hit") == 2
    assert cache.counters.get("net.received_bytes") == len(BLOCK)
    assert cache.counters.snapshot()["keep.requests"] >= 1


def test_any_store_survives_random_use(
    cluster: Cluster, make_cache: MakeCache, make_store: MakeStore
) -> None:
    dice = random.Random(7)
    blocks = [dice.randbytes(dice.randrange(1, 6 * MIB)) for _ in range(40)]
    locators = [on_all(cluster, block) for block in blocks]
    store: DiskStore | RamStore = make_store(64 * MIB)
    cache = make_cache(store)

    def read(seed: int) -> None:
        own = random.Random(seed)
        reader = cache.reader()
        for _ in range(60):
            number = own.randrange(len(blocks))
            offset = own.randrange(len(blocks[number]))
            size = own.randrange(len(blocks[number]) - offset + 1)
            assert reader.read(locators[number], offset, size) == blocks[number][offset : offset + size]
        reader.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(8)))
    # Blocks that made way for others are still on their way: no more than may be.
    assert store.usage() <= store.limit + store.budget()
    wait_for(lambda: store.usage() <= store.limit, "the limit is held")
    store.check()


def test_access_denied_is_what_a_refused_put_says(cache: BlockCache, cluster: Cluster) -> None:
    for peer in cluster:
        peer.puts_status = 403
    with pytest.raises(AccessDenied, match="Keep write error"):
        cache.put(b"data")


def test_a_refused_signature_is_told_soon_even_if_another_service_is_in_trouble(
    cache: BlockCache, cluster: Cluster
) -> None:
    locator = on_all(cluster, BLOCK)
    cluster.peers[0].status = 403
    cluster.peers[1].status = 503
    with pytest.raises(SignatureRefused):
        cache.read(locator, 0, 10)
    assert [peer.count("GET") for peer in cluster] == [1, 2]


@pytest.mark.parametrize("both", [True, False])
def test_news_of_bytes_that_the_kernel_may_hold(
    cluster: Cluster, make_cache: MakeCache, make_store: MakeStore, both: bool
) -> None:
    news: queue.SimpleQueue[BlockReplaced] = queue.SimpleQueue()
    bad = SlowService(bytes([BLOCK[0] ^ 1]) + BLOCK[1:], len(BLOCK) // 2).start()
    cluster.extra.append(bad.service)
    locator = f"{on_all(cluster, BLOCK)[:32]}+{len(BLOCK)}+K@{bad.service.uuid}{SIGNATURE}"
    if both:
        for peer in cluster:
            peer.blocks.clear()
    cache = make_cache(make_store(), news=news, retries=0)
    reader, other = cache.reader(), cache.reader()
    assert reader.read(locator, 0, 10) != BLOCK[:10]
    assert other.read(locator, 10, 10) == BLOCK[10:20]
    bad.go_on.set()
    assert news.get(timeout=20) == BlockReplaced(locator[:32])
    with pytest.raises(BlockCorrupt):
        reader.read(locator, 20, 10)
    if both:
        with pytest.raises(BlockCorrupt):  # what it got was never checked
            other.read(locator, 20, 10)
    else:
        assert other.read(locator, 20, 10) == BLOCK[20:30]
        assert cache.reader().read(locator, 0, len(BLOCK)) == BLOCK
    bad.stop()


def test_who_got_bad_bytes_is_told_before_the_rest_is_in_the_cache(
    cluster: Cluster, make_cache: MakeCache, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = SlowService(bytes([BLOCK[0] ^ 1]) + BLOCK[1:], len(BLOCK) // 2).start()
    cluster.extra.append(bad.service)
    locator = f"{on_all(cluster, BLOCK)[:32]}+{len(BLOCK)}+K@{bad.service.uuid}{SIGNATURE}"
    store = make_store()
    cache = make_cache(store)
    reader = cache.reader()
    heard: list[object] = []
    begin = store.begin

    def begin_watched(md5: str, size: int) -> Any:
        sink = begin(md5, size)
        commit = sink.commit

        def commit_and_read_on(high: int) -> None:
            commit(high)
            try:
                heard.append(reader.read(locator, len(BLOCK) - 10, 10))
            except BlockCorrupt as error:
                heard.append(error)

        sink.commit = commit_and_read_on
        return sink

    monkeypatch.setattr(store, "begin", begin_watched)
    assert reader.read(locator, 0, 10) != BLOCK[:10]
    bad.go_on.set()
    wait_until(lambda: heard, "the block is not there")
    assert isinstance(heard[0], BlockCorrupt)
    assert cache.reader().read(locator, 0, len(BLOCK)) == BLOCK
    bad.stop()


def test_who_got_bad_bytes_is_told_when_another_process_has_fetched_the_block(
    cluster: Cluster, make_cache: MakeCache, tmp_path: Path
) -> None:
    bad = SlowService(bytes([BLOCK[0] ^ 1]) + BLOCK[1:], len(BLOCK) // 2).start()
    cluster.extra.append(bad.service)
    locator = f"{on_all(cluster, BLOCK)[:32]}+{len(BLOCK)}+K@{bad.service.uuid}{SIGNATURE}"
    for peer in cluster:
        peer.status = 503
    quick = Timeouts(connect=1.0, progress=0.5, overall=1.0)
    reader = make_cache(DiskStore(tmp_path / "keep"), retries=0, timeouts=quick).reader()
    assert reader.read(locator, 0, 10) != BLOCK[:10]
    with pytest.raises(Unreachable):
        reader.read(locator, len(BLOCK) - 10, 10)
    cluster.extra.clear()
    for peer in cluster:
        peer.status = 0
    elsewhere = make_cache(DiskStore(tmp_path / "keep"))
    assert elsewhere.read(locator, 0, len(BLOCK)) == BLOCK
    elsewhere.close()

    def hears() -> bool:
        try:
            reader.read(locator, len(BLOCK) - 10, 10)
        except Unreachable:  # it is not asked for again at once
            return False
        return True

    with pytest.raises(BlockCorrupt):
        wait_until(hears, "nothing is heard")
    bad.go_on.set()
    bad.stop()


def test_failing_to_read_ahead_is_nobodys_error(cache: BlockCache, cluster: Cluster) -> None:
    locator = cluster.hold(BLOCK)
    for peer in cluster:
        peer.status = 503
    assert cache.fetch_ahead(locator)
    wait_until(lambda: all(peer.count("GET") for peer in cluster), "not tried")
    for peer in cluster:
        peer.status = 0
    assert cache.read(locator, 0, len(BLOCK)) == BLOCK


def test_the_first_read_finds_connections_made(cache: BlockCache, cluster: Cluster) -> None:
    wait_until(lambda: all(peer.connections == 1 for peer in cluster), "not connected beforehand")
    wait_until(lambda: not any(one.name == "keep-services" for one in threading.enumerate()), "not done")
    locator = cluster.hold(BLOCK)
    assert cache.read(locator, 0, 10) == BLOCK[:10]
    assert [peer.connections for peer in cluster] == [1, 1]


def test_many_services_are_not_connected_to_before_they_are_needed(
    make_cache: Callable[..., BlockCache],
) -> None:
    peers = [Peer(number).start() for number in (1, 2, 3)]
    cluster = Cluster(*peers)
    cache = make_cache(RamStore(), directory=cluster)
    locator = cluster.hold(BLOCK)
    assert cache.read(locator, 0, 10) == BLOCK[:10]
    assert sum(peer.connections for peer in peers) == sum(peer.count("GET") for peer in peers)
    cache.close()
    for peer in peers:
        peer.stop()
