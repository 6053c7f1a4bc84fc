"""The API client against a server that misbehaves on purpose."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from servers import wait_for

from arvados_fuse.api import ApiClient, ApiSettings
from arvados_fuse.errors import (
    AccessDenied,
    ArvadosFuseError,
    BadAnswer,
    NotFoundError,
    RequestRefused,
    Unreachable,
)
from arvados_fuse.local.certificate import ensure_certificate, server_context
from arvados_fuse.local.server.discovery import discovery_document
from arvados_fuse.local.site import SiteConfig

TOKEN = "v2/zzzzz-gj3su-000000000000000/secretsecretsecret"
UUID = "zzzzz-4zz18-000000000000000"


class Server:
    """Gives the discovery document, then what the test scripts; the last step for ever."""

    def __init__(self, directory: Path) -> None:
        self.script: list[tuple[int, bytes] | Callable[[Any], None]] = []
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.closed = 0
        handler = type("Handler", (_Handler,), {"owner": self})
        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.httpd.daemon_threads = True
        self.tls = ensure_certificate(directory)
        self.httpd.socket = server_context(self.tls).wrap_socket(self.httpd.socket, server_side=True)
        self.host = f"127.0.0.1:{self.httpd.server_port}"
        self.thread = threading.Thread(target=self.httpd.serve_forever)
        self.thread.start()

    def settings(self, deadline: float = 5.0) -> ApiSettings:
        return ApiSettings(self.host, TOKEN, ca_file=str(self.tls.bundle), deadline=deadline)

    def has_closed(self, connections: int) -> bool:
        return self.closed >= connections

    def close(self) -> None:
        self.httpd.shutdown()
        self.httpd.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    owner: Server
    protocol_version = "HTTP/1.1"

    def finish(self) -> None:
        super().finish()
        self.connection.close()
        self.owner.closed += 1

    def do_GET(self) -> None:
        owner = self.owner
        if self.path.startswith("/discovery"):
            site = SiteConfig.new("zzzzz")
            self.answer(200, json.dumps(discovery_document(site, owner.host)).encode())
            return
        self.rfile.read(int(self.headers.get("content-length") or 0))
        owner.seen.append((self.path, dict(self.headers)))
        step = owner.script.pop(0) if len(owner.script) > 1 else owner.script[0]
        if callable(step):
            step(self)
        else:
            self.answer(*step)

    do_POST = do_GET

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Request-Id", "req-fromtheserver")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


def hang_up(handler: _Handler) -> None:
    handler.connection.close()
    handler.close_connection = True


def silent(gate: threading.Event) -> Callable[[_Handler], None]:
    """Says nothing until the gate opens, then hangs up."""

    def step(handler: _Handler) -> None:
        gate.wait(20)
        hang_up(handler)

    return step


def cut(handler: _Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"uuid"')
    handler.close_connection = True


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("tls"))
    yield server
    server.close()


@pytest.fixture
def server(one_server: Server) -> Server:
    one_server.seen.clear()
    return one_server


@pytest.fixture(scope="module")
def client(one_server: Server) -> Iterator[ApiClient]:
    made = ApiClient.connect(one_server.settings(), retries=3)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, AccessDenied),
        (403, AccessDenied),
        (404, NotFoundError),
        (422, RequestRefused),
        (400, RequestRefused),
        (501, Unreachable),
    ],
)
def test_each_status_has_its_kind(
    server: Server, client: ApiClient, status: int, kind: type[ArvadosFuseError]
) -> None:
    server.script = [(status, b'{"errors": ["first reason", "second"]}')]
    with pytest.raises(kind, match="first reason; second") as caught:
        client.get_collection(UUID)
    assert type(caught.value) is kind
    assert caught.value.subject == UUID
    assert caught.value.server == server.host
    assert caught.value.request_id == "req-fromtheserver"
    assert len(server.seen) == 1, "tried again"


def test_who_we_are_goes_into_headers_and_nowhere_else(server: Server, client: ApiClient) -> None:
    server.script = [(404, b'{"errors": ["no"]}')]
    with pytest.raises(NotFoundError) as caught:
        client.get_collection(UUID)
    path, headers = server.seen[0]
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["x-request-id"].startswith("req-")
    assert "secret" not in path
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_may_go_away_is_tried_again(server: Server, client: ApiClient, status: int) -> None:
    server.script = [(status, b"busy"), (status, b"busy"), (200, b'{"uuid": "x"}')]
    assert client.get_collection(UUID) == {"uuid": "x"}
    assert len({headers["x-request-id"] for _, headers in server.seen}) == 3


def test_there_is_an_end_to_trying(server: Server, client: ApiClient) -> None:
    server.script = [(503, b"busy for ever")]
    with pytest.raises(Unreachable, match="503: busy for ever"):
        client.get_collection(UUID)
    assert len(server.seen) == 4


def answer_and_leave(handler: _Handler) -> None:
    handler.answer(200, b'{"uuid": "x"}')
    handler.wfile.flush()
    handler.close_connection = True


def test_a_connection_that_was_closed_meanwhile_is_no_failed_create(
    server: Server, client: ApiClient
) -> None:
    seen = server.closed
    for left in range(1, 6):
        server.script = [answer_and_leave]
        assert client.get_collection(UUID) == {"uuid": "x"}
        server.script = [(200, b'{"uuid": "new"}')]
        wait_for(partial(server.has_closed, seen + left), "the server has closed it")
        assert client.create_collection({"name": "x"}) == {"uuid": "new"}


def test_a_create_is_sent_once(server: Server, client: ApiClient) -> None:
    server.script = [(500, b"maybe done"), (200, b"{}")]
    with pytest.raises(Unreachable):
        client.create_collection({"name": "x"})
    assert len(server.seen) == 1
    server.seen.clear()
    server.script = [hang_up, (200, b"{}")]
    with pytest.raises(Unreachable):
        client.create_collection({"name": "x"})
    assert len(server.seen) == 1
    server.script = [(503, b"not taken"), (200, b'{"uuid": "x"}')]
    assert client.create_collection({"name": "x"}) == {"uuid": "x"}


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe", b"[1]", b'"text"', b"null", b'{"a": '])
def test_nonsense_is_a_bad_answer(server: Server, client: ApiClient, body: bytes) -> None:
    server.script = [(200, body)]
    with pytest.raises(BadAnswer, match=server.host):
        client.get_collection(UUID)


@pytest.mark.parametrize("items", [b"null", b"[1]", b'"x"'])
def test_lists_without_items(server: Server, client: ApiClient, items: bytes) -> None:
    server.script = [(200, b'{"items": %s}' % items)]
    with pytest.raises(BadAnswer):
        list(client.list_links([]))


def test_a_server_that_gives_one_page_for_ever(server: Server, client: ApiClient) -> None:
    server.script = [(200, b'{"items": [{"uuid": "a"}], "limit": 1}')]
    with pytest.raises(BadAnswer, match="same page"):
        list(client.list_links([]))


def test_pages_go_on_by_key(server: Server, client: ApiClient) -> None:
    server.script = [
        (200, b'{"items": [{"uuid": "a"}, {"uuid": "b"}], "limit": 2}'),
        (200, b'{"items": [{"uuid": "c"}], "limit": 2}'),
    ]
    assert [item["uuid"] for item in client.list_links([])] == ["a", "b", "c"]
    assert len(server.seen) == 2
    assert "%5B%22uuid%22%2C+%22%3E%22%2C+%22b%22%5D" in server.seen[1][0]


@pytest.mark.parametrize("fault", [hang_up, cut])
def test_a_broken_connection_is_made_again(
    server: Server, client: ApiClient, fault: Callable[[_Handler], None]
) -> None:
    server.script = [fault, (200, b'{"uuid": "x"}')]
    assert client.get_collection(UUID) == {"uuid": "x"}


def test_silence_ends_at_the_deadline(server: Server) -> None:
    gate = threading.Event()
    client = ApiClient.connect(server.settings(deadline=0.5), retries=3)
    server.script = [silent(gate)]
    begun = time.monotonic()
    with pytest.raises(Unreachable, match=f"{server.host} did not answer: .*timed out"):
        client.get_user("zzzzz-tpzed-000000000000000")
    assert time.monotonic() - begun < 5
    gate.set()
    client.close()


def test_close_ends_what_is_under_way(server: Server) -> None:
    gate = threading.Event()
    client = ApiClient.connect(server.settings(deadline=60), retries=3)
    server.script = [silent(gate)]
    failed: list[Exception] = []

    def ask() -> None:
        try:
            client.get_collection(UUID)
        except Unreachable as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_for(lambda: server.seen, "the request arrives")
    client.close()
    thread.join(5)
    assert failed
    gate.set()


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        host = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(Unreachable, match=f"{host} did not answer"):
        ApiClient.connect(ApiSettings(host, TOKEN, deadline=0.5), retries=2)


def test_a_certificate_that_is_not_trusted(server: Server) -> None:
    authorities = ssl.get_default_verify_paths().cafile or ""
    with pytest.raises(Unreachable, match=r"(?i)certificate"):
        ApiClient.connect(ApiSettings(server.host, TOKEN, ca_file=authorities, deadline=0.5), retries=1)
    client = ApiClient.connect(ApiSettings(server.host, TOKEN, insecure=True), retries=1)
    client.close()


def test_all_connections_trust_whom_the_first_one_trusted(tmp_path: Path) -> None:
    """The authorities, which take long to read, are read once."""
    server = Server(tmp_path)
    try:
        client = ApiClient.connect(server.settings(), retries=0)
        server.tls.bundle.unlink()
        both = threading.Barrier(2)

        def step(handler: _Handler) -> None:
            both.wait(20)  # so that one connection is not enough
            handler.answer(200, b'{"uuid": "x"}')

        server.script = [step]
        answers: list[Any] = []
        threads = [
            threading.Thread(target=lambda: answers.append(client.get_collection(UUID))) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [{"uuid": "x"}] * 2
        client.close()
    finally:
        server.close()


def test_many_threads(server: Server, client: ApiClient) -> None:
    server.script = [(200, b'{"uuid": "x"}')]
    results: list[Any] = []

    def ask() -> None:
        results.extend(client.get_collection(UUID)["uuid"] for _ in range(20))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["x"] * 320


def test_the_override_of_keep_services(server: Server) -> None:
    settings = ApiSettings(
        server.host, TOKEN, ca_file=str(server.tls.bundle), keep_services=("http://keep0.example:25107",)
    )
    client = ApiClient.connect(settings, retries=1)
    (service,) = client.keep_services()
    assert (service.host, service.port, service.tls) == ("keep0.example", 25107, False)
    assert not server.seen
    client.close()
