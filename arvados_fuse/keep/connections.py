"""HTTP to Keep services: kept-alive connections, bodies read straight into the caller's buffer.

Used by `keep.fetch` and `keep.upload`. Repeats only what failed on a stale connection.
Threads: the pool may be used from any thread; one `Exchange` belongs to one thread.
"""

import http.client
import ssl
import threading
from collections.abc import Mapping
from types import TracebackType

from arvados_fuse.keep.services import KeepService
from arvados_fuse.version import __version__

IDLE_CONNECTIONS = 16
"""Kept-alive connections over all services; at most that many threads fetch and upload."""

MAX_ANSWER = 65536
"""Bytes read of an answer that is a text (a locator, an error)."""

Body = bytes | bytearray | memoryview


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
    ) -> None:
        self._pool = pool
        self._service = service
        self._connection = connection
        self._answer = answer
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
        if error is None and self._answer.isclosed() and not self._answer.will_close:
            self._pool.keep(self._service, self._connection)
        else:
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
        body: Body | None = None,
    ) -> Exchange:
        """Send one request and read the answer's header. Times are seconds; progress: of one read or write.

        Raises OSError (ssl.SSLError and TimeoutError are kinds of it) and http.client.HTTPException.
        """
        fields = {"User-Agent": f"arvados_fuse/{__version__}", "Accept": "*/*", **headers}
        kept = self._take(service)
        if kept is not None:
            try:
                return self._send(service, kept, method, path, fields, progress_timeout, body)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                kept.close()  # the server ended an idle connection: not a failure, ask on a new one
            except BaseException:
                kept.close()
                raise
        fresh = self._connection(service, connect_timeout)
        try:
            fresh.connect()
            return self._send(service, fresh, method, path, fields, progress_timeout, body)
        except BaseException:
            fresh.close()
            raise

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

    def _send(
        self,
        service: KeepService,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        headers: Mapping[str, str],
        progress_timeout: float,
        body: Body | None,
    ) -> Exchange:
        connection.sock.settimeout(progress_timeout)
        connection.request(method, service.prefix + path, body=body, headers=dict(headers))
        answer = connection.getresponse()
        assert isinstance(answer, _Answer)
        return Exchange(self, service, connection, answer)
