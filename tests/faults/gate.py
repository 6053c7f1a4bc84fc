"""A proxy in front of the API server or of a Keep service that decides about every single request.

Other than `proxy` it speaks TLS where it is given a certificate, passes all methods and websockets, and asks
a rule of the test what becomes of each request. Runs in the tests' process: one thread for every connection;
the rule is called by those threads.
"""

import contextlib
import http.client
import json
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from servers import LocalServer, wait_for


class Ask(NamedTuple):
    """One request. method: the one that is meant, where another one carries it."""

    method: str
    path: str
    body: bytes

    def changes(self, uuid: str = "/collections/") -> bool:
        """Whether it is to change the collection (or one of them)."""
        return self.method in ("PUT", "PATCH") and uuid in self.path


@dataclass(frozen=True)
class Deed:
    """What becomes of a request; nothing else: it is passed on and answered.

    status: answer so without passing it on. cut: hang up, also without. lose: pass it on and hang up.
    hold: wait for `release` before it is passed on; hold_answer: after.
    """

    status: int = 0
    text: str = "as the test wants it"
    cut: bool = False
    lose: bool = False
    hold: bool = False
    hold_answer: bool = False


PASS = Deed()
Rule = Callable[[Ask], Deed]


@dataclass
class Held:
    """A request that waits."""

    ask: Ask
    gone: bool = False
    over: threading.Event = field(default_factory=threading.Event)


class Gate:
    """Passes everything on until `rule` is another one. upstream: host:port."""

    def __init__(self, upstream: str, data_dir: Path | None = None) -> None:
        """data_dir: of the embedded Arvados whose certificate this is to show; None: plain HTTP."""
        self.upstream = upstream
        self.port = 0
        self.rule: Rule = lambda ask: PASS
        self.held: list[Held] = []
        self.seen: list[tuple[Ask, Deed]] = []
        self._server: _Server | None = None
        self.inside: ssl.SSLContext | None = None
        self.outside: ssl.SSLContext | None = None
        if data_dir is not None:
            self.inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.inside.load_cert_chain(data_dir / "tls/server.pem", data_dir / "tls/server.key")
            self.outside = ssl.create_default_context(cafile=str(data_dir / "tls/ca.pem"))

    @property
    def host(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> "Gate":
        """Listen, on the same port as the last time."""
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.gate = self
        self.port = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        return self

    def stop(self) -> None:
        """Refuse connections, and end those there are."""
        server, self._server = self._server, None
        self.drop()
        if server is not None:
            server.shutdown()
            server.server_close()
            server.end_connections()

    def clear(self) -> None:
        """Pass everything on again, also what waits."""
        self.rule = lambda ask: PASS
        self.seen.clear()
        for one in self.held:
            one.over.set()
        self.held.clear()

    def drop(self) -> None:
        """Pass on again what comes now, but hang up on those who wait: they are never passed on."""
        self.rule = lambda ask: PASS
        for one in self.held:
            one.gone = True
            one.over.set()
        self.held.clear()

    def wait_held(self, count: int = 1) -> None:
        """Wait until so many requests wait."""
        wait_for(lambda: len(self.held) >= count, f"{count} requests are held")

    def count(self, wanted: Callable[[Ask], bool]) -> int:
        """How many such requests came."""
        return sum(wanted(ask) for ask, _ in list(self.seen))

    def connect(self) -> http.client.HTTPConnection:
        """A connection to what is behind it."""
        if self.outside is not None:
            return http.client.HTTPSConnection(self.upstream, timeout=60, context=self.outside)
        return http.client.HTTPConnection(self.upstream, timeout=60)

    def wait(self, ask: Ask) -> bool:
        """Hold a request; False when it is to be dropped."""
        held = Held(ask)
        self.held.append(held)
        held.over.wait(120)
        return not held.gone


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    gate: Gate

    def __init__(self, *arguments: Any) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(*arguments)

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        if self.gate.inside is not None:
            # The handshake is made by the connection's own thread, at its first read.
            connection = self.gate.inside.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError | ValueError):  # a client that went away is no news
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self._tunnel()
        else:
            self._pass_on()

    do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = lambda self: self._pass_on()

    def _pass_on(self) -> None:
        try:
            if not self._answer(self.server.gate):
                self.close_connection = True
                socket.socket.shutdown(self.connection, socket.SHUT_RDWR)
        except (OSError, http.client.HTTPException):
            self.close_connection = True

    def _answer(self, gate: Gate) -> bool:
        """Whether there was an answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        meant = self.headers.get("X-HTTP-Method-Override") or self.command
        ask = Ask(meant, self.path, body)
        deed = gate.rule(ask)
        gate.seen.append((ask, deed))
        if deed.cut or (deed.hold and not gate.wait(ask)):
            return False
        if deed.status:
            self._send(deed.status, {}, json.dumps({"errors": [deed.text]}).encode())
            return True
        upstream = gate.connect()
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            upstream.request(self.command, self.path, body or None, headers)
            answer = upstream.getresponse()
            data = answer.read()
        finally:
            upstream.close()
        if deed.lose or (deed.hold_answer and not gate.wait(ask)):
            return False
        if self.path.startswith("/discovery/"):
            data = data.replace(gate.upstream.encode(), gate.host.encode())
        self._send(answer.status, dict(answer.getheaders()), data)
        return True

    def _send(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _tunnel(self) -> None:
        """Both directions as they come, until one ends."""
        self.close_connection = True
        gate = self.server.gate
        upstream = gate.connect()
        upstream.connect()
        there, here = upstream.sock, self.connection
        assert there is not None
        lines = [f"GET {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers.items())]
        there.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        try:
            while True:
                ready = [one for one in (here, there) if _pending(one)]
                if not ready:
                    ready, _, _ = select.select([here, there], [], [], 60)
                for one in ready:
                    data = one.recv(65536)
                    if not data:
                        return
                    (there if one is here else here).sendall(data)
        except OSError:
            return
        finally:
            upstream.close()


def _pending(connection: Any) -> bool:
    return isinstance(connection, ssl.SSLSocket) and connection.pending() > 0


class Gates:
    """One in front of the API server and one in front of each Keep service."""

    def __init__(self, server: LocalServer) -> None:
        settings = server.settings
        self.server = server
        self.api = Gate(settings.host, settings.data_dir).start()
        self.keep = [Gate(url.split("/")[2]).start() for url in settings.keep_services]

    @property
    def all(self) -> list[Gate]:
        """All of them."""
        return [self.api, *self.keep]

    def environment(self, token: str) -> dict[str, str]:
        """What makes programs go through them."""
        return {
            **self.server.settings.environment(),
            "ARVADOS_API_HOST": self.api.host,
            "ARVADOS_API_TOKEN": token,
            "ARVADOS_KEEP_SERVICES": " ".join(f"http://{gate.host}/" for gate in self.keep),
        }

    def keep_rule(self, rule: Rule) -> None:
        """The same for all Keep services."""
        for gate in self.keep:
            gate.rule = rule

    def outage(self, seconds: float) -> None:
        """Refuse all connections for so long."""
        for gate in self.all:
            gate.stop()
        time.sleep(seconds)
        for gate in self.all:
            gate.start()

    def clear(self) -> None:
        """Pass everything on again."""
        for gate in self.all:
            gate.clear()

    def stop(self) -> None:
        """The end."""
        for gate in self.all:
            gate.stop()
