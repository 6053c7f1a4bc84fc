"""Preloading over a slow line: who reads goes first."""

import time
from collections.abc import Callable

import pytest
from faults.conftest import ProxiedKeep
from faults.proxy import Fault

from arvados_fuse.keep import BlockCache, Timeouts, Wanted, Warming

RATE = 6e6
PATIENT = Timeouts(connect=5.0, progress=15.0)


@pytest.mark.parametrize("store_kind", ["disk"], indirect=True)
def test_a_demanded_block_goes_first(
    keep: ProxiedKeep, make_cache: Callable[..., BlockCache], block: bytes
) -> None:
    locators = [keep.hold(block + bytes([number])) for number in range(8)]
    demanded = keep.hold(block)
    for proxy in keep.proxies.values():
        proxy.set(Fault(rate=RATE))
    cache = make_cache(timeouts=PATIENT)
    warming = Warming(cache, [Wanted(str(number), [one]) for number, one in enumerate(locators)])
    steps = warming.run()
    next(step for step in steps if step.bytes)
    begun = time.monotonic()
    assert cache.read(demanded, len(block) - 10, 10) == block[-10:]
    taken = time.monotonic() - begun
    last = list(steps)[-1]
    assert (last.files, warming.failures) == (8, [])
    # Alone it takes len(block) / RATE; what is in the sockets' buffers of the others goes before it.
    assert taken < 2 * len(block) / RATE + 1.0
    assert time.monotonic() - begun > taken + len(block) / RATE, "the others were not done before"
