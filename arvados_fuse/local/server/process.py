"""One server process from start to end: lock, settings, sockets, records, Keep services, API, events.

Used by the command `serve`. The main thread runs the event loop of API and events; Keep has a thread with
its own.
"""

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sqlite3
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

from arvados_fuse.errors import SetupError
from arvados_fuse.local.certificate import ensure_certificate, server_context
from arvados_fuse.local.datadir import DataDirectory, Running, ServerSettings
from arvados_fuse.local.records import ApiError, Records
from arvados_fuse.local.server.api import Api
from arvados_fuse.local.server.blocks import BlockDirectory
from arvados_fuse.local.server.discovery import discovery_document, exported_config
from arvados_fuse.local.server.events import EventServer
from arvados_fuse.local.server.first_start import (
    ensure_user,
    is_valid,
    load_settings,
    load_site,
    register_keep_services,
)
from arvados_fuse.local.server.keep_http import KeepService, Settings
from arvados_fuse.local.server.keep_thread import KeepThread
from arvados_fuse.local.server.listeners import ADDRESS, listen, listen_somewhere
from arvados_fuse.local.server.server_log import start_logging
from arvados_fuse.local.server.tokens import TokenCheck
from arvados_fuse.local.site import SiteConfig

WORKERS = 8
"""Threads for API requests and event reading; SQLite lets one of them write at a time."""

GRACE = 5.0
"""Seconds that requests under way get to finish when the server stops."""

OPEN_FILES = 8192

SWEEP_EVERY = 600.0
"""Seconds between two looks for trash and events whose time is over."""

LONGEST_LINE = 1 << 20
"""Bytes in a request line or header: long filters come in the query."""

logger = logging.getLogger("arvados.local")


class ServeOptions(NamedTuple):
    """What `serve` was told; None means: as before, or the default on the first start."""

    data_dir: Path
    port: int | None = None
    keep_services: int | None = None
    signature_ttl: int | None = None
    debug: bool = False
    until_end_of_input: bool = False
    """Stop when standard input ends: for callers that must not leave a server behind when they die."""
    announce: Callable[[str], None] | None = None
    """Called with `address:port` of the API when the server answers."""


class _Parts(NamedTuple):
    """Everything that `_serve` needs, made before its loop starts."""

    data: DataDirectory
    site: SiteConfig
    settings: ServerSettings
    records: Records
    listener: socket.socket
    tokens: TokenCheck


def serve(options: ServeOptions) -> None:
    """Serve until SIGTERM or SIGINT. Raises SetupError with one sentence when it can't start."""
    os.umask(0o077)
    _allow_open_files()
    data = DataDirectory(options.data_dir)
    data.prepare()
    with data.hold(), contextlib.ExitStack() as stack:
        start_logging(data.log, debug=options.debug)
        stack.callback(logging.shutdown)
        site = load_site(data, options.signature_ttl)
        settings = load_settings(data, site, options.port, options.keep_services)
        listener = stack.enter_context(listen(settings.port, "API"))
        keep_listeners = [stack.enter_context(listen_somewhere(each.port)) for each in settings.keep]
        settings = settings.with_ports(_port(listener), [_port(each) for each in keep_listeners])
        data.save_settings(settings)
        records = _open_records(data, site)
        stack.callback(records.close)
        register_keep_services(records, site, ADDRESS, settings)
        ensure_user(data, records, site)
        tokens = TokenCheck(lambda token: is_valid(records, token))
        keep = KeepThread(_keep_services(data, records, site, settings, tokens, keep_listeners))
        keep.start()
        stack.callback(keep.stop)
        stack.callback(data.running.unlink, missing_ok=True)
        asyncio.run(_serve(_Parts(data, site, settings, records, listener, tokens), options))


async def _serve(parts: _Parts, options: ServeOptions) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    host = f"{ADDRESS}:{parts.settings.port}"
    with ThreadPoolExecutor(WORKERS, "api") as executor:
        events = EventServer(
            parts.records,
            parts.tokens,
            newest_id=parts.records.last_event_id(),
            executor=executor,
        )
        parts.records.on_change(_in_loop(loop, events.advance))
        documents = {
            "/discovery/v1/apis/arvados/v1/rest": discovery_document(parts.site, host),
            "/arvados/v1/config": exported_config(parts.site, host),
            "/arvados/v1/vocabulary": {"strict_tags": False, "tags": {}},
        }
        api = Api(
            parts.records,
            parts.tokens,
            documents,
            max_body=parts.site.max_request_size,
            executor=executor,
        )
        app = api.application()
        app.router.add_get("/websocket", events.handle)
        runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=GRACE,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
        )
        await runner.setup()
        try:
            context = server_context(ensure_certificate(parts.data.tls))
            await web.SockSite(runner, parts.listener, ssl_context=context).start()
            keep = [f"http://{ADDRESS}:{each.port}/" for each in parts.settings.keep]
            parts.data.save_running(Running(os.getpid(), host, keep))
            if options.announce is not None:
                options.announce(host)
            logger.info("Serving %s at %s, Keep at %s", parts.site.cluster_id, host, ", ".join(keep))
            sweeping = loop.create_task(_sweep_now_and_then(parts.records, executor))
            watch = loop.create_task(_stop_at_end_of_input(stop)) if options.until_end_of_input else None
            await stop.wait()
            if watch is not None:
                watch.cancel()
            sweeping.cancel()
            logger.info("Stopping")
            await events.close()
        finally:
            await runner.cleanup()


def _in_loop(loop: asyncio.AbstractEventLoop, advance: Callable[[int], None]) -> Callable[[int], None]:
    """Return a callback for writing threads that runs `advance` in the loop; after the loop's end it does
    nothing.
    """

    def changed(newest_id: int) -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(advance, newest_id)

    return changed


async def _sweep_now_and_then(records: Records, executor: ThreadPoolExecutor) -> None:
    """What is over goes: at the start, then every SWEEP_EVERY."""
    while True:
        try:
            await asyncio.get_running_loop().run_in_executor(executor, records.sweep)
        except (sqlite3.Error, ApiError) as error:
            logger.warning("Trash and old events could not be removed: %s", error)
        await asyncio.sleep(SWEEP_EVERY)


async def _stop_at_end_of_input(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(4096):
        pass
    stop.set()


def _allow_open_files() -> None:
    """Raise the soft limit of open files: every connection is one, and every block under way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _open_records(data: DataDirectory, site: SiteConfig) -> Records:
    try:
        return Records.open(data.records, site)
    except (sqlite3.Error, ValueError) as error:
        raise SetupError(f"The records in {data.records} can't be used: {error}") from None


def _port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def _keep_services(
    data: DataDirectory,
    records: Records,
    site: SiteConfig,
    settings: ServerSettings,
    tokens: TokenCheck,
    listeners: list[socket.socket],
) -> list[tuple[socket.socket, KeepService]]:
    services = []
    for number, (each, listener) in enumerate(zip(settings.keep, listeners, strict=True)):
        blocks = BlockDirectory(data.keep(number), reserve=settings.reserve)
        blocks.prepare()
        told = Settings(
            each.uuid, tuple(site.storage_classes), tuple(site.default_storage_classes), each.read_only
        )
        services.append((listener, KeepService(told, blocks, records.signer, tokens)))
    return services
