"""File objects: what `open` gives.

Used by programs through `Collection.open`. A `Reader` or `Writer` is the SDK's binary file object: `read`
gives bytes, and `readline`, `readlines` and iteration give text decoded from UTF-8, as there. In text mode an
`io.TextIOWrapper` lies over it.

Threads: a handle has one position, so it belongs to one thread at a time; any number of handles may be
used at once.
"""

import bz2
import io
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from arvados_fuse.collection.failures import BadArgument
from arvados_fuse.collection.file import File

_MODE = re.compile(r"[rwa](?:[bt]?\+?|\+[bt])")
_PART = 1 << 20
"""Bytes read at a time when the end is not known."""


def check_mode(mode: str) -> bool:
    """Whether a mode writes. Raises BadArgument for one that is none."""
    if not _MODE.fullmatch(mode):
        raise BadArgument(f"Invalid mode {mode!r}")
    return mode[0] != "r" or "+" in mode


def open_file(file: File, mode: str, encoding: str | None = None) -> Any:
    """A file object for `file`; the mode is checked already, and the file truncated if it has to be."""
    writing = check_mode(mode)
    binary = mode[0] + "b" + re.sub("[bt]", "", mode[1:])
    handle = Writer(file, binary) if writing else Reader(file, binary)
    if "b" in mode:
        return handle
    raw = _Raw(handle)
    buffered: Any = io.BufferedRandom(raw) if writing else io.BufferedReader(raw)
    return io.TextIOWrapper(buffered, encoding=encoding)


class Reader:
    """A file open for reading. `num_retries` is accepted everywhere and left to the block store."""

    def __init__(self, arvadosfile: File, mode: str = "rb", num_retries: int | None = None) -> None:
        self.arvadosfile = arvadosfile
        self.name = arvadosfile.name
        self.mode = mode
        self.closed = False
        self.num_retries = num_retries
        self._position = 0

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[str]:
        while line := self.readline():
            yield line

    def close(self) -> None:
        """No call but this one is allowed afterwards."""
        self.closed = True

    def _need_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed stream file")

    def size(self) -> int:
        """Bytes in the file."""
        return self.arvadosfile.size()

    def stream_name(self) -> str:
        """Path of the file's directory as a manifest has it."""
        return self.arvadosfile.parent.stream_name()

    def readable(self) -> bool:
        """True."""
        return True

    def writable(self) -> bool:
        """Whether the handle writes."""
        return False

    def seekable(self) -> bool:
        """True."""
        return True

    def decompressed_name(self) -> str:
        """The name without `.gz` or `.bz2`."""
        return re.sub(r"\.(bz2|gz)$", "", self.name)

    def tell(self) -> int:
        """Offset of the next byte."""
        return self._position

    def seek(self, pos: int, whence: int = os.SEEK_SET) -> int:
        """Go to an offset, which may be beyond the end."""
        self._need_open()
        if whence == os.SEEK_CUR:
            pos += self._position
        elif whence == os.SEEK_END:
            pos += self.size()
        if pos < 0:
            raise BadArgument("Tried to seek to negative file offset.")
        self._position = pos
        return pos

    def read(
        self, size: int | None = -1, num_retries: int | None = None, return_memoryview: bool = False
    ) -> Any:
        """At most `size` bytes, all that is left if it is negative or None; less only at the end."""
        self._need_open()
        if size is None or size < 0:
            size = max(0, self.size() - self._position)
        data = self.arvadosfile.read(self._position, size)
        self._position += len(data)
        return memoryview(data) if return_memoryview else bytes(data)

    def readfrom(
        self, offset: int, size: int, num_retries: int | None = None, return_memoryview: bool = False
    ) -> Any:
        """At most `size` bytes from `offset`; the position stays."""
        self._need_open()
        data = self.arvadosfile.read(offset, size)
        return memoryview(data) if return_memoryview else bytes(data)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; gives the number of bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self, size: int = _PART, num_retries: int | None = None) -> Iterator[bytes]:
        """The rest of the file in pieces."""
        while data := self.read(size):
            yield data

    def readline(self, size: float = float("inf"), num_retries: int | None = None) -> str:
        """One line, at most `size` bytes of it, decoded."""
        self._need_open()
        start, parts, found = self._position, [], 0
        step = 8192
        while found < size:
            data = self.read(int(min(step, size - found)))
            end = data.find(b"\n") + 1
            parts.append(data[:end] if end else data)
            found += len(parts[-1])
            if end or not data:
                break
            step = min(2 * step, _PART)
        self._position = start + found
        return b"".join(parts).decode()

    def readlines(self, sizehint: float = float("inf"), num_retries: int | None = None) -> list[str]:
        """All lines, or those of about `sizehint` bytes, decoded."""
        parts, found = [], 0
        for data in self.readall():
            parts.append(data)
            found += len(data)
            if found >= sizehint:
                break
        return b"".join(parts).decode().splitlines(True)

    def decompress(
        self, decompress: Callable[[bytes], bytes], size: int, num_retries: int | None = None
    ) -> Iterator[bytes]:
        """The rest of the file, `size` bytes at a time, through a function that may give nothing."""
        for data in self.readall(size):
            if plain := decompress(data):
                yield plain

    def readall_decompressed(self, size: int = _PART, num_retries: int | None = None) -> Iterator[bytes]:
        """The whole file in pieces, decompressed if its name ends in `.gz` or `.bz2`."""
        self.seek(0)
        if self.name.endswith(".bz2"):
            return self.decompress(bz2.BZ2Decompressor().decompress, size)
        if self.name.endswith(".gz"):
            return self.decompress(zlib.decompressobj(16 + zlib.MAX_WBITS).decompress, size)
        return self.readall(size)

    def flush(self) -> None:
        """Nothing waits in a handle: what was written is in the file already. `Collection.flush` stores
        blocks."""


class Writer(Reader):
    """A file open for writing, and for reading too."""

    def writable(self) -> bool:
        """See `Reader`."""
        return True

    def write(self, data: Any, num_retries: int | None = None) -> int:
        """Put bytes (text is encoded in UTF-8) at the position, in the modes a and a+ always at the end."""
        self._need_open()
        raw = data.encode() if isinstance(data, str) else data
        if self.mode[0] == "a":
            self._position = self.arvadosfile.append(raw)
        else:
            self._position += self.arvadosfile.write(self._position, raw)
        self._tell()
        return len(data)

    def writelines(self, seq: Iterable[Any], num_retries: int | None = None) -> None:
        """Write all."""
        for data in seq:
            self.write(data)

    def truncate(self, size: int | None = None) -> None:
        """Cut the file, or make it longer, to `size` or to the position."""
        self._need_open()
        self.arvadosfile.truncate(self._position if size is None else size)

    def close(self, flush: bool = True) -> None:
        """Blocks are stored when the collection is saved, so that small files can share them."""
        super().close()

    def _tell(self) -> None:
        file = self.arvadosfile
        file.parent.notify("write", file.parent, file.name, (file, file))


class _Raw(io.RawIOBase):
    """What the buffers of Python need below them."""

    def __init__(self, handle: Reader) -> None:
        super().__init__()
        self._handle = handle
        self.name = handle.name
        self.mode = handle.mode

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return self._handle.writable()

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._handle.readinto(memoryview(buffer).cast("B"))

    def write(self, data: Any) -> int:
        assert isinstance(self._handle, Writer)
        return self._handle.write(memoryview(data).cast("B"))

    def seek(self, pos: int, whence: int = os.SEEK_SET) -> int:
        return self._handle.seek(pos, whence)

    def tell(self) -> int:
        return self._handle.tell()

    def truncate(self, size: int | None = None) -> int:
        assert isinstance(self._handle, Writer)
        size = self._handle.tell() if size is None else size
        self._handle.truncate(size)
        return size

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._handle.close()
