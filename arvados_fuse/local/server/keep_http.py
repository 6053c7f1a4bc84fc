"""One Keep service over HTTP: blocks in and out.

Used by `keep_thread`, which runs all services in one event loop of its own, so that sending blocks never
delays the API. Disk work is done in that loop's worker threads; blocks that are known to be right go out by
sendfile. Requests, statuses and headers are those of Arvados keepstore. There are no Range requests. A
block whose file turns out wrong while it is being sent is cut before its last bytes, as keepstore does.
"""

import asyncio
import hashlib
import io
import logging
import os
import re
from typing import NamedTuple

from aiohttp import web
from aiohttp.typedefs import Handler

from arvados_fuse.local.server.blocks import (
    BLOCK_SIZE_LIMIT,
    CHECK_CHUNK,
    BlockDirectory,
    BlockWriter,
    DiskFull,
    Identity,
    Mismatch,
)
from arvados_fuse.local.server.http_errors import request_id_of
from arvados_fuse.local.server.tokens import TokenCheck, token_of
from arvados_fuse.local.signature import SignatureError, Signer

SMALL = 128 * 1024
"""Blocks up to this size, bytes, are read in the thread that opens them: one hop instead of a sendfile."""

_LOCATOR = re.compile(r"([0-9a-f]{32})\+([0-9]{1,10})((?:\+[A-Z][A-Za-z0-9@_-]*)*)")
_PUT_PATH = re.compile(r"([0-9a-f]{32})(?:\+([0-9]{1,10}))?(?:\+[A-Z][A-Za-z0-9@_-]*)*")

logger = logging.getLogger("arvados.local.keep")


class Settings(NamedTuple):
    """What one service is told: the classes it stores, and whether it takes new blocks."""

    uuid: str
    storage_classes: tuple[str, ...]
    default_classes: tuple[str, ...]
    read_only: bool


class _Opened(NamedTuple):
    """A block ready to go out: either its bytes (`data`), or a descriptor; `checked`: its md5 is known
    right.
    """

    descriptor: int
    size: int
    checked: bool
    data: bytes | None


class KeepService:
    """The request handlers of one service; lives in one event loop."""

    def __init__(
        self, settings: Settings, blocks: BlockDirectory, signer: Signer, tokens: TokenCheck
    ) -> None:
        self._settings = settings
        self._blocks = blocks
        self._signer = signer
        self._tokens = tokens

    def application(self) -> web.Application:
        """Return the routes as an aiohttp application."""
        app = web.Application(client_max_size=BLOCK_SIZE_LIMIT, middlewares=[_outer_edge])
        app.router.add_get("/_health/ping", self._ping)
        app.router.add_get("/status.json", self._status)
        app.router.add_get("/{locator}", self._get, allow_head=False)
        app.router.add_head("/{locator}", self._head)
        app.router.add_put("/{locator}", self._put, expect_handler=_answer_expect_later)
        return app

    async def _ping(self, _request: web.Request) -> web.Response:
        return web.json_response({"health": "OK"})

    async def _status(self, _request: web.Request) -> web.Response:
        free = await asyncio.to_thread(self._blocks.free)
        volume = {"UUID": self._settings.uuid, "BytesFree": free, "ReadOnly": self._settings.read_only}
        return web.json_response({"Volumes": [volume]})

    # Reading

    async def _permitted(self, request: web.Request) -> tuple[str, int, str]:
        """Return md5, size and token of a read that is allowed; else raise the refusal."""
        token = await self._authenticated(request)
        match = _LOCATOR.fullmatch(request.match_info["locator"])
        if match is None:
            raise web.HTTPBadRequest(text="not a block locator\n")
        try:
            self._signer.verify(match[0], token)
        except SignatureError as error:
            raise web.HTTPForbidden(text=f"{error}\n") from None
        return match[1], int(match[2]), token

    async def _authenticated(self, request: web.Request) -> str:
        token = token_of(request.headers)
        if not token:
            raise web.HTTPUnauthorized(text="no token\n")
        if not self._tokens.known_good(token) and not await asyncio.to_thread(self._tokens.check, token):
            raise web.HTTPUnauthorized(text="not a valid token\n")
        return token

    async def _head(self, request: web.Request) -> web.Response:
        md5, size, token = await self._permitted(request)
        opened = await asyncio.to_thread(self._open, md5, size, 0)
        os.close(opened.descriptor)
        response = web.Response(headers={"Content-Length": str(opened.size)})
        response.content_type = "application/octet-stream"
        if request.headers.get("X-Keep-Signature", "").split(",")[0].strip() == "local":
            response.headers["X-Keep-Locator"] = self._signer.sign(f"{md5}+{opened.size}", token)
        return response

    async def _get(self, request: web.Request) -> web.StreamResponse:
        md5, size, _ = await self._permitted(request)
        opened = await asyncio.to_thread(self._open, md5, size, SMALL)
        if opened.data is not None:
            return web.Response(body=opened.data, content_type="application/octet-stream")
        with io.FileIO(opened.descriptor) as file:
            response = web.StreamResponse(headers={"Content-Length": str(opened.size)})
            response.content_type = "application/octet-stream"
            await response.prepare(request)
            try:
                whole = await self._send(request, response, file, md5, opened)
            except ConnectionError:
                raise
            except OSError as error:
                logger.error("Block %s can't be read: %s", md5, error)
                whole = False
            if whole:
                await response.write_eof()
            elif request.transport is not None:
                # The head has promised the bytes; only a cut says that they will not come.
                request.transport.abort()
            return response

    def _open(self, md5: str, size: int, read_up_to: int) -> _Opened:
        """Open a block, or raise 404. Blocks of at most `read_up_to` bytes are read and closed."""
        if size == 0 and md5 == hashlib.md5(usedforsecurity=False).hexdigest():
            if read_up_to:
                return _Opened(-1, 0, True, b"")
            return _Opened(os.open(os.devnull, os.O_RDONLY), 0, True, None)
        descriptor = self._blocks.open(md5)
        if descriptor is None:
            raise web.HTTPNotFound(text=f"{md5}+{size} is not here\n")
        try:
            identity = Identity.of(os.fstat(descriptor))
            if identity.size != size:
                logger.error("Block %s is %d bytes here, asked for %d", md5, identity.size, size)
                raise web.HTTPNotFound(text=f"{md5}+{size} is not here\n")
            checked = self._blocks.checked.has(md5, identity)
            if size > read_up_to:
                return _Opened(descriptor, size, checked, None)
            data = os.read(descriptor, size)
            if not checked:
                if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
                    logger.error("Block %s is corrupt on disk", md5)
                    raise web.HTTPNotFound(text=f"{md5}+{size} is corrupt here\n")
                self._blocks.checked.add(md5, identity)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return _Opened(-1, size, True, data)

    async def _send(
        self,
        request: web.Request,
        response: web.StreamResponse,
        file: io.FileIO,
        md5: str,
        opened: _Opened,
    ) -> bool:
        """Send a block's bytes after the head; return whether they were all there, and right."""
        if not opened.checked:
            return await self._send_checking(response, file, md5)
        if request.transport is None:
            raise ConnectionResetError
        return await asyncio.get_running_loop().sendfile(request.transport, file) == opened.size

    async def _send_checking(self, response: web.StreamResponse, file: io.FileIO, md5: str) -> bool:
        """Send a block while hashing it; its last bytes leave only when the md5 is right."""
        identity = Identity.of(os.fstat(file.fileno()))
        digest = hashlib.md5(usedforsecurity=False)

        def next_piece() -> bytes:
            piece = file.read(CHECK_CHUNK)
            digest.update(piece)
            return piece

        held = b""
        while piece := await asyncio.to_thread(next_piece):
            if held:
                await response.write(held)
            held = piece
        if digest.hexdigest() != md5:
            logger.error("Block %s is corrupt on disk; the answer is cut", md5)
            return False
        self._blocks.checked.add(md5, identity)
        await response.write(held)
        return True

    # Writing

    async def _put(self, request: web.Request) -> web.Response:
        token = await self._authenticated(request)
        match = _PUT_PATH.fullmatch(request.match_info["locator"])
        if match is None:
            raise web.HTTPBadRequest(text="not a block hash\n")
        if self._settings.read_only:
            raise web.HTTPServiceUnavailable(text="this service is read-only\n")
        classes = self._classes_to_confirm(request)
        announced = request.content_length
        if announced is not None and announced > BLOCK_SIZE_LIMIT:
            raise web.HTTPRequestEntityTooLarge(BLOCK_SIZE_LIMIT, announced, text="larger than 64 MiB\n")
        try:
            writer = await asyncio.to_thread(self._blocks.writer, announced or 0)
            try:
                await self._receive(request, writer)
                if match[2] is not None and int(match[2]) != writer.size:
                    raise Mismatch
                await asyncio.to_thread(writer.commit, match[1])
            finally:
                await asyncio.to_thread(writer.discard)
        except DiskFull:
            raise web.HTTPServiceUnavailable(text="full\n") from None
        except Mismatch:
            raise web.HTTPUnprocessableEntity(text="the bytes do not match the hash\n") from None
        signed = self._signer.sign(f"{match[1]}+{writer.size}", token)
        return web.Response(
            text=f"{signed}\n",
            headers={
                "X-Keep-Replicas-Stored": "1",
                "X-Keep-Storage-Classes-Confirmed": ", ".join(f"{name}=1" for name in classes),
            },
        )

    def _classes_to_confirm(self, request: web.Request) -> list[str]:
        """Return the storage classes to confirm; none of the wanted ones known here is a refusal, as in
        keepstore.
        """
        wanted = [name.strip() for name in request.headers.get("X-Keep-Storage-Classes", "").split(",")]
        wanted = [name for name in wanted if name] or list(self._settings.default_classes)
        known = [name for name in wanted if name in self._settings.storage_classes]
        if not known:
            raise web.HTTPServiceUnavailable(text="no volume of that storage class\n")
        return known

    async def _receive(self, request: web.Request, writer: BlockWriter) -> None:
        """Pass the body to the writer, a chunk at a time. Raises 413 for more than a block."""
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        pending = bytearray()
        received = 0
        # One piece is hashed and written while the next one arrives.
        writing: asyncio.Task[None] | None = None
        try:
            async for piece in request.content.iter_any():
                received += len(piece)
                if received > BLOCK_SIZE_LIMIT:
                    raise web.HTTPRequestEntityTooLarge(
                        BLOCK_SIZE_LIMIT, received, text="larger than 64 MiB\n"
                    )
                pending += piece
                if len(pending) >= CHECK_CHUNK:
                    if writing is not None:
                        await writing
                    writing = asyncio.create_task(asyncio.to_thread(writer.write, pending))
                    pending = bytearray()
        finally:
            if writing is not None:
                await writing
        await asyncio.to_thread(writer.write, pending)


async def _answer_expect_later(_request: web.Request) -> None:
    """Leave `Expect: 100-continue` to the handler, which can refuse before 64 MiB travel for nothing."""


@web.middleware
async def _outer_edge(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever goes wrong into an answer and one log line; no bug takes the service down."""
    request_id = request_id_of(request)
    try:
        response = await handler(request)
    except web.HTTPException as refusal:
        refusal.headers["X-Request-Id"] = request_id
        raise
    except ConnectionError:
        # The client has gone; aiohttp notices that nobody is there for this answer.
        logger.info("%s %s was cut by the client", request.method, request.path.split("+")[0])
        return web.Response(status=400)
    except OSError as error:
        logger.error("%s %s: %s", request.method, request.path.split("+")[0], error)
        raise web.HTTPServiceUnavailable(text="the disk of this service failed or is full\n") from None
    except Exception:
        logger.exception("Unexpected failure in %s %s", request.method, request.path.split("+")[0])
        raise web.HTTPInternalServerError(text="internal error\n") from None
    if not response.prepared:
        response.headers["X-Request-Id"] = request_id
    return response
