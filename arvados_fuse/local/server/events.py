"""Events over websockets: each connection is told of the changes that it subscribed to and may see.

Used by `process`. Lives in the main event loop; the database is read in worker threads. A connection keeps
only the id of the last event it handled and reads on from there when it is woken, so a slow reader costs no
memory: it lags, and is cut when it takes nothing for a minute. The messages are those of Arvados' websocket
server.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple, Protocol

from aiohttp import WSCloseCode, WSMsgType, web

from arvados_fuse.local.records.apierror import ApiError
from arvados_fuse.local.records.identifiers import unix_time
from arvados_fuse.local.records.logs import LogRow
from arvados_fuse.local.server.event_filters import EventFilter, parse_filter
from arvados_fuse.local.server.http_errors import error_response, request_id_of
from arvados_fuse.local.server.tokens import TokenCheck, token_of

REPLAY_SECONDS = 600.0
"""How far back `last_log_id` reaches, as Arvados has it."""

BATCH = 200
"""Events read from the database at a time."""

SEND_DEADLINE = 60.0
"""Seconds that a client may take nothing before it is cut."""

CLOSE_DEADLINE = 3.0
"""Seconds for a client to take the goodbye."""

PING_SECONDS = 30.0
TOKEN_SECONDS = 5.0
"""How often a silent connection's token is checked."""

MAX_MESSAGE = 64 * 1024
MAX_SUBSCRIPTIONS = 100
MAX_CONNECTIONS = 500

logger = logging.getLogger("arvados.local.events")


class EventSource(Protocol):
    """The records, as far as events need them."""

    def events_after(self, last_id: int, limit: int) -> Sequence[LogRow]:
        """Return at most `limit` events with ids above `last_id`, oldest first."""

    def visible_to(self, token: str, row: LogRow) -> bool:
        """Return whether the token's user may see the event. Raises ApiError for a bad token."""


class _Command(NamedTuple):
    """What a client asked for; `filters` is None when its message made no sense."""

    method: str
    filters: EventFilter | None
    last_log_id: int | None


class EventServer:
    """Accepts connections and wakes them when there is news."""

    def __init__(
        self,
        source: EventSource,
        tokens: TokenCheck,
        *,
        newest_id: int,
        executor: Executor,
        send_deadline: float = SEND_DEADLINE,
    ) -> None:
        self.newest_id = newest_id
        self.send_deadline = send_deadline
        self._source = source
        self._tokens = tokens
        self._executor = executor
        self._connections: set[_Connection] = set()

    def advance(self, newest_id: int) -> None:
        """Wake the connections; to be called in the loop (`call_soon_threadsafe`) after each change."""
        self.newest_id = max(self.newest_id, newest_id)
        for connection in self._connections:
            connection.wake()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one websocket until it ends. 401 before the upgrade for a bad token."""
        request_id = request_id_of(request)
        token = request.query.get("api_token", "") or token_of(request.headers)
        if not await self._in_thread(lambda: self._tokens.check(token)):
            return error_response(401, ["Not logged in"], request_id)
        if len(self._connections) >= MAX_CONNECTIONS:
            return error_response(503, ["Too many event connections"], request_id)
        socket = web.WebSocketResponse(heartbeat=PING_SECONDS, max_msg_size=MAX_MESSAGE)
        await socket.prepare(request)
        connection = _Connection(self, socket, request.transport, token)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
        return socket

    async def close(self) -> None:
        """Say goodbye to every client; to be called before the server stops."""
        goodbyes = [each.close(WSCloseCode.GOING_AWAY, b"the server stops") for each in self._connections]
        await asyncio.gather(*goodbyes)

    async def token_is_good(self, token: str) -> bool:
        """Return whether a token is (still) good."""
        return bool(await self._in_thread(lambda: self._tokens.check(token)))

    async def read(
        self, token: str, after: int, wanted: Callable[[LogRow], bool]
    ) -> tuple[list[LogRow], int, bool]:
        """Return the wanted and visible events of the next batch, the last id in it, and whether it was
        empty.
        """

        def work() -> tuple[list[LogRow], int, bool]:
            rows = self._source.events_after(after, BATCH)
            # One object often changes many times in a row, and each look at the permissions is a query.
            seen: dict[tuple[str, str, str], bool] = {}
            chosen = []
            for row in rows:
                if wanted(row):
                    key = (row.object_uuid, row.object_owner_uuid, row.owner_uuid)
                    if key not in seen:
                        seen[key] = self._source.visible_to(token, row)
                    if seen[key]:
                        chosen.append(row)
            return chosen, rows[-1].id if rows else after, not rows

        result: tuple[list[LogRow], int, bool] = await self._in_thread(work)
        return result

    async def recent_after(self, last_id: int, until: int) -> int:
        """Return the id after which all events up to `until` are recent enough to be sent again."""
        oldest = time.time() - REPLAY_SECONDS

        def work() -> int:
            low, high = max(0, last_id), until
            while low < high:
                middle = (low + high) // 2
                rows = self._source.events_after(middle, 1)
                if rows and unix_time(rows[0].event_at) < oldest:
                    low = rows[0].id
                else:
                    high = middle
            return low

        return int(await self._in_thread(work))

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


class _Connection:
    """One client: its subscriptions and how far it has been told."""

    def __init__(
        self,
        server: EventServer,
        socket: web.WebSocketResponse,
        transport: asyncio.BaseTransport | None,
        token: str,
    ) -> None:
        self._server = server
        self._socket = socket
        self._transport = transport
        self._token = token
        self._subscriptions: list[EventFilter] = []
        # A client that sends faster than it is served is not read from: the queue is short.
        self._commands: asyncio.Queue[_Command] = asyncio.Queue(16)
        self._news = asyncio.Event()
        self._told = server.newest_id

    def wake(self) -> None:
        """Look for news."""
        self._news.set()

    async def run(self) -> None:
        """Serve the client until either side ends it."""
        reader = asyncio.create_task(self._read_commands())
        try:
            while not reader.done():
                await self._wait()
                while not self._commands.empty():
                    await self._obey(self._commands.get_nowait())
                await self._tell_news()
                if not await self._server.token_is_good(self._token):
                    await self.close(WSCloseCode.POLICY_VIOLATION, b"the token is not valid any more")
                    break
        except ApiError:
            await self.close(WSCloseCode.POLICY_VIOLATION, b"the token is not valid any more")
        except ConnectionError:
            # The client has gone without a word.
            pass
        except asyncio.TimeoutError:
            logger.info("An event connection was cut: it took nothing for %.0f s", self._server.send_deadline)
            self._cut()
        finally:
            reader.cancel()

    async def close(self, code: int, reason: bytes) -> None:
        """End the connection; a client that does not take the goodbye is cut."""
        try:
            await asyncio.wait_for(self._socket.close(code=code, message=reason), CLOSE_DEADLINE)
        except (asyncio.TimeoutError, ConnectionError):
            self._cut()

    def _cut(self) -> None:
        # Not a close: that would wait until the client has taken what was sent before.
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.abort()

    async def _wait(self) -> None:
        try:
            await asyncio.wait_for(self._news.wait(), TOKEN_SECONDS)
        except asyncio.TimeoutError:
            return
        self._news.clear()

    async def _read_commands(self) -> None:
        try:
            async for message in self._socket:
                text = message.data if message.type == WSMsgType.TEXT else ""
                await self._commands.put(_parse_command(text))
                self._news.set()
        finally:
            self._news.set()

    async def _obey(self, command: _Command) -> None:
        if command.filters is None:
            await self._send({"status": 400})
        elif command.method == "unsubscribe":
            known = [each for each in self._subscriptions if each.filters == command.filters.filters]
            if known:
                self._subscriptions.remove(known[0])
            await self._send({"status": 200 if known else 400})
        elif len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            await self._send({"status": 400})
        else:
            # What came before this subscription is not for it, unless it asks for it.
            await self._tell_news()
            if not self._subscriptions:
                self._told = self._server.newest_id
            await self._send({"status": 200})
            if command.last_log_id is not None:
                await self._replay(command.filters, command.last_log_id)
            self._subscriptions.append(command.filters)

    async def _replay(self, filters: EventFilter, last_log_id: int) -> None:
        """Send again what this subscription missed after `last_log_id`, as far back as ten minutes."""
        until = self._told
        position = await self._server.recent_after(last_log_id, until)

        def wanted(row: LogRow) -> bool:
            return row.id <= until and filters.matches(row)

        while position < until:
            rows, position, empty = await self._server.read(self._token, position, wanted)
            if empty:
                break
            for row in rows:
                await self._send(_message(row))

    async def _tell_news(self) -> None:
        if not self._subscriptions:
            self._told = self._server.newest_id
        while self._told < self._server.newest_id:
            rows, position, empty = await self._server.read(self._token, self._told, self._wants)
            if empty:
                # Announced but not there: the row was removed. Nothing to tell.
                position = self._server.newest_id
            for row in rows:
                await self._send(_message(row))
            self._told = position

    def _wants(self, row: LogRow) -> bool:
        return any(each.matches(row) for each in self._subscriptions)

    async def _send(self, message: dict[str, Any]) -> None:
        text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
        await asyncio.wait_for(self._socket.send_str(text), self._server.send_deadline)


def _parse_command(text: str) -> _Command:
    nonsense = _Command("", None, None)
    try:
        message = json.loads(text)
        if not isinstance(message, dict) or message.get("method") not in ("subscribe", "unsubscribe"):
            return nonsense
        filters = parse_filter(message.get("filters"))
        last_log_id = message.get("last_log_id")
        # arvados.events takes numbers from its callers as they come, and some give text.
        last_log_id = None if last_log_id is None else int(last_log_id)
    except (ValueError, TypeError, RecursionError, OverflowError):
        return nonsense
    return _Command(message["method"], filters, last_log_id)


def _message(row: LogRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "uuid": row.uuid,
        "object_uuid": row.object_uuid,
        "object_owner_uuid": row.object_owner_uuid,
        "object_kind": row.object_kind,
        "event_type": row.event_type,
        "event_at": row.event_at,
        "properties": dict(row.properties),
    }
