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

from arvados_fuse.cli.background import exit_code

logger = logging.getLogger("arvados.arv-mount")

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
SENT_BY_KERNEL = 0x80
"""SI_KERNEL of sigaction(2): the `si_code` of a signal that comes from the terminal."""
NOT_FOUND = 127
NOT_EXECUTABLE = 126
"""What shells answer for a command that is missing, or is there and can't be run."""
LAST_WAIT = 5.0
"""Seconds between the forced unmount and killing the mount's process."""
SAVING = 900.0
"""Seconds for an unmounted mount to save; it has a deadline of its own, which is shorter."""


def run(arguments: Sequence[str]) -> int:
    """Run the command in the caller's working directory, signals passed on.

    Gives its exit code, 128 + N when signal N ended it. Afterwards these signals stay blocked: from then on
    the mount is being taken down, which a second interrupt must not cut short.
    """
    # What the caller ignores (nohup, a background job of a script) stays ignored, in the command too.
    passed_on = {number for number in PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*passed_on, signal.SIGCHLD})

    def as_before() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    try:
        # This process has no other thread, so the hook is safe.
        child = subprocess.Popen(arguments, preexec_fn=as_before)
    except FileNotFoundError:
        logger.error("can't run %s: no such command", arguments[0])
        return NOT_FOUND
    except OSError as error:
        logger.error("can't run %s: %s", arguments[0], error.strerror)
        return NOT_EXECUTABLE
    while child.poll() is None:
        came = signal.sigwaitinfo({*passed_on, signal.SIGCHLD})
        # The kernel has sent what was typed at the terminal to the command as well.
        if came.si_signo != signal.SIGCHLD and came.si_code != SENT_BY_KERNEL:
            child.send_signal(came.si_signo)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def end_mount(
    process: int,
    force: Callable[[], object],
    is_mounted: Callable[[], bool],
    timeout: float,
    recover: Callable[[], str] = lambda: "",
) -> int:
    """Ask the mount's process to unmount and end; after `timeout` seconds `force` the unmount.

    Once it is unmounted, the process gets the time that it takes to save what is unsaved; signals that come
    meanwhile are passed on to it. Gives its exit code. recover: the command that saves what it leaves when it
    is killed, "" where that is nothing.
    """
    os.kill(process, signal.SIGTERM)
    status = _wait(process, timeout)
    if status is None and is_mounted():
        logger.warning("the mount did not end within %.1f seconds; forcing it", timeout)
        force()
        status = _wait(process, LAST_WAIT)
    if status is None and not is_mounted():
        status = _wait(process, SAVING)
    if status is None:
        logger.error("the mount's process did not end; killing it")
        os.kill(process, signal.SIGKILL)
        status = os.waitpid(process, 0)[1]
    if os.WIFSIGNALED(status):
        logger.error(
            "the mount's process was ended by signal %d (9: somebody killed it, or the memory was full)",
            os.WTERMSIG(status),
        )
        if command := recover():
            logger.error("what was closed and not saved is kept; save it with: %s", command)
        if is_mounted():
            force()
    return exit_code(status)


def _wait(process: int, timeout: float) -> int | None:
    """The wait status, or None when the process is still there after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return status
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        # They are blocked since the command was run.
        came = signal.sigtimedwait({*PASSED_ON, signal.SIGCHLD}, min(left, 0.05))
        if came is not None and came.si_signo != signal.SIGCHLD:
            os.kill(process, came.si_signo)
