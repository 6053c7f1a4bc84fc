"""Keep is down, or the API server, or both: who wants a block that is not cached learns it soon, once, in the
log too."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.conftest import ProxiedKeep
from faults.proxy import Fault

from arvados_fuse.errors import Unreachable
from arvados_fuse.keep import BlockCache, DiskStore, KeepService, Timeouts
from arvados_fuse.keep.cache import SILENCE_MARGIN

SOON = Timeouts(connect=0.5, progress=0.5, overall=3.0)
"""The rules are the same for any times; these make the tests short."""
LATEST = SOON.overall + SILENCE_MARGIN + 2.0

MakeCache = Callable[..., BlockCache]

on_disk = pytest.mark.parametrize("store_kind", ["disk"], indirect=True)
"""Where the cache is makes no difference here."""

DOWN = {
    "refused": Fault(refused=True),
    "hangs": Fault(hang_at=0),
    "hangs in the middle": Fault(hang_at=1_000_000),
    "busy": Fault(status=503),
}


@on_disk
@pytest.mark.parametrize("name", DOWN)
def test_a_read_ends_and_one_line_says_why(
    keep: ProxiedKeep, make_cache: MakeCache, block: bytes, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    locator = keep.hold(block)
    cache = make_cache(timeouts=SOON, retries=1000)
    for proxy in keep.proxies.values():
        proxy.set(DOWN[name])
    reader = cache.reader()
    begun = time.monotonic()
    with caplog.at_level(logging.WARNING), pytest.raises(Unreachable) as caught:
        reader.read(locator, 2_000_000, 4096)
    assert time.monotonic() - begun < SOON.overall + 2.0, "later than one fetch may take"
    (line,) = caplog.messages
    assert line == str(caught.value)
    assert caught.value.told, "whoever gets it need not log it again"
    assert locator.partition("+A")[0] in line
    assert all(f"127.0.0.1:{proxy.port}" in line for proxy in keep.proxies.values())
    assert caught.value.request_id in line
    # The kernel asks once more for the one page: that must not take as long again.
    begun = time.monotonic()
    with pytest.raises(Unreachable):
        reader.read(locator, 2_000_000, 4096)
    assert time.monotonic() - begun < 0.5
    keep.clear()
    assert cache.read(locator, 2_000_000, 4096) == block[2_000_000:2_004_096]


@on_disk
def test_more_readers_than_can_fetch_at_once_all_end(
    keep: ProxiedKeep, make_cache: MakeCache, block: bytes
) -> None:
    cache = make_cache(timeouts=SOON, retries=1000, carriers=2)
    locators = [keep.hold(block + bytes([number])) for number in range(12)]
    for proxy in keep.proxies.values():
        proxy.set(Fault(hang_at=0))
    failed: list[str] = []

    def read(locator: str) -> None:
        try:
            cache.read(locator, 0, 10)
        except Unreachable:
            failed.append(locator)

    threads = [threading.Thread(target=read, args=(locator,)) for locator in locators]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(failed) == sorted(locators)
    assert time.monotonic() - begun < LATEST


def test_the_api_server_is_down_too(keep: ProxiedKeep, block: bytes, tmp_path: Path) -> None:
    class Directory:
        """Answers once; then it hangs, as an API server that retries for minutes does."""

        def __init__(self) -> None:
            self.asked = 0
            self.over = threading.Event()

        def keep_services(self) -> list[KeepService]:
            self.asked += 1
            if self.asked > 1:
                self.over.wait(60)
            return keep.keep_services()

        def token(self) -> str:
            return keep.token()

    locator, directory = keep.hold(block), Directory()
    cache = BlockCache(directory, DiskStore(tmp_path / "keep"), timeouts=SOON, retries=1000)
    cache.start()
    try:
        assert cache.read(keep.hold(b"known"), 0, 5) == b"known"
        for proxy in keep.proxies.values():
            proxy.set(Fault(refused=True))
        begun = time.monotonic()
        with pytest.raises(Unreachable):
            cache.read(locator, 0, 10)
        assert time.monotonic() - begun < LATEST
        assert cache.read(keep.hold(b"known"), 0, 5) == b"known"
    finally:
        directory.over.set()
        cache.close()
