"""What makes a running mount visible from outside, put together in one place.

Made by `build.py`; it starts with the mount and ends with it. Whoever has more to tell registers it here:
`control.register` for requests, `status.provide` for parts of the status.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from arvados_fuse.api import ApiClient, EventListener
from arvados_fuse.cli import logs
from arvados_fuse.cli.preflight import shared_cache
from arvados_fuse.cli.systemd import Systemd
from arvados_fuse.errors import ArvadosFuseError
from arvados_fuse.fuse.operations import Operations
from arvados_fuse.fuse.places import place, subject
from arvados_fuse.keep import BlockCache
from arvados_fuse.options import MountOptions
from arvados_fuse.reporting.activity import Request, now
from arvados_fuse.reporting.control import ControlServer
from arvados_fuse.reporting.crunchstat import Crunchstat
from arvados_fuse.reporting.status import StatusBoard, watch
from arvados_fuse.reporting.troubles import TroubleHandler
from arvados_fuse.reporting.watchdog import Watchdog
from arvados_fuse.tree import FileSystem
from arvados_fuse.version import __version__

if TYPE_CHECKING:
    from arvados_fuse.reporting.metrics import MetricsServer

logger = logging.getLogger("arvados.arv-mount")

USER_WITHIN = 2.0
"""Seconds that a status waits for the name of the user; without it the status is still useful."""
INTERVAL = 1.0
"""Seconds between two samples for `--top`, unless it asks for something else."""


class Inside:
    """Constructing does nothing; `start` after the mount is made, `close` after it is taken away."""

    def __init__(
        self,
        options: MountOptions,
        operations: Operations,
        filesystem: FileSystem,
        api: ApiClient,
        blocks: BlockCache,
        listener: EventListener | None,
    ) -> None:
        self.control = ControlServer()
        """Register requests before `start`."""
        self.status = StatusBoard()
        """Provide parts before `start`."""
        self._options = options
        self._activity = operations.activity
        self._troubles = operations.troubles
        self._troubles.hide(api.token)
        self._filesystem = filesystem
        self._api = api
        self._blocks = blocks
        self._listener = listener
        self._user = _User(api)
        self._since = 0.0
        self._stopping = threading.Event()
        self._handler = TroubleHandler(self._troubles)
        self._crunchstat: Crunchstat | None = None
        if options.crunchstat_interval:
            self._crunchstat = Crunchstat(operations.activity, blocks.counters, options.crunchstat_interval)
        self._watchdog: Watchdog | None = None
        if options.slow_request:
            self._watchdog = Watchdog(self._activity, self._troubles, self._about, options.slow_request)
        self._systemd = Systemd(os.environ)
        self._metrics: MetricsServer | None = None
        self._provide()
        self.control.register("status", self._status)
        self.control.register("watch", self._watch)

    def start(self, minor: int) -> None:
        """Begin to answer and to watch, for the mount with this number. Raises SetupError when the port for
        metrics can't be had."""
        self._since = time.time()
        if self._options.metrics_port is not None:
            self._start_metrics(self._options.metrics_port)
        logging.getLogger(logs.ROOT).addHandler(self._handler)
        self.control.start(minor)
        if self._crunchstat is not None:
            self._crunchstat.start()
        if self._watchdog is not None:
            self._watchdog.start()

    def ready(self) -> None:
        """The mount answers: tell who started us. (With `--exec` that is for the command to say.)"""
        if not self._options.exec_args:
            self._systemd.ready(f"{self._api.host} is mounted at {self._options.mount_dir}")

    def ending(self) -> None:
        """The mount is about to be taken down; until `close` it can still be looked at."""
        self._systemd.stopping(f"Unmounting {self._options.mount_dir}")

    def unmounted(self) -> None:
        """The mount is away; what is unsaved is being saved."""
        self.control.leave_number()

    def close(self) -> None:
        """End what was started; safe to call twice and without `start`."""
        self._stopping.set()
        for worker in (self._crunchstat, self._watchdog):
            if worker is not None:
                worker.stop()
        if self._metrics is not None:
            self._metrics.close()
        self.control.close()
        self._systemd.close()
        logging.getLogger(logs.ROOT).removeHandler(self._handler)

    def _start_metrics(self, port: int) -> None:
        from arvados_fuse.reporting.metrics import MetricsServer  # only now: most mounts do without

        self._metrics = metrics = MetricsServer(self.status.collect, port)
        metrics.start()
        self.status.provide("metrics", lambda: metrics.url)

    # Requests

    def _status(self, _arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        self._user.wait(USER_WITHIN)
        yield self.status.collect()

    def _watch(self, arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        interval = arguments.get("interval", INTERVAL)
        interval = float(interval) if isinstance(interval, (int, float)) else INTERVAL
        return watch(self.status, self._activity, self._path_of_file, interval, self._stopping)

    # Parts of the status

    def _provide(self) -> None:
        for name, source in (
            ("mount", self._mount),
            ("server", self._server),
            ("events", self._events),
            ("cache", self._cache),
            ("directories", self._directories),
            ("open", self._open),
            ("unsaved", self._unsaved),
            ("operations", self._operations),
            ("bytes", self._bytes),
            ("pending", self._pending),
            ("errors", self._errors),
        ):
            self.status.provide(name, source)

    def _mount(self) -> dict[str, Any]:
        options = self._options
        return {
            "path": options.mount_dir,
            "mode": options.mode,
            "target": options.target,
            "custom": options.custom,
            "read_write": options.read_write,
            "since": self._since,
            "process": os.getpid(),
            "version": __version__,
        }

    def _server(self) -> dict[str, Any]:
        return {"host": self._api.host, "user": self._user.known()}

    def _events(self) -> dict[str, Any]:
        if self._listener is None:
            return {"state": "off", "since": self._since, "reason": ""}
        status = self._listener.status()
        since = time.time() - (time.monotonic() - status.since)
        return {"state": status.state, "since": since, "reason": status.reason}

    def _cache(self) -> dict[str, Any]:
        options, count = self._options, self._blocks.counters.get
        used, limit = self._blocks.usage()
        directory = "" if options.ram_cache else options.disk_cache_dir or shared_cache(os.environ)
        hits, misses = count("cache.hit"), count("cache.miss")
        return {
            "kind": "ram" if options.ram_cache else "disk",
            "directory": directory,
            "used": used,
            "limit": limit,
            "hits": hits,
            "misses": misses,
            "hit_rate": hits / (hits + misses) if hits + misses else None,
        }

    def _directories(self) -> dict[str, Any]:
        used = self._filesystem.context.cache.total
        return {"used": used, "limit": self._options.directory_cache, "inodes": len(self._filesystem.inodes)}

    def _open(self) -> dict[str, Any]:
        files, directories = self._filesystem.open_handles()
        return {"files": files, "directories": directories}

    def _unsaved(self) -> Any:
        writeback = self._filesystem.context.writeback
        return None if writeback is None else writeback.status()

    def _operations(self) -> dict[str, Any]:
        return {
            name: {"count": tally.count, "seconds": tally.seconds, "failures": tally.failures}
            for name, tally in sorted(self._activity.tallies.copy().items())
        }

    def _bytes(self) -> dict[str, Any]:
        read, written = self._activity.bytes_moved()
        count = self._blocks.counters.get
        received, sent = count("net.received_bytes"), count("net.sent_bytes")
        return {"read": read, "written": written, "received": received, "sent": sent}

    def _pending(self) -> list[dict[str, Any]]:
        moment = now()
        return [
            {
                "operation": request.operation,
                "path": place(self._filesystem, request.operation, request.arguments),
                "seconds": moment - request.begun,
            }
            for _, request in self._activity.pending()
        ]

    def _errors(self) -> dict[str, Any]:
        return {"count": self._troubles.count, "latest": self._troubles.latest()}

    def _about(self, request: Request) -> str:
        path = place(self._filesystem, request.operation, request.arguments)
        known = subject(self._filesystem, request.operation, request.arguments)
        return f"{path} (in {known})" if known else path

    def _path_of_file(self, handle: int) -> str:
        return place(self._filesystem, "release", (handle,))


class _User:
    """Who the token belongs to, asked once, when somebody wants to know."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self._lock = threading.Lock()
        self._asked: threading.Thread | None = None
        self._user: dict[str, Any] | None = None

    def known(self) -> dict[str, Any] | None:
        """What is known now."""
        return self._user

    def wait(self, seconds: float) -> None:
        """Ask if that was not done yet, and wait for the answer for so long."""
        with self._lock:
            if self._asked is None or not (self._asked.is_alive() or self._user):
                self._asked = threading.Thread(target=self._ask, name="status-user", daemon=True)
                self._asked.start()
            asked = self._asked
        asked.join(seconds)

    def _ask(self) -> None:
        try:
            record = self._api.current_user()
        except ArvadosFuseError as error:
            logger.debug("The current user is not known: %s", error)
        else:
            self._user = {name: record.get(name) for name in ("uuid", "email", "full_name", "username")}
