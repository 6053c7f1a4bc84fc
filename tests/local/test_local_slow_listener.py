"""The event server in process, with a deadline short enough to watch: who takes nothing is cut."""

import asyncio
import base64
import logging
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aiohttp import web

from arvados_fuse.local.records import Records
from arvados_fuse.local.server.events import EventServer
from arvados_fuse.local.server.tokens import TokenCheck
from arvados_fuse.local.site import SiteConfig


def frame(text: str) -> bytes:
    """Return a text frame as a client sends it, masked with zeros."""
    data = text.encode()
    assert len(data) < 126
    return bytes([0x81, 0x80 | len(data)]) + bytes(4) + data


async def cut_after(records: Records, token: str, deadline: float, was_cut: Callable[[], bool]) -> bytes:
    """Subscribe, take nothing until the server has had enough, then read until the connection ends.

    Return all that came.
    """
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(2) as executor:
        newest = records.last_event_id()
        events = EventServer(
            records, TokenCheck(lambda _: True), newest_id=newest, executor=executor, send_deadline=deadline
        )

        def changed(newest_id: int) -> None:
            loop.call_soon_threadsafe(events.advance, newest_id)

        records.on_change(changed)
        app = web.Application()
        app.router.add_get("/websocket", events.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await web.SockSite(runner, listener).start()
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        try:
            await loop.sock_connect(client, listener.getsockname())
            key = base64.b64encode(bytes(16)).decode()
            head = f"GET /websocket?api_token={token} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
            head += f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
            await loop.sock_sendall(client, head.encode() + frame('{"method": "subscribe"}'))
            said = b""
            while b'"status":200' not in said:
                said += await loop.sock_recv(client, 65536)
            for number in range(300):
                body = {"collection": {"name": f"{number} " + "\N{DNA DOUBLE HELIX}" * 240}}
                await asyncio.to_thread(records.call, token, "collections", "create", body)
            while not was_cut():  # the caller bounds this
                await asyncio.sleep(0.01)
            while piece := await loop.sock_recv(client, 65536):
                said += piece
        except ConnectionResetError:
            pass
        finally:
            client.close()
            await runner.cleanup()
    return said


def test_who_takes_nothing_is_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="arvados.local.events")
    site = SiteConfig.new()
    records = Records.open(tmp_path / "records.sqlite", site)
    try:
        cut = cut_after(records, site.system_root_token, 0.3, lambda: "was cut" in caplog.text)
        said = asyncio.run(asyncio.wait_for(cut, 60))
    finally:
        records.close()
    assert 0 < said.count(b'"object_uuid"') < 300
