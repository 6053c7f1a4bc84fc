"""One line of a manifest, checked and taken apart.

Used by `index` and `listing`. Pure functions and values; every fault becomes a `ManifestError`
that names line and token. A line is read as bytes: only 0x20 separates tokens and only 0x0a ends lines,
so that no other white space inside a name can (Arvados manifest format).

Most lines hold nothing but plain names. For these a single `bytes.translate` that deletes every plain
character must leave exactly `:: :: ... ::`; that one comparison proves the structure of all tokens.
"""

import json
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate, islice
from operator import add, lt
from typing import NamedTuple

from arvados_fuse.collection.manifest.names import path_fault, unescape
from arvados_fuse.errors import ManifestError

SIZE_MAX = 2**63 - 1
"""Largest size in bytes of a stream or a file: what `st_size` can hold."""

_PLAIN = bytes(byte for byte in range(0x21, 0x100) if byte not in b":/\\")
_DIGITS = b"0123456789"
_NO_NAMES = frozenset(("", ".", ".."))
"""What no file is called; the last of them in order is `..`."""

_PART = 1 << 15
"""Bytes of tokens taken apart at a time: the short-lived strings of one part make room for those of the next,
instead of leaving holes in memory between the names."""

_TOKEN = re.compile(r"([0-9]{1,4000}):([0-9]{1,4000}):([^\x00-\x20]+)")
_LOCATOR = re.compile(r"[0-9a-f]{32}\+([0-9]{1,4000})(?:\+[A-Z][A-Za-z0-9@_.-]*)*")
_HINTS = re.compile(rb"(?<= )([0-9a-f]{32}\+[0-9]+)\+[^ \n]*")


def strip_hints(manifest: bytes) -> bytes:
    """The manifest with every locator hint but the size removed, which is what a portable data hash is made
    of."""
    return _HINTS.sub(rb"\1", manifest)


def shown(token: str | bytes) -> str:
    """A token as error texts show it: short, and without what follows a locator's size (a signature is a
    secret)."""
    text = token if isinstance(token, str) else token.decode(errors="replace")
    if re.match(r"[0-9a-f]{32}\+", text[:33]):
        text = "+".join(text[:200].split("+")[:2])
    return repr(text if len(text) <= 80 else text[:77] + "...")


class Line(NamedTuple):
    """One line: `head` holds the locators; `start`, `body` (where the file tokens begin) and `end` are
    offsets in the text."""

    data: bytes
    start: int
    head: bytes
    body: int
    end: int

    @classmethod
    def at(cls, data: bytes, start: int) -> "Line":
        """Find the line that starts at `start`; `data` ends in a newline and the line has a space."""
        end = data.index(b"\n", start)
        name_end = data.index(b" ", start)
        colon = data.find(b":", name_end, end)
        if colon < 0:
            raise line_fault(data, start, "no file token", data[start:name_end])
        body = data.rindex(b" ", start, colon) + 1
        if body - 1 <= name_end:
            raise line_fault(data, start, "no block locator", data[start:name_end])
        return cls(data, start, data[name_end + 1 : body - 1], body, end)

    def tokens(self) -> bytes:
        """The file tokens."""
        return self.data[self.body : self.end]

    def fault(self, why: str, token: str | bytes) -> ManifestError:
        """The error for one bad token of this line."""
        return line_fault(self.data, self.start, why, token)


def line_fault(data: bytes, start: int, why: str, token: str | bytes) -> ManifestError:
    """The error for a bad token in the line that starts at byte `start` of the text."""
    number = data.count(b"\n", 0, start) + 1
    return ManifestError(f"manifest line {number}: {why}: {shown(token)}", line=number)


class BlockTable:
    """The blocks of one stream: `offsets[i]` is where block `i` starts in the stream, in bytes; one more ends
    it."""

    __slots__ = ("has_empty", "locators", "offsets")

    def __init__(self, line: Line) -> None:
        """Raises ManifestError when a locator is not legal."""
        self.locators = line.head.decode().split(" ")
        sizes = []
        whole = _LOCATOR.fullmatch
        for locator in self.locators:
            match = whole(locator)
            if match is None:
                raise line.fault("not a block locator", locator)
            sizes.append(int(match[1]))
        self.offsets = [0, *accumulate(sizes)]
        if self.offsets[-1] > SIZE_MAX:
            raise line.fault("stream is longer than 2^63-1 bytes at", self.locators[-1])
        self.has_empty = 0 in sizes

    @property
    def size(self) -> int:
        """Bytes in the stream."""
        return self.offsets[-1]

    def pieces(self, position: int, size: int) -> Iterator[tuple[int, int, int]]:
        """(block number, offset in it, bytes) for a range of the stream, without empty pieces."""
        if not size:
            return
        number = bisect_right(self.offsets, position) - 1
        while size > 0:
            offset = position - self.offsets[number]
            length = min(size, self.offsets[number + 1] - position)
            if length:
                yield number, offset, length
                position += length
                size -= length
            number += 1


class Tokens(NamedTuple):
    """The file tokens of one line in their order.

    plain: whether each is spelled as it would be written, and no name needs an escape or holds a slash.
    ascending: whether the names are known to be in order, each there once.
    """

    names: list[str]
    positions: "array[int]"
    sizes: "array[int]"
    plain: bool = False
    ascending: bool = False


def parse_tokens(line: Line, stream_size: int) -> Tokens:
    """Read all file tokens of a line; raises ManifestError for the first illegal one.

    stream_size: bytes in the line's blocks; no token may reach beyond.
    """
    return _parse_plain(line, stream_size) or _parse_any(line, stream_size)


def _parse_plain(line: Line, stream_size: int) -> Tokens | None:
    """All tokens at once, or None when one needs a closer look."""
    data, done, end = line.data, line.body, line.end
    found: list[str] = []
    positions, sizes = array("Q"), array("Q")
    while done <= end:
        stop = data.find(b" ", done + _PART, end)
        part = data[done : stop if stop >= 0 else end]
        done += len(part) + 1
        skeleton = part.translate(None, _PLAIN)
        count = (len(skeleton) + 1) // 3
        if skeleton != (b":: " * count)[:-1] or not count:
            return None
        fields = part.replace(b" ", b":").decode().split(":")
        numbers = ",".join(fields[0::3] + fields[1::3])
        if numbers.encode().translate(None, _DIGITS) != b"," * (2 * count - 1):
            return None
        try:
            # Faster than int() for each; takes neither an empty number nor one that begins with a zero.
            values = json.loads(f"[{numbers}]")
        except ValueError:
            return None
        starts, lengths = values[:count], values[count:]
        if max(map(add, starts, lengths)) > stream_size:
            return None
        found += fields[2::3]
        positions.fromlist(starts)
        sizes.fromlist(lengths)
    ascending = all(map(lt, found, islice(found, 1, None)))
    if not _NO_NAMES.isdisjoint(found[: bisect_right(found, "..")] if ascending else found):
        return None
    return Tokens(found, positions, sizes, plain=True, ascending=ascending)


def _parse_any(line: Line, stream_size: int) -> Tokens:
    found = []
    positions = array("Q")
    sizes = array("Q")
    for token in line.tokens().decode().split(" "):
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise line.fault("not a file token", token)
        position, size = int(match[1]), int(match[2])
        if position + size > stream_size:
            raise line.fault(f"reaches beyond the stream's {stream_size} bytes", token)
        path = unescape(match[3])
        if path == "." or path.endswith("/."):
            if size:
                raise line.fault("a file that is called '.'", token)
            fault = path != "." and path_fault(path[:-2])
        else:
            fault = path_fault(path)
        if fault:
            raise line.fault(fault, token)
        found.append(path)
        positions.append(position)
        sizes.append(size)
    return Tokens(found, positions, sizes)
