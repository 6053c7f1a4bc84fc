"""What goes wrong with the API server while a mount is set up, against real sockets."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from arvados_fuse.api import ApiSettings
from arvados_fuse.cli import contact
from arvados_fuse.errors import (
    AccessDenied,
    ArvadosFuseError,
    ManifestError,
    NotFoundError,
    SetupError,
    Unreachable,
)
from arvados_fuse.local.certificate import TlsFiles, ensure_certificate

HOST = "cluster.example"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@contextlib.contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """One connection on loopback, answered by `answer`; gives `host:port`."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    connection.settimeout(10)
                    answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


def settings(host: str, **more: object) -> ApiSettings:
    return ApiSettings(host=host, token="t", **more)  # type: ignore[arg-type]


def in_https(tls: TlsFiles) -> Callable[[socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)

    def answer(connection: socket.socket) -> None:
        context.wrap_socket(connection, server_side=True).close()

    return answer


def test_a_trusted_certificate_is_fine(tmp_path: Path) -> None:
    tls = ensure_certificate(tmp_path)
    with server(in_https(tls)) as host:
        contact.check(settings(host, ca_file=str(tls.ca)))


def test_an_untrusted_certificate_is_told_unless_nobody_cares(tmp_path: Path) -> None:
    tls = ensure_certificate(tmp_path)
    with server(in_https(tls)) as host, pytest.raises(SetupError, match=r"SSL_CERT_FILE.*HOST_INSECURE=1"):
        contact.check(settings(host))
    wrong = pytest.raises(SetupError, match=r"names /nowhere, which does not exist; correct it")
    with server(in_https(tls)) as host, wrong:
        contact.check(settings(host, ca_file_missing="/nowhere"))
    with server(in_https(tls)) as host:
        contact.check(settings(host, insecure=True))


def test_a_server_without_https() -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

    with server(answer) as host, pytest.raises(SetupError, match="does not speak HTTPS"):
        contact.check(settings(host))


def test_what_may_pass_is_left_to_the_client() -> None:
    with server(lambda connection: None) as host:
        contact.check(settings(host))
    contact.check(settings(host))  # nobody listens there any more


def test_a_proxy_makes_the_look_impossible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    contact.check(settings("no such host"))


@pytest.mark.parametrize("host", ["127.0.0.1:99999", "127.0.0.1:0", "[::1]:65536"])
def test_what_is_no_port(host: str) -> None:
    with pytest.raises(SetupError, match="ports are 1 to 65535; correct it"):
        contact.check(settings(host))


@pytest.mark.parametrize("host", ["a" * 70 + ".example", "x..y"])
def test_what_is_no_host_name(host: str) -> None:
    with pytest.raises(SetupError, match="ARVADOS_API_HOST"):
        contact.check(settings(host))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host", ("host", 443)),
        ("host:8443", ("host", 8443)),
        ("[::1]:8443", ("::1", 8443)),
        ("[::1]", ("::1", 443)),
        ("::1", ("::1", 443)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert contact._address(text) == expected


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AccessDenied("API server x answered 401: no."), "answered 401: no; get a new token in Workbench"),
        (NotFoundError("gone", subject=HOST), f"{HOST} answers, but is no Arvados API server"),
        (NotFoundError("gone", subject="uuid"), "gone; check the uuid"),
        (Unreachable("no answer"), "no answer; check ARVADOS_API_HOST and the network"),
        (SetupError("say this"), "say this"),
    ],
)
def test_answers_get_the_next_step(error: ArvadosFuseError, words: str) -> None:
    with pytest.raises(SetupError) as caught, contact.explain(settings(HOST)):
        raise error
    assert words in str(caught.value)


def test_other_failures_stay_as_they_are() -> None:
    with pytest.raises(ManifestError), contact.explain(settings(HOST)):
        raise ManifestError("line 1")
