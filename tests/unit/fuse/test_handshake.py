"""What the kernel is told at the beginning of a mount, byte by byte (include/uapi/linux/fuse.h)."""

import struct

import pytest

from arvados_fuse.fuse.handshake import HANDLE_KILLPRIV_V2, agreed

OTHER = 0b100001
ENDING = bytes(range(24))


def request(offered: int, *, operation: int = 26) -> bytes:
    return struct.pack("=IIQQIIII IIII", 104, operation, 2, 0, 0, 0, 0, 0, 7, 45, 131072, offered) + bytes(48)


def answer(flags: int, *, error: int = 0) -> bytes:
    return struct.pack("=IiQ IIII", 56, error, 2, 7, 19, 131072, flags) + ENDING


def test_what_is_offered_is_taken_besides() -> None:
    assert agreed(request(0x73FFFFFB), answer(OTHER)) == answer(OTHER | HANDLE_KILLPRIV_V2)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (request(0x03FFFFFB), answer(OTHER)),
        (request(0x73FFFFFB), answer(OTHER, error=-71)),
        (request(0x73FFFFFB, operation=38), answer(OTHER)),
        (request(0x73FFFFFB), answer(0, error=-71)[:16]),
        (request(0x73FFFFFB)[:40], answer(OTHER)),
    ],
    ids=["not offered", "refused", "another request", "refused shortly", "a short request"],
)
def test_else_the_answer_stays_as_it_is(asked: bytes, answered: bytes) -> None:
    assert agreed(asked, answered) == answered
