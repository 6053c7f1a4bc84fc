"""The Keep services of the embedded Arvados: what they take, give and refuse."""

import hashlib
import http.client
import os
import re
import socket
from pathlib import Path

import pytest
from servers import LocalServer, wait_for

from arvados_fuse.local.server.blocks import BLOCK_SIZE_LIMIT
from arvados_fuse.local.signature import Signer
from arvados_fuse.local.site import SiteConfig


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def put(server: LocalServer, data: bytes, service: int = 0) -> str:
    """Store a block; return its signed locator."""
    answer = server.keep("PUT", f"/{md5(data)}", data, service=service)
    assert answer.status == 200, answer
    return str(answer.body.decode().strip())


def block_file(server: LocalServer, locator: str, service: int = 0) -> Path:
    return server.data_dir / "keep" / str(service) / locator[:3] / locator[:32]


def all_blocks(server: LocalServer) -> set[str]:
    return {path.name for path in (server.data_dir / "keep").rglob("*") if path.is_file()}


@pytest.mark.parametrize("size", [1, 4096, 131072, 131073, BLOCK_SIZE_LIMIT])
def test_block_comes_back(local_server: LocalServer, size: int) -> None:
    data = os.urandom(min(size, 1 << 20)) * max(1, size >> 20)
    locator = put(local_server, data)
    assert re.fullmatch(rf"{md5(data)}\+{size}\+A[0-9a-f]{{40}}@[0-9a-f]{{8}}", locator)
    answer = local_server.keep("GET", f"/{locator}")
    assert answer.status == 200
    assert answer.body == data
    assert answer.headers["Content-Length"] == str(size)
    assert block_file(local_server, locator).stat().st_mode & 0o777 == 0o600
    head = local_server.keep("HEAD", f"/{locator}")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(size))


def test_empty_block(local_server: LocalServer) -> None:
    locator = put(local_server, b"")
    for wanted in (locator, "d41d8cd98f00b204e9800998ecf8427e+0"):
        answer = local_server.keep("GET", f"/{wanted}")
        assert (answer.status, answer.body) == (200, b"")


def test_put_says_what_it_confirms(local_server: LocalServer) -> None:
    headers = {"X-Keep-Desired-Replicas": "2", "X-Keep-Storage-Classes": "default, unknown"}
    answer = local_server.keep("PUT", f"/{md5(b'classes')}", b"classes", headers=headers)
    assert answer.status == 200
    assert answer.headers["X-Keep-Replicas-Stored"] == "1"
    assert answer.headers["X-Keep-Storage-Classes-Confirmed"] == "default=1"
    none_known = {"X-Keep-Storage-Classes": "unknown"}
    assert local_server.keep("PUT", f"/{md5(b'classes')}", b"classes", headers=none_known).status == 503


def test_head_signs_for_local_reading(local_server: LocalServer) -> None:
    locator = put(local_server, b"sign me again")
    answer = local_server.keep(
        "HEAD", f"/{locator}", headers={"X-Keep-Signature": "local, 2026-01-01T00:00:00Z"}
    )
    assert local_server.keep("GET", f"/{answer.headers['X-Keep-Locator']}").body == b"sign me again"


def test_who_may_read(local_server: LocalServer) -> None:
    locator = put(local_server, b"mine")
    unsigned = "+".join(locator.split("+")[:2])
    assert local_server.keep("GET", f"/{locator}", token="").status == 401
    assert local_server.keep("GET", f"/{locator}", token="v2/zzzzz-gj3su-000000000000000/wrong").status == 401
    assert local_server.keep("GET", f"/{unsigned}").status == 403
    assert local_server.keep("GET", f"/{locator[:-1]}{'0' if locator[-1] != '0' else '1'}").status == 403
    assert local_server.keep("GET", f"/{locator}", token=local_server.settings.admin_token).status == 403
    secret = local_server.settings.token.split("/")[2]
    assert local_server.keep("GET", f"/{locator}", token=secret).status == 200
    oauth = {"Authorization": f"OAuth2 {local_server.settings.token}"}
    assert local_server.keep("GET", f"/{locator}", headers=oauth).status == 200


def test_expired_signature(local_server: LocalServer) -> None:
    locator = put(local_server, b"old")
    site = SiteConfig.load(local_server.data_dir / "site.json")
    signer = Signer(site.blob_signing_key.encode(), site.blob_signature_ttl)
    old = signer.sign(locator, local_server.settings.token, expiry=1_500_000_000)
    answer = local_server.keep("GET", f"/{old}")
    assert (answer.status, b"expired" in answer.body) == (403, True)


def test_missing_and_malformed(local_server: LocalServer) -> None:
    site = SiteConfig.load(local_server.data_dir / "site.json")
    signer = Signer(site.blob_signing_key.encode(), site.blob_signature_ttl)
    absent = signer.sign(f"{md5(b'never stored')}+12", local_server.settings.token)
    assert local_server.keep("GET", f"/{absent}").status == 404
    wrong_size = signer.sign(f"{md5(b'short')}+6", local_server.settings.token)
    put(local_server, b"short")
    assert local_server.keep("GET", f"/{wrong_size}").status == 404
    for path in ("/xyz", f"/{'A' * 32}+3", f"/{'a' * 33}+3", f"/{'a' * 32}+3+lower", f"/{'a' * 32}+-3"):
        assert local_server.keep("GET", path).status == 400
    for path in ("/", "/..%2f..%2fsite.json", "/../site.json", "/abc/def"):
        assert local_server.keep("GET", path).status in (400, 404)


def test_wrong_content_is_not_kept(local_server: LocalServer) -> None:
    before = all_blocks(local_server)
    assert local_server.keep("PUT", f"/{md5(b'promised')}", b"delivered").status == 422
    assert local_server.keep("PUT", f"/{md5(b'sized')}+4", b"sized").status == 422
    assert local_server.keep("PUT", f"/{'0' * 31}", b"x").status == 400
    assert local_server.keep("PUT", f"/{md5(b'x')}", b"x", token="").status == 401
    assert local_server.keep("PUT", f"/{md5(b'x')}", b"x", token="nonsense").status == 401
    too_large = bytes(BLOCK_SIZE_LIMIT + 1)
    assert local_server.keep("PUT", f"/{md5(too_large)}", too_large).status == 413
    assert local_server.keep("POST", f"/{md5(b'x')}", b"x").status == 405
    assert all_blocks(local_server) == before


def chunked_put(server: LocalServer, md5_hash: str, chunks: list[bytes]) -> int:
    connection = http.client.HTTPConnection(server.settings.keep_services[0].split("/")[2], timeout=60)
    headers = {"Authorization": f"Bearer {server.settings.token}", "Transfer-Encoding": "chunked"}
    try:
        connection.request("PUT", f"/{md5_hash}", iter(chunks), headers, encode_chunked=True)
        return connection.getresponse().status
    except (ConnectionError, http.client.HTTPException):
        # The server has answered and closed while we were still sending.
        return 413
    finally:
        connection.close()


def test_chunked_upload(local_server: LocalServer) -> None:
    assert chunked_put(local_server, md5(b"in pieces"), [b"in ", b"pieces"]) == 200
    before = all_blocks(local_server)
    endless = [bytes(1 << 20)] * 66
    assert chunked_put(local_server, md5(b"".join(endless)), endless) == 413
    assert all_blocks(local_server) == before


def test_cut_upload_leaves_nothing(local_server: LocalServer) -> None:
    before = all_blocks(local_server)
    host, _, port = local_server.settings.keep_services[0].split("/")[2].partition(":")
    head = f"PUT /{md5(bytes(5_000_000))} HTTP/1.1\r\nHost: keep\r\nContent-Length: 5000000\r\n"
    head += f"Authorization: Bearer {local_server.settings.token}\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + bytes(3_000_000))
        temporary = local_server.data_dir / "keep/0/tmp"
        wait_for(lambda: list(temporary.iterdir()), "the upload has begun")
    wait_for(lambda: not list(temporary.iterdir()), "the cut upload is gone")
    assert all_blocks(local_server) == before


def test_refusal_comes_before_the_body(local_server: LocalServer) -> None:
    """A client that waits for `100 Continue` does not send 64 MiB to be refused."""
    host, _, port = local_server.settings.keep_services[0].split("/")[2].partition(":")
    head = f"PUT /{md5(b'x')} HTTP/1.1\r\nHost: keep\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(f"{head}Authorization: Bearer wrong\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 401 ")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(f"{head}Authorization: Bearer {local_server.settings.token}\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")


@pytest.mark.parametrize("size", [1000, 5_000_000])
def test_rotten_block_is_never_given_whole(local_server: LocalServer, size: int) -> None:
    data = os.urandom(size)
    locator = put(local_server, data)
    with open(block_file(local_server, locator), "r+b") as file:
        file.write(b"rot!")
    try:
        answer = local_server.keep("GET", f"/{locator}")
        complete = answer.status == 200
    except (http.client.IncompleteRead, ConnectionError):
        complete = False
    assert not complete
    # Storing it again heals it.
    assert local_server.keep("GET", f"/{put(local_server, data)}").body == data


def test_block_from_before_the_start_is_checked_and_sent(fresh_server: LocalServer) -> None:
    data = os.urandom(3_000_000)
    locator = put(fresh_server, data)
    fresh_server.stop()
    fresh_server.start()
    for _ in range(2):
        assert fresh_server.keep("GET", f"/{locator}").body == data


def test_read_only_and_full_services(tmp_path: Path) -> None:
    server = LocalServer(tmp_path / "data", "--keep-services", "2").start()
    locator = put(server, b"kept")
    server.stop()
    settings = (server.data_dir / "server.json").read_text()
    assert settings.count('"read_only": false') == 2
    (server.data_dir / "server.json").write_text(
        settings.replace('"read_only": false', '"read_only": true', 1)
    )
    try:
        server.start()
        assert server.keep("GET", f"/{locator}").body == b"kept"
        assert server.keep("PUT", f"/{md5(b'new')}", b"new").status == 503
        assert server.keep("PUT", f"/{md5(b'new')}", b"new", service=1).status == 200
        listed = server.call("GET", "keep_services/accessible").body["items"]
        assert sorted(each["read_only"] for each in listed) == [False, True]
        server.stop()
        full = re.sub(r'"reserve": \d+', f'"reserve": {1 << 62}', settings)
        (server.data_dir / "server.json").write_text(full)
        server.start()
        answer = server.keep("PUT", f"/{md5(b'newer')}", b"newer")
        assert (answer.status, answer.body) == (503, b"full\n")
        assert server.keep("GET", f"/{locator}").body == b"kept"
    finally:
        server.stop()


def test_short_signature_lifetime(tmp_path: Path) -> None:
    server = LocalServer(tmp_path / "data", "--signature-ttl", "2").start()
    try:
        locator = put(server, b"brief")
        assert server.call("GET", "/discovery/v1/apis/arvados/v1/rest").body["blobSignatureTtl"] == 2
        wait_for(lambda: server.keep("GET", f"/{locator}").status == 403, "the signature expires")
        again = put(server, b"brief")
        assert server.keep("GET", f"/{again}").status == 200
    finally:
        server.stop()
