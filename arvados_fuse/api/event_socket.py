"""One websocket connection to where events come from, over the library websocket-client.

Used by the event listener alone. All methods belong to the thread that listens, but `interrupt`, which any
thread may call. What the server sends is bounded in length and in time. The address carries the token:
neither it nor what the library says of it leaves this module.
"""

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import websocket

from arvados_fuse.errors import AccessDenied, ArvadosFuseError, BadAnswer, RequestRefused, Unreachable

LONGEST_MESSAGE = 4 << 20
"""Bytes. Events carry a few short fields; PostgreSQL's own notifications end at 8000 bytes."""
LONGEST_REASON = 200
"""Characters of a server's words that go into an error."""

NO_ANSWER = (websocket.WebSocketException, OSError, ValueError, OverflowError, MemoryError)
"""What the library raises when a connection breaks or talks nonsense (the last three: absurd addresses and
lengths)."""


class EventSocket:
    """Connects to `url` (ws or wss) as who holds `token`. Constructing does nothing; `open` connects.

    ca_file: PEM file of trusted authorities. insecure: any certificate will do. All methods raise Unreachable
    when the connection fails or ends, AccessDenied for a wrong token, RequestRefused when the server does not
    talk websocket there, BadAnswer for what is no legal message.
    """

    def __init__(self, url: str, token: str, *, ca_file: str = "", insecure: bool = False) -> None:
        self._url = url
        self._token = token
        self._ca_file = ca_file
        self._insecure = insecure
        self.server = _server_of(url)
        self.heard_at = 0.0
        """time.monotonic() of the last complete frame."""
        self._interrupted = False
        self._socket = websocket.WebSocket(sslopt=self._tls(), skip_utf8_validation=True)
        self._frames = _Frames(self._socket.frame_buffer.recv)
        self._socket.frame_buffer = self._frames
        self._socket.cont_frame = _Message()

    def open(self, seconds: float) -> None:
        """Connect, shake hands; `seconds` is for all of it, and for each name and address of the server."""
        watch = threading.Timer(seconds, self._shut)  # the library has a limit for each step, not for all
        watch.daemon = True
        watch.start()
        try:
            self._socket.connect(  # type: ignore[no-untyped-call]
                _with_token(self._url, self._token),
                timeout=seconds,
                redirect_limit=0,  # another place must not get the token
                suppress_origin=True,
            )
        except NO_ANSWER as error:
            raise self._failure(error) from None  # its text and its traceback's may hold the address
        finally:
            watch.cancel()
        self.heard_at = time.monotonic()
        if self._interrupted:
            raise Unreachable("interrupted", server=self.server)

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message."""
        try:
            self._socket.send(json.dumps(message))
        except NO_ANSWER as error:
            raise self._failure(error) from None

    def ping(self) -> None:
        """Ask for a sign of life; `heard_at` tells whether it came."""
        try:
            self._socket.ping()
        except NO_ANSWER as error:
            raise self._failure(error) from None

    def receive(self, seconds: float) -> Mapping[str, Any] | None:
        """The next message, if one is complete within `seconds`; None too for pings and pongs, which it
        answers."""
        self._frames.until = time.monotonic() + seconds
        try:
            self._socket.settimeout(max(seconds, 0.001))
            opcode, frame = self._socket.recv_data_frame(control_frame=True)
        except websocket.WebSocketTimeoutException:
            return None
        except NO_ANSWER as error:
            raise self._failure(error) from None
        self.heard_at = time.monotonic()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            reason = self._scrubbed(_close_reason(frame.data))
            raise Unreachable(f"the event server closed the connection: {reason}", server=self.server)
        if opcode not in (websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY):
            return None
        return self._parsed(frame.data)

    def interrupt(self) -> None:
        """Make whatever waits here end with Unreachable soon; for other threads."""
        self._interrupted = True
        self._shut()

    def close(self) -> None:
        """Drop the connection."""
        self._socket.shutdown()  # type: ignore[no-untyped-call]

    def _shut(self) -> None:
        sock = self._socket.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                # Past the TLS layer, whose state belongs to the thread that reads.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _tls(self) -> dict[str, Any]:
        if self._insecure:
            return {"cert_reqs": ssl.CERT_NONE, "check_hostname": False}
        return {"ca_certs": self._ca_file} if self._ca_file else {}

    def _parsed(self, data: bytes) -> Mapping[str, Any]:
        try:
            message = json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise BadAnswer(f"a message is not JSON ({type(error).__name__})", server=self.server) from None
        if not isinstance(message, dict):
            raise BadAnswer("a message is not a JSON object", server=self.server)
        return message

    def _failure(self, error: Exception) -> ArvadosFuseError:
        """Our kind for an error of the library, without the token."""
        if isinstance(error, websocket.WebSocketBadStatusException):
            status = error.status_code
            if status in (401, 403):
                return AccessDenied(
                    f"the event server answered {status}: it refuses the token", server=self.server
                )
            if 300 <= status < 500 and status not in (408, 429):
                return RequestRefused(f"the event server answered {status}", server=self.server)
            return Unreachable(f"the event server answered {status}", server=self.server)
        if isinstance(error, (websocket.WebSocketProtocolException, websocket.WebSocketPayloadException)):
            return BadAnswer(f"not a websocket message: {self._said(error)}", server=self.server)
        return Unreachable(self._said(error), server=self.server)

    def _said(self, error: Exception) -> str:
        return self._scrubbed(str(error) or type(error).__name__)

    def _scrubbed(self, text: str) -> str:
        """Words of the server or the library, without the token in any of its forms, and not too many."""
        secret = self._token.rpartition("/")[2]
        for hidden in (self._token, quote(self._token, safe=""), secret):
            text = text.replace(hidden, "...") if hidden else text
        return text[:LONGEST_REASON]


class _Frames(websocket.frame_buffer):
    """Frames with an end: in bytes, and in time for a server that sends them drop by drop.

    until: time.monotonic() at which to stop; what came of a frame by then is kept.
    """

    def __init__(self, receive: Any) -> None:
        super().__init__(self._in_time, skip_utf8_validation=True)
        self._receive = receive
        self.until = 0.0

    def recv_strict(self, bufsize: int) -> bytes:
        """The library's method of the same name."""
        if bufsize > LONGEST_MESSAGE:
            raise websocket.WebSocketProtocolException(f"{bufsize} bytes")
        return super().recv_strict(bufsize)

    def _in_time(self, size: int) -> bytes:
        data = self._receive(size)
        if isinstance(data, bytes) and time.monotonic() > self.until:
            self.recv_buffer.append(data)
            raise websocket.WebSocketTimeoutException("a frame takes long")
        return data  # type: ignore[no-any-return]


class _Message(websocket.continuous_frame):
    """A message in several frames, with an end."""

    def __init__(self) -> None:
        super().__init__(fire_cont_frame=False, skip_utf8_validation=True)

    def add(self, frame: websocket.ABNF) -> None:
        """The library's method of the same name."""
        super().add(frame)
        if self.cont_data and len(self.cont_data[1]) > LONGEST_MESSAGE:
            raise websocket.WebSocketProtocolException("a message without end")


def _with_token(url: str, token: str) -> str:
    """The address with the token in its query, where the Arvados websocket server looks for it."""
    parts = urlsplit(url)
    query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), ("api_token", token)])
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def _server_of(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""


def _close_reason(data: bytes) -> str:
    """Code and words of a close frame (RFC 6455, 5.5.1)."""
    if len(data) < 2:
        return "no reason given"
    words = data[2:].decode("utf-8", "replace")
    return f"{int.from_bytes(data[:2], 'big')} {words}".strip()
