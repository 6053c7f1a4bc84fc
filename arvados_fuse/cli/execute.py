"""`--exec`: one command beside a mount that lives exactly as long as it.

Used by `main.py`. The mount runs in a process of its own, out of reach of the terminal's interrupts, and
ends with this one. This process has one thread, which waits for the command and passes signals on to it.
"""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from types import FrameType

from arvados_fuse.cli.background import exit_code

logger = logging.getLogger("arvados.arv-mount")

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
NOT_FOUND = 127
NOT_EXECUTABLE = 126
"""What shells answer for a command that is missing, or is there and can't be run."""
LAST_WAIT = 5.0
"""Seconds between the forced unmount and killing the mount's process."""


def run(arguments: Sequence[str]) -> int:
    """Run the command in the caller's working directory, signals passed on.

    Gives its exit code, 128 + N when signal N ended it.
    """
    with _Forwarding() as forwarding:
        try:
            child = subprocess.Popen(arguments)
        except FileNotFoundError:
            logger.error("can't run %s: no such command", arguments[0])
            return NOT_FOUND
        except OSError as error:
            logger.error("can't run %s: %s", arguments[0], error.strerror)
            return NOT_EXECUTABLE
        forwarding.to(child)
        code = child.wait()
    return code if code >= 0 else 128 - code


def end_mount(process: int, force: Callable[[], object], timeout: float) -> int:
    """Ask the mount's process to unmount and end; after `timeout` seconds `force` it. Gives its exit code."""
    os.kill(process, signal.SIGTERM)
    status = _wait(process, timeout)
    if status is None:
        logger.warning("the mount did not end within %.1f seconds; forcing it", timeout)
        force()
        status = _wait(process, LAST_WAIT)
    if status is None:
        logger.error("the mount's process did not end; killing it")
        os.kill(process, signal.SIGKILL)
        status = os.waitpid(process, 0)[1]
    return exit_code(status)


def _wait(process: int, timeout: float) -> int | None:
    """The wait status, or None when the process is still there after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return status
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.01)


class _Forwarding:
    """While entered, signals for this process go to the command; those that come too early wait for it."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def __enter__(self) -> "_Forwarding":
        for number in FORWARDED:
            # What the caller ignores (nohup, a background job of a script) stays ignored, in the command too.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number in FORWARDED:
            # From here on the mount is being taken down, which a second interrupt must not cut short.
            signal.signal(number, signal.SIG_IGN)

    def to(self, child: "subprocess.Popen[bytes]") -> None:
        """Send on to `child`, first what is waiting."""
        self._child = child
        for number in self._early:
            child.send_signal(number)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._child is None:
            self._early.append(number)
        else:
            self._child.send_signal(number)
