"""`--metrics-port`: the status of a mount in the form that Prometheus reads, over HTTP on this machine.

Made by `cli/inside.py` when asked for. Each scrape reads the status once. The server's threads are daemons.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from arvados_fuse.errors import SetupError

ADDRESS = "127.0.0.1"
"""Nobody else on the network is told what is read here."""
PREFIX = "arv_mount"

Status = Mapping[str, Any]


class StatusCollector(Collector):
    """Metrics made of a status (see `cli/inside.py` for its parts)."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def describe(self) -> Iterator[Metric]:
        """Nothing beforehand: the registry need not ask for a status to know the names."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All metrics now. A part of the status that failed is left out."""
        status = self._status()
        for part, metrics in PARTS.items():
            told = status.get(part)
            if told is not None and not (isinstance(told, Mapping) and "failed" in told):
                yield from metrics(told)


def _mount(told: Status) -> Iterator[Metric]:
    about = {"version": told["version"], "path": told["path"], "mode": told["mode"]}
    info = GaugeMetricFamily(f"{PREFIX}_info", "What is mounted, as labels.", labels=list(about))
    info.add_metric(list(about.values()), 1)
    yield info
    yield _gauge("start_time_seconds", "When it was mounted, in seconds since 1970.", told["since"])


def _events(told: Status) -> Iterator[Metric]:
    yield _gauge("events_connected", "1 while events arrive as they happen.", told["state"] == "connected")


def _cache(told: Status) -> Iterator[Metric]:
    yield _gauge("cache_bytes", "Bytes in the block cache.", told["used"])
    yield _gauge("cache_limit_bytes", "The most bytes that the block cache may hold.", told["limit"])
    results = {"hit": told["hits"], "miss": told["misses"]}
    yield _counter("cache_reads", "Reads of blocks, by whether they were in the cache.", "result", results)


def _directories(told: Status) -> Iterator[Metric]:
    yield _gauge("directory_cache_bytes", "Bytes of memory for directory listings.", told["used"])
    yield _gauge("directory_cache_limit_bytes", "The most of them.", told["limit"])
    yield _gauge("inodes", "Inodes in use.", told["inodes"])


def _open(told: Status) -> Iterator[Metric]:
    yield _gauge("open_files", "Open file handles.", told["files"])
    yield _gauge("open_directories", "Open directory handles.", told["directories"])


def _unsaved(told: Status) -> Iterator[Metric]:
    failing = sum(1 for one in told.get("collections", ()) if one.get("error"))
    yield _gauge("unsaved_files", "Files changed and not yet saved.", told["files"])
    yield _gauge("unsaved_bytes", "Bytes written and not yet in Keep.", told["bytes"])
    yield _gauge("save_failing_collections", "Collections that could not be saved so far.", failing)


def _operations(told: Status) -> Iterator[Metric]:
    for name, field, text in (
        ("operations", "count", "Requests of the kernel that were answered."),
        ("operation_seconds", "seconds", "Seconds spent on them."),
        ("operation_failures", "failures", "Those that failed for a reason that is no ordinary answer."),
    ):
        values = {operation: counts[field] for operation, counts in told.items()}
        yield _counter(name, text, "operation", values)


def _bytes(told: Status) -> Iterator[Metric]:
    programs = {"read": told["read"], "written": told["written"]}
    yield _counter("program_bytes", "Bytes that programs read and wrote.", "direction", programs)
    keep = {"received": told["received"], "sent": told["sent"]}
    yield _counter("keep_bytes", "Bytes of blocks from and to Keep services.", "direction", keep)


def _pending(told: Any) -> Iterator[Metric]:
    longest = max((request["seconds"] for request in told), default=0.0)
    yield _gauge("pending_requests", "Requests of the kernel that are being answered.", len(told))
    yield _gauge("longest_pending_seconds", "Age of the oldest of them.", longest)


def _errors(told: Status) -> Iterator[Metric]:
    yield CounterMetricFamily(f"{PREFIX}_errors", "Warnings and errors.", value=told["count"])


PARTS: Mapping[str, Callable[[Any], Iterator[Metric]]] = {
    "mount": _mount,
    "events": _events,
    "cache": _cache,
    "directories": _directories,
    "open": _open,
    "unsaved": _unsaved,
    "operations": _operations,
    "bytes": _bytes,
    "pending": _pending,
    "errors": _errors,
}


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)


def _counter(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


class MetricsServer:
    """Answers scrapes. Constructing does nothing. port: 0 for any that is free."""

    def __init__(self, status: Callable[[], Status], port: int) -> None:
        self._status = status
        self._port = port
        self._server: WSGIServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where to scrape; "" before `start`."""
        return f"http://{ADDRESS}:{self._server.server_port}/metrics" if self._server is not None else ""

    def start(self) -> None:
        """Listen. Raises SetupError when the port can't be had."""
        registry = CollectorRegistry()  # its own: nothing of the process or of libraries is told
        registry.register(StatusCollector(self._status))
        try:
            self._server, self._thread = start_http_server(self._port, ADDRESS, registry)
        except OSError as error:
            raise SetupError(
                f"metrics can't be given on port {self._port} ({error.strerror}); "
                "give another one with --metrics-port (0: any that is free)"
            ) from None

    def close(self) -> None:
        """Stop listening; safe to call twice and without `start`."""
        server, self._server = self._server, None
        if server is not None and self._thread is not None:
            server.shutdown()
            server.server_close()
            self._thread.join()
