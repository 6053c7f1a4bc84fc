"""Have blocks of many files in the cache before anybody reads them, behind everybody who reads.

Used by the tree, for `--warm` and `--pin`. Threads: `Warming` runs a few of its own while its generator is
drawn from; closing the generator ends them.
"""

import queue
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple, Protocol

from arvados_fuse.errors import ArvadosFuseError, LocatorError
from arvados_fuse.keep.locator import Locator

AT_ONCE = 4
"""Blocks that are fetched at the same time: with fewer, latency would be felt."""

TELL_SECONDS = 0.5
"""Progress is told so often."""


class Wanted(NamedTuple):
    """A file to have here: its path, to tell of it, and the locators of its blocks."""

    path: str
    locators: Sequence[str]


class Progress(NamedTuple):
    """How far it is. bytes: of blocks, which may hold more than the files. seconds_left: None: not known."""

    files: int
    all_files: int
    bytes: int
    all_bytes: int
    seconds_left: float | None


class Failure(NamedTuple):
    """A file that is not here as a whole, and why."""

    path: str
    error: ArvadosFuseError


class Preloader(Protocol):
    """What this needs from the block cache."""

    def preload(self, locator: str, stopping: threading.Event) -> bool: ...


class _Block:
    """One block, and the files that wait for it."""

    __slots__ = ("files", "size", "text")

    def __init__(self, text: str, size: int) -> None:
        self.text = text
        self.size = size
        self.files: list[int] = []


class Warming:
    """One run over `files`. Files whose locators are not legal fail at once, the others go on."""

    def __init__(self, cache: Preloader, files: Sequence[Wanted]) -> None:
        self._cache = cache
        self._files = files
        self._failures: dict[int, ArvadosFuseError] = {}
        self._blocks: dict[str, _Block] = {}
        self._missing = [0] * len(files)
        for number, file in enumerate(files):
            self._note(number, file)
        self._all_bytes = sum(block.size for block in self._blocks.values())
        self._bytes = 0
        self._files_done = sum(not missing for missing in self._missing) - len(self._failures)
        self._begun = 0.0

    @property
    def failures(self) -> list[Failure]:
        """Files that are not here, so far, in their order."""
        return [
            Failure(self._files[number].path, self._failures[number]) for number in sorted(self._failures)
        ]

    @property
    def blocks(self) -> list[str]:
        """Every block as `md5+size`."""
        return list(self._blocks)

    def run(self) -> Generator[Progress, None, None]:
        """Preload everything; tells how far it is every TELL_SECONDS, and at the end."""
        waiting: queue.SimpleQueue[_Block] = queue.SimpleQueue()
        for block in self._blocks.values():
            waiting.put(block)
        results: queue.SimpleQueue[tuple[_Block, ArvadosFuseError | None]] = queue.SimpleQueue()
        stopping = threading.Event()
        threads = [
            threading.Thread(
                target=self._work, args=(waiting, results, stopping), name=f"warm-{number}", daemon=True
            )
            for number in range(min(AT_ONCE, len(self._blocks)))
        ]
        self._begun = time.monotonic()
        try:
            for thread in threads:
                thread.start()
            yield from self._follow(results)
        finally:
            stopping.set()
            for thread in threads:
                thread.join()

    def _note(self, number: int, file: Wanted) -> None:
        try:
            locators = {Locator.parse(text).stripped: text for text in file.locators}
        except LocatorError as error:
            self._failures[number] = error
            return
        for stripped, text in locators.items():
            size = Locator.parse(text).size
            self._blocks.setdefault(stripped, _Block(text, size)).files.append(number)
        self._missing[number] = len(locators)

    def _work(
        self,
        waiting: "queue.SimpleQueue[_Block]",
        results: "queue.SimpleQueue[tuple[_Block, ArvadosFuseError | None]]",
        stopping: threading.Event,
    ) -> None:
        while not stopping.is_set():
            try:
                block = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                self._cache.preload(block.text, stopping)
            except ArvadosFuseError as error:
                results.put((block, error))
            except Exception as error:  # noqa: BLE001 - a thread's outer edge: it is told as that file's failure
                results.put((block, ArvadosFuseError(f"unexpected failure: {error!r}")))
            else:
                results.put((block, None))

    def _follow(
        self, results: "queue.SimpleQueue[tuple[_Block, ArvadosFuseError | None]]"
    ) -> Iterator[Progress]:
        left, tell_at = len(self._blocks), time.monotonic() + TELL_SECONDS
        yield self._progress()
        while left:
            try:
                block, error = results.get(timeout=max(0.0, tell_at - time.monotonic()))
            except queue.Empty:
                pass
            else:
                left -= 1
                self._settle(block, error)
            if time.monotonic() >= tell_at:
                tell_at = time.monotonic() + TELL_SECONDS
                yield self._progress()
        yield self._progress()

    def _settle(self, block: _Block, error: ArvadosFuseError | None) -> None:
        self._bytes += block.size
        for number in block.files:
            self._missing[number] -= 1
            if error is not None:
                self._failures.setdefault(number, error)
            if not self._missing[number] and number not in self._failures:
                self._files_done += 1

    def _progress(self) -> Progress:
        spent, left = time.monotonic() - self._begun, self._all_bytes - self._bytes
        seconds = spent * left / self._bytes if self._bytes else (None if left else 0.0)
        return Progress(self._files_done, len(self._files), self._bytes, self._all_bytes, seconds)
