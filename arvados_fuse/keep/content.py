"""The bytes of one block, wherever they are: an open file or memory.

A content stays readable as long as something refers to it, whatever happens to its name or its place in a
cache: that is what makes eviction safe under readers. Used by the stores and by flights.
Threads: contents may be read from any thread.
"""

import os
from typing import Protocol


class Content(Protocol):
    """Bytes that can be read at any place."""

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """Up to `size` bytes from `offset`; fewer only at the end of what is there. Raises OSError."""


class MemoryContent:
    """A block in memory; readers get views on it, without a copy."""

    __slots__ = ("view",)

    def __init__(self, size: int) -> None:
        self.view = memoryview(bytearray(size))

    def read(self, offset: int, size: int) -> memoryview:
        """A read-only view of the bytes."""
        return self.view[offset : offset + size].toreadonly()


class FileContent:
    """An open file descriptor, closed when nobody refers to it any more (so no reader can meet a reused
    number).
    """

    __slots__ = ("fd", "inode", "mtime_ns", "size")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.inode = self.mtime_ns = self.size = 0

    def identify(self) -> "FileContent":
        """Remember what the file looks like now; `unchanged` compares with it. Raises OSError."""
        status = os.fstat(self.fd)
        self.inode, self.mtime_ns, self.size = status.st_ino, status.st_mtime_ns, status.st_size
        return self

    @property
    def identity(self) -> tuple[int, int, int]:
        """(inode, time of the last change in ns, size in bytes) as remembered."""
        return self.inode, self.mtime_ns, self.size

    def unchanged(self) -> bool:
        """Whether the file still looks as remembered. Raises OSError."""
        status = os.fstat(self.fd)
        return status.st_mtime_ns == self.mtime_ns and status.st_size == self.size

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end of the file. Raises OSError."""
        return os.pread(self.fd, size, offset)

    def __del__(self) -> None:
        os.close(self.fd)
