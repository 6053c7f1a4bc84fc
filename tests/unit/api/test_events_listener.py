"""The listener against a server that follows a script: breaks, refusals, hostile messages, ends."""

import contextlib
import json
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from event_peers import (
    BINARY,
    CLOSE,
    PING,
    QUICK,
    TEXT,
    TOKEN,
    Logs,
    Peer,
    Script,
    Session,
    event,
    frame,
    gone,
    listening,
)
from servers import wait_for

from arvados_fuse.api import ApiSettings, Change, EventListener, Lost, News, Pace, Status, events
from arvados_fuse.api.events import FILTERS
from arvados_fuse.errors import AccessDenied


@pytest.fixture
def logs() -> Logs:
    made = Logs()
    made.records = [event(10)]
    return made


def play(*steps: Script) -> Script:
    def script(session: Session) -> None:
        for step in steps:
            step(session)

    return script


def agree(*replayed: Any) -> Script:
    return lambda session: session.agree(*replayed)


def tell(*messages: Any) -> Script:
    return lambda session: session.tell(*messages)


def hang_up(session: Session) -> None:
    session.connection.close()


serve = Session.serve


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer(play(agree(), serve))
    yield made
    made.close()


def test_constructing_starts_nothing_and_connects_nowhere(peer: Peer, logs: Logs) -> None:
    threads = threading.active_count()
    source: queue.SimpleQueue[News] = queue.SimpleQueue()
    listener = EventListener(ApiSettings("h", TOKEN), logs, source, url=peer.url, token=lambda: TOKEN)
    assert threading.active_count() == threads
    assert logs.asked == 0
    assert peer.sessions == []
    assert listener.status().state == "disconnected"
    listener.close()
    listener.close()


def test_it_subscribes_from_the_newest_event_and_tells_what_comes(peer: Peer, logs: Logs) -> None:
    peer.scripts = [play(agree(), tell(event(11, 1), event(12, 2)), serve)]
    before = time.monotonic()
    with listening(peer.url, logs) as ear:
        ear.wait_ids(11, 12)
        assert ear.listener.status().state == "connected"
        first, second = peer.sessions[0].commands
        assert first == {"method": "subscribe", "filters": FILTERS, "last_log_id": 10}
        assert second["method"] == "subscribe"
        assert "last_log_id" not in second
        lost, status, *rest = ear.news
        assert isinstance(lost, Lost)
        assert before <= lost.before <= time.monotonic()
        assert isinstance(status, Status)
        assert status.state == "connected"
        assert all(isinstance(one, Change) for one in rest)
        assert f"api_token={quote(TOKEN, safe='')}" in peer.sessions[0].request


def test_what_was_missed_is_asked_for_and_nothing_comes_twice(peer: Peer, logs: Logs) -> None:
    peer.scripts = [
        play(agree(), tell(event(11), event(12)), hang_up),
        play(agree(event(11), event(12), event(13)), tell(event(14), event(13)), hang_up),
        play(agree(event(13), event(14), event(12), event(15)), serve),
    ]
    with listening(peer.url, logs) as ear:
        ear.wait_ids(11, 12, 13, 14, 15)
        ear.wait_state("connected")
        # The events are too young to be sure that none with a lower id follows.
        assert [session.commands[0]["last_log_id"] for session in peer.sessions] == [10, 10, 10]
        assert len(ear.losses) == 1
        assert ear.states[-1] == "connected"


def test_what_came_long_ago_is_not_asked_for_again(
    peer: Peer, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    peer.scripts = [
        play(
            agree(),
            tell(event(11), event(12)),
            lambda session: go.wait(20),
            tell(event(13)),
            hang_up,
        ),
        play(agree(), serve),
    ]
    with listening(peer.url, logs) as ear:
        ear.listener._received._settling = 0.05
        ear.wait_ids(11, 12)
        time.sleep(0.06)  # time itself is what is tested
        go.set()
        ear.wait_ids(11, 12, 13)
        wait_for(lambda: len(peer.sessions) > 1 and peer.sessions[1].commands, "a second connection")
        assert peer.sessions[1].commands[0]["last_log_id"] == 12


def test_events_come_before_the_mark_that_ends_the_replay(peer: Peer, logs: Logs) -> None:
    def script(session: Session) -> None:
        session.command()
        session.tell(event(11))
        session.tell({"status": 200}, event(13), event(12))
        wait_for(lambda: ear.ids == [11, 13, 12], "the replay is told")
        assert ear.listener.status().state == "disconnected"
        session.command()
        session.tell({"status": 200})
        session.serve()

    peer.scripts = [script]
    with listening(peer.url, logs) as ear:
        ear.wait_state("connected")


def test_a_server_that_can_not_replay_means_lost(peer: Peer, logs: Logs) -> None:
    def refuse_replay(session: Session) -> None:
        assert "last_log_id" in session.command()
        session.tell({"status": 400})
        assert "last_log_id" not in session.command()
        session.tell({"status": 200})
        session.command()
        session.tell({"status": 200})
        session.serve()

    peer.scripts = [refuse_replay]
    with listening(peer.url, logs) as ear:
        ear.wait_state("connected")
        assert len(ear.losses) == 2, ear.losses
        assert ear.losses[1].before > ear.losses[0].before


def test_without_logs_the_subscription_alone_counts(peer: Peer, logs: Logs) -> None:
    logs.error = AccessDenied("no logs for you")
    with listening(peer.url, logs) as ear:
        ear.wait_state("connected")
        assert "last_log_id" not in peer.sessions[0].commands[0]
        assert len(ear.losses) == 1


def test_away_for_too_long_means_lost(peer: Peer, logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "REPLAY_REACH", 0.3)
    go = threading.Event()
    peer.scripts = [
        play(agree(), lambda session: go.wait(20), hang_up),
        *[hang_up] * 5,
        play(agree(), serve),
    ]
    with listening(
        peer.url, logs, pace=Pace(**{**vars(QUICK), "poll_every": 60.0, "ping_after": 20.0})
    ) as ear:
        ear.wait_state("connected")
        assert len(ear.losses) == 1
        logs.records.append(event(40))
        logs.error = gone()
        go.set()
        wait_for(lambda: len(peer.sessions) >= 4, "it tries again")
        time.sleep(0.3)  # time itself is what is tested
        logs.error = None
        wait_for(lambda: len(ear.losses) >= 2, "the loss is told")
        ear.wait_state("connected")
        assert peer.sessions[-1].commands[0].get("last_log_id") == 40
        assert ear.ids == []


def test_a_silent_connection_is_noticed(peer: Peer, logs: Logs) -> None:
    deaf = threading.Event()
    peer.scripts = [play(agree(), lambda session: deaf.wait(30)), play(agree(event(11)), serve)]
    begun = time.monotonic()
    with listening(peer.url, logs) as ear:
        ear.wait_ids(11)
        assert time.monotonic() - begun < 5 * (QUICK.ping_after + QUICK.pong_within)
        assert len(peer.sessions) == 2
    deaf.set()


def test_a_quiet_connection_that_answers_pings_stays(peer: Peer, logs: Logs) -> None:
    with listening(peer.url, logs) as ear:
        ear.wait_state("connected")
        time.sleep(4 * QUICK.ping_after)  # time itself is what is tested
        assert ear.listener.status().state == "connected"
        assert len(peer.sessions) == 1


def test_pings_of_the_server_are_answered(peer: Peer, logs: Logs) -> None:
    answers = []

    def script(session: Session) -> None:
        session.agree()
        session.send(PING, b"are you there")
        answers.append(session.receive())
        session.serve()

    peer.scripts = [script]
    with listening(peer.url, logs, pace=Pace(**{**vars(QUICK), "ping_after": 30.0})):
        wait_for(lambda: answers, "an answer")
    assert answers == [(10, b"are you there")]


def test_a_new_token_is_used_at_once(peer: Peer, logs: Logs) -> None:
    token = [TOKEN]
    peer.scripts = [play(agree(), serve), play(agree(event(11)), serve)]
    with listening(peer.url, logs, token=lambda: token[0]) as ear:
        ear.wait_state("connected")
        token[0] = "v2/zzzzz-gj3su-000000000000001/another"
        ear.wait_ids(11)
        assert "another" in peer.sessions[1].request
        assert ear.states == ["connected"]


def refuse(status: int, more: bytes = b"") -> Callable[[socket.socket, str], None]:
    def answer(connection: socket.socket, request: str) -> None:
        connection.sendall(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n%s\r\n" % (status, more))

    return answer


def test_a_refused_token_is_told_and_tried_again_when_it_changes(peer: Peer, logs: Logs) -> None:
    token = [TOKEN]
    peer.handshake = refuse(401)
    logs.error = AccessDenied("wrong token")
    slow = Pace(**{**vars(QUICK), "first_pause": 60.0, "longest_pause": 60.0})
    with listening(peer.url, logs, token=lambda: token[0], pace=slow) as ear:
        wait_for(lambda: "401" in ear.listener.status().reason, "the refusal shows")
        assert ear.listener.status().state == "disconnected"
        peer.handshake = None
        logs.error = None
        token[0] = "fresh"
        ear.wait_state("connected")
        assert "api_token=fresh" in peer.sessions[-1].request


@pytest.mark.parametrize("status", [404, 501, 301, 200, 500])
def test_no_websocket_there_means_polling(peer: Peer, logs: Logs, status: int) -> None:
    peer.handshake = refuse(status, b"Location: ws://127.0.0.1:1/elsewhere\r\n")
    with listening(peer.url, logs) as ear:
        ear.wait_state("polling")
        logs.records += [event(11, 1), event(12, 2)]
        ear.wait_ids(11, 12)
        peer.handshake = None
        peer.scripts = [play(agree(event(11), event(12), event(13)), serve)]
        ear.wait_ids(11, 12, 13)
        ear.wait_state("connected")


def test_a_refused_subscription_means_polling(peer: Peer, logs: Logs) -> None:
    peer.scripts = [play(*[play(lambda session: session.command(), tell({"status": 400}))] * 2, serve)]
    with listening(peer.url, logs) as ear:
        ear.wait_state("polling")
        logs.records.append(event(11))
        ear.wait_ids(11)


def test_polling_reads_all_pages_in_order_and_late_ones_too(logs: Logs) -> None:
    with listening("", logs) as ear:
        ear.wait_state("polling")
        logs.records += [event(number, number) for number in (11, 12, 14, 15, 16, 17, 18, 19)]
        ear.wait_ids(11, 12, 14, 15, 16, 17, 18, 19)
        logs.records.append(event(13, 13))
        ear.wait_ids(11, 12, 14, 15, 16, 17, 18, 19, 13)
        assert ear.states == ["polling"]


def test_polling_that_fails_says_so_and_goes_on(logs: Logs) -> None:
    with listening("", logs) as ear:
        ear.wait_state("polling")
        logs.error = gone()
        ear.wait_state("disconnected")
        assert "the API server is down" in ear.listener.status().reason
        logs.records.append(event(11))
        logs.error = None
        ear.wait_ids(11)
        assert ear.states == ["polling", "disconnected", "polling"]


def test_too_far_behind_means_lost(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arvados_fuse.api.polling.MOST_BEHIND", 9)
    with listening("", logs) as ear:
        ear.wait_state("polling")
        logs.error = gone()
        ear.wait_state("disconnected")
        logs.records += [event(number) for number in range(11, 100)]
        logs.error = None
        wait_for(lambda: len(ear.losses) == 2, "the loss is told")
        logs.records.append(event(200))
        wait_for(lambda: 200 in ear.ids, "it goes on from the end")
        assert 90 not in ear.ids


def test_a_server_that_does_not_advance_is_left(logs: Logs) -> None:
    class Stuck(Logs):
        def logs_after(self, log_id: int, *, filters: Any = ()) -> list[dict[str, Any]]:
            self._ask()
            return [event(10), event("nonsense"), {}]

    stuck = Stuck()
    stuck.records = logs.records
    with listening("", stuck) as ear:
        wait_for(lambda: stuck.asked > 5, "it asks again and again")
        assert ear.ids in ([], [10])


SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
HOSTILE: dict[str, Script] = {
    "no frame": lambda session: session.connection.sendall(b"\xff" * 100),
    "not JSON": lambda session: session.send(TEXT, b"{'id': 1"),
    "not UTF-8": lambda session: session.send(TEXT, b'{"id": "\xff\xfe"}'),
    "a list": lambda session: session.tell([event(11)]),
    "a number": lambda session: session.tell(5),
    "nested": lambda session: session.send(TEXT, b'{"a":' + b"[" * 200_000),
    "a huge number": lambda session: session.send(TEXT, b'{"id":' + b"9" * 10_000 + b"}"),
    "a huge frame": lambda session: session.connection.sendall(frame(TEXT, b"{}", length=1 << 62)),
    "negative length": lambda session: session.connection.sendall(frame(TEXT, b"{}", length=(1 << 64) - 1)),
    "reserved bits": lambda session: session.send(TEXT | 0x40, b"{}"),
    "unknown opcode": lambda session: session.send(3, b"{}"),
    "continuation of nothing": lambda session: session.send(0, b"{}"),
    "two beginnings": lambda session: session.connection.sendall(frame(TEXT, b"{", final=False) * 2),
    "a long ping": lambda session: session.send(PING, b"x" * 1000),
    "a broken close": lambda session: session.send(CLOSE, b"x"),
    "a close with a reason": lambda session: session.send(CLOSE, b"\x03\xf1\xff\xff"),
    "half a frame": play(
        lambda s: s.connection.sendall(frame(TEXT, b"{" * 50)[:20]), lambda s: s.connection.close()
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_connection_that_talks_nonsense_is_left_and_nothing_is_missed(
    peer: Peer, logs: Logs, name: str
) -> None:
    peer.scripts = [play(agree(), HOSTILE[name], serve), play(agree(event(11)), serve)]
    with listening(peer.url, logs) as ear:
        ear.wait_ids(11)
        ear.wait_state("connected")


def test_a_message_without_end_is_left(peer: Peer, logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arvados_fuse.api.event_socket.LONGEST_MESSAGE", 100_000)
    sent = []

    def endless(session: Session) -> None:
        session.agree()
        session.send(TEXT, b'{"', final=False)
        while True:
            session.send(0, b"x" * 10_000, final=False)
            sent.append(1)

    peer.scripts = [endless, play(agree(event(11)), serve)]
    with listening(peer.url, logs) as ear:
        ear.wait_ids(11)
    assert len(sent) < 5000


def test_a_message_that_comes_drop_by_drop_does_not_hold_it_up(peer: Peer, logs: Logs) -> None:
    stop = threading.Event()

    def drip(session: Session) -> None:
        session.agree()
        session.connection.sendall(frame(TEXT, b"", length=60_000))
        while not stop.wait(0.02):
            session.connection.sendall(b" ")

    peer.scripts = [drip, play(agree(event(11)), serve)]
    with listening(peer.url, logs) as ear:
        ear.wait_ids(11)
    stop.set()


def test_a_slow_message_arrives_whole(peer: Peer, logs: Logs) -> None:
    def slow(session: Session) -> None:
        session.agree()
        data = json.dumps(event(11)).encode()
        session.send(TEXT, data[:5], final=False)
        session.send(PING, b"")
        rest = frame(0, data[5:])
        for at in range(0, len(rest), 20):
            session.connection.sendall(rest[at : at + 20])
            time.sleep(0.005)
        session.send(BINARY, json.dumps(event(12)).encode())
        session.serve()

    peer.scripts = [slow]
    with listening(peer.url, logs) as ear:
        ear.wait_ids(11, 12)
        assert len(peer.sessions) == 1


NO_EVENTS = [
    {},
    {"status": 200},
    {"status": [1]},
    {"id": None, "object_uuid": 5},
    {"id": "11"},
    event(0),
    event(-5),
    event(1 << 70),
    event(True),
    event(12, event_type="stderr"),
    event(13, object_uuid="x"),
    {"id": 14},
]


def test_messages_that_are_no_events_are_passed_over(peer: Peer, logs: Logs) -> None:
    peer.scripts = [play(agree(*NO_EVENTS[:-3]), tell(*NO_EVENTS, event(15)), serve)]
    with listening(peer.url, logs) as ear:
        ear.wait_ids(15)
        assert len(peer.sessions) == 1


def test_an_endless_handshake_is_given_up(peer: Peer, logs: Logs) -> None:
    stop = threading.Event()

    def drip(connection: socket.socket, request: str) -> None:
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n")
        while not stop.wait(0.05):
            connection.sendall(b"X-More: 1\r\n")

    peer.handshake = drip
    with listening(peer.url, logs, pace=Pace(**{**vars(QUICK), "connect_within": 0.3})) as ear:
        ear.wait_state("polling")
    stop.set()


@pytest.mark.parametrize(
    "answer",
    [
        SWITCHING + b"\r\n",
        SWITCHING + b"Sec-WebSocket-Accept: x\r\n\r\n",
        b"HTTP/1.1 400 No\r\nContent-Length: 999999999999\r\n\r\n",
        b"HTTP/1.1 400 No\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 400 No\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 \xff\xff\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"\x00\r\n\r\n",
        b"",
    ],
)
def test_handshakes_that_are_nonsense(peer: Peer, logs: Logs, answer: bytes) -> None:
    peer.handshake = lambda connection, request: connection.sendall(answer)
    with listening(peer.url, logs) as ear:
        ear.wait_state("polling")


def test_the_token_is_not_carried_elsewhere(peer: Peer, logs: Logs) -> None:
    other = Peer(serve)
    peer.handshake = refuse(302, b"Location: " + other.url.encode() + b"\r\n")
    with listening(peer.url, logs) as ear:
        ear.wait_state("polling")
    assert other.sessions == []
    other.close()


@pytest.mark.parametrize(
    "url", ["nonsense", "http://127.0.0.1/x", "ws://", "ws://[::1", "wss://127.0.0.1:99999/", "//"]
)
def test_an_address_that_is_nonsense_means_polling(logs: Logs, url: str) -> None:
    with listening(url, logs) as ear:
        ear.wait_state("polling")
        logs.records.append(event(11))
        ear.wait_ids(11)


def test_the_token_is_in_no_log_and_no_reason(
    peer: Peer, logs: Logs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def echo(connection: socket.socket, request: str) -> None:
        """Throw the request back in status, header and body."""
        line = request.split("\r\n")[0].encode()
        body = request.encode()
        connection.sendall(b"HTTP/1.1 400 %s\r\nX-You-Said: %s\r\n" % (line, line))
        connection.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

    def close_with_token(session: Session) -> None:
        session.agree()
        session.send(CLOSE, b"\x03\xf0" + TOKEN.encode())

    def garbage(connection: socket.socket, request: str) -> None:
        connection.sendall(request.split("\r\n")[0].encode() + b"\r\n\r\n")

    reasons = []
    for handshake in (echo, garbage, None):
        peer.handshake = handshake
        peer.scripts = [close_with_token]
        with listening(peer.url, logs) as ear:
            wait_for(lambda: ear.listener.status().reason not in ("", "not started"), "a reason")
            reasons.append(ear.listener.status().reason)
            reasons += [str(one) for one in ear.read()]
    for text in [*reasons, caplog.text]:
        for form in (TOKEN, quote(TOKEN, safe=""), TOKEN.rpartition("/")[2]):
            assert form not in text


@contextlib.contextmanager
def blackhole() -> Iterator[str]:
    """Connections are neither taken nor refused: the queue of those that wait to be accepted is full."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        yield f"wss://127.0.0.1:{address[1]}/websocket"


def test_close_in_the_middle_of_a_connect(logs: Logs) -> None:
    with blackhole() as url:
        pace = Pace(**{**vars(QUICK), "connect_within": 3.0, "close_within": 0.5})
        with listening(url, logs, pace=pace) as ear:
            wait_for(lambda: logs.asked, "it begins")
            time.sleep(0.1)  # nothing shows that a connect is under way
        said = len(ear.read())
        thread = ear.listener._thread
        assert thread is not None
        thread.join(5)
        assert not thread.is_alive()
        assert len(ear.read()) == said, "told something after its end"


def test_close_while_the_server_thinks_about_the_handshake(peer: Peer, logs: Logs) -> None:
    stop = threading.Event()
    peer.handshake = lambda connection, request: stop.wait(30)
    with listening(peer.url, logs, pace=Pace(close_within=2.0)) as ear:
        wait_for(lambda: peer.sessions, "the request is there")
    assert not alive(ear.listener)
    stop.set()


def test_close_while_the_server_thinks_about_the_subscription(peer: Peer, logs: Logs) -> None:
    stop = threading.Event()
    peer.scripts = [lambda session: session.command() and stop.wait(30)]
    with listening(peer.url, logs, pace=Pace(close_within=2.0)) as ear:
        wait_for(lambda: peer.sessions and peer.sessions[0].commands, "the request is there")
    assert not alive(ear.listener)
    stop.set()


def test_close_while_listening_waiting_and_polling(peer: Peer, logs: Logs) -> None:
    with listening(peer.url, logs, pace=Pace()) as ear:
        ear.wait_state("connected")
    assert not alive(ear.listener)
    peer.handshake = refuse(404)
    with listening(peer.url, logs, pace=Pace(first_pause=60.0)) as ear:
        ear.wait_state("polling")
    assert not alive(ear.listener)
    logs.gate.clear()
    with listening("", logs, pace=Pace(close_within=0.3)) as ear:
        wait_for(lambda: logs.asked, "it asks")
    said = ear.read()
    logs.gate.set()
    wait_for(lambda: not alive(ear.listener), "the thread ends")
    assert ear.read() == said


def alive(listener: EventListener) -> bool:
    return listener._thread is not None and listener._thread.is_alive()


def test_more_events_than_anyone_reads_become_one_loss(
    peer: Peer, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_WAITING", 100)
    read, seen = threading.Event(), threading.Event()
    many = [event(number) for number in range(11, 1011)]

    def go_on(session: Any) -> None:
        """Let something happen now and then, until the listener has caught up."""
        read.wait(20)
        for number in range(2000, 2500):
            tell(event(number))(session)
            if seen.wait(0.1):
                return

    peer.scripts = [play(agree(), tell(*many), go_on, serve)]
    with listening(peer.url, logs) as ear:
        wait_for(lambda: ear.queue.qsize() >= 100, "the queue is full")
        ear.read()
        read.set()
        wait_for(lambda: len(ear.losses) > 1 and ear.ids[-1] >= 2000, "the loss is told, then what follows")
        seen.set()
        assert len(ear.ids) < 1000


def test_an_unexpected_failure_ends_in_the_log_and_as_a_loss(
    peer: Peer, logs: Logs, caplog: pytest.LogCaptureFixture
) -> None:
    logs.error = ZeroDivisionError("a bug")
    with listening(peer.url, logs) as ear:
        wait_for(lambda: ear.losses, "the loss is told")
        assert not alive(ear.listener) or ear.listener.status().state == "disconnected"
    assert "ZeroDivisionError" in caplog.text
