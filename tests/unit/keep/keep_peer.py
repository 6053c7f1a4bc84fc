"""A small Keep for the tests of `arvados_fuse.keep`: services on loopback with blocks in memory, and its
directory.

It checks hashes and says what it stored, as Keep does; it does not sign. Threads: one for every connection.
"""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from arvados_fuse.keep import KeepService

SIGNATURE = "+A" + "0" * 40 + "@ffffffff"


class Peer:
    """One service. Its attributes may be changed while it runs."""

    def __init__(self, number: int = 1, *, service_type: str = "disk") -> None:
        self.uuid = f"zzzzz-bi6l4-{number:015d}"
        self.service_type = service_type
        self.blocks: dict[str, bytes] = {}
        self.status = 0
        """Answer this to everything."""
        self.puts_status = 0
        """Answer this to PUT."""
        self.read_only = False
        self.replicas = 1
        """What it says to have stored of a block."""
        self.classes: tuple[str, ...] | None = ("default",)
        """Storage classes it has; None: it does not know of classes."""
        self.gate: threading.Event | None = None
        """GET answers wait for it."""
        self.connections = 0
        """How many were made so far."""
        self.requests: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.peer = self
        self.port: int = self._server.server_address[1]

    @property
    def service(self) -> KeepService:
        """As the directory lists it."""
        return KeepService(
            self.uuid, "127.0.0.1", self.port, service_type=self.service_type, read_only=self.read_only
        )

    def start(self) -> "Peer":
        """Serve."""
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    def stop(self) -> None:
        """Serve no more."""
        if self.gate is not None:
            self.gate.set()
        self._server.shutdown()
        self._server.server_close()

    def count(self, method: str) -> int:
        """How many such requests came."""
        return sum(one == method for one, _ in list(self.requests))

    def hold(self, data: bytes) -> str:
        """Put a block there; returns its locator."""
        md5 = hashlib.md5(data).hexdigest()
        self.blocks[md5] = data
        return f"{md5}+{len(data)}{SIGNATURE}"


class Cluster:
    """A directory of peers, as `BlockCache` needs it."""

    def __init__(self, *peers: Peer) -> None:
        self.peers = list(peers)
        self.extra: list[KeepService] = []
        self.asked = 0

    def keep_services(self) -> list[KeepService]:
        """All of them."""
        self.asked += 1
        return [peer.service for peer in self.peers] + self.extra

    def token(self) -> str:
        """Any."""
        return "secrettoken"

    def hold(self, data: bytes) -> str:
        """Put a block on the first peer; returns its locator."""
        return self.peers[0].hold(data)

    def __iter__(self) -> Iterator[Peer]:
        return iter(self.peers)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    peer: Peer

    def process_request(self, request: Any, client_address: Any) -> None:
        self.peer.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""

    def _begin(self) -> Peer:
        peer = self.server.peer
        peer.requests.append((self.command, self.path[1:]))
        peer.headers.append(dict(self.headers.items()))
        return peer

    def _say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        peer = self._begin()
        if peer.gate is not None:
            peer.gate.wait(30)
        data = peer.blocks.get(self.path[1:33])
        if peer.status:
            self._say(peer.status, b"as the test wants it")
        elif data is None:
            self._say(404, b"not found")
        else:
            self._say(200, data)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        peer = self._begin()
        data = self.rfile.read(int(self.headers["Content-Length"]))
        md5 = hashlib.md5(data).hexdigest()
        if peer.status or peer.puts_status:
            self._say(peer.status or peer.puts_status, b"as the test wants it")
        elif peer.read_only:
            self._say(405, b"read-only")
        elif md5 != self.path[1:]:
            self._say(422, b"hash mismatch")
        else:
            wanted = [name.strip() for name in self.headers.get("X-Keep-Storage-Classes", "").split(",")]
            told = {}
            if peer.classes is not None:
                reached = [name for name in wanted if name in peer.classes]
                told["X_Keep_Storage_Classes_Confirmed"] = ", ".join(
                    f"{one}={peer.replicas}" for one in reached
                )
            self._say(200, peer.hold(data).encode(), X_Keep_Replicas_Stored=str(peer.replicas), **told)
