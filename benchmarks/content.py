"""The bytes that measurements store and expect back: the same for every run, cheap to make and to compare.

A large block is a line with its number, then pieces of 1 MiB that are all alike. Small files are cut from one
block of the same kind.
"""

import functools
import random
from collections.abc import Callable
from typing import NamedTuple

BLOCK = 67108864
"""Bytes in a full block, the most that Keep stores in one."""
PIECE = 1 << 20
"""Bytes; blocks repeat after so many."""
SMALL_FILE = 8192
"""Bytes in each of the small files."""


@functools.cache
def piece() -> bytes:
    """The piece that blocks are made of."""
    return random.Random(2024).randbytes(PIECE)


def head(block: int) -> bytes:
    """What a block begins with, so that no two are alike."""
    return b"block %09d\n" % block


def block_content(block: int) -> bytes:
    """A whole block."""
    start = head(block)
    return start + (piece() * (BLOCK // PIECE))[len(start) :]


def expected(offset: int, size: int) -> bytes:
    """`size` bytes from `offset` in a file of blocks 0, 1, 2, ...; within one piece."""
    return _cut(piece(), head(offset // BLOCK), offset, size)


def _cut(whole: bytes, start: bytes, offset: int, size: int) -> bytes:
    within = offset % PIECE
    data = whole[within : within + size]
    if offset % BLOCK < len(start):
        data = start[offset % BLOCK :] + data[len(start) - offset % BLOCK :]
    return data


def small_content(number: int) -> bytes:
    """A small file."""
    return b"%08d" % number + piece()[8:SMALL_FILE]


class Content(NamedTuple):
    """What programs compare with. at: bytes of a large file by offset and size; small: a file by number."""

    at: Callable[[int, int], bytes]
    small: Callable[[int], bytes]


def _zeros_at(offset: int, size: int) -> bytes:
    return _cut(_ZEROS, bytes(len(head(offset // BLOCK))), offset, size)


_ZEROS = bytes(PIECE)
CONTENTS = {
    "stored": Content(expected, small_content),
    "zeros": Content(_zeros_at, lambda number: b"\0" * len(b"%08d" % number) + _ZEROS[8:SMALL_FILE]),
}
"""Zeros are compared in the same steps, so that programs do as much on a mount that has nothing else."""
