"""Requests that are wrong by mistake or on purpose: a 4xx answer, nothing changed, the server stays alive."""

import json
import os
import socket
import ssl
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from servers import Answer, LocalServer, memory

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def everything(server: LocalServer) -> str:
    """All records that an administrator can see, as text."""
    state = {}
    for resource in ("collections", "groups", "links", "users", "keep_services"):
        path = f"{resource}?limit=1000&order=uuid"
        state[resource] = server.call("GET", path, token=server.settings.admin_token).body["items"]
    return json.dumps(state, sort_keys=True)


@pytest.fixture
def unchanged(local_server: LocalServer) -> Iterator[LocalServer]:
    """The server; after the test it must be alive and its records as they were."""
    before = everything(local_server)
    yield local_server
    assert everything(local_server) == before


def refused(answer: Answer, *statuses: int) -> bool:
    """Whether an answer is an Arvados error with one of the statuses (any 4xx when none is given)."""
    fits = answer.status in statuses if statuses else 400 <= answer.status < 500
    assert fits, answer
    assert isinstance(answer.body["errors"], list)
    assert all(isinstance(text, str) and text for text in answer.body["errors"])
    assert "+" in answer.body["error_token"]
    assert answer.headers["X-Request-Id"]
    return True


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"12",
        b'"text"',
        b"\xff\xfe",
        b'{"collection": {"name": NaN}}',
        b'{"collection": {"properties": {"a": 1e999}}}',
        b'{"collection": {"name": "\\ud800"}}',
        b'{"collection": {"name": "a\\u0000b"}}',
        b'{"collection": {"replication_desired": 1' + b"0" * 400 + b"}}",
        b'{"collection": {"replication_desired": 1' + b"0" * 5000 + b"}}",
        b'{"collection": {"replication_desired": "many"}}',
        b'{"collection": {"properties": []}}',
        b'{"collection": {"properties": "x"}}',
        b'{"collection": {"storage_classes_desired": {"a": 1}}}',
        b'{"collection": {"trash_at": "tomorrow"}}',
        b'{"collection": {"name": {"a": 1}}}',
        b'{"collection": {"name": ["a"]}}',
        b'{"collection": {"owner_uuid": 5}}',
        b'{"collection": {"manifest_text": 5}}',
        b'{"collection": {"manifest_text": "garbage"}}',
        b'{"collection": {"manifest_text": ". d41d8cd98f00b204e9800998ecf8427e+0 0:0:../../x\\n"}}',
        b'{"collection": {"manifest_text": "./../x d41d8cd98f00b204e9800998ecf8427e+0 0:0:x\\n"}}',
        b'{"collection": {"manifest_text": ". 900150983cd24fb0d6963f7d28e17f72+3 0:3:x\\n"}}',
        b'{"collection": {"manifest_text": ". d41d8cd98f00b204e9800998ecf8427e+0 0:9:x\\n"}}',
        b'{"collection": {"uuid": "../../../etc/passwd"}}',
        b'{"collection": {"no_such_attribute": 1}}',
        b'{"collection": []}',
        b'{"collection": "{"}',
        b'{"collection": {}, "replace_files": {"../x": ""}}',
        b'{"collection": {}, "replace_files": {"/a": "current/../x"}}',
        b'{"collection": {}, "replace_files": 7}',
        b'{"collection": {}, "ensure_unique_name": "perhaps"}',
        b'{"collection": {}, "select": {"a": 1}}',
        b'{"collection": {}, "select": ["no_such_attribute"]}',
        b"[" * 100_000,
        b'{"collection": {"properties": ' + b'{"a": ' * 900 + b"1" + b"}" * 902,
        b'{"a": [' + b"[]," * 3_000_000 + b"[]]}",
    ],
    ids=lambda body: body[:60].decode(errors="replace"),
)
def test_bad_bodies(unchanged: LocalServer, body: bytes) -> None:
    refused(unchanged.call("POST", "collections", body, headers={"Content-Type": "application/json"}))


@pytest.mark.parametrize(
    "query",
    [
        "filters=[",
        "filters=5",
        'filters={"a":1}',
        'filters=["a"]',
        'filters=[["uuid"]]',
        'filters=[["nope","=",1]]',
        'filters=[["uuid","~",1]]',
        'filters=[["uuid","in",5]]',
        'filters=[["uuid; drop table users","=","x"]]',
        'filters=[["name","=",{"a":1}]]',
        "filters=" + "[" * 5000,
        "limit=-1",
        "limit=ten",
        "limit=1e3",
        "limit=" + "9" * 5000,
        "offset=-1",
        "offset=" + "9" * 30,
        "order=nope",
        "order=uuid;drop",
        'order=[["uuid"]]',
        "order=uuid%20sideways",
        "select=nope",
        'select=["uuid",5]',
        "count=some",
        "include_trash=perhaps",
    ],
)
def test_bad_queries(unchanged: LocalServer, query: str) -> None:
    name, _, value = query.partition("=")
    refused(unchanged.call("GET", f"collections?{name}={quote(value)}"))


def test_huge_limit_is_one_page(unchanged: LocalServer) -> None:
    answer = unchanged.call("GET", "users?limit=1000000000")
    assert (answer.status, answer.body["limit"]) == (200, 1000)


@pytest.mark.parametrize(
    "path",
    [
        "collections/../users",
        "collections/..%2f..%2fsite.json",
        "/arvados/v1/../../../../etc/passwd",
        "/../site.json",
        "/arvados/v1/nope",
        "/arvados/v1/collections/x/y/z",
        "/arvados/v1/users/__class__",
        "/arvados/v1/collections/zzzzz-4zz18-" + "0" * 15,
        "/arvados/v1/collections/" + "a" * 5000,
        "/arvados/v1/collections/%00",
        "/arvados/v1/collections/%ff",
        "/arvados/v1/collections/d41d8cd98f00b204e9800998ecf8427e%2B1",
        "/",
        "/etc/passwd",
    ],
)
def test_bad_paths(unchanged: LocalServer, path: str) -> None:
    answer = unchanged.call("GET", path)
    refused(answer)
    assert b"root:" not in json.dumps(answer.body).encode()


def test_bad_verbs(unchanged: LocalServer) -> None:
    refused(unchanged.call("DELETE", "collections"), 405)
    refused(unchanged.call("POST", "users/current", {}), 405)
    refused(unchanged.call("TRACE", "collections"), 405)
    refused(unchanged.call("POST", "collections?_method=SELECT", b"", headers=FORM), 405)
    refused(unchanged.call("POST", "collections", b"<a/>", headers={"Content-Type": "text/xml"}), 415)


@pytest.mark.parametrize(
    "token", ["", "wrong", "v2/zzzzz-gj3su-000000000000000/wrong", "v2/", "ü", "a" * 5000]
)
def test_wrong_tokens(unchanged: LocalServer, token: str) -> None:
    header = {"Authorization": f"Bearer {token}"} if token else {}
    wrong = {name: value.encode().decode("latin-1") for name, value in header.items()}
    for verb, path in (("GET", "users/current"), ("POST", "collections"), ("GET", "collections?limit=1")):
        refused(unchanged.call(verb, path, {} if verb == "POST" else None, token="", headers=wrong), 401)


def test_uuid_and_secret_of_a_token_belong_together(unchanged: LocalServer) -> None:
    _, uuid, secret = unchanged.settings.token.split("/")
    other = uuid[:-1] + ("y" if uuid.endswith("x") else "x")
    refused(unchanged.call("GET", "users/current", token=f"v2/{other}/{secret}"), 401)
    assert unchanged.call("GET", "users/current", token=secret).status == 200


def test_other_users_objects(local_server: LocalServer) -> None:
    _, other = local_server.new_user("intruder")
    mine = local_server.call("POST", "collections", {"collection": {"name": "private"}}).body
    project = {"group": {"group_class": "project", "name": "private"}}
    group = local_server.call("POST", "groups", project).body
    before = everything(local_server)
    path = f"collections/{mine['uuid']}"
    for verb, target, body in (
        ("GET", path, None),
        ("PUT", path, {"collection": {"name": "taken"}}),
        ("PATCH", path, {"collection": {"name": "taken"}}),
        ("DELETE", path, None),
        ("POST", f"{path}/trash", {}),
        ("GET", f"groups/{group['uuid']}", None),
        ("GET", f"groups/{group['uuid']}/contents", None),
        ("DELETE", f"groups/{group['uuid']}", None),
        ("POST", "collections", {"collection": {"owner_uuid": group["uuid"]}}),
        ("POST", "collections", {"collection": {"owner_uuid": mine["owner_uuid"]}}),
        ("PUT", f"users/{mine['owner_uuid']}", {"user": {"is_admin": True}}),
        ("POST", "users", {"user": {"email": "x@localhost"}}),
        (
            "POST",
            "api_client_authorizations",
            {"api_client_authorization": {"owner_uuid": mine["owner_uuid"]}},
        ),
        ("POST", "keep_services", {"keep_service": {"service_host": "evil", "service_port": 80}}),
    ):
        refused(local_server.call(verb, target, body, token=other), 403, 404, 422)
    listed = local_server.call("GET", "collections?limit=1000", token=other).body["items"]
    assert mine["uuid"] not in [each["uuid"] for each in listed]
    assert everything(local_server) == before


def test_huge_bodies(fresh_server: LocalServer) -> None:
    """100 MB: refused at once without a token; with one, read once and refused; never more than the limit."""
    before = everything(fresh_server)
    base = memory(fresh_server)
    huge = b'{"collection": {"name": "' + b"x" * 100_000_000
    for token in ("", "wrong"):
        assert send_all(fresh_server, "POST", "/arvados/v1/collections", huge, token) in (401, 413)
    assert memory(fresh_server) - base < 50_000_000
    assert send_all(fresh_server, "POST", "/arvados/v1/collections", huge, fresh_server.settings.token) == 400
    huge = huge + b'"}}'
    assert send_all(fresh_server, "POST", "/arvados/v1/collections", huge, fresh_server.settings.token) == 422
    assert memory(fresh_server) - base < 1_000_000_000
    beyond = bytes(140_000_000)
    assert (
        send_all(fresh_server, "POST", "/arvados/v1/collections", beyond, fresh_server.settings.token) == 413
    )
    assert everything(fresh_server) == before


def send_all(server: LocalServer, verb: str, path: str, body: bytes, token: str) -> int:
    """Send a body that may be refused halfway; return the status."""
    context = ssl.create_default_context(cafile=str(server.settings.ca_file))
    host, _, port = server.settings.host.partition(":")
    head = f"{verb} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    with (
        socket.create_connection((host, int(port)), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname=host) as connection,
    ):
        connection.sendall(head.encode())
        sent = 0
        # Only as much as the server takes before it has answered.
        connection.setblocking(False)
        answer = b""
        give_up = time.monotonic() + 60
        while b"\r\n" not in answer and time.monotonic() < give_up:
            try:
                answer += connection.recv(1000)
            except (ssl.SSLWantReadError, BlockingIOError):
                pass
            except OSError:
                break
            if sent < len(body):
                try:
                    sent += connection.send(body[sent : sent + 1_000_000])
                except (ssl.SSLWantWriteError, ssl.SSLWantReadError, BlockingIOError):
                    time.sleep(0.001)
                except OSError:
                    continue
    return int(answer.split()[1]) if answer else 0


def test_large_manifest_passes(local_server: LocalServer) -> None:
    """A legal record of tens of megabytes is no attack."""
    empty = "d41d8cd98f00b204e9800998ecf8427e+0"
    lines = "".join(f"./{'long' * 60}{number} {empty} 0:0:{'name' * 60}\n" for number in range(40_000))
    assert len(lines) > 20_000_000
    answer = local_server.call("POST", "collections", {"collection": {"manifest_text": lines}})
    assert answer.status == 200, answer.body
    assert answer.body["file_count"] == 40_000
    assert local_server.call("DELETE", f"collections/{answer.body['uuid']}").status == 200


def test_slow_and_broken_connections_leave_the_server_alive(unchanged: LocalServer) -> None:
    host, _, port = unchanged.settings.host.partition(":")
    connections = [socket.create_connection((host, int(port))) for _ in range(50)]
    try:
        for number, connection in enumerate(connections):
            connection.sendall(os.urandom(number * 10))
        assert unchanged.call("GET", "users/current").status == 200
    finally:
        for connection in connections:
            connection.close()
    assert unchanged.call("GET", "users/current").status == 200


def test_request_id_is_echoed_unless_harmful(local_server: LocalServer) -> None:
    answer = local_server.call("GET", "users/current", headers={"X-Request-Id": "req-abcdefghij0123456789"})
    assert answer.headers["X-Request-Id"] == "req-abcdefghij0123456789"
    answer = local_server.call("GET", "users/current", headers={"X-Request-Id": "a b\tc<script>"})
    assert answer.headers["X-Request-Id"].startswith("req-")


def test_forms_and_method_override(local_server: LocalServer) -> None:
    """Arvados takes parameters as forms, JSON texts inside of them, and a verb in `_method`."""
    collection = quote(json.dumps({"name": "from a form"}))
    made = local_server.call("POST", "collections", f"collection={collection}".encode(), headers=FORM)
    assert (made.status, made.body["name"]) == (200, "from a form")
    filters = quote(json.dumps([["uuid", "=", made.body["uuid"]]]))
    for path, body in (
        ("collections?_method=GET", f"filters={filters}&select={quote(json.dumps(['uuid']))}"),
        ("collections", f"_method=GET&filters={filters}&order=name desc&select=uuid"),
    ):
        found = local_server.call("POST", path, body.encode(), headers=FORM)
        assert [each["uuid"] for each in found.body["items"]] == [made.body["uuid"]]
    override = {**FORM, "X-HTTP-Method-Override": "GET"}
    found = local_server.call("POST", "collections", f"filters={filters}".encode(), headers=override)
    assert len(found.body["items"]) == 1
    by_query = local_server.call("GET", f"users/current?api_token={local_server.settings.token}", token="")
    assert by_query.status == 200
    ended = local_server.call("POST", f"collections/{made.body['uuid']}?_method=DELETE", b"", headers=FORM)
    assert ended.status == 200
