"""Asking a running mount something through its control socket; see `control.py` for the form.

Used by the commands of `cli/` that talk to a mount. Nothing here touches the mount itself, and every wait has
an end: a mount whose process is gone or stuck is answered for by an error.
"""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from arvados_fuse import errors
from arvados_fuse.errors import ArvadosFuseError, BadAnswer, SetupError, Unreachable
from arvados_fuse.reporting import sockets
from arvados_fuse.reporting.control import PEER

CONNECT_WITHIN = 5.0
"""Seconds."""


class NobodyListens(ArvadosFuseError):
    """The mount has no control socket: its process is gone, or it is none of ours."""


def ask(
    minor: int,
    owner: int,
    name: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    silence: float = 10.0,
    deadline: float | None = None,
    directories: Callable[[int], Sequence[Path]] = sockets.directories,
) -> Iterator[dict[str, Any]]:
    """The answers of the mount with this number, one by one as they come.

    owner: the number of the user who mounted. silence: seconds without an answer after which the mount is
    given up. deadline: seconds for all together. Raises NobodyListens, Unreachable, BadAnswer, SetupError
    (who may not ask), and the kind of error with which the mount answered. Leaving the iterator ends the work
    in the mount.
    """
    paths = [sockets.socket_path(directory, minor) for directory in directories(owner)]
    yield from _exchange(paths, owner, name, arguments, silence, deadline)


def ask_at(
    path: Path, owner: int, name: str, arguments: Mapping[str, Any] | None = None, *, deadline: float
) -> Iterator[dict[str, Any]]:
    """The same of the process that listens at `path`."""
    return _exchange([path], owner, name, arguments, deadline, deadline)


def _exchange(
    paths: Sequence[Path],
    owner: int,
    name: str,
    arguments: Mapping[str, Any] | None,
    silence: float,
    deadline: float | None,
) -> Iterator[dict[str, Any]]:
    end = float("inf") if deadline is None else time.monotonic() + deadline
    with contextlib.closing(_connect(paths, owner)) as connection:
        try:
            connection.sendall(json.dumps({"request": name, "arguments": arguments or {}}).encode() + b"\n")
        except OSError as error:
            raise Unreachable(f"the mount does not take requests: {error}") from None
        for line in _lines(connection, silence, end):
            try:
                message = json.loads(line)
            except ValueError:
                message = None
            if not isinstance(message, dict):
                raise BadAnswer("the mount's answer is not JSON")
            if "end" in message:
                return
            if "error" in message:
                raise _error(message["error"])
            yield message["answer"]
    raise Unreachable("the mount ended before it had answered")


def _connect(paths: Sequence[Path], owner: int) -> socket.socket:
    refused = ""
    for path in paths:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(CONNECT_WITHIN)
        try:
            if not sockets.belongs_to(path.parent, owner):
                raise PermissionError(f"{path.parent} is not safe to use")
            connection.connect(str(path))
            listening = PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
            if listening[1] != owner:
                raise PermissionError(f"somebody else listens at {path}")
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
        except PermissionError as error:
            connection.close()
            refused = str(error)
        except OSError as error:
            connection.close()
            raise Unreachable(f"the mount does not answer at {path}: {error}") from None
        else:
            return connection
    if refused:
        raise SetupError(f"only who mounted it, and root, may ask this mount ({refused})")
    raise NobodyListens("nobody listens for this mount")


def _lines(connection: socket.socket, silence: float, end: float) -> Iterator[bytes]:
    """What comes, line by line, until the other side ends."""
    pending = bytearray()
    while True:
        patience = min(silence, end - time.monotonic())
        try:
            if patience <= 0:
                raise TimeoutError
            connection.settimeout(patience)
            part = connection.recv(65536)
        except TimeoutError:
            raise Unreachable("the mount did not answer in time") from None
        except OSError:
            part = b""
        if not part:
            return
        pending += part
        *whole, rest = pending.split(b"\n")
        pending = bytearray(rest)
        yield from (bytes(line) for line in whole)


def _error(described: Any) -> ArvadosFuseError:
    told = described if isinstance(described, dict) else {}
    kind = getattr(errors, str(told.get("kind")), None)
    if not (isinstance(kind, type) and issubclass(kind, ArvadosFuseError)):
        kind = ArvadosFuseError
    known = {name: str(told.get(name, "")) for name in ("subject", "server", "request_id")}
    if issubclass(kind, errors.ManifestError):
        known = {"subject": known["subject"]}
    return kind(str(told.get("message", "the mount failed")), **known)
