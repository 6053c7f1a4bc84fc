"""Bytes of stored blocks stay on the disk while unsaved changes need them, and make room for others."""

import hashlib
from pathlib import Path

from arvados_fuse.collection.segments import Segment
from arvados_fuse.writeback.journal import Journal, Owner
from arvados_fuse.writeback.kept import Kept
from arvados_fuse.writeback.pending import Pending, settled
from arvados_fuse.writeback.spool import DiskSpool, Spools
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
