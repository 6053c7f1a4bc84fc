"""A disk that is full: the writer is told, and nothing that was recorded is lost."""

import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from arvados_fuse.collection.segments import Segment
from arvados_fuse.collection.spool import Spool
from arvados_fuse.errors import NoSpaceError
from arvados_fuse.writeback import PathChange
from arvados_fuse.writeback.journal import Journal, Owner
from arvados_fuse.writeback.pending import Pending
from arvados_fuse.writeback.rooms import Room
from arvados_fuse.writeback.spool import Spools

C = "zzzzz-4zz18-000000000000000"
FOO = "acbd18db4cc2f85cedef654fccc4a4d8+3"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no small disk: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def until_full(step: Callable[[int], object]) -> int:
    """Do something again and again; how often it was done before the disk was full."""
    for number in count():
        try:
            step(number)
        except NoSpaceError:
            return number
    raise AssertionError("never full")


def fill(spool: Spool, number: int) -> None:
    spool.append(bytes([number]) * 65536)


def test_a_full_disk(small_disk: Path) -> None:
    room = Room.create(small_disk / "writeback")
    pending = Pending(Journal.create(room.journal, Owner("h", "u"), 1.0), Spools(room.spools))
    spool = pending.spools.new()
    kept = until_full(partial(fill, spool))
    assert kept
    assert spool.read(0, kept * 65536) == b"".join(bytes([n]) * 65536 for n in range(kept))

    def record(number: int) -> None:
        name = f"{number:05d}" * 40
        pending.record(C, [PathChange(name, None, (Segment(FOO, 0, 3),)), PathChange("last", None, ())])

    recorded = until_full(record)
    assert recorded
    pending.check()
    pending.close()
    del spool
    room.release()
    journal = Journal.open(room.journal)
    assert journal is not None
    assert len(list(journal.lines())) == recorded + 1
    journal.close()
