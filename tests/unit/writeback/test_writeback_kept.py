"""Bytes of stored blocks stay on the disk while unsaved changes need them, and make room for others."""

import hashlib
import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from arvados_fuse.collection.segments import Segment
from arvados_fuse.writeback.journal import Journal, Owner
from arvados_fuse.writeback.kept import Kept, read_pieces
from arvados_fuse.writeback.pending import Pending, settled
from arvados_fuse.writeback.spool import AT_ONCE, DiskSpool, Spools
from arvados_fuse.writeback.states import PathChange

COLLECTION = "zzzzz-4zz18-000000000000000"


def block(data: bytes) -> str:
    """The locator of a block, without hints."""
    return f"{hashlib.md5(data).hexdigest()}+{len(data)}"


A, B, C = (block(letter * 4) for letter in (b"a", b"b", b"c"))


def nowhere(_spool: DiskSpool) -> None:
    """No room: nothing is written down."""


def piece(spools: Spools, data: bytes) -> Segment:
    spool = spools.new()
    return Segment(spool, spool.append(data), len(data))


def files(directory: Path) -> int:
    return len(list(directory.iterdir()))


def test_bytes_stay_until_they_are_saved_or_not_needed(tmp_path: Path) -> None:
    spools = Spools(tmp_path)
    needed = {A, B}
    kept = Kept(100, lambda: needed, nowhere)
    for locator, data in ((A, b"aaaa"), (B, b"bbbb"), (C, b"cccc")):
        kept.add(f"{locator}+A{'0' * 40}@77777777", [piece(spools, data[:1]), piece(spools, data[1:])])
    kept.sweep()
    spools.sweep()
    assert [kept.read(locator) for locator in (A, B, C)] == [b"aaaa", b"bbbb", None]
    assert files(tmp_path) == 4
    kept.saved([A])
    needed.clear()
    kept.sweep()
    spools.sweep()
    assert (kept.read(A), kept.read(B)) == (None, None)
    assert files(tmp_path) == 0


def test_the_oldest_make_room(tmp_path: Path) -> None:
    spools = Spools(tmp_path)
    kept = Kept(8, set, nowhere)
    for locator, data in ((A, b"aaaa"), (B, b"bbbb"), (C, b"cccc")):
        kept.add(locator, [piece(spools, data)])
    assert [kept.read(locator) for locator in (A, B, C)] == [None, b"bbbb", b"cccc"]
    assert kept.give_way()
    assert [kept.read(locator) for locator in (B, C)] == [None, b"cccc"]
    assert kept.give_way()
    assert not kept.give_way()
    spools.sweep()
    assert files(tmp_path) == 0


def test_other_bytes_than_those_of_the_block_are_not_given(tmp_path: Path) -> None:
    kept = Kept(100, set, nowhere)
    kept.add(A, [piece(Spools(tmp_path), b"aaab")])
    assert kept.read(A) is None


class Site:
    """Pending changes that survive the process, and what is kept for them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        if directory.exists():
            journal = Journal.open(directory / "journal")
            assert journal is not None
        else:
            (directory / "spool").mkdir(parents=True)
            journal = Journal.create(directory / "journal", Owner("h", "u"), 1.0)
        self.pending = Pending(journal, Spools(directory / "spool"))
        self.pending.load()
        self.kept = Kept(100, self.pending.blocks, lambda spool: self.pending)
        self.kept.restore(self.pending, self.pending.load_kept())
        self.pending.spools.remove_unknown()

    def store(self, path: str, data: bytes) -> str:
        """Close a file, and store its bytes in a block of their own; its locator."""
        where = piece(self.pending.spools, data)
        self.pending.record(COLLECTION, [PathChange(path, None, (where,))])
        locator = f"{block(data)}+A{'0' * 40}@77777777"
        assert isinstance(where.source, DiskSpool)
        where.source.note_stored(where.offset, Segment(locator, 0, len(data)))
        self.kept.add(locator, [where])
        self.pending.settle([where.source])
        return locator

    def save(self, path: str) -> None:
        """As if the server had one path now."""
        batch = self.pending.take(COLLECTION)
        batch = batch._replace(rows={path: batch.rows[path]})
        self.pending.finish(batch)
        after = settled(batch.rows[path].after)
        assert isinstance(after, tuple)
        self.kept.saved(str(segment.source)[:34] for segment in after)
        self.kept.sweep()

    def files(self) -> int:
        """Spools on the disk."""
        self.pending.spools.sweep()
        return files(self.directory / "spool")


def test_what_was_stored_with_another_token_makes_no_room(tmp_path: Path) -> None:
    """Its signature ends with that token, and it is about to be stored again; only too much of it goes."""
    spools = Spools(tmp_path)
    token = "first"
    kept = Kept(8, set, nowhere, lambda: token)
    kept.add(A, [piece(spools, b"aaaa")], "first")
    token = "second"
    for locator, data in ((B, b"bbbb"), (C, b"cccc")):
        kept.add(locator, [piece(spools, data)], "second")
    assert [kept.read(locator) for locator in (A, B, C)] == [b"aaaa", None, b"cccc"]
    assert kept.give_way()
    assert not kept.give_way()
    assert [kept.read(locator) for locator in (A, C)] == [b"aaaa", None]
    token = "third"
    for letter in b"defg":
        data = bytes([letter]) * 4
        kept.add(block(data), [piece(spools, data)], "second")
    assert [kept.read(block(bytes([letter]) * 4)) is not None for letter in b"adefg"] == [False, *[True] * 4]


def test_the_next_mount_has_what_a_dead_one_kept(tmp_path: Path) -> None:
    dead = Site(tmp_path / "room")
    first, second = dead.store("a", b"aaaa"), dead.store("b", b"bbbb")
    dead.save("a")
    assert dead.files() == 1
    dead.pending.close()
    heir = Site(tmp_path / "room")
    assert heir.kept.read(first) is None
    assert bytes(heir.kept.read(second) or b"") == b"bbbb"
    heir.save("b")
    assert heir.files() == 0
    heir.pending.close()
    assert Site(tmp_path / "room").pending.load_kept() == {}


def test_bytes_that_made_room_are_not_looked_for_by_the_next_mount(tmp_path: Path) -> None:
    dead = Site(tmp_path / "room")
    dead.store("a", b"aaaa")
    assert dead.kept.give_way()
    assert dead.files() == 0
    dead.pending.close()
    assert Site(tmp_path / "room").kept.read(A) is None


def test_pieces_that_lie_together_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a file that was written in many places: the block has its order, the spool that of the writes."""
    spools = Spools(tmp_path)
    one, other = spools.new(), spools.new()
    count = AT_ONCE + 500
    written = [number.to_bytes(2, "big") for number in range(count)]
    pieces = [Segment(one, one.append(data), 2) for data in written]
    pieces += [Segment(other, other.append(data) + 1, 1) for data in written[:3]]
    wanted = [*written, *(data[1:] for data in written[:3])]
    order = random.Random(5).sample(range(len(pieces)), len(pieces))
    calls: list[int] = []
    preadv = os.preadv

    def counted(file: int, buffers: Sequence[memoryview], offset: int) -> int:
        calls.append(len(buffers))
        return preadv(file, buffers, offset)

    monkeypatch.setattr(os, "preadv", counted)
    buffer = bytearray(2 * count + 3)
    read_pieces([pieces[at] for at in order], buffer)
    assert bytes(buffer) == b"".join(wanted[at] for at in order)
    assert sorted(calls) == [1, 1, 1, 500, AT_ONCE]


def test_what_the_system_reads_in_part_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spools = Spools(tmp_path)
    spool = spools.new()
    spool.append(b"abcdefghij")
    preadv = os.preadv

    def short(file: int, buffers: Sequence[memoryview], offset: int) -> int:
        """At most three bytes, which may end within a buffer or with one."""
        first, *rest = buffers
        some = [first[:3], *(buffer[: 3 - len(first)] for buffer in rest[:1] if len(first) < 3)]
        return preadv(file, some, offset)

    monkeypatch.setattr(os, "preadv", short)
    buffer = bytearray(10)
    read_pieces(
        [Segment(spool, 5, 5), Segment(spool, 0, 1), Segment(spool, 1, 3), Segment(spool, 4, 1)], buffer
    )
    assert bytes(buffer) == b"fghijabcde"
