"""Where bytes are that are not yet in Keep.

Used by `content`; the write-back floor gives spools that lie on disk, this module the plain one in memory.
A spool only grows: what was appended never changes, so that a segment that points into it stays
true for readers and uploads without a lock. What no segment points to any more is garbage, and goes when the
content moves what is left to a new spool.
"""

from collections.abc import Callable
from threading import Lock
from typing import Protocol, TypeAlias


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

    def successor(self) -> "Spool":
        """Where to append next: itself, or another one if it is meant to grow no further."""
        ...


SpoolFactory: TypeAlias = Callable[[], Spool]

_CHUNK = 1 << 20


class MemorySpool:
    """A spool in memory, for collections that are edited without a mount. Any thread may call it."""

    __slots__ = ("_chunks", "_lock", "_size")

    def __init__(self) -> None:
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

    def successor(self) -> "MemorySpool":
        """See `Spool`."""
        return self
