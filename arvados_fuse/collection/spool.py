"""Where bytes are that are not yet in Keep.

Used by `content`; the write-back floor gives spools that lie on disk, this module the plain one in memory.
A spool only grows: what was appended never changes, so that a segment that points into it stays
true for readers and uploads without a lock. What no segment points to any more is garbage, and goes when the
content moves what is left to a new spool.
"""

import sys
from threading import Lock
from typing import Protocol


class Spool(Protocol):
    """An append-only store of bytes. Compared by identity; released when nothing refers to it any more."""

    def append(self, data: bytes | memoryview) -> int:
        """Keep a copy of the bytes; gives the offset of the first."""
        ...

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """Exactly `size` bytes from `offset`."""
        ...

    def size(self) -> int:
        """Bytes appended so far, also by others: several files may share a spool."""
        ...

    def room(self) -> int:
        """Bytes that can be appended yet; 0 when it is meant to grow no further."""
        ...

    def successor(self, waiting: int) -> "Spool":
        """Where a file goes on when there is no room here. waiting: its unsaved bytes."""
        ...


class SpoolFactory(Protocol):
    """Makes spools for files that are written."""

    def __call__(self, *, large: bool = False) -> Spool:
        """A spool to begin with. large: much is to come, as it came before."""
        ...


_CHUNK = 1 << 20


class MemorySpool:
    """A spool in memory, for collections that are edited without a mount. Any thread may call it."""

    __slots__ = ("_chunks", "_lock", "_size")

    def __init__(self, *, large: bool = False) -> None:
        self._chunks: list[bytearray] = []
        self._lock = Lock()
        self._size = 0

    def append(self, data: bytes | memoryview) -> int:
        """See `Spool`."""
        view = memoryview(data).cast("B")
        with self._lock:
            start = self._size
            done = 0
            while done < len(view):
                if not self._size % _CHUNK:
                    self._chunks.append(bytearray())
                room = _CHUNK - self._size % _CHUNK
                part = view[done : done + room]
                self._chunks[-1] += part
                self._size += len(part)
                done += len(part)
            return start

    def read(self, offset: int, size: int) -> bytes:
        """See `Spool`."""
        with self._lock:
            parts = []
            stop = offset + size
            while offset < stop:
                at = offset % _CHUNK
                part = bytes(self._chunks[offset // _CHUNK][at : at + min(stop - offset, _CHUNK - at)])
                parts.append(part)
                offset += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def size(self) -> int:
        """See `Spool`."""
        return self._size

    def room(self) -> int:
        """See `Spool`."""
        return sys.maxsize

    def successor(self, waiting: int) -> "MemorySpool":
        """See `Spool`."""
        return self
