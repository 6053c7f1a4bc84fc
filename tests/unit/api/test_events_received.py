"""Which events came already: a model of a server that replays, mixes and is cut off."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from arvados_fuse.api.received import SETTLING, Received


def test_an_event_counts_once() -> None:
    received = Received()
    assert received.take(5, 0.0)
    assert not received.take(5, 0.1)
    assert received.take(4, 0.2), "a lower id that comes late is new"


def test_what_came_long_ago_need_not_be_asked_for_again() -> None:
    received = Received()
    received.start(3)
    received.take(5, 100.0)
    received.take(6, 100.0 + SETTLING)
    received.settle(100.0 + SETTLING - 0.1)
    assert received.resume == 3
    received.settle(100.0 + SETTLING)
    assert received.resume == 5
    assert not received.take(6, 101.0 + SETTLING)


def test_a_lower_id_that_comes_late_does_not_turn_back() -> None:
    received = Received()
    received.start(100)
    received.take(50, 0.0)
    received.settle(1000.0)
    assert received.resume == 100


def test_beginning_anew_forgets() -> None:
    received = Received()
    received.take(5, 0.0)
    received.start(None)
    received.settle(1000.0)
    assert received.resume is None
    assert received.take(5, 1001.0)


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.integers(1, 12), st.booleans())
def test_nothing_missed_nothing_twice_however_it_is_cut(seed: int, cuts: int, mixed: bool) -> None:
    """Ids are given out in order but become visible up to SETTLING later; a replay sends what is visible with
    ids above the position, live events may come in between (`mixed`), and any of it may be cut."""
    chance = random.Random(seed)
    born = sorted(chance.uniform(0, 300) for _ in range(200))
    visible_at = {number: at + chance.uniform(0, SETTLING * 0.9) for number, at in enumerate(born, start=1)}
    ends = [*sorted(chance.uniform(0, 320) for _ in range(cuts)), 1000.0]
    received = Received()
    received.start(0)
    got: list[int] = []

    def come(number: int, now: float) -> None:
        if received.take(number, now):
            got.append(number)

    now = 0.0
    for end in ends:
        replayed = [
            number for number, at in visible_at.items() if at <= now and number > (received.resume or 0)
        ]
        live = sorted((at, number) for number, at in visible_at.items() if at > now)
        # The replay takes a while; a cut in it leaves the position where it was.
        speed = chance.choice([0.0, 0.05, 0.5])
        replay = [(now + speed * place, number) for place, number in enumerate(replayed)]
        done = replay[-1][0] if replay else now
        # The mark at the end of the replay comes after what was held back meanwhile.
        arrivals = sorted(replay + [(at if mixed else max(at, done), number) for at, number in live])
        for place, (at, number) in enumerate(arrivals):
            if at >= end:
                break
            come(number, at)
            if at >= done and (place + 1 == len(arrivals) or arrivals[place + 1][0] > at):
                received.settle(at)
        now = end + chance.uniform(0, 30)
    assert sorted(got) == list(range(1, 201))
