"""Fixtures for the tests of `arvados_fuse.keep`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.keep.keep_peer import Cluster, Peer

from arvados_fuse.keep import BlockCache, DiskStore, RamStore, Timeouts

QUICK = Timeouts(connect=2.0, progress=5.0, overall=20.0)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two Keep services."""
    peers = [Peer(number).start() for number in (1, 2)]
    yield Cluster(*peers)
    for peer in peers:
        peer.stop()


@pytest.fixture(params=["disk", "ram"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., DiskStore | RamStore]:
    """Makes a store of either kind."""

    def make(limit: int = 0, **options: Any) -> DiskStore | RamStore:
        if request.param == "ram":
            return RamStore(limit)
        return DiskStore(tmp_path / "keep", limit, **options)

    return make


@pytest.fixture
def make_cache(cluster: Cluster) -> Iterator[Callable[..., BlockCache]]:
    """Makes started caches on the cluster; they are closed at the end."""
    caches: list[BlockCache] = []

    def make(store: DiskStore | RamStore, **options: Any) -> BlockCache:
        options = {"timeouts": QUICK, "retries": 3, **options}
        cache = BlockCache(options.pop("directory", cluster), store, **options)
        caches.append(cache)
        cache.start()
        return cache

    yield make
    for cache in caches:
        cache.close()


@pytest.fixture
def cache(make_cache: Callable[..., BlockCache], make_store: Callable[..., Any]) -> BlockCache:
    """A cache on a store of either kind."""
    return make_cache(make_store())
