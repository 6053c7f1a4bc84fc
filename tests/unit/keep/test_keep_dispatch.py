"""Who is fetched when: demanded before read ahead, bounded threads, nobody waits behind what nobody reads."""

import gc
import threading
import time
import weakref
from collections.abc import Callable

import pytest

from arvados_fuse.errors import Unreachable
from arvados_fuse.keep import Locator, dispatch
from arvados_fuse.keep.content import MemoryContent
from arvados_fuse.keep.dispatch import Dispatcher
from arvados_fuse.keep.flight import Abandoned, Flight

GIB = 1024 * 1024 * 1024


class Carrier:
    """Carries flights when it is told to, and says what is under way."""

    def __init__(self, room: int = GIB, carriers: int = 4) -> None:
        self.started: list[str] = []
        self.let_go: dict[str, threading.Event] = {}
        self.dispatcher = Dispatcher(self.carry, lambda: room, carriers=carriers)
        self.dispatcher.start()

    def carry(self, flight: Flight, buffer: memoryview) -> None:
        name = flight.locator.md5[0]
        go = self.let_go.setdefault(name, threading.Event())
        self.started.append(name)
        while not go.wait(0.005):
            if flight.stopping:
                raise Abandoned
        flight.land(MemoryContent(flight.locator.size))

    def want(self, name: str, *, demanded: bool = True, size: int = 1000) -> Flight:
        return self.dispatcher.join(Locator(name * 32, size), name, demanded=demanded)

    def go(self, name: str) -> None:
        self.let_go.setdefault(name, threading.Event()).set()

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, self.started
            time.sleep(0.002)

    def close(self) -> None:
        self.dispatcher.close()


@pytest.fixture
def carriers() -> Callable[..., Carrier]:
    return Carrier


def test_one_flight_for_a_block_and_a_new_one_after_it() -> None:
    carrier = Carrier()
    flight = carrier.want("a")
    assert carrier.want("a") is flight
    carrier.go("a")
    assert flight.wait(1000, 20)
    carrier.until(lambda: carrier.dispatcher.flying("a" * 32) is None)
    assert carrier.want("a") is not flight
    carrier.close()


def test_demanded_blocks_start_before_those_ahead() -> None:
    carrier = Carrier(carriers=1)
    carrier.want("a")
    carrier.until(lambda: carrier.started == ["a"])
    for name in "bc":
        carrier.want(name, demanded=False)
    carrier.want("d")
    carrier.want("c")
    for name in "adcb":
        carrier.go(name)
    carrier.until(lambda: len(carrier.started) == 4)
    assert carrier.started == ["a", "d", "c", "b"]
    carrier.close()


def test_threads_are_bounded_and_some_stay_free_for_demand() -> None:
    carrier = Carrier(carriers=4)
    for name in "0123456789":
        carrier.want(name, demanded=False)
    carrier.until(lambda: len(carrier.started) == 2)
    carrier.want("a")
    carrier.want("b")
    carrier.until(lambda: {"a", "b"} <= set(carrier.started))
    assert carrier.dispatcher.threads() <= 4
    assert sum(name in "0123456789" for name in carrier.started) == 2
    carrier.close()


def test_what_nobody_reads_makes_way_for_what_somebody_waits_for() -> None:
    carrier = Carrier(carriers=2)
    ahead = carrier.want("a", demanded=False)
    old = carrier.want("b")
    carrier.until(lambda: set(carrier.started) == {"a", "b"} or carrier.started == ["b"])
    old.used = time.monotonic() - 10
    waiting = carrier.want("c")
    carrier.until(lambda: "c" in carrier.started)
    last = carrier.want("d")
    while "d" not in carrier.started:
        last.wait(1, 0.01)
        carrier.dispatcher.hurry()
    assert ahead.stopping or not ahead.started
    assert waiting.started
    carrier.close()


def test_a_block_that_is_read_is_not_given_up() -> None:
    carrier = Carrier(carriers=1)
    read = carrier.want("a")
    carrier.until(lambda: carrier.started == ["a"])
    waiter = threading.Thread(target=lambda: read.wait(1000, 20))
    waiter.start()
    carrier.until(lambda: read.waiters == 1)
    other = carrier.want("b")
    for _ in range(20):
        other.wait(1, 0.005)
        carrier.dispatcher.hurry()
    assert not read.stopping
    assert carrier.started == ["a"]
    carrier.go("a")
    carrier.until(lambda: carrier.started == ["a", "b"])
    waiter.join()
    carrier.close()


def test_bytes_on_their_way_are_bounded() -> None:
    carrier = Carrier(room=2500)
    for name in "abc":
        flight = carrier.want(name)
        flight.used = time.monotonic() + 100  # somebody reads it
    carrier.until(lambda: len(carrier.started) == 2)
    carrier.dispatcher.hurry()
    assert len(carrier.started) == 2
    carrier.go("a")
    carrier.until(lambda: len(carrier.started) == 3)
    carrier.close()


def test_a_block_larger_than_the_room_goes_alone() -> None:
    carrier = Carrier(room=10)
    carrier.want("a")
    carrier.until(lambda: carrier.started == ["a"])
    carrier.close()


def test_reading_ahead_is_dropped_when_nobody_wants_it_any_more() -> None:
    carrier = Carrier(carriers=3)
    flight = carrier.want("a", demanded=False)
    carrier.want("a", demanded=False)
    carrier.until(lambda: carrier.started == ["a"])
    carrier.dispatcher.unwanted("a" * 32)
    assert "a" * 32 not in _stopping(carrier)
    carrier.dispatcher.unwanted("a" * 32)
    assert "a" * 32 in _stopping(carrier, flight)
    carrier.until(lambda: carrier.dispatcher.flying("a" * 32) is None)
    demanded = carrier.want("b")
    carrier.dispatcher.unwanted("b" * 32)
    assert not demanded.stopping
    carrier.close()


def _stopping(carrier: Carrier, *flights: Flight) -> set[str]:
    """The blocks of the flights that are told to stop."""
    there = [carrier.dispatcher.flying(name * 32) for name in "ab"]
    return {flight.locator.md5 for flight in (*there, *flights) if flight is not None and flight.stopping}


class Stepper(Carrier):
    """A carrier whose flights have got `at` bytes, and make way between their steps."""

    at = 100

    def carry(self, flight: Flight, buffer: memoryview) -> None:
        name = flight.locator.md5[0]
        go = self.let_go.setdefault(name, threading.Event())
        self.started.append(name)
        while not go.wait(0.002):
            if flight.stopping:
                raise Abandoned
            self.dispatcher.make_way(flight, self.at)
        flight.land(MemoryContent(1))


LARGE = 64 * 1024 * 1024


def waiting(flight: Flight) -> threading.Thread:
    """A thread that waits for the flight."""
    thread = threading.Thread(target=lambda: flight.wait(1, 20))
    thread.start()
    return thread


def test_what_was_looked_into_gives_way_and_is_made_again_when_there_is_time() -> None:
    carrier = Stepper()
    carrier.want("a", size=LARGE).reads = 1
    carrier.until(lambda: carrier.started == ["a"])
    reader = waiting(carrier.want("b", size=LARGE))
    carrier.until(lambda: carrier.started == ["a", "b"])
    carrier.until(lambda: not _runs(carrier, "a"))
    assert carrier.dispatcher.flying("a" * 32) is not None
    carrier.go("b")
    carrier.until(lambda: carrier.started == ["a", "b", "a"])
    again = carrier.dispatcher.flying("a" * 32)
    assert again is not None
    assert again.reads == 1
    carrier.go("a")
    reader.join()
    carrier.close()


@pytest.mark.parametrize(("reads", "at"), [(100, 100), (1, LARGE // 2)])
def test_what_has_a_steady_reader_or_came_far_only_pauses(reads: int, at: int) -> None:
    carrier = Stepper()
    carrier.at = at
    paused = carrier.want("a", size=LARGE)
    paused.reads = reads
    carrier.until(lambda: carrier.started == ["a"])
    reader = waiting(carrier.want("b", size=LARGE))
    carrier.until(lambda: carrier.started == ["a", "b"])
    carrier.until(lambda: paused.is_paused())
    carrier.go("a")  # it could end now, but makes way
    carrier.go("b")
    assert paused.wait(1, 20)
    assert carrier.started == ["a", "b"]
    reader.join()
    carrier.close()


def test_what_made_way_goes_on_when_the_line_was_quiet_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "QUIET_SECONDS", 30.0)
    carrier = Stepper()
    carrier.at = LARGE // 2
    paused = carrier.want("a", size=LARGE)
    carrier.until(lambda: carrier.started == ["a"])
    reader = waiting(carrier.want("b", size=LARGE))
    carrier.until(lambda: paused.is_paused())
    carrier.go("a")
    carrier.go("b")
    reader.join()
    time.sleep(0.2)  # twenty of its steps
    assert paused.released == 0
    monkeypatch.setattr(dispatch, "QUIET_SECONDS", 0.0)
    carrier.until(lambda: paused.released > 0)
    carrier.close()


def test_nothing_is_read_ahead_while_something_demanded_is_waited_for() -> None:
    carrier = Stepper()
    reader = waiting(carrier.want("a", size=LARGE))
    carrier.until(lambda: carrier.started == ["a"])
    ahead = carrier.want("b", demanded=False, size=LARGE)
    assert not ahead.wait(1, 0.2)
    assert carrier.started == ["a"]
    carrier.go("a")
    carrier.until(lambda: carrier.started == ["a", "b"])
    carrier.go("b")
    reader.join()
    carrier.close()


def _runs(carrier: Carrier, name: str) -> bool:
    flight = carrier.dispatcher.flying(name * 32)
    return flight is not None and flight.started


def test_close_ends_all() -> None:
    carrier = Carrier(carriers=1)
    running, queued = carrier.want("a"), carrier.want("b")
    carrier.until(lambda: carrier.started == ["a"])
    carrier.close()
    for flight in (running, queued):
        with pytest.raises(Unreachable):
            flight.wait(1, 1)
    with pytest.raises(Unreachable):
        carrier.want("c")


def test_an_unexpected_failure_is_told_to_the_readers(caplog: pytest.LogCaptureFixture) -> None:
    def carry(flight: Flight, buffer: memoryview) -> None:
        raise ZeroDivisionError

    dispatcher = Dispatcher(carry, lambda: GIB)
    dispatcher.start()
    flight = dispatcher.join(Locator("a" * 32, 1), "", demanded=True)
    with pytest.raises(Unreachable):
        flight.wait(1, 20)
    dispatcher.close()
    assert "ZeroDivisionError" in caplog.text


class _Memory:
    """As much as a block."""


def test_a_failed_flight_keeps_nothing_of_the_block() -> None:
    """Whoever has its error does not have the memory, or the open file, of the thread that carried it."""
    seen: list[weakref.ref[_Memory]] = []

    def carry(flight: Flight, buffer: memoryview) -> None:
        memory = _Memory()
        seen.append(weakref.ref(memory))
        raise Unreachable("no way")

    dispatcher = Dispatcher(carry, lambda: GIB)
    dispatcher.start()
    gc.disable()
    try:
        flight = dispatcher.join(Locator("a" * 32, 1000), "a", demanded=True)
        with pytest.raises(Unreachable):
            flight.wait(1000, 20)
        assert [reference() for reference in seen] == [None]
    finally:
        gc.enable()
        dispatcher.close()
