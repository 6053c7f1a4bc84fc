"""Pages of a list, one by one and several stretches at once, without a server."""

import random
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from servers import wait_for

from arvados_fuse.api.pages import AT_ONCE, Page, Record, ahead, divide, one_by_one, several_at_once
from arvados_fuse.errors import Unreachable

PAGE = 100
ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def uuids(count: int, *, seed: int = 1, prefix: str = "zzzzz-4zz18-") -> list[str]:
    numbers = random.Random(seed)
    return [prefix + "".join(numbers.choices(ALPHABET, k=15)) for _ in range(count)]


class Listed:
    """Answers like a server that has these uuids."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = sorted(names)
        self.asked: list[tuple[str, str]] = []

    def fetch(self, after: str, until: str) -> Page:
        self.asked.append((after, until))
        found = [name for name in self.names if name > after and (not until or name <= until)]
        page: list[Record] = [{"uuid": name} for name in found[:PAGE]]
        return Page(page, page[-1]["uuid"] if len(page) == PAGE else "")


def got(records: Iterator[dict[str, Any]]) -> list[str]:
    return [record["uuid"] for record in records]


@pytest.mark.parametrize("count", [0, 1, PAGE - 1, PAGE, PAGE + 1, 250, 500, 2000])
@pytest.mark.parametrize("seed", range(5))
def test_everything_comes_once(count: int, seed: int) -> None:
    listed = Listed(uuids(count, seed=seed))
    assert got(one_by_one(listed.fetch)) == listed.names
    alone = len(listed.asked)
    listed.asked.clear()
    assert sorted(got(several_at_once(listed.fetch))) == listed.names
    assert len(listed.asked) <= alone + AT_ONCE - 1
    if count < PAGE:
        assert len(listed.asked) == 1


@pytest.mark.parametrize("seed", range(5))
def test_stretches_are_of_about_one_length(seed: int) -> None:
    listed = Listed(uuids(10 * PAGE, seed=seed))
    bounds = divide(listed.fetch("", ""))
    assert len(bounds) == AT_ONCE
    rest = [name for name in listed.names if name > bounds[0]]
    lengths = [
        sum(low < name and (not high or name <= high) for name in rest)
        for low, high in zip(bounds, [*bounds[1:], ""], strict=True)
    ]
    assert sum(lengths) == len(rest) == 9 * PAGE
    assert all(0.5 * 3 * PAGE < length < 1.5 * 3 * PAGE for length in lengths), lengths


@pytest.mark.parametrize(
    "names",
    [
        [f"zzzzz-4zz18-{number:015d}" for number in range(1000)],
        [f"zzzzz-4zz18-{'z' * 9}{number:06d}" for number in range(1000)],
        [f"{number:06d}" for number in range(1000)],
        [*uuids(300, prefix="aaaaa-4zz18-"), *uuids(300, prefix="zzzzz-4zz18-")],
        [*uuids(20, prefix="aaaaa-4zz18-"), *uuids(900, prefix="mmmmm-4zz18-"), *uuids(99)],
    ],
    ids=["at the beginning", "at the end", "no uuids", "two clusters", "three clusters"],
)
def test_uuids_that_are_not_where_they_are_expected(names: list[str]) -> None:
    listed = Listed(names)
    assert sorted(got(several_at_once(listed.fetch))) == listed.names


def test_a_second_page_alone_is_asked_for_alone() -> None:
    listed = Listed(uuids(PAGE + PAGE // 2))
    first = listed.fetch("", "")
    assert divide(first) == [first.next_after]


def test_they_are_asked_for_at_once() -> None:
    listed = Listed(uuids(10 * PAGE))
    begins = divide(listed.fetch("", ""))
    assert len(begins) == AT_ONCE
    together = threading.Barrier(AT_ONCE)

    def fetch(after: str, until: str) -> Page:
        if after in begins:
            together.wait(30)  # broken, which is an error, unless all come
        return listed.fetch(after, until)

    assert sorted(got(several_at_once(fetch))) == listed.names


def test_an_error_in_any_stretch_is_raised() -> None:
    for failing in range(1, 10):
        listed = Listed(uuids(10 * PAGE))

        def fetch(after: str, until: str, listed: Listed = listed, failing: int = failing) -> Page:
            if len(listed.asked) >= failing:
                raise Unreachable("gone")
            return listed.fetch(after, until)

        with pytest.raises(Unreachable, match="gone"):
            got(several_at_once(fetch))


def test_who_wants_no_more_lets_the_threads_end() -> None:
    listed = Listed(uuids(100 * PAGE))
    gate = threading.Event()

    def fetch(after: str, until: str) -> Page:
        if len(listed.asked) > 2 * AT_ONCE:
            gate.wait(30)
        return listed.fetch(after, until)

    records = several_at_once(fetch)
    next(records)
    assert isinstance(records, Iterator)
    records.close()  # type: ignore[attr-defined]
    gate.set()
    wait_for(
        lambda: not any(thread.name == "pages" for thread in threading.enumerate()), "the threads have ended"
    )
    assert len(listed.asked) < 50


def test_what_is_asked_for_ahead_is_asked_for_before_it_is_wanted() -> None:
    listed = Listed(uuids(3 * PAGE))
    records = ahead(one_by_one(listed.fetch))
    wait_for(lambda: len(listed.asked) >= 3, "it was asked for")
    assert got(records) == listed.names


def test_an_error_met_ahead_is_raised_where_the_records_are_wanted() -> None:
    def fail(_after: str, _until: str) -> Page:
        raise Unreachable("gone")

    records = ahead(one_by_one(fail))
    with pytest.raises(Unreachable, match="gone"):
        got(records)
