"""Signals that end a mount, such that none is lost and none comes too early or too late.

Used by `session.py`. llfuse ends its loop from a signal handler, and loses a signal that comes while its
threads are being started, or just before one of them goes to sleep. So SIGINT and SIGTERM are blocked in all
threads from before the mount is told to be ready until the process ends; one thread waits for them and then
tells the loop again and again until it is over. A second signal does not cut short what is being taken down.
"""

import ctypes
import os
import platform
import signal
import threading

ENDING = frozenset({signal.SIGINT, signal.SIGTERM})
AGAIN = 0.05
"""Seconds between two nudges: the first nearly always suffices."""
WORKER = "fuse-worker-"
"""What llfuse calls its threads."""
_TGKILL = {"x86_64": 234, "aarch64": 131, "riscv64": 131, "ppc64le": 250, "s390x": 241}
"""Numbers of the system call tgkill(2), for C libraries that have no function of that name."""


class Ending:
    """`hold`, `watch` and `over` belong to the main thread, in this order."""

    def __init__(self) -> None:
        self.number: int | None = None
        """The signal that ended the loop."""
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def hold(self) -> None:
        """From here on the signals wait. Before any thread is started: threads inherit it."""
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)

    def watch(self) -> None:
        """From here on they end the loop that the main thread is about to run."""
        # The nudges below may come once more after llfuse has given these back.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        main = threading.get_ident()
        self._thread = threading.Thread(target=self._run, args=(main,), name="signals", daemon=True)
        self._thread.start()

    def over(self) -> None:
        """The loop has ended."""
        self._over.set()
        if self._thread is not None and self._thread.is_alive() and self._thread.ident is not None:
            signal.pthread_kill(self._thread.ident, signal.SIGTERM)
            self._thread.join()
        self._thread = None

    def _run(self, main: int) -> None:
        number = signal.sigwait(ENDING)
        if self._over.is_set():
            return
        self.number = number
        while True:
            # Ends the loop, and wakes who waits for it; llfuse leaves no handler for another signal.
            signal.pthread_kill(main, signal.SIGHUP)
            if self._over.wait(AGAIN):
                return
            for thread in threading.enumerate():
                if thread.name.startswith(WORKER) and thread.native_id is not None:
                    _interrupt(thread.native_id)


def _interrupt(thread: int) -> None:
    """Let a thread's system call return; nothing when that thread is no more."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "tgkill"):
        libc.tgkill(os.getpid(), thread, int(signal.SIGUSR1))
    elif platform.machine() in _TGKILL:
        libc.syscall(_TGKILL[platform.machine()], os.getpid(), thread, int(signal.SIGUSR1))
