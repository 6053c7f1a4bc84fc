"""Slow requests are told once, with stacks; and metrics made of a status."""

import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from arvados_fuse.errors import SetupError
from arvados_fuse.reporting.activity import Activity, now
from arvados_fuse.reporting.metrics import MetricsServer, StatusCollector
from arvados_fuse.reporting.status import StatusBoard, plain, watch
from arvados_fuse.reporting.troubles import Troubles
from arvados_fuse.reporting.watchdog import Watchdog


def test_a_slow_request_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    activity, troubles = Activity(), Troubles()
    dog = Watchdog(activity, troubles, lambda request: f"home/{request.arguments[0]}", 0.5)
    activity.current[1] = "read", now() - 1.0, (7, 0, 4096)
    activity.current[2] = "lookup", now(), (1, b"x")
    dog.look()
    dog.look()
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == "read home/7 is under way for 1 s, in thread 1"
    assert len(told) == 2
    assert "test_a_slow_request_is_told_once" in told[1]
    assert f"({threading.current_thread().name})" in told[1]
    assert [trouble.message for trouble in troubles.latest()] == ["read home/7: under way for 1 s"]
    # The same thread with its next request is news again.
    activity.current[1] = "read", now() - 2.0, (8, 0, 4096)
    dog.look()
    assert "read home/8 is under way for 2 s" in caplog.text


def test_the_thread_ends_when_told() -> None:
    dog = Watchdog(Activity(), Troubles(), lambda _: "", 60.0)
    dog.start()
    before = time.monotonic()
    dog.stop()
    dog.stop()
    assert time.monotonic() - before < 5


STATUS: dict[str, Any] = {
    "mount": {"version": "1", "path": '/a "b"', "mode": "home", "since": 1000.5},
    "events": {"state": "connected", "since": 1.0, "reason": ""},
    "cache": {"used": 10, "limit": 100, "hits": 3, "misses": 1},
    "directories": {"failed": "broken"},
    "open": {"files": 2, "directories": 1},
    "unsaved": {"files": 4, "bytes": 5, "collections": [{"error": "no"}, {"error": ""}]},
    "operations": {"read": {"count": 7, "seconds": 0.5, "failures": 1}},
    "bytes": {"read": 1, "written": 2, "received": 3, "sent": 4},
    "pending": [{"seconds": 1.5}],
    "errors": {"count": 9},
}


def test_metrics_are_what_prometheus_reads() -> None:
    server = MetricsServer(lambda: STATUS, 0)
    server.start()
    try:
        assert server.url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(server.url, timeout=20) as answer:
            text = answer.read().decode()
        other = MetricsServer(lambda: STATUS, int(server.url.split(":")[2].split("/")[0]))
        with pytest.raises(SetupError, match="--metrics-port"):
            other.start()
        other.close()
    finally:
        server.close()
        server.close()
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert values == {
        ("arv_mount_info", "home", '/a "b"', "1"): 1,
        ("arv_mount_start_time_seconds",): 1000.5,
        ("arv_mount_events_connected",): 1,
        ("arv_mount_cache_bytes",): 10,
        ("arv_mount_cache_limit_bytes",): 100,
        ("arv_mount_cache_reads_total", "hit"): 3,
        ("arv_mount_cache_reads_total", "miss"): 1,
        ("arv_mount_open_files",): 2,
        ("arv_mount_open_directories",): 1,
        ("arv_mount_unsaved_files",): 4,
        ("arv_mount_unsaved_bytes",): 5,
        ("arv_mount_save_failing_collections",): 1,
        ("arv_mount_operations_total", "read"): 7,
        ("arv_mount_operation_seconds_total", "read"): 0.5,
        ("arv_mount_operation_failures_total", "read"): 1,
        ("arv_mount_program_bytes_total", "read"): 1,
        ("arv_mount_program_bytes_total", "written"): 2,
        ("arv_mount_keep_bytes_total", "received"): 3,
        ("arv_mount_keep_bytes_total", "sent"): 4,
        ("arv_mount_pending_requests",): 1,
        ("arv_mount_longest_pending_seconds",): 1.5,
        ("arv_mount_errors_total",): 9,
    }


def test_every_metric_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs/inside.md").read_text()
    directories = {"used": 1, "limit": 2, "inodes": 3}
    names = set()
    for family in StatusCollector(lambda: {**STATUS, "directories": directories}).collect():
        names.add(family.name.removeprefix("arv_mount_") + ("_total" if family.type == "counter" else ""))
    assert len(names) == 22
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


def test_a_source_that_fails_hides_no_other() -> None:
    board = StatusBoard()
    board.provide("good", lambda: (1, {"a": {2}}))
    board.provide("bad", lambda: 1 // 0)
    told = board.collect()
    assert told["good"] == [1, {"a": [2]}]
    assert told["bad"]["failed"].startswith("ZeroDivisionError")
    assert plain(Activity) == str(Activity)


def test_watching_tells_what_happened_since_the_last_sample() -> None:
    activity, board, stopping = Activity(), StatusBoard(), threading.Event()
    activity.moved("read", (1, 0), 100)
    samples = watch(board, activity, lambda handle: f"file{handle}", 0.1, stopping)
    assert next(samples)["busiest"] == []
    activity.moved("read", (1, 0), 50)
    activity.moved("write", (2, 0), 70)
    activity.closed(2, "file2")
    activity.note("read", 0.25)
    second = next(samples)
    assert second["busiest"] == [
        {"path": "file2", "read": 0, "written": 70},
        {"path": "file1", "read": 50, "written": 0},
    ]
    assert second["longest"] == {"read": 0.25}
    stopping.set()
    assert list(samples) == []
    assert not activity.windows
