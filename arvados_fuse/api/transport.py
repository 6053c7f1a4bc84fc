"""One HTTP exchange with the API server, tried until it succeeds, is refused or is out of time.

Used by `ApiClient` only. Any thread may call; each request has a connection for itself (httplib2 is not
thread-safe), taken from those that are idle.
"""

import contextlib
import http.client
import json
import logging
import random
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import arvados.util
import httplib2
from googleapiclient.errors import HttpError
from googleapiclient.http import HttpRequest

from arvados_fuse.api.credentials import Credentials
from arvados_fuse.api.server_clock import ServerClock
from arvados_fuse.api.settings import ApiSettings
from arvados_fuse.errors import (
    AccessDenied,
    ArvadosFuseError,
    BadAnswer,
    NotFoundError,
    RequestRefused,
    Unreachable,
)

logger = logging.getLogger("arvados.api")

SILENCE = 30.0
"""Seconds without a byte after which one attempt is given up; a long answer may take longer as long as it
flows."""
IDLE_LIMIT = 30.0
"""Seconds: an idle connection older than this is not trusted (the SDK's figure)."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds between attempts; doubled each time."""
RETRIED = frozenset({408, 409, 423, 429, 500, 502, 503, 504})
"""Answers that may go away by themselves (the SDK's list, and 429)."""
SAFE_TO_REPEAT = frozenset({429, 503})
"""The server said that it did not take the request: even a create may be sent again."""


class _Failed(Exception):
    """One attempt failed; whether another makes sense, or one with another token."""

    def __init__(self, error: ArvadosFuseError, again: bool, *, token_refused: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.again = again
        self.token_refused = token_refused


class _Trust:
    """Whom all connections of one transport trust. Reading a system's authorities takes 20 ms, so it is done
    once, with the first connection."""

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """As httplib2 makes one. Raises OSError when the authorities can't be read."""
        with self._lock:
            if self._context is None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                if self._settings.insecure:
                    context.check_hostname = False
                    context.verify_mode = ssl.CERT_NONE
                else:
                    context.load_verify_locations(self._settings.ca_file or httplib2.CA_CERTS)
                self._context = context
            return self._context


class _Wire(httplib2.HTTPSConnectionWithTimeout):  # type: ignore[misc]
    """A connection that says when it was closed on us, so that whether to send again is decided here alone.

    httplib2 by itself sends any request once more, a create too.
    """

    trust: _Trust

    def __init__(self, host: str, **arguments: Any) -> None:
        # Its own context, which would read the authorities again, is replaced before it is used.
        super().__init__(host, **{**arguments, "disable_ssl_certificate_validation": True})
        timeout = arguments.get("timeout")
        http.client.HTTPSConnection.__init__(self, host, timeout=timeout, context=self.trust.context())

    def connect(self) -> None:
        """Directly, unless a proxy is configured: httplib2's own way leaves refused sockets open."""
        proxy = self.proxy_info
        if proxy and proxy.isgood() and proxy.applies_to(self.host):
            super().connect()
            return
        try:
            http.client.HTTPSConnection.connect(self)
        except OSError:
            self.close()
            raise

    def getresponse(self) -> http.client.HTTPResponse:
        """http.client's, with one kind of error for all ways to go away."""
        try:
            response: http.client.HTTPResponse = super().getresponse()
        except (http.client.BadStatusLine, http.client.ResponseNotReady) as error:
            self.close()
            raise ConnectionResetError(f"connection closed before an answer ({error})") from error
        return response


class _Connection(httplib2.Http):  # type: ignore[misc]
    """httplib2 with our headers; belongs to one thread."""

    def __init__(self, settings: ApiSettings, clock: ServerClock, wire: type[_Wire]) -> None:
        super().__init__(
            timeout=min(SILENCE, settings.deadline),
        )
        self._clock = clock
        self._wire = wire
        self.token = settings.token
        self.request_id = ""
        self._used_at = 0.0

    def request(
        self,
        uri: str,
        method: str = "GET",
        body: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """httplib2's method of the same name, with who we are and which request this is."""
        now = time.monotonic()
        if now - self._used_at > IDLE_LIMIT or self._is_stale():
            self.drop_connections()
        self._used_at = now
        sent = {
            **(headers or {}),
            "Authorization": f"Bearer {self.token}",
            "X-Request-Id": self.request_id,
        }
        answer = super().request(uri, method, body, sent, *args, connection_type=self._wire, **kwargs)
        self._clock.hear(answer[0].get("date", ""))
        return answer

    def _is_stale(self) -> bool:
        """Whether the server has closed it (an idle connection has nothing to say but that).

        Found out before a request is sent: after, it would look like a request that was taken.
        """
        poll = select.poll()
        for sock in self._sockets():
            poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))

    def allow_silence(self, seconds: float) -> None:
        """How long the next request may go without a byte."""
        self.timeout = seconds
        for sock in self._sockets():
            sock.settimeout(seconds)

    def drop_connections(self) -> None:
        """Close; only by the thread that uses them."""
        for connection in self.connections.values():
            connection.close()
        self.connections.clear()

    def interrupt(self) -> None:
        """End the exchange that another thread is waiting in: it gets an OSError."""
        for sock in self._sockets():
            with contextlib.suppress(OSError):
                # Past the TLS layer, whose state belongs to the thread that reads.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _sockets(self) -> list[socket.socket]:
        found = [connection.sock for connection in list(self.connections.values())]
        return [sock for sock in found if sock is not None]


class Transport:
    """Sends requests built by the SDK's client; maps every failure to one of our kinds.

    retries: attempts after the first. Constructing makes no connection.
    """

    def __init__(self, settings: ApiSettings, *, retries: int) -> None:
        self._settings = settings
        self.credentials = Credentials(settings)
        self.clock = ServerClock()
        self._wire = type("_TrustingWire", (_Wire,), {"trust": _Trust(settings)})
        self._retries = retries
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._closed = False

    def close(self) -> None:
        """Close all connections; requests under way fail."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = list(self._busy)
        for connection in busy:
            connection.interrupt()
        for connection in idle:
            connection.drop_connections()

    def fetch_json(self, url: str, *, subject: str) -> dict[str, Any]:
        """GET a URL that is not part of the described API (the discovery document)."""
        request = HttpRequest(None, _parse_json, url, headers={"accept": "application/json"})
        return self.send(request, subject=subject)

    def send(
        self, request: HttpRequest, *, subject: str, repeatable: bool = True, silence: float = SILENCE
    ) -> dict[str, Any]:
        """Send `request`; the answer's JSON object.

        subject: the object concerned, for messages. repeatable: sending it twice does no harm.
        silence: seconds without a byte after which an attempt is given up.
        Raises NotFoundError, AccessDenied, RequestRefused, Unreachable, BadAnswer.
        """
        ends = time.monotonic() + self._settings.deadline
        silence = min(silence, 2 * self._settings.deadline)
        pause = FIRST_PAUSE
        attempt = 0
        renewed = False
        while True:
            token = self.credentials.token
            try:
                return self._attempt(request, subject, repeatable, silence, token)
            except _Failed as failure:
                if failure.token_refused and not renewed and self.credentials.renew(token):
                    renewed = True  # nothing was done: sent once more, as who we are now
                    continue
                wait = pause * random.uniform(0.5, 1.0)
                last = attempt == self._retries or time.monotonic() + wait > ends or self._closed
                if last or not failure.again:
                    raise failure.error from failure.__cause__
                logger.info("%s; trying again", failure.error)
            time.sleep(wait)
            pause = min(pause * 2, LONGEST_PAUSE)
            attempt += 1

    @contextlib.contextmanager
    def _connection(self) -> Iterator[_Connection]:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
            connection = connection or _Connection(self._settings, self.clock, self._wire)
            self._busy.add(connection)
        try:
            yield connection
        finally:
            with self._lock:
                self._busy.discard(connection)
                keep = not self._closed
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.drop_connections()

    def _attempt(
        self, request: HttpRequest, subject: str, repeatable: bool, silence: float, token: str
    ) -> dict[str, Any]:
        """One exchange; raises _Failed."""
        request_id = arvados.util.new_request_id()
        with self._connection() as connection:
            connection.request_id, connection.token = request_id, token
            connection.allow_silence(silence)
            try:
                answer = request.execute(http=connection)
            except HttpError as error:
                status = int(error.resp.status)
                again = status in (RETRIED if repeatable else SAFE_TO_REPEAT)
                refusal = self._refusal(status, error.resp, error.content, subject, request_id)
                raise _Failed(refusal, again, token_refused=status == 401) from error
            except (OSError, http.client.HTTPException, httplib2.HttpLib2Error) as error:
                connection.drop_connections()
                never_sent = isinstance(error, (ConnectionRefusedError, httplib2.ServerNotFoundError))
                unreachable = self._unreachable(error, subject, request_id)
                raise _Failed(unreachable, repeatable or never_sent) from error
            except ValueError as error:  # not JSON, not UTF-8
                bad = self._bad_answer(f"not JSON ({error})", subject, request_id)
                raise _Failed(bad, repeatable) from error
        if not isinstance(answer, dict):
            raise _Failed(self._bad_answer("not a JSON object", subject, request_id), False)
        return answer

    def _unreachable(self, error: Exception, subject: str, request_id: str) -> Unreachable:
        reason = str(error) or type(error).__name__
        return Unreachable(
            f"API server {self._settings.host} did not answer: {reason}",
            subject=subject,
            server=self._settings.host,
            request_id=request_id,
        )

    def _bad_answer(self, what: str, subject: str, request_id: str) -> BadAnswer:
        return BadAnswer(
            f"API server {self._settings.host} gave an answer that is {what}",
            subject=subject,
            server=self._settings.host,
            request_id=request_id,
        )

    def _refusal(
        self, status: int, headers: Mapping[str, str], content: bytes, subject: str, request_id: str
    ) -> ArvadosFuseError:
        """The kind for an HTTP status, as the Arvados API uses them."""
        kind: type[ArvadosFuseError]
        if status == 404:
            kind = NotFoundError
        elif status in (401, 403):
            kind = AccessDenied
        elif status in (400, 413, 414, 422):
            kind = RequestRefused
        else:
            kind = Unreachable
        return kind(
            f"API server {self._settings.host} answered {status}: {_said(content)}",
            subject=subject,
            server=self._settings.host,
            request_id=headers.get("x-request-id") or request_id,
        )


def _parse_json(_response: object, content: bytes) -> Any:
    return json.loads(content)


def _said(content: bytes) -> str:
    """The API's own words out of an error answer."""
    try:
        errors = json.loads(content)["errors"]
        words = "; ".join(str(error) for error in errors)
    except (ValueError, KeyError, TypeError):
        words = content[:200].decode("utf-8", "replace")
    return words[:1000] or "no reason given"
