"""Bringing ranges of spools into blocks: a few at a time, by threads of its own.

Used by the committer (what is closed) and by `relief` (full blocks of files that are still open). A range
that is on its way is not sent a second time: whoever needs it waits for it.

Memory: one buffer of the block's size for each thread. Threads: any thread may call.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress

from arvados_fuse.collection.moves import Moves, groups
from arvados_fuse.collection.segments import BLOCK_SIZE, Segment
from arvados_fuse.collection.spool import Spool
from arvados_fuse.collection.stores import BlockStore
from arvados_fuse.errors import ArvadosFuseError, Unreachable
from arvados_fuse.reporting.counters import Counters
from arvados_fuse.writeback.kept import Kept, read_pieces
from arvados_fuse.writeback.moved import known_moves
from arvados_fuse.writeback.spool import DiskSpool
from arvados_fuse.writeback.states import spools

logger = logging.getLogger("arvados.writeback")

ZEROS_GOOD_FOR = 3600.0
"""Seconds after which the block of zeros is stored again; its signature is good for two weeks by default."""

Stored = Callable[[Sequence[Spool]], None]
"""Called by the thread that stored a block, with the spools of which ranges are in it."""


class Uploads:
    """Stores blocks. `start` before the first one, `close` at the end.

    threads: blocks on their way at one time.
    """

    def __init__(
        self, blocks: BlockStore, stored: Stored, kept: Kept, counters: Counters, *, threads: int
    ) -> None:
        self.kept = kept
        self._blocks = blocks
        self._stored = stored
        self._counters = counters
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._flying: dict[Future[None], Sequence[Segment]] = {}
        self._buffers: list[bytearray] = []
        self._zeros: dict[tuple[str, ...], tuple[str, float]] = {}

    def start(self) -> None:
        """From now on blocks can be stored."""
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="writeback-block")

    def close(self) -> None:
        """Take nothing more; what is on its way ends by itself."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def submit(self, block: Sequence[Segment], classes: Sequence[str]) -> "Future[None]":
        """Store unsaved segments, together at most 64 MiB, as one block; the spools remember where it is."""
        with self._lock:
            if self._pool is None:
                raise _closing()
            future = self._pool.submit(self._try_to_store, list(block), tuple(classes))
            self._flying[future] = block
        future.add_done_callback(self._landed)
        return future

    def _landed(self, future: "Future[None]") -> None:
        with self._lock:
            self._flying.pop(future, None)
            if not self._flying:
                self._buffers.clear()

    def on_their_way(self, of: Iterable[Spool]) -> "dict[Future[None], Sequence[Segment]]":
        """What is being stored, or waits for it, of these spools."""
        wanted = set(of)
        with self._lock:
            return {
                future: block
                for future, block in self._flying.items()
                if any(segment.source in wanted for segment in block)
            }

    def _try_to_store(self, block: Sequence[Segment], classes: Sequence[str]) -> None:
        try:
            self._store(block, classes)
        except ArvadosFuseError as error:
            # The future keeps it: not with the frames it passed, which have the buffer.
            raise error.with_traceback(None) from error.__cause__

    def _store(self, block: Sequence[Segment], classes: Sequence[str]) -> None:
        size = sum(segment.size for segment in block)
        file, token = _file_of(block), self.kept.token()
        with self._buffer(size) as buffer, memoryview(buffer) as view:
            read_pieces(block, buffer)
            locator = self._blocks.put(view, storage_classes=classes, file=file)
        self._counters.add("writeback.blocks")
        self._counters.add("writeback.block_bytes", size)
        at = 0
        for segment in block:
            assert isinstance(segment.source, DiskSpool)
            segment.source.note_stored(segment.offset, Segment(locator, at, segment.size))
            at += segment.size
        self.kept.add(locator, block, token)
        self._stored(list(spools(tuple(block))))

    @contextmanager
    def _buffer(self, size: int) -> Iterator[bytearray]:
        """Memory for one block. That of full ones is used again while there are more to come: to have it anew
        from the system takes longer than to fill it."""
        buffer = None
        if size == BLOCK_SIZE:
            with self._lock, suppress(IndexError):
                buffer = self._buffers.pop()
        if buffer is None:
            buffer = bytearray(size)
        yield buffer
        if size == BLOCK_SIZE:
            with self._lock:
                self._buffers.append(buffer)

    # For the committer.

    def store(self, files: Sequence[Sequence[Segment]], classes: Sequence[str]) -> None:
        """Store all unsaved bytes of these files, small ones together, and wait until they are.

        Raises what the block store raises; what was stored until then is remembered.
        """
        flat = [segment for segments in files for segment in segments]
        wait(self.on_their_way(spools(tuple(flat))))
        flying = [self.submit(block, classes) for block in groups(files, known_moves(flat))]
        failure: ArvadosFuseError | None = None
        for future in flying:
            try:
                future.result()
            except CancelledError:
                failure = failure or _closing()
            except ArvadosFuseError as error:
                failure = failure or error
                for other in flying:
                    other.cancel()
        if failure is not None:
            raise failure

    def zeros(self, classes: Sequence[str], *, anew: bool = False) -> str:
        """The locator of a block of 64 MiB of zeros, for sparse files; anew: the one given before is
        refused."""
        key = tuple(classes)
        with self._lock:
            locator, until = self._zeros.get(key, ("", 0.0))
        if anew or time.monotonic() > until:
            locator = self._blocks.put(bytes(BLOCK_SIZE), storage_classes=classes)
            with self._lock:
                self._zeros[key] = (locator, time.monotonic() + ZEROS_GOOD_FOR)
        return locator


def _file_of(block: Sequence[Segment]) -> str | None:
    """The file that holds this block and nothing else, if there is one."""
    first = block[0]
    assert isinstance(first.source, DiskSpool)
    return first.source.file_of(first) if len(block) == 1 else None


def _closing() -> Unreachable:
    return Unreachable("unsaved data is not sent any more: the mount is being closed")


def moves_to_come(blocks: Iterable[Sequence[Segment]]) -> Moves:
    """Moves that stand for blocks on their way: what they have need not be sent."""
    moves = Moves()
    for block in blocks:
        for segment in block:
            moves.add(segment, Segment("on its way", 0, segment.size))
    return moves
