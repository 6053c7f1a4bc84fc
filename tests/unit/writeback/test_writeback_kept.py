"""Bytes of stored blocks stay on the disk while unsaved changes need them, and make room for others."""

from pathlib import Path

from arvados_fuse.collection.segments import Segment
from arvados_fuse.writeback.kept import Kept
from arvados_fuse.writeback.spool import Spools

A, B, C = (f"{letter * 32}+4" for letter in "abc")


def piece(spools: Spools, data: bytes) -> Segment:
    spool = spools.new()
    return Segment(spool, spool.append(data), len(data))


def files(directory: Path) -> int:
    return len(list(directory.iterdir()))


def test_bytes_stay_until_they_are_saved_or_not_needed(tmp_path: Path) -> None:
    spools = Spools(tmp_path)
    needed = {A, B}
    kept = Kept(100, lambda: needed)
    for block, data in ((A, b"aaaa"), (B, b"bbbb"), (C, b"cccc")):
        kept.add(f"{block}+A{'0' * 40}@77777777", [piece(spools, data[:1]), piece(spools, data[1:])])
    kept.sweep()
    spools.sweep()
    assert [kept.read(block) for block in (A, B, C)] == [b"aaaa", b"bbbb", None]
    assert files(tmp_path) == 4
    kept.saved([A])
    needed.clear()
    kept.sweep()
    spools.sweep()
    assert (kept.read(A), kept.read(B)) == (None, None)
    assert files(tmp_path) == 0


def test_the_oldest_make_room(tmp_path: Path) -> None:
    spools = Spools(tmp_path)
    kept = Kept(8, set)
    for block in (A, B, C):
        kept.add(block, [piece(spools, b"1234")])
    assert [kept.read(block) for block in (A, B, C)] == [None, b"1234", b"1234"]
    assert kept.give_way()
    assert [kept.read(block) for block in (B, C)] == [None, b"1234"]
    assert kept.give_way()
    assert not kept.give_way()
    spools.sweep()
    assert files(tmp_path) == 0
