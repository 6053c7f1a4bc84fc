"""Bytes of blocks that are stored and that no collection has yet, kept on the local disk until one has.

Used by `uploads` (adds), `commit` (stores a block again, when the token that it was stored with has ended)
and `relief` (takes the room). The bytes are where they were written: to keep them is to hold on to the spool.
The oldest go first where there are too many, and nobody waits for room because of them.

Threads: any.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence, Set

from arvados_fuse.collection.manifest import stripped
from arvados_fuse.collection.segments import Segment
from arvados_fuse.writeback.spool import DiskSpool


class Kept:
    """See the module. limit: bytes. needed: gives the blocks that unsaved changes still need."""

    def __init__(self, limit: int, needed: Callable[[], Set[str]]) -> None:
        self._limit = limit
        self._needed = needed
        self._lock = threading.Lock()
        self._pieces: OrderedDict[str, tuple[Segment, ...]] = OrderedDict()
        self._bytes = 0

    def add(self, locator: str, pieces: Sequence[Segment]) -> None:
        """A block was stored; its bytes are in these ranges of spools, in order."""
        with self._lock:
            self._drop(stripped(locator))
            self._pieces[stripped(locator)] = tuple(pieces)
            self._bytes += _size(pieces)
            while self._bytes > self._limit:
                self._drop(next(iter(self._pieces)))

    def read(self, locator: str) -> bytearray | None:
        """The bytes of a block, if they are here. Raises SaveFailed when the disk has lost them."""
        with self._lock:
            pieces = self._pieces.get(stripped(locator))
        if pieces is None:
            return None
        buffer = bytearray(_size(pieces))
        read_pieces(pieces, buffer)
        return buffer

    def saved(self, blocks: Iterable[str]) -> None:
        """A collection has these blocks (without hints)."""
        with self._lock:
            for block in blocks:
                self._drop(block)

    def sweep(self) -> None:
        """Let go what no unsaved change needs any more."""
        with self._lock:
            held = set(self._pieces)
        if held:
            self.saved(held - self._needed())

    def give_way(self) -> bool:
        """Let the oldest go; False when there is none."""
        with self._lock:
            if not self._pieces:
                return False
            self._drop(next(iter(self._pieces)))
            return True

    def _drop(self, block: str) -> None:
        self._bytes -= _size(self._pieces.pop(block, ()))


def read_pieces(pieces: Iterable[Segment], buffer: bytearray) -> None:
    """Fill the buffer with these ranges of spools, one after another. Raises SaveFailed."""
    at = 0
    with memoryview(buffer) as view:
        for piece in pieces:
            assert isinstance(piece.source, DiskSpool)
            piece.source.read_into(piece.offset, view[at : at + piece.size])
            at += piece.size


def _size(pieces: Iterable[Segment]) -> int:
    return sum(piece.size for piece in pieces)
