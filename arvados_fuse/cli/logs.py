"""Where the messages of arv-mount go, and in which form.

Used by `main.py`, in each process that has something to say. The form and the logger names are those that
scripts and the container dispatcher read. No token is ever written: the formatter blanks every secret it was
told, also inside tracebacks.
"""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from arvados_fuse.errors import SetupError

FORMAT = "%(asctime)s %(name)s[%(process)d] %(levelname)s: %(message)s"
DATE_FORMAT = "%Y-%m-%d %H:%M:%S"
ROOT = "arvados"
COMMAND = "arvados.arv-mount"


class Redactor(logging.Formatter):
    """The standard form with secrets blanked out."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__(FORMAT, DATE_FORMAT)
        self._secrets = tuple(secret for secret in secrets if secret)

    def hide(self, secrets: Iterable[str]) -> None:
        """Blank these out too."""
        self._secrets = (*self._secrets, *secrets)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, "[token]")
        return text


def configure(logfile: Path | None, debug: bool, secrets: Iterable[str] = ()) -> logging.Logger:
    """Send everything below the logger `arvados` to `logfile`, or else to standard error.

    Replaces whatever handlers stood there (the SDK adds one of its own when it is imported).
    Raises SetupError when the file can't be opened. Returns the command's own logger.
    """
    handler: logging.Handler
    if logfile is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        try:
            handler = logging.FileHandler(logfile, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise SetupError(
                f"the log file {logfile} can't be opened ({error.strerror}); give another one with --logfile"
            ) from None
    handler.setFormatter(Redactor(secrets))
    root = logging.getLogger(ROOT)
    for old in list(root.handlers):
        root.removeHandler(old)
        if isinstance(old, logging.FileHandler):
            old.close()
    root.addHandler(handler)
    root.propagate = False
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    return logging.getLogger(COMMAND)


def secrets_of(token: str) -> list[str]:
    """The token and, for one of the form `v2/uuid/secret`, its secret part, which works alone as well."""
    return [token, token.rpartition("/")[2]]


def hide(token: str) -> None:
    """Keep another token out of the log."""
    for handler in logging.getLogger(ROOT).handlers:
        if isinstance(handler.formatter, Redactor):
            handler.formatter.hide(secrets_of(token))


class _Held(logging.Handler):
    """Keeps records back until a time (of time.monotonic), then lets them through."""

    def __init__(self, target: logging.Handler, until: float) -> None:
        super().__init__()
        self._target = target
        self._until = until
        self._records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)
        if time.monotonic() >= self._until:
            self.let_through()

    def let_through(self) -> None:
        """Let through what was kept back."""
        records, self._records = self._records, []
        for record in records:
            self._target.handle(record)


@contextlib.contextmanager
def one_sentence(patience: float = 3.0) -> Iterator[None]:
    """For the set-up of a mount: if it fails soon, its one sentence is all that is seen at the terminal.

    What is logged inside goes to standard error when this ends well, or after `patience` seconds: who waits
    wants to know for what. Without effect on a log file, and with --debug.
    """
    root = logging.getLogger(ROOT)
    if goes_to_file() or root.level <= logging.DEBUG or not root.handlers:
        yield
        return
    (handler,) = root.handlers
    held = _Held(handler, time.monotonic() + patience)
    root.handlers = [held]
    try:
        yield
        held.let_through()
    finally:
        root.handlers = [handler]


def goes_to_file() -> bool:
    """Whether `configure` has opened a log file."""
    return any(isinstance(handler, logging.FileHandler) for handler in logging.getLogger(ROOT).handlers)


def open_missing_streams() -> None:
    """Give a process that was started without some of the three standard streams (`2>&-`) /dev/null for them.

    Else the next file that is opened gets the number, and what is meant for the stream goes into it.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(
                os.open(os.devnull, os.O_RDWR), True
            )  # the lowest number that is free: this one
    # Python has none where there was none when it began.
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def detach_standard_streams(logfile: Path | None) -> None:
    """For a process that leaves the terminal: the three standard streams point to nowhere.

    With a log file, standard output and error go there, so that a crash of the interpreter leaves a trace.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # the other end may be gone, or full
            stream.flush()
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    target = nowhere
    if logfile is not None:
        target = os.open(logfile, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(target, 1)
    os.dup2(target, 2)
    for fd in {nowhere, target}:
        if fd > 2:
            os.close(fd)
