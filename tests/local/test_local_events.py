"""Events over the embedded Arvados's websocket: who is told what, and how connections end."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

import pytest
import websocket
from servers import LocalServer, memory


class Listener:
    """One websocket connection."""

    def __init__(self, connection: websocket.WebSocket) -> None:
        self.connection = connection

    def send(self, **message: Any) -> None:
        self.connection.send(json.dumps(message))

    def receive(self) -> Any:
        return json.loads(self.connection.recv())

    def subscribe(self, filters: Any = None, **more: Any) -> None:
        self.send(method="subscribe", filters=filters or [], **more)
        assert self.receive() == {"status": 200}

    def ask(self, text: str) -> Any:
        """Send, and wait for whatever comes."""
        self.connection.send(text)
        return self.connection.recv_data()

    def event_on(self, uuid: str) -> Any:
        """Return the next event on an object; other tests make events too."""
        while (event := self.receive()).get("object_uuid") != uuid:
            pass
        return event

    def uuids_until(self, last: str) -> list[str]:
        """Return the objects of all events up to the first one on `last`."""
        uuids: list[str] = []
        while not uuids or uuids[-1] != last:
            uuids.append(self.receive()["object_uuid"])
        return uuids


@contextmanager
def listening(server: LocalServer, token: str | None = None) -> Iterator[Listener]:
    token = server.settings.token if token is None else token
    url = f"wss://{server.settings.host}/websocket?api_token={token}"
    options = {"ca_certs": str(server.settings.ca_file)}
    connection = websocket.create_connection(url, timeout=30, sslopt=options)
    try:
        yield Listener(connection)
        connection.close(timeout=1)
    finally:
        # close() alone leaves the socket open when the server was first.
        connection.shutdown()  # type: ignore[no-untyped-call]


def new_collection(server: LocalServer, name: str, token: str | None = None) -> str:
    made = server.call(
        "POST", "collections", {"collection": {"name": name}, "ensure_unique_name": True}, token=token
    )
    assert made.status == 200, made
    return str(made.body["uuid"])


def test_every_kind_of_change(local_server: LocalServer) -> None:
    with listening(local_server) as listener:
        listener.subscribe()
        uuid = new_collection(local_server, "life of a collection")
        created = listener.event_on(uuid)
        owner = local_server.call("GET", "users/current").body["uuid"]
        assert set(created) >= {"id", "uuid", "object_owner_uuid", "event_at", "properties"}
        assert (created["object_kind"], created["event_type"]) == ("arvados#collection", "create")
        assert created["object_owner_uuid"] == owner
        local_server.call("PUT", f"collections/{uuid}", {"collection": {"name": "renamed"}})
        updated = listener.event_on(uuid)
        assert updated["event_type"] == "update"
        assert updated["id"] > created["id"]
        assert updated["properties"]["old_attributes"]["name"] == "life of a collection"
        assert updated["properties"]["new_attributes"]["name"] == "renamed"
        local_server.call("DELETE", f"collections/{uuid}")
        trashed = listener.event_on(uuid)
        assert trashed["event_type"] in ("trash", "update", "delete")
        assert trashed["properties"]["new_attributes"]["is_trashed"] is True


def test_filters(local_server: LocalServer) -> None:
    with listening(local_server) as listener:
        listener.subscribe([["event_type", "in", ["update"]], ["object_uuid", "is_a", "arvados#collection"]])
        uuid = new_collection(local_server, "filtered")
        group = local_server.call("POST", "groups", {"group": {"group_class": "project", "name": "p"}}).body
        local_server.call("PUT", f"groups/{group['uuid']}", {"group": {"name": "q"}})
        local_server.call("PUT", f"collections/{uuid}", {"collection": {"name": "filtered again"}})
        event = listener.receive()
        assert (event["object_uuid"], event["event_type"]) == (uuid, "update")


def test_two_subscriptions_tell_once_and_unsubscribe_ends_one(local_server: LocalServer) -> None:
    with listening(local_server) as listener:
        creates = [["event_type", "=", "create"]]
        everything = [["event_type", "!=", "never"]]
        listener.subscribe(creates)
        listener.subscribe(everything)
        first = new_collection(local_server, "one of two")
        second = new_collection(local_server, "two of two")
        assert listener.uuids_until(second) == [first, second]
        listener.send(method="unsubscribe", filters=everything)
        assert listener.receive() == {"status": 200}
        listener.send(method="unsubscribe", filters=everything)
        assert listener.receive() == {"status": 400}
        local_server.call("PUT", f"collections/{first}", {"collection": {"name": "unnoticed"}})
        third = new_collection(local_server, "three")
        assert listener.uuids_until(third) == [third]


def test_nothing_before_a_subscription(local_server: LocalServer) -> None:
    with listening(local_server) as listener:
        before = new_collection(local_server, "too early")
        listener.subscribe()
        after = new_collection(local_server, "in time")
        assert before not in listener.uuids_until(after)


def test_replay_is_in_order_and_joins_what_is_new(local_server: LocalServer) -> None:
    with listening(local_server) as listener:
        listener.subscribe()
        marker = new_collection(local_server, "marker")
        start = listener.event_on(marker)["id"]
    made = [new_collection(local_server, f"missed {number}") for number in range(5)]
    with listening(local_server) as listener:
        listener.subscribe(last_log_id=start)
        made.append(new_collection(local_server, "new"))
        assert listener.uuids_until(made[-1]) == made
    with listening(local_server) as listener:
        listener.subscribe(last_log_id=str(start))
        assert listener.uuids_until(made[-1]) == made


def test_replay_reaches_back_ten_minutes(fresh_server: LocalServer) -> None:
    old = new_collection(fresh_server, "old")
    recent = new_collection(fresh_server, "recent")
    fresh_server.stop()
    with closing(sqlite3.connect(fresh_server.data_dir / "records.sqlite")) as records, records:
        then = time.strftime("%Y-%m-%dT%H:%M:%S.000000000Z", time.gmtime(time.time() - 700))
        # The ids and the times of events grow together.
        records.execute(
            "UPDATE logs SET event_at = ?, created_at = ? WHERE id <= "
            "(SELECT max(id) FROM logs WHERE object_uuid = ?)",
            (then, then, old),
        )
    fresh_server.start()
    with listening(fresh_server) as listener:
        listener.subscribe(last_log_id=0)
        assert old not in listener.uuids_until(recent)


def test_only_what_the_user_may_see(local_server: LocalServer) -> None:
    _, token = local_server.new_user("listener")
    with listening(local_server, token) as other, listening(local_server) as owner:
        other.subscribe()
        owner.subscribe()
        secret = new_collection(local_server, "secret")
        shared = new_collection(local_server, "theirs", token)
        assert secret not in other.uuids_until(shared)
        assert owner.event_on(secret)["event_type"] == "create"


def test_who_is_given_a_permission_is_told_and_who_loses_it_is_not(local_server: LocalServer) -> None:
    """By a link of the user's own. Of what a role gets, its members are told nothing."""
    reader, token = local_server.new_user("reader")
    project, role = (
        local_server.call("POST", "groups", {"group": {"group_class": kind, "name": f"told {kind}"}}).body[
            "uuid"
        ]
        for kind in ("project", "role")
    )

    def give(tail: str, head: str) -> str:
        link = {"link_class": "permission", "name": "can_read", "tail_uuid": tail, "head_uuid": head}
        return str(local_server.call("POST", "links", {"link": link}).body["uuid"])

    with listening(local_server, token) as listener:
        listener.subscribe()
        own = give(reader, project)
        assert listener.event_on(own)["event_type"] == "create"
        local_server.call("DELETE", f"links/{own}")
        give(reader, role)
        to_role = give(role, project)
        told = listener.uuids_until(new_collection(local_server, "theirs", token))
        assert own not in told
        assert to_role not in told


def test_bad_token_is_refused_before_the_upgrade(local_server: LocalServer) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    for token in ("", "wrong", "v2/zzzzz-gj3su-000000000000000/wrong"):
        path = f"/websocket?api_token={token}"
        assert local_server.call("GET", path, token="", headers=upgrade).status == 401


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"method": "destroy"}',
        '{"method": "subscribe", "filters": 5}',
        '{"method": "subscribe", "filters": [["event_type"]]}',
        '{"method": "subscribe", "filters": [["nope", "=", 1]]}',
        '{"method": "subscribe", "filters": [["event_type", "~", 1]]}',
        '{"method": "subscribe", "filters": [["event_type", "in", 1]]}',
        '{"method": "subscribe", "filters": [["event_type", "like", 1]]}',
        '{"method": "subscribe", "filters": [[["event_type"], "=", 1]]}',
        '{"method": "subscribe", "last_log_id": "many"}',
        '{"method": "subscribe", "last_log_id": 1e999}',
        "[" * 50_000,
    ],
)
def test_senseless_messages(local_server: LocalServer, message: str) -> None:
    with listening(local_server) as listener:
        listener.connection.send(message)
        assert listener.receive() == {"status": 400}
        listener.subscribe()
        uuid = new_collection(local_server, "still alive")
        assert listener.event_on(uuid)


def test_operators_that_compare_strange_values_stay_alive(local_server: LocalServer) -> None:
    with listening(local_server) as listener:
        for operator in ("<", ">=", "=", "in", "not in"):
            operand: Any = [{"a": 1}] if "in" in operator else {"a": 1}
            listener.subscribe([["event_type", operator, operand]])
        listener.subscribe([["id", ">", "0"], ["summary", "like", "%_\\"]])
        listener.subscribe()
        assert listener.event_on(new_collection(local_server, "alive"))


def test_too_large_a_message_ends_the_connection(local_server: LocalServer) -> None:
    with listening(local_server) as listener:
        # A server that ends the connection before all of it was sent may end it before its word is read.
        with suppress(websocket.WebSocketConnectionClosedException, OSError):
            listener.connection.send("x" * 100_000)
            opcode, _ = listener.connection.recv_data()
            assert opcode == websocket.ABNF.OPCODE_CLOSE
        with pytest.raises((websocket.WebSocketConnectionClosedException, OSError)):
            listener.ask("still there?")
    assert local_server.call("GET", "users/current").status == 200


def test_ended_token_ends_its_connection(local_server: LocalServer) -> None:
    _, token = local_server.new_user("shortlived")
    with listening(local_server, token) as listener:
        listener.subscribe()
        admin = local_server.settings.admin_token
        ended = local_server.call("DELETE", f"api_client_authorizations/{token.split('/')[1]}", token=admin)
        assert ended.status == 200
        opcode, data = listener.connection.recv_data()
        assert opcode == websocket.ABNF.OPCODE_CLOSE
        assert int.from_bytes(data[:2], "big") == 1008


def test_reader_that_never_reads_costs_nobody_anything(fresh_server: LocalServer) -> None:
    """Events for a client that does not read wait in the database, and other clients get theirs at once."""
    uuid = new_collection(fresh_server, "busy")

    def rename(numbers: range) -> None:
        for number in numbers:
            renamed = {"collection": {"name": f"{number} " + "\N{DNA DOUBLE HELIX}" * 240}}
            assert fresh_server.call("PUT", f"collections/{uuid}", renamed).status == 200

    rename(range(40))
    with listening(fresh_server) as lazy, listening(fresh_server) as busy:
        # A hundred replays of 40 events of 2 kB: more than the sockets between them hold.
        for number in range(100):
            lazy.send(method="subscribe", filters=[["event_type", "!=", str(number)]], last_log_id=0)
        busy.subscribe()
        rename(range(40, 70))
        names: set[str] = set()
        while len(names) < 30:
            names.add(busy.receive()["properties"]["new_attributes"]["name"])
        assert memory(fresh_server) < 300_000_000
        # What was not read yet is still to be had, every bit of it.
        confirmed = replayed = 0
        while confirmed < 100:
            message = lazy.receive()
            confirmed += message == {"status": 200}
            replayed += "object_uuid" in message
        assert replayed >= 99 * 40


def test_server_says_goodbye(fresh_server: LocalServer) -> None:
    with listening(fresh_server) as listener:
        listener.subscribe()
        assert fresh_server.stop() == 0
        opcode, data = listener.connection.recv_data()
        assert (opcode, int.from_bytes(data[:2], "big")) == (websocket.ABNF.OPCODE_CLOSE, 1001)


def test_stop_does_not_wait_for_one_who_does_not_read(fresh_server: LocalServer) -> None:
    uuid = new_collection(fresh_server, "unread")
    for number in range(40):
        renamed = {"collection": {"name": f"{number} " + "\N{DNA DOUBLE HELIX}" * 240}}
        assert fresh_server.call("PUT", f"collections/{uuid}", renamed).status == 200
    with listening(fresh_server) as lazy, listening(fresh_server) as other:
        for number in range(100):
            lazy.send(method="subscribe", filters=[["event_type", "!=", str(number)]], last_log_id=0)
        other.subscribe()
        started = time.monotonic()
        assert fresh_server.stop() == 0
        assert time.monotonic() - started < 20
        opcode, _ = other.connection.recv_data()
        assert opcode == websocket.ABNF.OPCODE_CLOSE
        lazy.connection.shutdown()  # type: ignore[no-untyped-call]


def test_rejoin_after_a_crash_misses_nothing(fresh_server: LocalServer) -> None:
    with listening(fresh_server) as listener:
        listener.subscribe()
        known = listener.event_on(new_collection(fresh_server, "before"))["id"]
    missed = new_collection(fresh_server, "missed")
    fresh_server.kill()
    fresh_server.start()
    with listening(fresh_server) as listener:
        listener.subscribe(last_log_id=known)
        assert listener.receive()["object_uuid"] == missed


def test_many_listeners(local_server: LocalServer) -> None:
    with ExitStack() as stack:
        listeners = [stack.enter_context(listening(local_server)) for _ in range(40)]
        for listener in listeners:
            listener.subscribe()
        uuid = new_collection(local_server, "famous")
        for listener in listeners:
            assert listener.event_on(uuid)["event_type"] == "create"
