"""One line of a manifest, checked and taken apart.

Used by `manifest` and `listing`. Pure functions and values; every fault becomes a `ManifestError`
that names line and token. A line is read as bytes: only 0x20 separates tokens and only 0x0a ends lines,
so that no other white space inside a name can (Arvados manifest format).

Most lines hold nothing but plain names. For these a single `bytes.translate` that deletes every plain
character must leave exactly `:: :: ... ::`; that one comparison proves the structure of all tokens.
"""

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from operator import add
from typing import NamedTuple

from arvados_fuse.collection import names
from arvados_fuse.errors import ManifestError

SIZE_MAX = 2**63 - 1
"""Largest size in bytes of a stream or a file: what `st_size` can hold."""

_PLAIN = bytes(byte for byte in range(0x21, 0x100) if byte not in b":/\\")
_PART = 1 << 14
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
    """The bytes of one line: `head` holds the locators, `body` the file tokens, `start` is its offset in the
    text."""

    data: bytes
    start: int
    head: bytes
    body: bytes

    @classmethod
    def at(cls, data: bytes, start: int) -> "Line":
        """Cut the line that starts at `start`; `data` ends in a newline and the line has a space."""
        end = data.index(b"\n", start)
        name_end = data.index(b" ", start)
        colon = data.find(b":", name_end, end)
        if colon < 0:
            raise line_fault(data, start, "no file token", data[start:name_end])
        body = data.rindex(b" ", start, colon) + 1
        if body - 1 <= name_end:
            raise line_fault(data, start, "no block locator", data[start:name_end])
        return cls(data, start, data[name_end + 1 : body - 1], data[body:end])

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
    """The file tokens of one line in their order; names are unescaped and may hold slashes unless `plain`."""

    names: list[str]
    positions: "array[int]"
    sizes: "array[int]"
    plain: bool


def parse_tokens(line: Line, stream_size: int) -> Tokens:
    """Read all file tokens of a line; raises ManifestError for the first illegal one.

    stream_size: bytes in the line's blocks; no token may reach beyond.
    """
    skeleton = line.body.translate(None, _PLAIN)
    if skeleton == b":: " * (len(skeleton) // 3) + b"::":
        quick = _parse_plain(line.body, stream_size)
        if quick is not None:
            return quick
    return _parse_any(line, stream_size)


def _parse_plain(body: bytes, stream_size: int) -> Tokens | None:
    """All tokens at once, or None when one needs a closer look."""
    if b"::" in body or b": " in body or body.startswith(b":") or body.endswith(b":"):
        return None  # an empty field
    tokens = Tokens([], array("Q"), array("Q"), plain=True)
    done = 0
    while done < len(body):
        stop = body.find(b" ", done + _PART)
        part = body[done : stop if stop >= 0 else None]
        done += len(part) + 1
        fields = part.decode().replace(" ", ":").split(":")
        positions, sizes, found = fields[0::3], fields[1::3], fields[2::3]
        digits = "".join(positions + sizes)
        if not digits.isascii() or digits.encode().translate(None, b"0123456789"):
            return None
        if b":." in part and ("." in found or ".." in found):
            return None
        try:
            starts, lengths = array("Q", map(int, positions)), array("Q", map(int, sizes))
        except (ValueError, OverflowError):
            return None
        if max(map(add, starts, lengths)) > stream_size:
            return None
        tokens.names.extend(found)
        tokens.positions.extend(starts)
        tokens.sizes.extend(lengths)
    return tokens


def _parse_any(line: Line, stream_size: int) -> Tokens:
    found = []
    positions = array("Q")
    sizes = array("Q")
    for token in line.body.decode().split(" "):
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise line.fault("not a file token", token)
        position, size = int(match[1]), int(match[2])
        if position + size > stream_size:
            raise line.fault(f"reaches beyond the stream's {stream_size} bytes", token)
        path = names.unescape(match[3])
        if path == "." or path.endswith("/."):
            if size:
                raise line.fault("a file that is called '.'", token)
            fault = path != "." and names.path_fault(path[:-2])
        else:
            fault = names.path_fault(path)
        if fault:
            raise line.fault(fault, token)
        found.append(path)
        positions.append(position)
        sizes.append(size)
    return Tokens(found, positions, sizes, plain=False)
