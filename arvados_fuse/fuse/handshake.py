"""What a mount agrees on with the kernel beyond what libfuse 2 knows (include/uapi/linux/fuse.h).

The kernel's first request, INIT, offers what it can do; the answer says what the mount wants of that. libfuse
2 answers from a list of 2013. So this one request is handed to it, and its answer to the kernel with what is
on offer and wanted besides. Everything after it goes its usual way.
"""

import contextlib
import mmap
import os
import select
import signal
import socket
import struct
from collections.abc import Iterator

import llfuse

HANDLE_KILLPRIV_V2 = 1 << 28
"""Bits like set-user-id are taken away by the file system itself when a file is written; ours never has any.
Without this flag the kernel asks for the attribute `security.capability` before each write."""

MAX_PAGES = 1 << 22
"""The answer says how many pages a request may carry; without it they are 32, or 128 KiB."""

_REQUEST = struct.Struct("=IIQQIIII IIII")
"""Its length, operation (the second), five more; major, minor, read-ahead, flags (the last)."""
_INIT = 26
_ANSWER = struct.Struct("=IiQ IIII")
"""Its length, errno, number; major, minor, read-ahead, flags (the last)."""
_PAGES_AT, _PAGES = 44, struct.Struct("=HH")
"""Beyond what libfuse 2 answers: pages of a request, and something else that is not asked for."""
_LARGEST = 1 << 20
"""Bytes. The kernel gives no request to a buffer that could be too small for another."""
_THERE_WITHIN = 10_000
"""Milliseconds. The request is there once the mount is."""


def shake(descriptor: int, operations: llfuse.Operations, max_read: int) -> None:
    """Answer INIT on the connection of a mount that llfuse has just made.

    operations: those of the mount; their `init` is called. max_read: bytes that a read request may ask for.
    Raises OSError.
    """
    with _diverted(descriptor) as (kernel, libfuse):
        waiting = select.poll()
        waiting.register(kernel, select.POLLIN)
        if not waiting.poll(_THERE_WITHIN):
            raise TimeoutError("the kernel does not begin")
        request = os.read(kernel, _LARGEST)
        libfuse.send(request)
        libfuse.shutdown(socket.SHUT_WR)  # what asks for more fails instead of waiting
        with _ending_after(operations):
            llfuse.main(workers=1)
        answer = libfuse.recv(_LARGEST, socket.MSG_DONTWAIT)
        os.write(kernel, agreed(request, answer, max_read // mmap.PAGESIZE))


def agreed(request: bytes, answer: bytes, pages: int) -> bytes:
    """The answer to INIT with what we want besides, so far as the request offers it."""
    if len(request) < _REQUEST.size or len(answer) < _ANSWER.size:
        return answer
    _, operation, *_, offered = _REQUEST.unpack_from(request)
    _, error, number, major, minor, ahead, wanted = _ANSWER.unpack_from(answer)
    if operation != _INIT or error:
        return answer
    wanted |= offered & (HANDLE_KILLPRIV_V2 | MAX_PAGES)
    rest = answer[_ANSWER.size :]
    if wanted & MAX_PAGES:
        room = _PAGES_AT - _ANSWER.size
        rest = rest[:room].ljust(room, b"\0") + _PAGES.pack(pages, 0) + rest[room + _PAGES.size :]
    return _ANSWER.pack(_ANSWER.size + len(rest), 0, number, major, minor, ahead, wanted) + rest


@contextlib.contextmanager
def _diverted(descriptor: int) -> Iterator[tuple[int, socket.socket]]:
    """Meanwhile the descriptor leads to a socket: gives what it led to, and the socket's other end."""
    with contextlib.ExitStack() as ends:
        kernel = os.dup(descriptor)
        ends.callback(os.close, kernel)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ends.enter_context(ours)
        with theirs:
            os.dup2(theirs.fileno(), descriptor, inheritable=False)
        ends.callback(os.dup2, kernel, descriptor, inheritable=False)
        yield kernel, ours


@contextlib.contextmanager
def _ending_after(operations: llfuse.Operations) -> Iterator[None]:
    """Meanwhile llfuse's loop ends with the request that calls `init`. Only a signal tells it to."""

    def init() -> None:
        type(operations).init(operations)
        # Blocked otherwise, see `ending.py`: one from elsewhere would end the loop before its time.
        before = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        signal.raise_signal(signal.SIGHUP)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    operations.init = init
    try:
        yield
    finally:
        del operations.init
