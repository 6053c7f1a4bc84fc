"""All records of a list call by their uuids: page after page, and where there are many, several stretches at
once.

Used by `client`. A page starts after the last uuid of the one before, so pages follow each other. The random
part of a uuid is as likely anywhere among the possible ones: a first page tells how many follow, and where
to divide those. Any thread may iterate; the threads made here end with their stretch, or with the page that
is on its way when nobody wants more.
"""

import queue
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

Record = dict[str, Any]

AT_ONCE = 3
"""Stretches that are read at once: of the 64 requests that a cluster works on at a time (Arvados's default),
few enough for others to notice nothing."""
UUID = re.compile(r"[0-9a-z]{5}-[0-9a-z]{5}-[0-9a-z]{15}")
_HEAD, _DIGITS = 12, 10
"""Of a uuid: the characters before the random part, and as many of the random ones as are counted with."""
_NUMERALS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Page(NamedTuple):
    """next_after: from which uuid to go on; "" at the end."""

    records: Sequence[Record]
    next_after: str


FetchPage = Callable[[str, str], Page]
"""Asks for the first page of what comes after one uuid and not after another ("": no bound)."""


def one_by_one(fetch: FetchPage, after: str = "", until: str = "") -> Iterator[Record]:
    """The records of one page after the other."""
    while True:
        page = fetch(after, until)
        yield from page.records
        if not page.next_after:
            return
        after = page.next_after


def several_at_once(fetch: FetchPage) -> Iterator[Record]:
    """The records of all pages, in any order. `fetch` is called from several threads, if there are many."""
    first = fetch("", "")
    bounds = divide(first) if first.next_after else []
    if len(bounds) < 2:
        yield from first.records
        if first.next_after:
            yield from one_by_one(fetch, first.next_after)
        return
    readers = _Readers(fetch, list(zip(bounds, [*bounds[1:], ""], strict=True)))
    try:
        yield from first.records
        yield from readers.records()
    finally:
        readers.stopped = True


def divide(first: Page) -> list[str]:
    """After which uuids to begin, so that what follows a first page is read in stretches of about one length
    and each has a page or more."""
    last = first.next_after
    # Those of other clusters (a federation), and what is no uuid, are somewhere else.
    if not UUID.fullmatch(last) or str(first.records[0].get("uuid"))[:_HEAD] != last[:_HEAD]:
        return [last]
    whole = len(_NUMERALS) ** _DIGITS
    done = int(last[_HEAD : _HEAD + _DIGITS], 36) + 1
    pages = (whole - done) / done
    count = max(1, min(AT_ONCE, round(pages)))
    starts = [done + (whole - done) * part // count for part in range(1, count)]
    return [last, *(last[:_HEAD] + _numeral(start) for start in starts)]


def _numeral(number: int) -> str:
    """As the random part of a uuid begins; shorter than one, so before all of them."""
    digits = ""
    for _ in range(_DIGITS):
        number, digit = divmod(number, 36)
        digits = _NUMERALS[digit] + digits
    return digits


class _Readers:
    """A thread for each stretch; all put what they get into one queue."""

    def __init__(self, fetch: FetchPage, stretches: Sequence[tuple[str, str]]) -> None:
        self.stopped = False
        self._fetch = fetch
        self._queue: queue.SimpleQueue[Sequence[Record] | Exception | None] = queue.SimpleQueue()
        self._running = len(stretches)
        for stretch in stretches:
            threading.Thread(target=self._read, args=stretch, name="pages", daemon=True).start()

    def records(self) -> Iterator[Record]:
        """Everything, as it comes; raises the first error."""
        while self._running:
            got = self._queue.get()
            if isinstance(got, Exception):
                raise got
            if got is None:
                self._running -= 1
            else:
                yield from got

    def _read(self, after: str, until: str) -> None:
        try:
            while not self.stopped:
                page = self._fetch(after, until)
                self._queue.put(page.records)
                if not page.next_after:
                    break
                after = page.next_after
            self._queue.put(None)
        except Exception as error:  # noqa: BLE001 - it is raised where the records are wanted
            self._queue.put(error)
