"""What tests of the event listener talk to: a websocket server that follows a script, a line that breaks."""

import base64
import contextlib
import hashlib
import json
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from servers import wait_for

from arvados_fuse.api import ApiSettings, Change, EventListener, Lost, News, Pace, Status
from arvados_fuse.errors import Unreachable

TOKEN = "v2/zzzzz-gj3su-000000000000000/secretsecretsecretsecret"
MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, 1.3."""
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
QUICK = Pace(
    connect_within=2.0,
    answer_within=2.0,
    ping_after=0.3,
    pong_within=0.3,
    first_pause=0.05,
    longest_pause=0.2,
    steady_after=0.2,
    poll_every=0.1,
)


def uuid_of(number: int, kind: str = "4zz18") -> str:
    return f"zzzzz-{kind}-{number:015d}"


def event(log_id: Any, number: int = 0, **more: Any) -> dict[str, Any]:
    """An event as the server sends it."""
    return {
        "id": log_id,
        "uuid": uuid_of(number, "57u5n"),
        "object_uuid": uuid_of(number),
        "object_owner_uuid": uuid_of(1, "tpzed"),
        "object_kind": "arvados#collection",
        "event_type": "update",
        "event_at": "2026-01-01T00:00:00Z",
        "properties": {"old_attributes": {"name": "old"}, "new_attributes": {"name": "new"}},
        **more,
    }


def frame(opcode: int, data: bytes, *, final: bool = True, length: int | None = None) -> bytes:
    """One frame from the server; `length` lies about the length."""
    size = len(data) if length is None else length
    first = (0x80 if final else 0) | opcode
    if size < 126:
        return struct.pack("!BB", first, size) + data
    if size < 65536:
        return struct.pack("!BBH", first, 126, size) + data
    return struct.pack("!BBQ", first, 127, size) + data


class Logs:
    """Log records in memory; `error` is raised when set, `gate` holds questions up until it is set."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.asked = 0

    def logs_after(self, log_id: int, *, filters: Any = ()) -> list[dict[str, Any]]:
        """See LogSource; pages of 3."""
        self._ask()
        return sorted((r for r in self.records if r["id"] > log_id), key=lambda r: int(r["id"]))[:3]

    def newest_log(self, *, filters: Any = ()) -> int:
        """See LogSource."""
        self._ask()
        return max((int(r["id"]) for r in self.records), default=0)

    def _ask(self) -> None:
        self.asked += 1
        self.gate.wait(30)
        if self.error is not None:
            raise self.error


class Session:
    """One connection that the peer has accepted."""

    def __init__(self, connection: socket.socket, request: str) -> None:
        self.connection = connection
        self.request = request
        self.commands: list[dict[str, Any]] = []

    def send(self, opcode: int, data: bytes, **more: Any) -> None:
        self.connection.sendall(frame(opcode, data, **more))

    def tell(self, *messages: Any) -> None:
        for message in messages:
            self.send(TEXT, json.dumps(message).encode())

    def receive(self) -> tuple[int, bytes]:
        """The client's next frame."""
        first, second = self._exactly(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self._exactly(2))
        mask = self._exactly(4)
        data = self._exactly(size)
        return first & 0xF, bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))

    def command(self) -> dict[str, Any]:
        """The client's next command; pings are answered meanwhile."""
        while True:
            opcode, data = self.receive()
            if opcode == TEXT:
                self.commands.append(json.loads(data))
                return self.commands[-1]
            if opcode == PING:
                self.send(PONG, data)

    def agree(self, *replayed: Any) -> None:
        """Accept the subscription, send what was missed, accept the one that marks the end."""
        self.command()
        self.tell({"status": 200}, *replayed)
        self.command()
        self.tell({"status": 200})

    def serve(self) -> None:
        """Answer pings until the client goes."""
        with contextlib.suppress(OSError):
            while True:
                self.command()

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.connection.recv(size - len(data))
            if not piece:
                raise ConnectionError("the client went")
            data += piece
        return data


Script = Callable[[Session], Any]


class Peer:
    """A websocket server without TLS: `scripts` are played one for each connection, the last for ever.

    handshake: answers the request in place of a correct handshake when set.
    """

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.sessions: list[Session] = []
        self.handshake: Callable[[socket.socket, str], Any] | None = None
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/websocket"
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        # Closing alone would leave accept() waiting.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(4096) or b"\r\n\r\n"
            text = request.decode()
            session = Session(connection, text)
            self.sessions.append(session)
            if self.handshake is not None:
                self.handshake(connection, text)
                return
            key = next(line.split(": ")[1] for line in text.split("\r\n") if "Sec-WebSocket-Key" in line)
            accept = base64.b64encode(hashlib.sha1((key + MAGIC).encode()).digest()).decode()
            connection.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n"
            )
            script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
            script(session)
        self._open.discard(connection)


class Ear:
    """A listener and what it said. `news` holds everything that came, in order."""

    def __init__(self, listener: EventListener, source: "queue.SimpleQueue[News]") -> None:
        self.listener = listener
        self.queue = source
        self.news: list[News] = []

    def read(self) -> list[News]:
        """Everything said until now."""
        while True:
            try:
                self.news.append(self.queue.get_nowait())
            except queue.Empty:
                return self.news

    @property
    def changes(self) -> list[Change]:
        return [one for one in self.read() if isinstance(one, Change)]

    @property
    def ids(self) -> list[int]:
        return [change.log_id for change in self.changes]

    @property
    def losses(self) -> list[Lost]:
        return [one for one in self.read() if isinstance(one, Lost)]

    @property
    def states(self) -> list[str]:
        return [one.state for one in self.read() if isinstance(one, Status)]

    def wait_state(self, state: str) -> None:
        wait_for(lambda: self.listener.status().state == state, f"the listener is {state}", 20)

    def wait_ids(self, *ids: int) -> None:
        """These events, each once, in this order, and no others."""
        wait_for(lambda: len(self.ids) >= len(ids), f"{len(ids)} events", 20)
        assert self.ids == list(ids)


@contextmanager
def listening(
    url: str,
    logs: Any,
    *,
    settings: ApiSettings | None = None,
    token: Callable[[], str] = lambda: TOKEN,
    pace: Pace = QUICK,
) -> Iterator[Ear]:
    """A listener that runs; its end must come within its bound."""
    news: queue.SimpleQueue[News] = queue.SimpleQueue()
    chosen = settings or ApiSettings("zzzzz.example", TOKEN)
    ear = Ear(EventListener(chosen, logs, news, url=url, token=token, pace=pace), news)
    ear.listener.start()
    try:
        yield ear
    finally:
        begun = time.monotonic()
        ear.listener.close()
        assert time.monotonic() - begun < pace.close_within + 0.5, "close took too long"


def gone(_: Any = None) -> Unreachable:
    return Unreachable("the API server is down")


class TcpProxy:
    """Passes bytes on to `upstream` (host, port), which may change; `cut` ends all connections there are."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.upstream = upstream
        self.refusing = False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut(self) -> int:
        """End all connections; how many there were."""
        with self._lock:
            ended, self._open = self._open, set()
        for connection in ended:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        return len(ended) // 2

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    if self.refusing:
                        raise ConnectionRefusedError
                    server = socket.create_connection(self.upstream, timeout=10)
                except OSError:
                    client.close()
                    continue
                server.settimeout(None)
                with self._lock:
                    self._open |= {client, server}
                ways = [
                    threading.Thread(target=self._pass, args=ends, daemon=True)
                    for ends in ((client, server), (server, client))
                ]
                closer = threading.Thread(target=self._close, args=(ways, client, server), daemon=True)
                for thread in (*ways, closer):
                    thread.start()
                self._threads.append(closer)

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _close(self, ways: list[threading.Thread], *ends: socket.socket) -> None:
        """Only when no thread uses the descriptors any more: their numbers are given out again."""
        for way in ways:
            way.join()
        with self._lock:
            self._open -= set(ends)
        for end in ends:
            end.close()


@contextmanager
def tcp_proxy(host: str) -> Iterator[TcpProxy]:
    """A proxy in front of `host` ("name:port")."""
    name, _, port = host.rpartition(":")
    proxy = TcpProxy((name, int(port)))
    try:
        yield proxy
    finally:
        proxy.close()
