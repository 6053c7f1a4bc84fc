"""All Keep services of the process, in one thread with an event loop of its own.

Used by `process`. `start` and `stop` are called by the main thread; everything else runs in the Keep thread.
"""

import asyncio
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from arvados_fuse.local.server.keep_http import KeepService

WORKERS = 16
"""Threads for disk work: most of them wait for fsync at any time."""

START_DEADLINE = 10.0
"""Seconds; starting only puts sockets into the loop."""

READ_AHEAD = 2 * 1024 * 1024
"""Bytes of a body that may wait in memory, per connection; with aiohttp's 64 KiB uploads are a fifth
slower.
"""

GRACE = 5.0
"""Seconds that blocks under way get to finish when the server stops."""


class KeepThread:
    """Serves each `(listening socket, service)` until stopped."""

    def __init__(self, services: Sequence[tuple[socket.socket, KeepService]]) -> None:
        self._services = services
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main, name="keep", daemon=True)

    def start(self) -> None:
        """Start the thread and return when the services answer. Raises RuntimeError when they don't."""
        self._thread.start()
        if not self._ready.wait(START_DEADLINE):
            raise RuntimeError("the Keep services did not start")

    def stop(self) -> None:
        """Let what is under way finish, for a few seconds, and end the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(GRACE * 2)

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        with ThreadPoolExecutor(WORKERS, "keep-disk") as executor:
            self._loop.set_default_executor(executor)
            self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        runners = []
        try:
            for listener, service in self._services:
                runner = web.AppRunner(
                    service.application(),
                    access_log=None,
                    shutdown_timeout=GRACE,
                    read_bufsize=READ_AHEAD,
                )
                runners.append(runner)
                await runner.setup()
                await web.SockSite(runner, listener).start()
            self._ready.set()
            await self._stop.wait()
        finally:
            for runner in runners:
                await runner.cleanup()
