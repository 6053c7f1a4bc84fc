"""The HTTPS API: finds the method of a request, decodes its parameters and lets the records answer.

Used by `process`. Runs in the main event loop; decoding, the records (which block on the database) and
encoding happen in worker threads, so the loop stays free for events. Every failure leaves as an Arvados
error answer.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any, Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from arvados_fuse.local.records.apierror import ApiError
from arvados_fuse.local.server.http_errors import error_response, request_id_of
from arvados_fuse.local.server.parameters import (
    BadParameters,
    merge_parameters,
    parse_body,
)
from arvados_fuse.local.server.routing import NoSuchPath, VerbNotAllowed, find_method
from arvados_fuse.local.server.tokens import TokenCheck, token_of

LARGE_BODY = 256 * 1024
"""Bodies above this size, bytes, are only read for a good token, and only a few at a time."""

LARGE_BODIES_AT_ONCE = 2
"""Bounds the memory for bodies: each may be 128 MiB, and about four times that while it is decoded."""

BODY_DEADLINE = 300.0
"""Seconds within which a body must have arrived; the stock SDK gives up after as long."""

PREFIX = "/arvados/v1/"

logger = logging.getLogger("arvados.local.api")


class Answers(Protocol):
    """The records, as far as requests need them."""

    def call(self, token: str, resource: str, method: str, params: dict[str, Any]) -> Any:
        """Return a JSON-able answer or raise ApiError."""


class Api:
    """The request handlers; lives in one event loop. `documents`: path to a document that everybody may
    read.
    """

    def __init__(
        self,
        records: Answers,
        tokens: TokenCheck,
        documents: Mapping[str, Any],
        *,
        max_body: int,
        executor: Executor,
    ) -> None:
        self._records = records
        self._tokens = tokens
        self._documents = {path: _encode(document) for path, document in documents.items()}
        self._max_body = max_body
        self._executor = executor
        self._large_bodies = asyncio.Semaphore(LARGE_BODIES_AT_ONCE)

    def application(self) -> web.Application:
        """Return the routes as an aiohttp application."""
        app = web.Application(client_max_size=self._max_body, middlewares=[self._outer_edge])
        app.router.add_get("/_health/ping", self._ping)
        for path in self._documents:
            app.router.add_get(path, self._document)
        app.router.add_route("*", PREFIX + "{path:.+}", self._call)
        return app

    async def _ping(self, _request: web.Request) -> web.Response:
        return web.json_response({"health": "OK"})

    async def _document(self, request: web.Request) -> web.Response:
        # The stock SDK keeps a discovery document for two days under its URL if it may; the next cluster on
        # this port has other Keep ports and another prefix.
        body = self._documents[request.path]
        return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})

    async def _call(self, request: web.Request) -> web.Response:
        body = await self._body(request)
        started = time.monotonic()
        answer = await self._in_thread(lambda: self._answer(request, body))
        logger.debug("answered in %.1f ms", (time.monotonic() - started) * 1000)
        return web.Response(body=answer, content_type="application/json", charset="utf-8")

    async def _body(self, request: web.Request) -> bytes:
        """Return the body. Large ones must come with a good token, and wait for their turn before they are
        read.
        """
        length = request.content_length
        if not request.can_read_body or (length is not None and length <= LARGE_BODY):
            return await asyncio.wait_for(request.read(), BODY_DEADLINE)
        if length is not None and length > self._max_body:
            raise web.HTTPRequestEntityTooLarge(self._max_body, length)
        token = token_of(request.headers)
        if not await self._in_thread(lambda: self._tokens.check(token)):
            raise ApiError(401, "Not logged in")
        async with self._large_bodies:
            return await asyncio.wait_for(request.read(), BODY_DEADLINE)

    def _answer(self, request: web.Request, body: bytes) -> bytes:
        """Decode, ask the records, encode: all that may take long, in a worker thread."""
        fields = parse_body(request.content_type if "Content-Type" in request.headers else "", body)
        token = token_of(request.headers) or _token_parameter(request, fields)
        verb = request.method
        if verb == "POST":
            # The stock SDK sends a GET with a long query as a POST that names the verb it stands for.
            wanted = (
                request.headers.get("X-HTTP-Method-Override")
                or fields.get("_method")
                or request.query.get("_method")
            )
            verb = str(wanted or verb).upper()
        target = find_method(verb, request.match_info["path"])
        params = merge_parameters(request.query.items(), fields, target)
        return _encode(self._records.call(token, target.resource.name, target.method.name, params))

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    @web.middleware
    async def _outer_edge(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn every failure into an Arvados error answer, and log one line for each request."""
        request_id = request_id_of(request)
        started = time.monotonic()
        try:
            response = await handler(request)
        except Exception as error:
            response = error_response(*_status_and_errors(error), request_id)
            if response.status == 500:
                logger.exception("Unexpected failure in %s %s %s", request.method, request.path, request_id)
        if not response.prepared:
            response.headers["X-Request-Id"] = request_id
        # The path alone: a query may hold a token.
        elapsed = (time.monotonic() - started) * 1000
        logger.info("%s %s %d %.1f ms %s", request.method, request.path, response.status, elapsed, request_id)
        return response


def _status_and_errors(error: Exception) -> tuple[int, list[str]]:
    """Return the HTTP status and the texts for a failure; 500 for what nobody foresaw."""
    if isinstance(error, ApiError):
        return error.status, error.errors
    if isinstance(error, BadParameters):
        return error.status, [str(error)]
    if isinstance(error, NoSuchPath):
        return 404, ["Path not found"]
    if isinstance(error, VerbNotAllowed):
        return 405, ["Method not allowed for this path"]
    if isinstance(error, web.HTTPException):
        return error.status, [error.reason]
    if isinstance(error, ConnectionError):
        return 400, ["The client has gone"]
    if isinstance(error, asyncio.TimeoutError):
        return 408, ["The request did not arrive in time"]
    return 500, ["Internal error; see the server's log"]


def _token_parameter(request: web.Request, fields: Mapping[str, Any]) -> str:
    token = fields.get("api_token") or request.query.get("api_token") or ""
    return token if isinstance(token, str) else ""


def _encode(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
