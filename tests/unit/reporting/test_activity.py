"""Counting what the kernel asks, and the reports made of it."""

import contextlib
import io
import logging
import os
import re
import threading
import time
from pathlib import Path

from arvados_fuse.reporting.activity import RECENT_FILES, Activity, FileTraffic
from arvados_fuse.reporting.counters import Counters
from arvados_fuse.reporting.crunchstat import Crunchstat, report, sample
from arvados_fuse.reporting.troubles import KEPT, NOTED, Trouble, TroubleHandler, Troubles

NAMES = [
    "keepcalls", "net:keep0", "keepcache", "blkio:0:0", "fuseops",
    "fuseop:read", "fuseop:write", "fuseop:destroy", "fuseop:on_event", "fuseop:getattr", "fuseop:setattr",
    "fuseop:lookup", "fuseop:forget", "fuseop:open", "fuseop:release", "fuseop:opendir", "fuseop:readdir",
    "fuseop:statfs", "fuseop:create", "fuseop:mkdir", "fuseop:unlink", "fuseop:rmdir", "fuseop:rename",
    "fuseop:flush",
]  # fmt: skip
"""As arv-mount 3.2.1 writes them."""


def test_bytes_are_counted_by_file_and_in_all() -> None:
    activity = Activity()
    activity.moved("read", (7,), 100)
    activity.moved("read", (7,), 20)
    activity.moved("write", (8,), 5)
    assert activity.bytes_moved() == (120, 5)
    assert activity.handles() == {7: (120, 0), 8: (0, 5)}
    assert activity.has_moved(7)
    activity.closed(7, "a/b")
    activity.closed(9, "never read")
    assert not activity.has_moved(7)
    assert activity.closed_files() == [FileTraffic("a/b", 120, 0)]
    activity.moved("read", (10,), 1)
    activity.closed(10, "a/b")
    assert activity.closed_files() == [FileTraffic("a/b", 121, 0)]
    assert activity.bytes_moved() == (121, 5)


def test_only_the_last_closed_files_are_remembered() -> None:
    activity = Activity()
    for number in range(RECENT_FILES + 10):
        activity.moved("read", (number,), 1)
        activity.closed(number, str(number))
    assert len(activity.closed_files()) == RECENT_FILES
    assert activity.closed_files()[0].path == "10"
    assert activity.bytes_moved() == (RECENT_FILES + 10, 0)


def test_each_watcher_has_a_window_of_its_own() -> None:
    activity = Activity()
    with activity.watch() as one:
        activity.note("read", 0.5)
        with activity.watch() as two:
            activity.note("read", 0.2)
            activity.note("lookup", 0.1)
            assert two.look() == {"read": 0.2, "lookup": 0.1}
            assert two.look() == {}
        assert [window is one for window in activity.windows] == [True]
        assert one.look() == {"read": 0.5, "lookup": 0.1}
    assert not activity.windows


def test_crunchstat_lines_have_the_form_of_3_2_1() -> None:
    activity, counters = Activity(), Counters()
    before = sample(activity, counters.snapshot())
    activity.moved("write", (1,), 100000)
    activity.moved("read", (2,), 560)
    for name, seconds in (("read", 0.000023), ("write", 0.050468)):
        activity.tallies[name].count += 1
        activity.tallies[name].seconds += seconds
    counters.add("cache.hit", 3)
    counters.add("cache.miss", 1)
    counters.add("net.received_bytes", 1024)
    counters.add("events", 2)
    counters.add("events.ns", 5000)
    lines = report(before, sample(activity, counters.snapshot()), 2)
    assert [line.split()[1] for line in lines] == NAMES
    assert lines[0] == "crunchstat: keepcalls 0 put 4 get -- interval 2.0000 seconds 0 put 4 get"
    assert lines[1] == "crunchstat: net:keep0 0 tx 1024 rx -- interval 2.0000 seconds 0 tx 1024 rx"
    assert lines[2] == "crunchstat: keepcache 3 hit 1 miss -- interval 2.0000 seconds 3 hit 1 miss"
    assert lines[3] == (
        "crunchstat: blkio:0:0 100000 write 560 read -- interval 2.0000 seconds 100000 write 560 read"
    )
    assert lines[4] == "crunchstat: fuseops 1 write 1 read -- interval 2.0000 seconds 1 write 1 read"
    assert lines[6] == (
        "crunchstat: fuseop:write 1 count 0.050468 time -- interval 2.0000 seconds 1 count 0.050468 time"
    )
    assert "fuseop:on_event 2 count 0.000005 time" in lines[8]
    again = sample(activity, counters.snapshot())
    assert report(again, again, 2)[3].endswith(
        "100000 write 560 read -- interval 2.0000 seconds 0 write 0 read"
    )


def test_crunchstat_comes_after_each_interval_and_stops() -> None:
    class Told(io.StringIO):
        def flush(self) -> None:
            if self.getvalue().count("keepcalls") == 2:
                twice.set()

    twice, output = threading.Event(), Told()
    before = time.monotonic()
    writer = Crunchstat(Activity(), Counters(), 0.1, output)
    writer.start()
    assert twice.wait(20)
    assert time.monotonic() - before >= 0.2
    writer.stop()
    writer.stop()
    intervals = [float(found) for found in re.findall(r"interval (\S+) seconds", output.getvalue())]
    assert intervals[0] >= 0.1
    assert threading.active_count() == len([t for t in threading.enumerate() if t.name != "crunchstat"])


def test_standard_error_that_nobody_reads_holds_up_nobody() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 65536)
    os.set_blocking(writing, True)
    with open(writing, "w") as output:
        writer = Crunchstat(Activity(), Counters(), 0.05, output)
        writer.start()
        wait_until_blocked(writing)
        before = time.monotonic()
        writer.stop()
        assert time.monotonic() - before < 5
        os.set_blocking(reading, False)
        with contextlib.suppress(BlockingIOError):  # lets it go on, and end
            while os.read(reading, 1 << 20):
                pass
        for thread in threading.enumerate():
            if thread.name == "crunchstat":
                thread.join(20)
    os.close(reading)


def wait_until_blocked(descriptor: int) -> None:
    """Wait until the thread stands in write(2)."""
    deadline = time.monotonic() + 20
    while True:
        (ident,) = (thread.native_id for thread in threading.enumerate() if thread.name == "crunchstat")
        call = Path(f"/proc/self/task/{ident}/syscall").read_text().split()
        if len(call) > 1 and call[1] == hex(descriptor):
            return
        assert time.monotonic() < deadline, call
        time.sleep(0.01)


def test_troubles_are_bounded_folded_and_without_secrets() -> None:
    troubles = Troubles()
    troubles.hide(lambda: "v2/uuid/s3cret")
    troubles.note(Trouble(1.0, "read", "token v2/uuid/s3cret refused", path="a"))
    troubles.note(Trouble(2.0, "read", "token s3cret refused", path="a", request_id="req-2"))
    (only,) = troubles.latest()
    assert (only.at, only.times, only.message, only.request_id) == (2.0, 2, "token [token] refused", "req-2")
    for number in range(2 * KEPT):
        troubles.note(Trouble(3.0, "read", str(number)))
    assert len(troubles.latest()) == KEPT
    assert troubles.count == 2 * KEPT + 2
    troubles.note(Trouble(3.0, "read", "x" * 10**6))
    assert len(troubles.latest()[-1].message) < 1000


def test_warnings_in_the_log_are_troubles_unless_they_are_noted_already() -> None:
    troubles = Troubles()
    logger = logging.getLogger("test.troubles")
    handler = TroubleHandler(troubles)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        logger.warning("from %s", "there")
        logger.warning("known", extra={NOTED: True})
        logger.info("nothing")
        try:
            raise ValueError("cause")
        except ValueError:
            logger.exception("failed")
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
    assert [trouble.message for trouble in troubles.latest()] == [
        "from there",
        "failed: ValueError('cause')",
    ]
    assert troubles.latest()[0].operation == "test.troubles"
