"""A proxy in front of one Keep service that does to its answers what networks and servers do.

Tests run it in their own process; benchmarks start it as a program of its own:
    python tests/faults/proxy.py --upstream HOST:PORT [--latency S] [--rate BYTES_PER_SECOND]
which prints its port and serves until its input ends. A line of input `{"fault": {...}, "times": N}` is what
happens from then on to so many GET requests; it is answered with `ok`. The rate is that of the line, shared
by all connections.
Threads: one for every connection; `fault` may be changed at any time and holds for requests that come then.
"""

import argparse
import contextlib
import http.client
import json
import socket
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

PIECE = 65536


@dataclass(frozen=True)
class Fault:
    """What happens to an answer. Times are seconds, positions are bytes of the body."""

    latency: float = 0.0
    """Before the answer begins."""
    rate: float = 0.0
    """Bytes per second of the whole line; 0: as fast as it goes."""
    status: int = 0
    """Answer this instead of asking upstream."""
    cut_at: int | None = None
    """Hang up after so many bytes."""
    wrong_at: int | None = None
    """Flip the byte at this position; negative positions count from the end."""
    hang_at: int | None = None
    """Send nothing more from this position on, until the proxy is told `release` or the client goes."""
    refused: bool = False
    """Take no connections, and end those there are."""


class Seen(NamedTuple):
    """A request that came."""

    method: str
    path: str
    faulty: bool


class FaultProxy:
    """Faithful until `fault` is set; `times` bounds how many requests it happens to."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.fault = Fault()
        self.times: int | None = None
        self.methods: tuple[str, ...] = ("GET", "PUT")
        self.seen: list[Seen] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._line_free = 0.0
        self._released = threading.Event()
        self._server: _Server | None = None
        self.port = 0

    def start(self) -> "FaultProxy":
        """Listen on a free port of the loopback."""
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.proxy = self
        self.port = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        return self

    def stop(self) -> None:
        """Stop listening and end all connections; `start` again listens on the same port."""
        self._released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.end_connections()
            self._server = None

    def set(self, fault: Fault, times: int | None = None, methods: tuple[str, ...] = ("GET", "PUT")) -> None:
        """From now on do this, to so many requests of these methods (None: to all)."""
        with self._lock:
            self.fault, self.times, self.methods = fault, times, methods
        self._released.clear()
        if fault.refused:
            self.stop()
        elif self._server is None:
            self.start()

    def release(self) -> None:
        """Let those go on that hang."""
        self._released.set()

    def clear(self) -> None:
        """Be faithful again."""
        self.set(Fault())
        self._released.set()

    def count(self, method: str = "GET") -> int:
        """How many requests of this method came."""
        return sum(one.method == method for one in list(self.seen))

    # For the handlers

    def take(self, method: str, path: str) -> Fault:
        """The fault for this request."""
        with self._lock:
            faulty = self.fault != Fault() and method in self.methods and self.times != 0
            if faulty and self.times is not None:
                self.times -= 1
            self.seen.append(Seen(method, path, faulty))
            return self.fault if faulty else Fault()

    def enter(self, step: int) -> None:
        """A request begins (1) or ends (-1)."""
        with self._lock:
            self._at_once += step
            self.most_at_once = max(self.most_at_once, self._at_once)

    def line(self, rate: float, size: int) -> None:
        """Wait until the line has carried so many bytes more."""
        if not rate:
            return
        with self._lock:
            now = time.monotonic()
            self._line_free = max(self._line_free, now - 0.01) + size / rate
            wait = self._line_free - now
        if wait > 0:
            time.sleep(wait)

    def hang(self, connection: socket.socket) -> None:
        """Wait until released, or until the client hangs up."""
        connection.settimeout(0.05)
        while not self._released.is_set():
            try:
                if connection.recv(1, socket.MSG_PEEK) == b"":
                    return
            except TimeoutError:
                continue
            except OSError:
                return
        connection.settimeout(None)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    proxy: FaultProxy

    def __init__(self, *arguments: Any) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that went away is no news
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._pass_on()

    def do_HEAD(self) -> None:
        self._pass_on()

    def do_PUT(self) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        proxy = self.server.proxy
        fault = proxy.take(self.command, self.path)
        proxy.enter(1)
        try:
            self._answer(proxy, fault)
        except (OSError, http.client.HTTPException):
            self.close_connection = True
        finally:
            proxy.enter(-1)

    def _answer(self, proxy: FaultProxy, fault: Fault) -> None:
        body = self._body(proxy, fault)
        if body is None:
            self.close_connection = True
            return
        if fault.latency:
            time.sleep(fault.latency)
        if fault.status:
            text = b"as the test wants it\n"
            self.send_response(fault.status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)
            return
        upstream = http.client.HTTPConnection(proxy.upstream, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            upstream.request(self.command, self.path, body if self.command == "PUT" else None, headers)
            answer = upstream.getresponse()
            if fault.hang_at == 0:
                proxy.hang(self.connection)
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self._send_body(proxy, fault, answer)
        finally:
            upstream.close()

    def _body(self, proxy: FaultProxy, fault: Fault) -> bytes | None:
        """What the client sends; None when it is cut off."""
        left = int(self.headers.get("Content-Length") or 0)
        pieces = []
        while left:
            piece = self.rfile.read(min(left, PIECE))
            if not piece:
                return None
            proxy.line(fault.rate, len(piece))
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _send_body(self, proxy: FaultProxy, fault: Fault, answer: http.client.HTTPResponse) -> None:
        length = answer.length or 0
        wrong = fault.wrong_at
        if wrong is not None and wrong < 0:
            wrong += length
        if fault.rate:
            # What waits to be sent does not take the line: a reader who stops stops it soon.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)
        at = 0
        while piece := answer.read(PIECE):
            if wrong is not None and at <= wrong < at + len(piece):
                changed = bytearray(piece)
                changed[wrong - at] ^= 0xFF
                piece = bytes(changed)
            for stop in (fault.cut_at, fault.hang_at):
                if stop is not None and at <= stop < at + len(piece):
                    self.wfile.write(piece[: stop - at])
                    self.wfile.flush()
                    if stop == fault.cut_at:
                        self.connection.shutdown(socket.SHUT_RDWR)
                        self.close_connection = True
                        return
                    if stop:
                        proxy.hang(self.connection)
                    piece, at = piece[stop - at :], stop
            proxy.line(fault.rate, len(piece))
            self.wfile.write(piece)
            at += len(piece)


def main() -> None:
    """Serve one proxy until the input ends."""
    parser = argparse.ArgumentParser(
        description="Proxy in front of one Keep service, with latency and a slow line."
    )
    parser.add_argument("--upstream", required=True, metavar="HOST:PORT")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds")
    parser.add_argument("--rate", type=float, default=0.0, help="bytes per second, shared by all connections")
    options = parser.parse_args()
    proxy = FaultProxy(options.upstream)
    proxy.fault = Fault(latency=options.latency, rate=options.rate)
    print(proxy.start().port, flush=True)
    for line in sys.stdin:
        told = json.loads(line)
        proxy.set(Fault(**told["fault"]), told["times"], ("GET",))
        print("ok", flush=True)
    proxy.stop()


if __name__ == "__main__":
    main()
