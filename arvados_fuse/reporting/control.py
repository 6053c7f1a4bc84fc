"""The control socket of a running mount: others ask it by name, it answers in JSON lines.

One request on each connection: `{"request": NAME, "arguments": {...}}` and a newline. The answer is any
number of `{"answer": {...}}`, then `{"end": true}` or `{"error": {...}}`. `cli/build.py` registers what can
be asked and starts it after the fork. Only the mount's owner and root may ask.

Threads: one accepts, one more for each request; all are daemons, and `close` waits for none that works.
"""

import contextlib
import json
import logging
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from arvados_fuse.errors import ArvadosFuseError, InvalidArgument, NotSupported, Unreachable
from arvados_fuse.reporting import sockets

logger = logging.getLogger("arvados.arv-mount")

Answers = Iterable[Mapping[str, Any]]
Handler = Callable[[Mapping[str, Any]], Answers]
"""Takes the arguments of a request and gives its answers, one after another while it works. A generator is
closed when the asker goes away, so one that works for long yields its progress every few seconds."""

LOOK_EVERY = 15.0
"""Seconds between two looks whether the socket is still in its place."""
REQUEST_WITHIN = 10.0
SEND_WITHIN = 60.0
"""Seconds that an asker has to send its request, and to take one line of the answer."""
MOST_BYTES = 1 << 20
"""Of a request."""
MOST_REQUESTS = 32
"""At the same time."""
PEER = struct.Struct("3i")
"""struct ucred (unix(7)): process, user, group."""


class ControlServer:
    """Constructing does nothing; `register` before `start`; `close` is safe to call twice.

    directories: see `sockets.directories`.
    """

    def __init__(self, directories: Callable[[int], Sequence[Path]] = sockets.directories) -> None:
        self._directories = directories
        self._handlers: dict[str, Handler] = {}
        self._minor = 0
        self._is_ending = False
        self._path: Path | None = None
        self._identity: tuple[int, int] | None = None
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._stopping = threading.Event()
        self._wake: tuple[socket.socket, socket.socket] | None = None
        self._thread: threading.Thread | None = None

    def register(self, name: str, handler: Handler) -> None:
        """Let `handler` answer requests of this name."""
        self._handlers[name] = handler

    @property
    def path(self) -> Path | None:
        """Where it listens, None when it does not."""
        return self._path

    def start(self, minor: int) -> None:
        """Listen for the mount with this number. A mount works without: failing is one line in the log."""
        self._minor = minor
        self._listen()
        if self._listener is not None:
            self._wake = socket.socketpair()
            self._thread = threading.Thread(target=self._run, name="control", daemon=True)
            self._thread.start()

    def leave_number(self) -> None:
        """The mount is away, and its number may be another one's: listen under that of the process."""
        with self._lock:
            self._is_ending = True
            if self._path is None or not self._in_place():
                return
            path = self._place(self._path.parent)
            with contextlib.suppress(OSError):  # then it is made anew, in a while
                self._path.rename(path)
                self._path = path

    def _place(self, directory: Path) -> Path:
        if self._is_ending:
            return sockets.ending_path(directory, os.getpid())
        return sockets.socket_path(directory, self._minor)

    def close(self) -> None:
        """Take the socket away and cut off who is being answered."""
        self._stopping.set()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if self._thread is not None and self._wake is not None:
            self._wake[0].close()
            self._thread.join()
            self._wake[1].close()
            self._thread = None
        with self._lock:
            self._forget_listener()

    # The socket

    def _listen(self) -> None:
        """Bind in the first place where that works."""
        reasons = []
        for directory in self._directories(os.geteuid()):
            try:
                sockets.make_private(directory)
                remove_stale(directory)
                self._bind(directory)
            except OSError as error:
                reasons.append(f"{directory}: {error}")
            else:
                return
        level = logging.WARNING if self._thread is None else logging.DEBUG
        logger.log(level, "--status and the like do not work for this mount (%s)", "; ".join(reasons))

    def _bind(self, directory: Path) -> None:
        path = self._place(directory)
        # Bound under another name and moved when it listens: a socket of that name that refuses is dead.
        fresh = path.with_name(f".{path.name}")
        fresh.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(fresh))
            fresh.chmod(0o600)
            listener.listen(MOST_REQUESTS)
            listener.setblocking(False)
            found = fresh.stat()
            fresh.rename(path)
        except BaseException:
            listener.close()
            raise
        with self._lock:
            self._listener, self._path = listener, path
            self._identity = found.st_dev, found.st_ino

    def _in_place(self) -> bool:
        """Whether the socket's name still stands for the socket."""
        if self._path is None:
            return False
        try:
            found = self._path.lstat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def _forget_listener(self) -> None:
        if self._in_place() and self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
        if self._listener is not None:
            self._listener.close()
        self._listener = self._path = self._identity = None

    # The thread that accepts

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._accept()
        except Exception:
            logger.exception("The control socket failed unexpectedly")

    def _accept(self) -> None:
        """Wait for what comes first: somebody who asks, the end, or the time to look after the socket."""
        assert self._wake is not None
        poll = select.poll()
        poll.register(self._wake[1], select.POLLIN)
        if self._listener is not None:
            poll.register(self._listener, select.POLLIN)
        if not poll.poll(LOOK_EVERY * 1000):
            self._look_after_place()
        if self._listener is None or self._stopping.is_set():
            return
        try:
            connection = self._listener.accept()[0]
        except BlockingIOError:
            return
        except OSError as error:
            logger.debug("Accepting at the control socket: %s", error)
            self._stopping.wait(1.0)
            return
        threading.Thread(target=self._serve, args=(connection,), name="control-request", daemon=True).start()

    def _look_after_place(self) -> None:
        """Logging out, or a cleaning of /tmp, may have taken the socket away: make another one."""
        if not self._in_place():
            with self._lock:
                self._forget_listener()
            self._listen()

    # A thread for each request

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            busy = len(self._connections) >= MOST_REQUESTS
            self._connections.add(connection)
        try:
            with connection:
                self._answer(connection, busy)
        except OSError as error:
            logger.debug("Who asked has gone: %s", error)
        except Exception:
            logger.exception("A request at the control socket failed unexpectedly")
        finally:
            with self._lock:
                self._connections.discard(connection)

    def _answer(self, connection: socket.socket, busy: bool) -> None:
        try:
            user = PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))[1]
            if user not in (0, os.geteuid()):
                return
            if busy:
                raise Unreachable("too many requests at once")
            connection.settimeout(REQUEST_WITHIN)
            name, arguments = _parsed(_line(connection))
            connection.settimeout(SEND_WITHIN)
            handler = self._handlers.get(name)
            if handler is None:
                raise NotSupported(f"this mount knows no request {name!r}", subject=name)
            self._stream(connection, handler(arguments))
        except ArvadosFuseError as error:
            _send(connection, {"error": _described(error)})
        except OSError:
            raise
        except Exception as error:
            logger.exception("A request at the control socket failed unexpectedly")
            _send(connection, {"error": {"kind": "ArvadosFuseError", "message": f"unexpected: {error!r}"}})

    def _stream(self, connection: socket.socket, answers: Answers) -> None:
        try:
            for answer in answers:
                if self._stopping.is_set():
                    raise Unreachable("the mount ends")
                _send(connection, {"answer": answer})
            _send(connection, {"end": True})
        finally:
            close = getattr(answers, "close", None)
            if close is not None:
                close()


def remove_stale(directory: Path) -> None:
    """Remove sockets of mounts that are gone: nobody listens there. Raises OSError."""
    for path in [*directory.glob("[0-9]*.sock"), *directory.glob("ending-*.sock")]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError as error:
                logger.debug("%s: %s", path, error)


def _line(connection: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b"\n"):
        part = connection.recv(65536)
        received += part
        if not part or len(received) > MOST_BYTES:
            raise InvalidArgument("the request is not one line of JSON")
    return received


def _parsed(line: bytes) -> tuple[str, Mapping[str, Any]]:
    try:
        request = json.loads(line)
    except ValueError:
        request = None
    if isinstance(request, dict):
        name, arguments = request.get("request"), request.get("arguments", {})
        if isinstance(name, str) and isinstance(arguments, dict):
            return name, arguments
    raise InvalidArgument("the request is not one line of JSON")


def _send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _described(error: ArvadosFuseError) -> dict[str, str]:
    return {
        "kind": type(error).__name__,
        "message": str(error),
        "subject": error.subject,
        "server": error.server,
        "request_id": error.request_id,
    }
