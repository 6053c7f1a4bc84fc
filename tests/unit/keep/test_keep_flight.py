"""A flight: what is handed out before the check, and who is told when it was wrong."""

import random
import threading

import pytest

from arvados_fuse.errors import ArvadosFuseError, BlockCorrupt, Unreachable
from arvados_fuse.keep import Locator
from arvados_fuse.keep.content import MemoryContent
from arvados_fuse.keep.flight import HELD_BACK, Abandoned, Flight

SIZE = 4 * HELD_BACK
GOOD = random.Random(1).randbytes(SIZE)
PIECE = 10000


class Watcher:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.errors: list[ArvadosFuseError] = []

    def spoil(self, md5: str, error: ArvadosFuseError) -> None:
        self.errors.append(error)


class Attempt:
    """Feeds a flight with bytes, as a transfer does."""

    def __init__(self, flight: Flight, data: bytes) -> None:
        self.flight, self.data = flight, data
        self.content = MemoryContent(len(data))
        self.at = 0

    def until(self, end: int) -> "Attempt":
        while self.at < end:
            piece = self.data[self.at : min(self.at + PIECE, end)]
            self.content.view[self.at : self.at + len(piece)] = piece
            self.flight.arrived(self.content, self.at, memoryview(piece))
            self.at += len(piece)
        return self


def flipped(*positions: int) -> bytes:
    data = bytearray(GOOD)
    for position in positions:
        data[position] ^= 1
    return bytes(data)


@pytest.fixture
def flight() -> Flight:
    return Flight(Locator("0" * 32, SIZE), f"{'0' * 32}+{SIZE}", demanded=True)


def test_bytes_are_there_as_they_arrive_but_the_end_waits_for_the_check(flight: Flight) -> None:
    watcher = Watcher()
    attempt = Attempt(flight, GOOD)
    assert flight.read(watcher, 0, 1) is None
    attempt.until(50000)
    assert flight.read(watcher, 40000, 10000) == GOOD[40000:50000]
    assert flight.read(watcher, 40001, 10000) is None
    attempt.until(SIZE)
    assert flight.read(watcher, 0, SIZE - HELD_BACK) == GOOD[:-HELD_BACK]
    assert flight.read(watcher, SIZE - HELD_BACK, 1) is None
    assert flight.land(attempt.content) == []
    assert flight.read(watcher, 0, SIZE) == GOOD
    assert watcher.errors == []


def test_nothing_of_a_short_block_is_there_before_the_check() -> None:
    flight = Flight(Locator("0" * 32, HELD_BACK), "", demanded=True)
    Attempt(flight, GOOD[:HELD_BACK]).until(HELD_BACK)
    assert flight.released == 0


def test_a_second_attempt_that_agrees_takes_over(flight: Flight) -> None:
    watcher = Watcher()
    Attempt(flight, GOOD).until(80000)
    assert flight.read(watcher, 0, 70000) == GOOD[:70000]
    second = Attempt(flight, GOOD).until(30000)
    assert flight.released == 80000
    assert flight.read(watcher, 30000, 50000) == GOOD[30000:80000]
    second.until(100000)
    assert flight.released == 100000
    assert flight.land(second.until(SIZE).content) == []
    assert watcher.errors == []


def test_a_second_attempt_that_disagrees_releases_nothing_before_its_check(flight: Flight) -> None:
    reader, other, elsewhere = Watcher(), Watcher(), Watcher()
    Attempt(flight, flipped(5000)).until(80000)
    flight.read(reader, 0, 70000)
    flight.read(other, 4000, 500)
    flight.read(other, 5000, 1)
    flight.read(elsewhere, 5001, 70000)
    second = Attempt(flight, GOOD).until(SIZE)
    assert flight.released == 80000
    spoiled = flight.land(second.content)
    assert spoiled == [reader, other]
    assert isinstance(reader.errors[0], BlockCorrupt)
    assert elsewhere.errors == []
    assert flight.read(reader, 0, SIZE) == GOOD


def test_readers_are_told_before_the_landing_and_once(flight: Flight) -> None:
    reader, late = Watcher(), Watcher()
    earlier = Flight(flight.locator, "", demanded=True)
    Attempt(earlier, flipped(7)).until(80000)
    earlier.read(late, 0, 10)
    Attempt(flight, flipped(5000)).until(80000)
    flight.read(reader, 0, 70000)
    content = Attempt(flight, GOOD).until(SIZE).content
    assert flight.settle(content) == [reader]
    assert flight.released == 80000
    assert flight.inherit(earlier.abandon())
    assert flight.has_debts
    assert flight.land(content) == [late]
    assert (len(reader.errors), len(late.errors)) == (1, 1)
    assert flight.released == SIZE


def test_a_wrong_second_attempt_does_no_harm(flight: Flight) -> None:
    watcher = Watcher()
    Attempt(flight, GOOD).until(80000)
    flight.read(watcher, 0, 80000)
    Attempt(flight, flipped(7)).until(SIZE)
    assert flight.released == 80000
    third = Attempt(flight, GOOD).until(SIZE)
    assert flight.land(third.content) == []
    assert watcher.errors == []


def test_who_waits_for_the_end_is_told_before_it_gets_it(flight: Flight) -> None:
    watcher = Watcher()
    Attempt(flight, flipped(3)).until(SIZE)
    flight.read(watcher, 0, 100)
    seen: list[int] = []

    def wait() -> None:
        assert flight.wait(SIZE, 20)
        seen.append(len(watcher.errors))

    thread = threading.Thread(target=wait)
    thread.start()
    flight.land(Attempt(flight, GOOD).until(SIZE).content)
    thread.join()
    assert seen == [1]


def test_failure_reaches_waiters_and_those_who_have_unchecked_bytes(flight: Flight) -> None:
    watcher, innocent = Watcher(), Watcher()
    Attempt(flight, GOOD).until(80000)
    flight.read(watcher, 0, 10)
    flight.fail(BlockCorrupt("every copy is damaged"))
    assert [type(error) for error in watcher.errors] == [BlockCorrupt]
    with pytest.raises(BlockCorrupt):
        flight.wait(10, 1)
    assert flight.read(innocent, 0, 10) is None


def test_when_a_block_can_not_be_had_unchecked_bytes_wait_for_their_check(flight: Flight) -> None:
    watcher = Watcher()
    Attempt(flight, GOOD).until(80000)
    flight.read(watcher, 0, 10)
    (debt,) = flight.abandon(Unreachable("gone"))
    assert (debt.watcher, debt.begin, debt.end) == (watcher, 0, 10)
    assert watcher.errors == []
    with pytest.raises(Unreachable):
        flight.wait(10, 1)


@pytest.mark.parametrize("wrong", [False, True])
def test_an_abandoned_flights_bytes_are_checked_by_the_next(flight: Flight, wrong: bool) -> None:
    watcher = Watcher()
    Attempt(flight, flipped(500) if wrong else GOOD).until(80000)
    flight.read(watcher, 0, 4096)
    debts = flight.abandon()
    with pytest.raises(Abandoned):
        flight.wait(SIZE, 1)
    following = Flight(flight.locator, "", demanded=True)
    assert following.inherit(debts)
    following.land(Attempt(following, GOOD).until(SIZE).content)
    assert len(watcher.errors) == wrong
    assert not following.inherit(debts)


def test_waiting_ends_with_its_time(flight: Flight) -> None:
    assert not flight.wait(1, 0.01)
    assert flight.waiters == 0
