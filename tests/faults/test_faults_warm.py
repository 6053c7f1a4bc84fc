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


def read_through(cache: BlockCache, locators: list[str], size: int) -> float:
    """Read blocks as one file from end to end, as a program does; seconds."""
    reader, begun = cache.reader(), time.monotonic()
    for number, locator in enumerate(locators):
        for offset in range(0, size, 131072):
            got = reader.read(locator, offset, min(131072, size - offset))
            ahead = reader.after(number * size + offset, len(got))
            if ahead is not None:
                first, last = ahead.begin // size, (ahead.begin + ahead.size - 1) // size
                reader.announce(ahead, locators[first : last + 1])
    reader.close()
    return time.monotonic() - begun


@pytest.mark.parametrize("store_kind", ["disk"], indirect=True)
def test_who_reads_from_end_to_end_hardly_notices(
    keep: ProxiedKeep, make_cache: Callable[..., BlockCache], block: bytes
) -> None:
    # All blocks but the first are read ahead for it: that goes before what is only preloaded.
    files = [[keep.hold(block + bytes([file, number])) for number in range(7)] for file in range(2)]
    warm = [keep.hold(block + bytes([number])) for number in range(9)]
    size = len(block) + 2
    for proxy in keep.proxies.values():
        proxy.set(Fault(rate=RATE))
    cache = make_cache(timeouts=PATIENT)
    alone = read_through(cache, files[0], size)
    warming = Warming(cache, [Wanted("all", warm)])
    steps = warming.run()
    next(step for step in steps if step.bytes)
    disturbed = read_through(cache, files[1], size)
    assert list(steps)[-1].files == 1
    assert disturbed < alone * 1.5 + 0.5
