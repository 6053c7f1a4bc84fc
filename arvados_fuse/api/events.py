"""The news of a cluster: a thread that follows its events and puts them, as values, on a queue.

Used by `cli/build.py`, which makes the queue and hands its other end to the tree. Values come in order:
a `Change` for each event, once; `Lost` when something may have been missed; `Status` when events begin or
cease to arrive. Over the websocket where the cluster has one that works, else by asking for `logs`.
`start` after the fork; `status`, `start`, `close` may be called by any thread.
"""

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from arvados_fuse.api.changes import EVENTS, Change, change_of, log_id_of
from arvados_fuse.api.event_socket import EventSocket
from arvados_fuse.api.polling import LogSource, Polling, TooFarBehind
from arvados_fuse.api.received import Received
from arvados_fuse.api.settings import ApiSettings
from arvados_fuse.errors import AccessDenied, ArvadosFuseError, BadAnswer, RequestRefused, Unreachable

logger = logging.getLogger("arvados.api")

FILTERS = [["event_type", "in", list(EVENTS)]]
"""Of the subscription. (The Arvados websocket server knows filters on event_type alone, and only `in`.)"""
NOTHING = [["event_type", "in", ["none"]]]
"""A second subscription, to nothing: its answer comes after the replay that the first one asked for."""
REPLAY_REACH = 570.0
"""Seconds that a replay surely reaches back: Arvados has ten minutes, and clocks differ."""
TOKEN_LOOK = 1.0
"""Seconds between two looks at the token while there is no connection."""
MOST_WAITING = 50_000
"""Values on the queue at which changes are thrown away, for one `Lost`."""

State = Literal["connected", "polling", "disconnected"]


@dataclass(frozen=True)
class Status:
    """connected: events arrive as they happen; polling: within some seconds; disconnected: not at all.

    since: time.monotonic(). reason: why it is not connected, in words without secrets.
    """

    state: State
    since: float
    reason: str = ""


@dataclass(frozen=True)
class Lost:
    """Events were missed: whatever was learned before `before` (time.monotonic()) may have changed since."""

    before: float
    reason: str


News = Change | Lost | Status


@dataclass(frozen=True)
class Pace:
    """Times in seconds. A dead connection is noticed within `ping_after` + `pong_within`."""

    connect_within: float = 10.0
    answer_within: float = 20.0
    ping_after: float = 15.0
    pong_within: float = 10.0
    first_pause: float = 0.25
    longest_pause: float = 30.0
    cut_pause: float = 2.0
    """The longest pause after a connection that had worked."""
    steady_after: float = 2.0
    """A connection that lived so long was a good one: the next pause is short again."""
    poll_every: float = 5.0
    close_within: float = 2.0


class _Renew(Exception):
    """The token has changed: connect anew."""


class EventListener:
    """Follows the events that the holder of `token()` may see. Constructing does nothing.

    url: the cluster's `websocketUrl`, "" for none. logs: where to ask when there is no websocket.
    token: asked at each connect, and compared while connected.
    """

    def __init__(
        self,
        settings: ApiSettings,
        logs: LogSource,
        news: "queue.SimpleQueue[News]",
        *,
        url: str,
        token: Callable[[], str],
        pace: Pace | None = None,
    ) -> None:
        self._settings = settings
        self._url = url
        self._token = token
        self._news = news
        self._pace = pace or Pace()
        self._received = Received()
        self._polling = Polling(logs, self._received, FILTERS)
        self._status = Status("disconnected", time.monotonic(), "not started")
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._socket: EventSocket | None = None
        self._thread: threading.Thread | None = None
        # The rest belongs to the thread. Until then nothing was missed: time.monotonic() and time.time().
        self._whole_until = float("-inf"), float("-inf")
        self._swamped = False
        self._used_token = ""
        self._failures = 0
        self._failure = ""
        self._warned = False
        self._poll_at = float("-inf")

    def status(self) -> Status:
        """What is true now. (On the queue it comes in its place among the changes.)"""
        return self._status

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, whatever it is waiting for; nothing comes onto the queue after. Safe to call twice.

        Comes back within `close_within` seconds. (Only while the operating system looks up a name or a
        connection is being made can the thread be there longer; it ends by itself.)
        """
        with self._lock:
            self._stopping.set()
            connection = self._socket
        if connection is not None:
            connection.interrupt()
        if self._thread is not None:
            self._thread.join(self._pace.close_within)

    # The thread

    def _run(self) -> None:
        try:
            self._listen()
        except Exception:
            logger.exception("Listening to events failed unexpectedly")
            self._tell(Lost(time.monotonic(), "listening failed"))
            self._become("disconnected", "listening failed")

    def _listen(self) -> None:
        pace = self._pace
        pause = pace.first_pause
        while not self._stopping.is_set():
            error = self._attempt()
            if error is None:
                continue
            was = self._status
            self._note_failure(error)
            if was.state == "connected":
                if time.monotonic() - was.since >= pace.steady_after:
                    pause, self._failures = pace.first_pause, 1
                pause = min(pause, pace.cut_pause)
            self._bridge(pause * random.uniform(0.5, 1.0) if self._url else float("inf"))
            pause = min(pause * 2, pace.longest_pause)

    def _attempt(self) -> ArvadosFuseError | None:
        """Follow the websocket until that ends; why it did (None: in good order, to connect anew)."""
        if not self._url:
            return RequestRefused("the cluster has no event server")
        try:
            token = self._token()
            if self._used_token not in ("", token):
                self._tell(Lost(time.monotonic(), "another token, which may see other things"))
            self._used_token = token
            try:
                self._find_position()
            except ArvadosFuseError as error:
                logger.debug("The subscription alone must do, the newest event is not known: %s", error)
            connection = EventSocket(
                self._url, token, ca_file=self._settings.ca_file, insecure=self._settings.insecure
            )
            with self._lock:
                self._socket = connection
            try:
                if not self._stopping.is_set():
                    connection.open(self._pace.connect_within)
                    self._subscribe(connection)
                    self._follow(connection, token)
            finally:
                with self._lock:
                    self._socket = None
                connection.close()
        except _Renew:
            return None
        except ArvadosFuseError as error:
            return error
        return None

    def _subscribe(self, connection: EventSocket) -> None:
        """Ask for events, and for those missed; comes back when all of these have come."""
        resume = self._received.resume
        wanted: dict[str, Any] = {"method": "subscribe", "filters": FILTERS}
        replayed = bool(resume) and self._ask(connection, {**wanted, "last_log_id": resume})
        if not replayed:
            if not self._ask(connection, wanted):
                raise RequestRefused("the event server refused the subscription", server=connection.server)
            self._received.start(None)
            # What happened between the last look at the logs and this subscription is not known.
            self._tell(Lost(time.monotonic(), "the event server could not tell what was missed"))
        self._ask(connection, {"method": "subscribe", "filters": NOTHING})
        self._hear(connection)
        self._become("connected")

    def _ask(self, connection: EventSocket, message: Mapping[str, Any]) -> bool:
        """Send a command; take the events that come before its answer; whether the server agreed."""
        connection.send(message)
        deadline = time.monotonic() + self._pace.answer_within
        while True:
            answer = connection.receive(min(1.0, self._pace.answer_within))
            if self._stopping.is_set():
                raise Unreachable("the mount ends")
            if answer is not None and "status" in answer and log_id_of(answer) is None:
                return bool(answer["status"] == 200)
            if answer is not None:
                # A replay may be long: as long as it flows it has time.
                deadline = time.monotonic() + self._pace.answer_within
                self._take(answer)
            elif time.monotonic() > deadline:
                raise Unreachable("the event server does not answer", server=connection.server)
            self._relieve()

    def _follow(self, connection: EventSocket, token: str) -> None:
        """Take events until the connection ends, which raises."""
        pace = self._pace
        pinged = False
        while not self._stopping.is_set():
            silent = time.monotonic() - connection.heard_at
            if silent >= pace.ping_after + pace.pong_within:
                raise Unreachable(f"the event server was silent for {silent:.0f} s", server=connection.server)
            if silent >= pace.ping_after:
                if not pinged:
                    connection.ping()
                pinged, patience = True, pace.ping_after + pace.pong_within - silent
            else:
                pinged, patience = False, pace.ping_after - silent
            message = connection.receive(patience)
            if message is not None:
                self._take(message)
            self._hear(connection)
            if self._token() != token:
                raise _Renew

    def _hear(self, connection: EventSocket) -> None:
        """Everything that the server sent until it was last heard has come."""
        self._relieve()
        self._received.settle(connection.heard_at)
        self._whole_until = connection.heard_at, time.time() - (time.monotonic() - connection.heard_at)

    def _take(self, message: Mapping[str, Any]) -> None:
        log_id = log_id_of(message)
        if log_id is None:
            logger.debug("A message that is no event, of %d fields", len(message))
        elif self._received.take(log_id, time.monotonic()):
            change = change_of(message)
            if change is not None:
                self._tell(change)

    # Where to go on

    def _find_position(self) -> None:
        """Learn the newest event's id, where what came before can't be had any more."""
        away = max(time.monotonic() - self._whole_until[0], time.time() - self._whole_until[1])
        if self._received.resume is not None and away < REPLAY_REACH:
            return
        before, wall = time.monotonic(), time.time()
        self._received.start(None)
        self._polling.start_at_newest()
        self._tell(
            Lost(before, f"nothing is known of the last {away:.0f} s" if away < float("inf") else "begin")
        )
        self._whole_until = before, wall

    # Without websocket

    def _bridge(self, pause: float) -> None:
        """Wait so long; when the websocket does not come back at once, ask for the logs meanwhile."""
        until = time.monotonic() + pause
        while not self._stopping.is_set() and (now := time.monotonic()) < until:
            if self._url and self._token() != self._used_token:
                return
            if self._failures > 1 or not self._url:
                if now >= self._poll_at:
                    self._poll()
                now = min(until, self._poll_at, time.monotonic() + TOKEN_LOOK)
            else:
                now = min(until, now + TOKEN_LOOK)
            self._stopping.wait(max(0.0, now - time.monotonic()))

    def _poll(self) -> None:
        before, wall = time.monotonic(), time.time()
        self._poll_at = before + self._pace.poll_every * random.uniform(0.8, 1.0)
        try:
            self._find_position()
            for record in self._polling.records():
                if self._stopping.is_set():
                    return
                self._take(record)
        except TooFarBehind:
            self._received.start(None)
            self._poll_at = before
        except ArvadosFuseError as error:
            self._become("disconnected", f"{self._failure}; {error}")
        else:
            self._received.settle(before)
            self._whole_until = before, wall
            self._become("polling", self._failure)
        self._relieve()

    # Telling

    def _note_failure(self, error: ArvadosFuseError) -> None:
        self._failure = str(error)
        self._failures += 1
        if isinstance(error, (RequestRefused, AccessDenied, BadAnswer)):
            self._failures = max(self._failures, 2)
        self._become("polling" if self._status.state == "polling" else "disconnected", self._failure)
        if self._failures > 1 and self._url and not self._warned:
            self._warned = True
            logger.warning("Events do not arrive over the websocket: %s", error)

    def _become(self, state: State, reason: str = "") -> None:
        if self._stopping.is_set():
            return
        if state == "connected" and self._warned:
            self._warned = False
            logger.warning("Events arrive over the websocket again")
        old = self._status
        changed = state != old.state
        self._status = Status(state, time.monotonic() if changed else old.since, reason)
        if changed:
            self._news.put(self._status)

    def _tell(self, news: Change | Lost) -> None:
        if self._stopping.is_set():
            return
        if isinstance(news, Change) and (self._swamped or self._news.qsize() >= MOST_WAITING):
            if not self._swamped:
                logger.warning("More than %d events wait to be read: going on without them", MOST_WAITING)
            self._swamped = True
            return
        self._news.put(news)

    def _relieve(self) -> None:
        """Once the queue is shorter again, say that there were changes which it did not get."""
        if self._swamped and self._news.qsize() <= MOST_WAITING // 2:
            self._swamped = False
            self._tell(Lost(time.monotonic(), "too many events at once"))
