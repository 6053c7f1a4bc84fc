"""Fixtures for the fault tests: the embedded Arvados with a fault proxy in front of each Keep service."""

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from faults.proxy import FaultProxy
from servers import LocalServer

from arvados_fuse.keep import BlockCache, DiskStore, KeepService, RamStore, Timeouts, rendezvous

BRIEF = Timeouts(connect=1.0, progress=0.3, overall=8.0)
"""So that a hang is over soon; the same rules hold for any times."""


class ProxiedKeep:
    """The directory that a block cache needs: the server's Keep services, each behind a proxy."""

    def __init__(self, server: LocalServer) -> None:
        self.server = server
        self.proxies: dict[str, FaultProxy] = {}
        self._services: list[KeepService] = []
        for record in server.call("GET", "keep_services/accessible").body["items"]:
            direct = KeepService.from_record(record)
            proxy = FaultProxy(f"{direct.host}:{direct.port}").start()
            self.proxies[direct.uuid] = proxy
            self._services.append(KeepService(direct.uuid, "127.0.0.1", proxy.port))
        self._urls = [urlsplit(url).netloc for url in server.settings.keep_services]

    def keep_services(self) -> list[KeepService]:
        """The services, by the ports of their proxies."""
        return self._services

    def token(self) -> str:
        """The first user's."""
        return self.server.settings.token

    def hold(self, data: bytes) -> str:
        """Put a block on all services; returns its signed locator."""
        md5 = hashlib.md5(data).hexdigest()
        for number in range(len(self._urls)):
            answer = self.server.keep("PUT", f"/{md5}", data, service=number)
            assert answer.status == 200
        return str(answer.body.decode().strip())

    def order(self, locator: str) -> list[FaultProxy]:
        """The proxies in the order in which the block is asked for."""
        return [self.proxies[service.uuid] for service in rendezvous(locator[:32], self._services)]

    def clear(self) -> None:
        """No faults."""
        for proxy in self.proxies.values():
            proxy.clear()
            proxy.seen.clear()

    def stop(self) -> None:
        """Stop the proxies."""
        for proxy in self.proxies.values():
            proxy.stop()


@pytest.fixture(scope="session")
def proxied_keep(local_server: LocalServer) -> Iterator[ProxiedKeep]:
    """One for the whole run; use `keep`."""
    keep = ProxiedKeep(local_server)
    yield keep
    keep.stop()


@pytest.fixture
def keep(proxied_keep: ProxiedKeep) -> Iterator[ProxiedKeep]:
    """Keep behind proxies, without faults at first."""
    proxied_keep.clear()
    yield proxied_keep
    proxied_keep.clear()


@pytest.fixture(scope="session")
def block() -> bytes:
    """The bytes of a block of some MiB."""
    return random.Random(11).randbytes(3 * 1024 * 1024 + 11)


@pytest.fixture(params=["disk", "ram"])
def store_kind(request: pytest.FixtureRequest) -> str:
    """Both kinds of cache."""
    return str(request.param)


@pytest.fixture
def make_cache(keep: ProxiedKeep, store_kind: str, tmp_path: Path) -> Iterator[Callable[..., BlockCache]]:
    """Makes started caches, each with an empty store; they are closed at the end."""
    caches: list[BlockCache] = []

    def make(**options: Any) -> BlockCache:
        directory = tmp_path / f"keep{len(caches)}"
        store = DiskStore(directory) if store_kind == "disk" else RamStore()
        cache = BlockCache(keep, store, **{"timeouts": BRIEF, "retries": 3, **options})
        caches.append(cache)
        cache.start()
        return cache

    yield make
    for cache in caches:
        cache.close()
