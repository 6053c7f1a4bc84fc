"""All records of a list call by their uuids: page after page, and where there are many, several stretches at
once.

Used by `client`. A page starts after the last uuid of the one before, so pages follow each other. The random
part of a uuid is as likely anywhere among the possible ones: a first page tells how many follow, and where
to divide those. Any thread may iterate; the threads made here end with their stretch, or with the page that
is on its way when nobody wants more.
"""

import itertools
import queue
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

Record = dict[str, Any]

AT_ONCE = 3
"""Stretches that are read at once: most of what can be gained, and few enough for the others on a cluster."""
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


def one_by_one(fetch: FetchPage) -> Iterator[Record]:
    """The records of one page after the other."""
    for page in _pages(fetch, "", ""):
        yield from page


def several_at_once(fetch: FetchPage) -> Iterator[Record]:
    """The records of all pages, in any order. `fetch` is called from several threads, if there are many."""
    first = fetch("", "")
    bounds = divide(first) if first.next_after else []
    stretches = [_pages(fetch, *stretch) for stretch in zip(bounds, [*bounds[1:], ""], strict=False)]
    if len(stretches) < 2:
        yield from first.records
        for page in itertools.chain(*stretches):
            yield from page
        return
    readers = _Readers(stretches).start()
    try:
        yield from first.records
        yield from readers.records()
    finally:
        readers.stopped = True


def ahead(records: Iterator[Record]) -> Iterator[Record]:
    """The same, asked for from now on by a thread: who wants them can ask for others meanwhile."""

    def together() -> Iterator[Sequence[Record]]:
        yield list(records)

    return _Readers([together()]).start().records()


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


def _pages(fetch: FetchPage, after: str, until: str) -> Iterator[Sequence[Record]]:
    while True:
        page = fetch(after, until)
        yield page.records
        if not page.next_after:
            return
        after = page.next_after


class _Readers:
    """A thread for each of several iterators of pages; all put what they get into one queue."""

    def __init__(self, sources: Sequence[Iterator[Sequence[Record]]]) -> None:
        self.stopped = False
        self._sources = sources
        self._queue: queue.SimpleQueue[Sequence[Record] | Exception | None] = queue.SimpleQueue()

    def start(self) -> "_Readers":
        """Begin to read."""
        for source in self._sources:
            threading.Thread(target=self._read, args=(source,), name="pages", daemon=True).start()
        return self

    def records(self) -> Iterator[Record]:
        """Everything, as it comes; raises the first error."""
        running = len(self._sources)
        while running:
            got = self._queue.get()
            if isinstance(got, Exception):
                raise got
            if got is None:
                running -= 1
            else:
                yield from got

    def _read(self, source: Iterator[Sequence[Record]]) -> None:
        try:
            for page in source:
                self._queue.put(page)
                if self.stopped:
                    break
            self._queue.put(None)
        except Exception as error:  # noqa: BLE001 - it is raised where the records are wanted
            self._queue.put(error)
