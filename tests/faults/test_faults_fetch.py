"""What networks and servers do to a block on its way: right bytes or an error, never wrong ones, never a
hang.

Each fault happens at the start, in the middle and at the last byte, on one service or on all, to readers of
the whole block, of its start, its end and of random places. After it ends, all reads are right.
"""

import hashlib
import random
import time
from collections.abc import Callable, Iterator

import pytest
from faults.conftest import BRIEF, ProxiedKeep
from faults.proxy import Fault

from arvados_fuse.errors import ArvadosFuseError, BlockCorrupt, BlockNotFound, SignatureRefused, Unreachable
from arvados_fuse.keep import BlockCache, Reader
from arvados_fuse.keep.flight import HELD_BACK

MakeCache = Callable[..., BlockCache]

DEADLINE = BRIEF.overall + 60.0
"""No read takes longer, whatever happens; a machine under load included."""

POSITIONS = {"start": 0, "middle": 3 * 512 * 1024, "last": 3 * 1024 * 1024 + 10}

FAULTS = {
    **{f"status{status}": Fault(status=status) for status in (500, 503, 429, 401, 403, 404, 418)},
    "refused": Fault(refused=True),
    "slow": Fault(rate=4e6, latency=0.05),
    **{f"cut-{name}": Fault(cut_at=at) for name, at in POSITIONS.items()},
    **{f"wrong-{name}": Fault(wrong_at=at) for name, at in POSITIONS.items()},
    **{f"hang-{name}": Fault(hang_at=at) for name, at in POSITIONS.items()},
}

Pattern = Callable[[int], Iterator[tuple[int, int]]]


def whole(size: int) -> Iterator[tuple[int, int]]:
    for offset in range(0, size, 131072):
        yield offset, min(131072, size - offset)


def start(size: int) -> Iterator[tuple[int, int]]:
    yield 0, 4096


def end(size: int) -> Iterator[tuple[int, int]]:
    yield size - 4096, 4096


def scattered(size: int) -> Iterator[tuple[int, int]]:
    dice = random.Random(size)
    for _ in range(20):
        yield dice.randrange(size - 5000), 5000


PATTERNS: dict[str, Pattern] = {"whole": whole, "start": start, "end": end, "scattered": scattered}


class Outcome:
    """What a program got that reads through a reader and stops at the first error."""

    def __init__(self, reader: Reader, locator: str, block: bytes, pattern: Pattern) -> None:
        self.wrong: list[int] = []
        self.error: ArvadosFuseError | None = None
        self.complete = False
        begun = time.monotonic()
        try:
            for offset, size in pattern(len(block)):
                if reader.read(locator, offset, size) != block[offset : offset + size]:
                    self.wrong.append(offset)
            self.complete = True
        except ArvadosFuseError as error:
            self.error = error
        self.seconds = time.monotonic() - begun


@pytest.mark.parametrize(
    ("store_kind", "pattern"),
    [*(("disk", name) for name in PATTERNS), ("ram", "whole")],
    indirect=["store_kind"],
)
@pytest.mark.parametrize("name", FAULTS)
def test_one_service_is_enough(
    keep: ProxiedKeep, make_cache: MakeCache, block: bytes, name: str, pattern: str
) -> None:
    locator = keep.hold(block)
    cache = make_cache()
    keep.order(locator)[0].set(FAULTS[name])
    with_reader(cache, locator, block, PATTERNS[pattern], wrong_may_pass=name.startswith("wrong"))
    # The last byte comes after the check; from then on the block is right for everybody.
    assert cache.read(locator, len(block) - 1, 1) == block[-1:]
    after = Outcome(cache.reader(), locator, block, whole)
    assert (after.wrong, after.error) == ([], None)


def with_reader(
    cache: BlockCache, locator: str, block: bytes, pattern: Pattern, *, wrong_may_pass: bool
) -> None:
    """Read; only bytes that went by before the check may be wrong, and then the reader is told."""
    reader = cache.reader()
    outcome = Outcome(reader, locator, block, pattern)
    assert outcome.seconds < DEADLINE
    if wrong_may_pass and (outcome.wrong or outcome.error):
        if outcome.error is None:
            # The program read a part of the block only: what it does next with this handle fails.
            outcome = Outcome(reader, locator, block, end)
        assert isinstance(outcome.error, BlockCorrupt)
    else:
        assert (outcome.wrong, outcome.error) == ([], None)
    reader.close()


EXPECTED = {
    "status401": SignatureRefused,
    "status403": SignatureRefused,
    "status404": BlockNotFound,
    "wrong-start": BlockCorrupt,
    "wrong-middle": BlockCorrupt,
    "wrong-last": BlockCorrupt,
}


@pytest.mark.parametrize("name", [name for name in FAULTS if name != "slow"])
def test_a_fault_of_all_services_is_an_error_and_passes(
    keep: ProxiedKeep, make_cache: MakeCache, block: bytes, name: str
) -> None:
    locator = keep.hold(block)
    cache = make_cache(retries=1)
    for proxy in keep.order(locator):
        proxy.set(FAULTS[name])
    reader = cache.reader()
    outcome = Outcome(reader, locator, block, whole)
    assert not outcome.complete
    assert isinstance(outcome.error, EXPECTED.get(name, Unreachable))
    assert outcome.seconds < DEADLINE
    for offset in outcome.wrong:
        assert name.startswith("wrong")
        assert offset < len(block) - HELD_BACK
    keep.clear()
    for _ in range(2):
        after = Outcome(cache.reader(), locator, block, whole)
        assert (after.wrong, after.error) == ([], None)


@pytest.mark.parametrize("name", ["status503", "cut-start", "cut-middle", "cut-last", "wrong-last"])
def test_a_fault_that_happens_once_is_made_good_by_a_retry(
    keep: ProxiedKeep, make_cache: MakeCache, block: bytes, name: str
) -> None:
    locator = keep.hold(block)
    cache = make_cache()
    first, second = keep.order(locator)
    second.set(Fault(status=404))
    first.set(FAULTS[name], times=1)
    outcome = Outcome(cache.reader(), locator, block, whole)
    assert (outcome.wrong, outcome.error) == ([], None)
    assert first.count() == 2


@pytest.mark.parametrize("cut_at", [100, 70000, 1000000, 3 * 1024 * 1024])
def test_many_cuts_in_a_row_do_not_mix_up_bytes(
    keep: ProxiedKeep, make_cache: MakeCache, block: bytes, cut_at: int
) -> None:
    locator = keep.hold(block)
    cache = make_cache(retries=6)
    first, second = keep.order(locator)
    first.set(Fault(cut_at=cut_at), times=3)
    second.set(Fault(cut_at=cut_at // 2), times=3)
    outcome = Outcome(cache.reader(), locator, block, whole)
    assert (outcome.wrong, outcome.error) == ([], None)


def test_a_refused_signature_is_the_users_to_mend(
    keep: ProxiedKeep, make_cache: MakeCache, block: bytes
) -> None:
    locator = keep.hold(block)
    wrong = locator.replace("+A", "+A0000", 1)[: len(locator)]
    cache = make_cache()
    with pytest.raises(SignatureRefused):
        cache.read(wrong, 0, 10)
    assert cache.read(locator, 0, 10) == block[:10]


@pytest.mark.parametrize("name", ["status503", "refused", "cut-start", "hang-start"])
def test_a_put_goes_elsewhere(keep: ProxiedKeep, make_cache: MakeCache, name: str) -> None:
    data = random.Random(name).randbytes(500000)
    cache = make_cache()
    first, second = keep.order(hashlib.md5(data).hexdigest())
    first.set(FAULTS[name])
    locator = cache.put(data)
    assert second.count("PUT") == 1
    assert make_cache().read(locator, 7, 1000) == data[7:1007]


def test_a_put_that_nobody_takes_is_an_error(keep: ProxiedKeep, make_cache: MakeCache) -> None:
    cache = make_cache(retries=1)
    for proxy in keep.proxies.values():
        proxy.set(Fault(status=503))
    with pytest.raises(Unreachable, match="Keep write error"):
        cache.put(b"nobody wants this")
    keep.clear()
    locator = cache.put(b"nobody wants this")
    assert make_cache().read(locator, 0, 17) == b"nobody wants this"
