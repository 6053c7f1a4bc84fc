"""The status of a mount in words, and one picture of `--top`, of values made up."""

import copy
import io
from typing import Any

import pytest
from rich.console import Console

from arvados_fuse.cli import showing, top

NOW = 1_700_000_000.0
TROUBLE: dict[str, Any] = {
    "at": NOW - 65,
    "operation": "read",
    "path": "home/a",
    "message": "Block not found error",
    "subject": "acbd+3",
    "server": "keep0:25107",
    "request_id": "",
    "times": 2,
}
STATUS: dict[str, Any] = {
    "mount": {
        "path": "/mnt/x",
        "mode": "all",
        "target": "",
        "custom": [],
        "read_write": True,
        "since": NOW - 7300,
        "process": 17,
        "version": "4.0",
    },
    "server": {"host": "api:443", "user": {"full_name": "Ada L", "email": "ada@x", "uuid": "u"}},
    "events": {"state": "polling", "since": NOW - 5, "reason": "no websocket"},
    "cache": {
        "kind": "disk",
        "directory": "/c",
        "used": 1 << 30,
        "limit": 10 << 30,
        "hits": 3,
        "misses": 1,
        "hit_rate": 0.75,
    },
    "directories": {"used": 2048, "limit": 128 << 20, "inodes": 1},
    "open": {"files": 1, "directories": 2},
    "unsaved": {"files": 0, "bytes": 0, "spool": 0, "collections": []},
    "operations": {"read": {"count": 10, "seconds": 0.5, "failures": 0}},
    "bytes": {"read": 5 << 20, "written": 0, "received": 100, "sent": 0},
    "pending": [],
    "errors": {"count": 0, "latest": []},
}


def lines(**parts: Any) -> list[str]:
    return "\n".join(showing.lines({**STATUS, **parts}, NOW)).splitlines()


def test_an_untroubled_mount() -> None:
    told = lines()
    assert told[0] == "/mnt/x: all, read-write"
    assert told[1] == "  server    api:443 as Ada L <ada@x>"
    assert told[2].endswith("(2 h 1 min ago), process 17, arv-mount 4.0")
    assert told[3:] == [
        "  events    asked for every few seconds for 5 s (no websocket)",
        "  cache     1.0 GiB of 10.0 GiB in /c; 75.0% of 4 reads found there",
        "  listings  2.0 KiB of 128 MiB of memory, 1 inode in use",
        "  open      1 file, 2 directories",
        "  unsaved   nothing",
        "  moved     5.0 MiB read and 0 B written by programs; 100 B received from Keep, 0 B sent",
        "  errors    none",
    ]


def test_what_is_unsaved_and_why() -> None:
    one = {
        "uuid": "c1",
        "paths": 2,
        "bytes": 5,
        "since": NOW - 90,
        "error": "the server refused",
        "refused": True,
    }
    other = {**one, "uuid": "c2", "since": NOW - 3, "error": ""}
    told = lines(unsaved={"files": 3, "bytes": 2048, "spool": 4096, "collections": [other, one]})
    assert told[7:9] == ["  unsaved   3 files, 2.0 KiB, for 1 min 30 s", "            c1: the server refused"]
    told = lines(unsaved={"files": 0, "bytes": 0, "spool": 4096, "collections": []})
    assert told[7] == "  unsaved   nothing but 4.0 KiB of open files"
    assert lines(unsaved=None)[7] == "  unsaved   nothing (read-only)"


def test_errors_and_what_is_under_way() -> None:
    pending = [{"operation": "read", "path": "home/a", "seconds": 65.25}]
    told = lines(errors={"count": 12, "latest": [TROUBLE]}, pending=pending, metrics="http://m")
    assert told[-4:] == [
        "  metrics   http://m",
        "  under way read home/a, 65.2 s",
        "  errors    12 since it was mounted; the last ones:",
        "    1 min 5 s ago (2 times): read home/a: Block not found error (object acbd+3, server keep0:25107)",
    ]


def test_a_layout_of_ones_own() -> None:
    custom = [{"kind": "home", "name": "h"}, {"kind": "by_pdh", "name": "p"}]
    mount = {**STATUS["mount"], "mode": "custom", "custom": custom, "read_write": False}
    assert lines(mount=mount)[0] == "/mnt/x: h (home), p (by_pdh), read-only"
    mount = {**STATUS["mount"], "mode": "collection", "target": "c1"}
    assert lines(mount=mount)[0] == "/mnt/x: collection c1, read-write"


def test_a_part_that_could_not_be_had_hides_no_other() -> None:
    told = lines(cache={"failed": "ValueError: x"}, errors={"failed": "KeyError: y"})
    assert "  cache     not known (ValueError: x)" in told
    assert "  errors    not known (KeyError: y)" in told
    assert "  open      1 file, 2 directories" in told


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (1 << 20, "1.0 MiB"), (150 << 20, "150 MiB")],
)
def test_amounts(count: int, text: str) -> None:
    assert showing.amount(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (0.4, "0 s"), (59.6, "1 min"), (3600, "1 h"), (90061, "1 d 1 h")]
)
def test_ages(seconds: float, text: str) -> None:
    assert showing.age(seconds) == text


@pytest.mark.parametrize(("width", "height"), [(100, 30), (60, 20)])
def test_the_picture_of_top(width: int, height: int) -> None:
    before = {**copy.deepcopy(STATUS), "at": 10.0, "longest": {}, "busiest": []}
    after = {
        **copy.deepcopy(STATUS),
        "at": 12.0,
        "longest": {"read": 0.0312},
        "busiest": [{"path": "home/[bold]" + "x" * 200, "read": 4 << 20, "written": 0}],
        "operations": {"read": {"count": 30, "seconds": 0.54, "failures": 0}},
        "bytes": {"read": 9 << 20, "written": 0, "received": 100, "sent": 2048},
        "errors": {"count": 1, "latest": [TROUBLE]},
        "pending": [{"operation": "lookup", "path": "by_id/[x", "seconds": 3.0}],
    }
    console = Console(width=width, height=height, record=True, file=io.StringIO())
    console.print(top.picture(before, after, height))
    text = console.export_text()
    shown = [line.rstrip() for line in text.splitlines()]
    assert len(shown) <= height
    assert max(map(len, shown)) <= width
    assert "/mnt/x" in shown[0]
    assert "read 2.0 MiB/s" in text
    assert "send 1.0 KiB/s" in text
    row = next(line for line in shown if line.startswith("read "))
    assert row.split()[1:] == ["10", "2.00", "ms", "31.20", "ms", "30"]
    assert "home/[bold]xxx" in text
    assert "longest lookup by_id/[x for 3.00 s" in text
    assert "1 error, " in text
