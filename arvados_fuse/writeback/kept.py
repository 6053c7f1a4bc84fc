"""Bytes of blocks that are stored and that no collection has yet, kept on the local disk until one has.

Used by `uploads` (adds), `commit` (stores a block again, when the token that it was stored with has ended)
and `relief` (takes the room). The bytes are where they were written: to keep them is to hold on to the spool.
The oldest go first where there are too many, and nobody waits for room because of them: but not those that
were stored with another token than the one in use, for they are about to be needed. Where they are is written
down in the journal, so that the next mount has them too when this one dies.

Threads: any. The lock is never held while the journal is written to: who holds that may need room here.
"""

import hashlib
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from operator import itemgetter
from typing import NamedTuple, Protocol

from arvados_fuse.collection.manifest import stripped
from arvados_fuse.collection.segments import Segment
from arvados_fuse.errors import ArvadosFuseError
from arvados_fuse.writeback.spool import DiskSpool

logger = logging.getLogger("arvados.writeback")


class Room(Protocol):
    """Whose spools the bytes are in; writes down where. Both raise NoSpaceError, SaveFailed."""

    def keep(self, block: str, pieces: tuple[Segment, ...]) -> None:
        """Note where the bytes of a block (without hints) are."""

    def let_go(self, blocks: Iterable[str]) -> None:
        """Forget it."""


class _Entry(NamedTuple):
    """token: which the block was stored with; None: that of a dead mount."""

    pieces: tuple[Segment, ...]
    room: Room | None
    token: str | None


class Kept:
    """See the module. limit: bytes, of those stored with another token as many more. needed: gives the blocks
    that unsaved changes still need. room_of: gives the room that a spool is of. token: gives the one in use.
    """

    def __init__(
        self,
        limit: int,
        needed: Callable[[], Set[str]],
        room_of: Callable[[DiskSpool], Room | None],
        token: Callable[[], str] = str,
    ) -> None:
        self._limit = limit
        self.token = token
        self._needed = needed
        self._room_of = room_of
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0
        # What the journals are yet to forget. Too long is no harm: what is gone is not believed.
        self._gone: deque[tuple[str, Room]] = deque()

    def add(self, locator: str, pieces: Sequence[Segment], token: str = "") -> None:
        """A block was stored with this token; its bytes are in these ranges of spools, in order."""
        block, held = stripped(locator), tuple(pieces)
        source = held[0].source if held else None
        room = self._room_of(source) if isinstance(source, DiskSpool) else None
        self._hold(block, _Entry(held, room, token))
        if room is not None:
            try:
                room.keep(block, held)
            except ArvadosFuseError as error:
                logger.debug("bytes of %s are kept for the life of this mount only: %s", block, error)

    def restore(self, room: Room, blocks: Mapping[str, Sequence[Segment]]) -> None:
        """A dead mount had kept these in a room that was taken over."""
        for block, pieces in blocks.items():
            self._hold(block, _Entry(tuple(pieces), room, None))

    def read(self, locator: str) -> bytearray | None:
        """The bytes of a block, if they are here. Raises SaveFailed when the disk has lost them."""
        block = stripped(locator)
        with self._lock:
            entry = self._entries.get(block)
        if entry is None:
            return None
        buffer = bytearray(_size(entry.pieces))
        read_pieces(entry.pieces, buffer)
        return buffer if hashlib.md5(buffer).hexdigest() == block[:32] else None

    def saved(self, blocks: Iterable[str]) -> None:
        """A collection has these blocks (without hints)."""
        with self._lock:
            for block in blocks:
                self._drop(block)

    def sweep(self) -> None:
        """Let go what no unsaved change needs any more, in the journals, too."""
        with self._lock:
            held = set(self._entries)
        if held:
            self.saved(held - self._needed())
        with self._lock:
            gone = [(block, room) for block, room in self._gone if block not in self._entries]
            self._gone.clear()
        for room in {id(room): room for _, room in gone}.values():
            try:
                room.let_go([block for block, of in gone if of is room])
            except ArvadosFuseError as error:
                logger.debug("the journal goes on naming blocks that are saved: %s", error)

    def give_way(self) -> bool:
        """Let the oldest go of those that may; False when there is none."""
        token = self.token()
        with self._lock:
            block = self._oldest(token)
            if block is not None:
                self._drop(block)
            return block is not None

    def _oldest(self, token: str) -> str | None:
        """Of what was stored with the token in use."""
        return next((block for block, entry in self._entries.items() if entry.token == token), None)

    def _hold(self, block: str, entry: _Entry) -> None:
        token = self.token()
        with self._lock:
            self._drop(block)
            self._entries[block] = entry
            self._bytes += _size(entry.pieces)
            while self._bytes > self._limit and (oldest := self._oldest(token)) is not None:
                self._drop(oldest)
            while self._bytes > 2 * self._limit:
                self._drop(next(iter(self._entries)))

    def _drop(self, block: str) -> None:
        entry = self._entries.pop(block, None)
        if entry is not None:
            self._bytes -= _size(entry.pieces)
            if entry.room is not None:
                self._gone.append((block, entry.room))


def read_pieces(pieces: Iterable[Segment], buffer: bytearray) -> None:
    """Fill the buffer with these ranges of spools, one after another. Raises SaveFailed.

    What was written to many places of a file lies together in its spool, and is read in one go.
    """
    wanted: dict[DiskSpool, list[tuple[int, memoryview]]] = {}
    at = 0
    with memoryview(buffer) as view:
        for piece in pieces:
            assert isinstance(piece.source, DiskSpool)
            wanted.setdefault(piece.source, []).append((piece.offset, view[at : at + piece.size]))
            at += piece.size
    for spool, places in wanted.items():
        places.sort(key=itemgetter(0))
        for start, targets in _runs(places):
            spool.read_into(start, targets)


def _runs(places: Iterable[tuple[int, memoryview]]) -> Iterator[tuple[int, list[memoryview]]]:
    """Sorted places of a spool, those together that follow on one another."""
    start = stop = -1
    run: list[memoryview] = []
    for offset, target in places:
        if offset != stop:
            if run:
                yield start, run
            start, run = offset, []
        run.append(target)
        stop = offset + len(target)
    yield start, run


def _size(pieces: Iterable[Segment]) -> int:
    return sum(piece.size for piece in pieces)
