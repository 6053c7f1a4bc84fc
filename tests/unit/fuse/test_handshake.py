"""What the kernel is told at the beginning of a mount, byte by byte (include/uapi/linux/fuse.h)."""

import struct

import pytest

from arvados_fuse.fuse.handshake import HANDLE_KILLPRIV_V2, MAX_PAGES, agreed

OTHER = 0b100001
ENDING = bytes(range(24))


def request(offered: int, *, operation: int = 26) -> bytes:
    return struct.pack("=IIQQIIII IIII", 104, operation, 2, 0, 0, 0, 0, 0, 7, 45, 131072, offered) + bytes(48)


def answer(flags: int, *, error: int = 0) -> bytes:
    return struct.pack("=IiQ IIII", 56, error, 2, 7, 19, 131072, flags) + ENDING


def test_what_is_offered_is_taken_besides() -> None:
    wanted = answer(OTHER | HANDLE_KILLPRIV_V2 | MAX_PAGES)
    assert agreed(request(0x73FFFFFB), answer(OTHER), 128) == wanted[:44] + b"\x80\0\0\0" + wanted[48:]


def test_what_is_too_short_for_it_becomes_longer() -> None:
    shorter = struct.pack("=I", 40) + answer(OTHER)[4:40]
    told = agreed(request(0x73FFFFFB), shorter, 128)
    wanted = struct.pack("=I", 48) + answer(OTHER | HANDLE_KILLPRIV_V2 | MAX_PAGES)[4:40]
    assert told == wanted + bytes(4) + b"\x80\0\0\0"


def test_no_more_pages_where_they_are_not_offered() -> None:
    assert agreed(request(0x733FFFFB), answer(OTHER), 128) == answer(OTHER | HANDLE_KILLPRIV_V2)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (request(0x03BFFFFB), answer(OTHER)),
        (request(0x73FFFFFB), answer(OTHER, error=-71)),
        (request(0x73FFFFFB, operation=38), answer(OTHER)),
        (request(0x73FFFFFB), answer(0, error=-71)[:16]),
        (request(0x73FFFFFB)[:40], answer(OTHER)),
    ],
    ids=["not offered", "refused", "another request", "refused shortly", "a short request"],
)
def test_else_the_answer_stays_as_it_is(asked: bytes, answered: bytes) -> None:
    assert agreed(asked, answered, 128) == answered
