"""HTTP to Keep services: kept-alive connections, bodies read straight into the caller's buffer.

Used by `keep.fetch` and `keep.upload`. Repeats only what failed on a stale connection.
Threads: the pool may be used from any thread; one `Exchange` belongs to one thread.
"""

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from types import TracebackType

from arvados_fuse.keep.services import KeepService
from arvados_fuse.version import __version__

IDLE_CONNECTIONS = 16
"""Kept-alive connections over all services; at most that many threads fetch and upload."""

MAX_ANSWER = 65536
"""Bytes read of an answer that is a text (a locator, an error)."""

SEND_BYTES = 1024 * 1024
"""A body is sent in pieces of this size; the time-out for lack of progress is for one piece."""


class Interrupt:
    """Ends an exchange from another thread: its socket is shut down, at once or as soon as there is one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.fired = False

    def attach(self, connected: socket.socket) -> None:
        """This is the socket to shut down."""
        with self._lock:
            self._socket = connected
            if self.fired:
                self._shut()

    def detach(self) -> None:
        """The socket is done with."""
        with self._lock:
            self._socket = None

    def fire(self) -> None:
        """End the exchange under way and every later one."""
        with self._lock:
            self.fired = True
            self._shut()

    def _shut(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it may have ended by itself
                # Not SSLSocket.shutdown: that would take the TLS state away under the thread that reads.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Answer(http.client.HTTPResponse):
    """Adds what the standard class lacks: one read from the socket straight into a buffer."""

    def fill(self, view: memoryview) -> int:
        """Fill a part of `view` from at most one read of the socket; returns its bytes, 0 at the end."""
        if self.isclosed():
            return 0
        if self.chunked:
            data = self.read1(len(view))
            view[: len(data)] = data
            return len(data)
        if self.length is not None:
            view = view[: self.length]
        count = self.fp.readinto1(view)
        if self.length is not None:
            self.length -= count
            if self.length == 0:
                self.close()
        return count


class _Plain(http.client.HTTPConnection):
    response_class = _Answer


class _Tls(http.client.HTTPSConnection):
    response_class = _Answer


class Exchange:
    """One request's answer. Leaving its `with` block keeps the connection if the body was read to its end."""

    def __init__(
        self,
        pool: "ConnectionPool",
        service: KeepService,
        connection: http.client.HTTPConnection,
        answer: _Answer,
        interrupt: Interrupt,
    ) -> None:
        self._pool = pool
        self._service = service
        self._connection = connection
        self._answer = answer
        self._interrupt = interrupt
        self.status = answer.status
        self.headers = answer.headers
        self.length = answer.length
        """Bytes of the body, None when the server did not say."""

    def readinto(self, view: memoryview) -> int:
        """Fill a part of `view` from at most one read of the socket; returns the bytes, 0 at the body's end.

        Raises OSError (TimeoutError when nothing came in time) and http.client.HTTPException.
        """
        return self._answer.fill(view)

    def text(self) -> str:
        """The start of the body, for locators and error texts."""
        return self._answer.read(MAX_ANSWER).decode("utf-8", "replace").strip()

    def __enter__(self) -> "Exchange":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interrupt.detach()
        if error is None and self._answer.isclosed() and not self._answer.will_close:
            self._pool.keep(self._service, self._connection)
        else:
            self._answer.close()
            self._connection.close()


class ConnectionPool:
    """Makes requests; closing it closes the idle connections, those in use end with their exchange."""

    def __init__(self, *, insecure: bool = False, ca_file: str | None = None) -> None:
        self._insecure = insecure
        self._ca_file = ca_file
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None
        self._idle: list[tuple[KeepService, http.client.HTTPConnection]] = []
        self._closed = False

    def request(
        self,
        service: KeepService,
        method: str,
        path: str,
        headers: Mapping[str, str],
        *,
        connect_timeout: float,
        progress_timeout: float,
        interrupt: Interrupt | None = None,
        body: memoryview | None = None,
    ) -> Exchange:
        """Send one request and read the answer's header. Times are seconds; progress: of one read or write.

        Raises OSError (ssl.SSLError and TimeoutError are kinds of it) and http.client.HTTPException.
        """
        interrupt = interrupt or Interrupt()
        fields = {"User-Agent": f"arvados_fuse/{__version__}", "Accept": "*/*", **headers}
        if body is not None:
            fields["Content-Length"] = str(len(body))

        def ask(connection: http.client.HTTPConnection) -> Exchange:
            connection.sock.settimeout(progress_timeout)
            interrupt.attach(connection.sock)
            try:
                answer = _ask(connection, method, service.prefix + path, fields, body)
                return Exchange(self, service, connection, answer, interrupt)
            except BaseException:
                interrupt.detach()
                connection.close()
                raise

        kept = self._take(service)
        if kept is not None:
            # The server may have ended an idle connection: not a failure, ask on a new one.
            with contextlib.suppress(http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                return ask(kept)
        fresh = self._connection(service, connect_timeout)
        try:
            fresh.connect()
        except BaseException:
            fresh.close()
            raise
        return ask(fresh)

    def prepare(self, service: KeepService, connect_timeout: float) -> None:
        """Connect beforehand, so that the first request need not. Does nothing when it fails."""
        fresh = self._connection(service, connect_timeout)
        try:
            fresh.connect()
        except (OSError, http.client.HTTPException):  # whoever asks for a block will say so
            fresh.close()
        else:
            self.keep(service, fresh)

    def keep(self, service: KeepService, connection: http.client.HTTPConnection) -> None:
        """Take back a connection whose last exchange ended well."""
        with self._lock:
            if not self._closed:
                self._idle.append((service, connection))
                spare = self._idle.pop(0)[1] if len(self._idle) > IDLE_CONNECTIONS else None
            else:
                spare = connection
        if spare is not None:
            spare.close()

    def close(self) -> None:
        """Close all idle connections; those returned later are closed at once."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def _take(self, service: KeepService) -> http.client.HTTPConnection | None:
        with self._lock:
            for number in range(len(self._idle) - 1, -1, -1):  # the most recently used is the likeliest alive
                if self._idle[number][0] == service:
                    return self._idle.pop(number)[1]
        return None

    def _connection(self, service: KeepService, timeout: float) -> http.client.HTTPConnection:
        if service.tls:
            return _Tls(service.host, service.port, timeout=timeout, context=self._tls_context())
        return _Plain(service.host, service.port, timeout=timeout)

    def _tls_context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                self._tls = ssl.create_default_context(cafile=self._ca_file)
                if self._insecure:
                    self._tls.check_hostname = False
                    self._tls.verify_mode = ssl.CERT_NONE
            return self._tls


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    fields: Mapping[str, str],
    body: memoryview | None,
) -> _Answer:
    try:
        # In pieces: a socket's time-out is for the whole of what one call sends.
        pieces = None if body is None else _pieces(body)
        connection.request(method, path, body=pieces, headers=dict(fields))
    except (BrokenPipeError, ConnectionResetError):
        if body is None:
            raise
        # A server that refuses a block may answer and hang up before all of it was sent; then the answer is
        # there.
    answer = connection.getresponse()
    assert isinstance(answer, _Answer)
    return answer


def _pieces(body: memoryview) -> Iterator[memoryview]:
    for at in range(0, len(body), SEND_BYTES):
        yield body[at : at + SEND_BYTES]
