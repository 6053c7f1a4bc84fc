"""Signals that end a mount, such that none is lost and none comes too early or too late.

Used by `cli/main.py` around the life of a mount. llfuse ends its loop from a signal handler, and loses a
signal that comes while its threads are being started, or that another thread takes. So SIGINT, SIGTERM
and SIGHUP are blocked in all threads, and one thread waits for them: until the mount is being made it
interrupts the main thread; from then on it ends the loop, telling it again and again until it is over. Later
signals do not cut short what is being taken down.
"""

import ctypes
import os
import platform
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
AGAIN = 0.05
"""Seconds between two nudges: the first nearly always suffices."""
LOOK_EVERY = 30.0
"""Seconds after which the waiting thread looks whether all is over, should it not have been told."""
WORKER = "fuse-worker-"
"""What llfuse calls its threads."""
_TGKILL = {"x86_64": 234, "aarch64": 131, "riscv64": 131, "ppc64le": 250, "s390x": 241}
"""Numbers of the system call tgkill(2), for C libraries that have no function of that name."""


class Ending:
    """A context manager of the main thread, entered before any other thread exists.

    Inside it SIGINT raises KeyboardInterrupt, SIGTERM and SIGHUP SystemExit, until `hold` is called; then
    they wait for `run`. They stay blocked afterwards: what follows is the end of the process. What the
    caller ignores (nohup, a background job of a script) ends nothing; but SIGTERM always does.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """The signal that came first."""
        self._awaited: frozenset[signal.Signals] = ENDING
        self._interrupting = True
        self._looping = threading.Event()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Ending":
        ignored = {number for number in ENDING if signal.getsignal(number) is signal.SIG_IGN}
        # What takes a mount of --exec away is SIGTERM.
        self._awaited = ENDING - ignored | {signal.SIGTERM}
        # An ignored one too: in its loop llfuse has a handler for it.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        signal.signal(signal.SIGUSR1, self._interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})  # the caller may have blocked it
        self._thread = threading.Thread(
            target=self._run, args=(threading.get_ident(),), name="signals", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def hold(self) -> None:
        """From here on a signal waits for the loop."""
        self._interrupting = False

    def run(self, loop: Callable[[], T]) -> T:
        """Run llfuse's loop, which the signals end."""
        self._interrupting = False
        # It may be raised below once more when llfuse has given it back. (SIG_IGN would drop one that waits.)
        signal.signal(signal.SIGHUP, lambda *_: None)
        self._looping.set()
        try:
            return loop()
        finally:
            self._end()

    def _end(self) -> None:
        self._interrupting = False
        self._over.set()
        self._looping.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            if thread.native_id is not None:
                _send(thread.native_id, signal.SIGTERM)
            thread.join()

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self._interrupting and self.number is not None:
            self._interrupting = False
            if self.number == signal.SIGINT:
                raise KeyboardInterrupt
            raise SystemExit(128 + self.number)

    def _run(self, main: int) -> None:
        came = None
        while came is None and not self._over.is_set():
            came = signal.sigtimedwait(self._awaited, LOOK_EVERY)
        if came is None or self._over.is_set():
            return
        self.number = came.si_signo
        signal.pthread_kill(main, signal.SIGUSR1)
        self._looping.wait()
        if self._over.is_set():
            return  # there was no loop, so nothing has a handler for what follows
        # llfuse's handler ends the loop in whatever thread it runs; those that wait are woken besides.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        while not self._over.is_set():
            signal.raise_signal(signal.SIGHUP)
            signal.pthread_kill(main, signal.SIGUSR1)
            if self._over.wait(AGAIN):
                return
            for thread in threading.enumerate():
                if thread.name.startswith(WORKER) and thread.native_id is not None:
                    _send(thread.native_id, signal.SIGUSR1)


def _send(thread: int, number: signal.Signals) -> None:
    """Send a signal to one thread; nothing when it is no more (pthread_kill(3) would be undefined then)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "tgkill"):
        libc.tgkill(os.getpid(), thread, int(number))
    elif platform.machine() in _TGKILL:
        libc.syscall(_TGKILL[platform.machine()], os.getpid(), thread, int(number))
