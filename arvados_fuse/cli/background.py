"""A mount in a process of its own: forked before any thread exists, watched until it answers.

Used by `main.py` to daemonize and for `--exec`. The child does everything (settings, mount, threads), so
nothing is carried across the fork; until it is ready it keeps the terminal, and its complaints are seen.
"""

import contextlib
import ctypes
import logging
import os
import signal
from collections.abc import Callable

Serve = Callable[[Callable[[], None]], int]
"""Serves a mount until it ends; calls its argument once, when the mount answers; gives the exit code."""

_PR_SET_PDEATHSIG = 1
"""From linux/prctl.h: the signal to get when the parent dies."""


class NotReady(Exception):
    """The child ended before its mount answered; `code` is its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


def launch(serve: Serve, *, leave_terminal: Callable[[], None], follow_parent: bool) -> int:
    """Fork, let the child `serve`, and give its process id once its mount answers.

    leave_terminal: called in the child when it is ready (detaches the standard streams, say).
    follow_parent: the child gets SIGTERM when this process dies, however it dies.
    Raises NotReady when the child ends first, and whatever interrupts the waiting (after stopping the child).
    """
    reading, writing = os.pipe()
    parent = os.getpid()
    # An interrupt between the fork and the `try` would leave a child that nobody ends.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(reading)
        _exit_with(lambda: _serve_in_child(serve, writing, leave_terminal, parent if follow_parent else 0))
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(writing)
        ready = os.read(reading, 1) == b"."
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        raise
    finally:
        os.close(reading)
    if not ready:
        raise NotReady(exit_code(os.waitpid(child, 0)[1]))
    return child


def exit_code(status: int) -> int:
    """What a shell would show for a wait status: the exit code, or 128 + the signal."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _serve_in_child(serve: Serve, writing: int, leave_terminal: Callable[[], None], parent: int) -> int:
    if parent:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            return 1

    def ready() -> None:
        # Only now: until here an interrupt at the terminal must reach this process too.
        os.setsid()
        os.chdir("/")
        leave_terminal()
        os.write(writing, b".")
        os.close(writing)

    return serve(ready)


def _exit_with(work: Callable[[], int]) -> None:
    """Run the child's whole life; never return into the parent's code."""
    code = 1
    try:
        code = work()
    except KeyboardInterrupt:
        code = 130
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
    except Exception:  # the outer edge of this process
        logging.getLogger("arvados.arv-mount").exception("the mount process failed")
    finally:
        logging.shutdown()
        os._exit(code)
