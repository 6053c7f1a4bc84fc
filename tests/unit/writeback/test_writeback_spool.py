"""Spools on disk: bytes come back, files go with their last reference, descriptors are few."""

import gc
import os
import random
import threading
from pathlib import Path

import pytest

from arvados_fuse.collection.directory import Directory
from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.moves import Moves
from arvados_fuse.collection.segments import BLOCK_SIZE, Segment
from arvados_fuse.collection.tree import Tree
from arvados_fuse.errors import NoSpaceError, SaveFailed
from arvados_fuse.writeback.moved import known_moves
from arvados_fuse.writeback.spool import SHARED, DiskSpool, Spools

BLOCK = "37b51d194a7513e45b56f6524f2d51f2+3"


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def descriptors(directory: Path) -> int:
    """How many descriptors of this process are in `directory`."""
    links = (os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _exists(name))
    return sum(link.startswith(str(directory)) for link in links)


def _exists(name: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{name}")


def test_what_was_appended_comes_back(tmp_path: Path) -> None:
    spools = Spools(tmp_path)
    spool = spools.new()
    assert [spool.append(b"abc"), spool.append(b""), spool.append(memoryview(b"defg"))] == [0, 3, 3]
    assert (spool.size(), spool.read(2, 4)) == (7, b"cdef")
    target = bytearray(3)
    spool.read_into(4, [memoryview(target)])
    assert target == b"efg"
    assert (spools.bytes, spools.appended) == (7, 7)
    assert (tmp_path / spool.name).stat().st_mode & 0o777 == 0o600


def test_a_file_goes_with_the_last_reference_to_its_spool(tmp_path: Path) -> None:
    spools = Spools(tmp_path)
    spool, other = spools.new(), spools.new()
    spool.append(b"abc")
    other.append(b"12345")
    held = (Segment(spool, 0, 3),)
    del spool
    spools.sweep()
    assert files(tmp_path) == ["00000001.spool", "00000002.spool"]
    del held
    gc.collect()
    spools.sweep()
    assert files(tmp_path) == [other.name]
    assert spools.bytes == 5
    assert descriptors(tmp_path) == 1


def test_small_files_share_a_spool_and_large_ones_leave_it(tmp_path: Path) -> None:
    spools = Spools(tmp_path)
    small, large = Tree(new_spool=spools.begin), b"x" * (SHARED // 4)
    small.upload_early = False
    root = Directory(small, None, ".", ManifestIndex(""))
    contents = [root.create(f"{number}").content() for number in range(10)]
    for number, content in enumerate(contents):
        content.write(0, b"%d" % number)
    assert files(tmp_path) == ["00000001.spool"]
    for _ in range(8):
        contents[0].append(large)
    contents[1].append(b"one more")
    assert (bytes(contents[0].read(0, 1)), bytes(contents[0].read(contents[0].size - 1, 1))) == (b"0", b"x")
    assert [content.read(0, 9) for content in contents[1:]] == [
        b"1one more",
        *(b"%d" % n for n in range(2, 10)),
    ]
    assert files(tmp_path) == ["00000001.spool", "00000002.spool", "00000003.spool"]
    assert SHARED <= os.stat(tmp_path / "00000001.spool").st_size < 2 * SHARED
    for content in contents:
        content.truncate(0)
    del content, contents, root
    gc.collect()
    spools.sweep()
    assert (files(tmp_path), spools.bytes) == ([], 0)


def test_many_spools_need_few_descriptors(tmp_path: Path) -> None:
    spools = Spools(tmp_path, descriptors=8)
    all_of_them = [spools.new() for _ in range(200)]
    for number, spool in enumerate(all_of_them):
        spool.append(b"%d" % number)
    assert descriptors(tmp_path) <= 9
    assert [spool.read(0, spool.size()) for spool in all_of_them] == [b"%d" % n for n in range(200)]
    spools.close()
    assert descriptors(tmp_path) == 0
    assert len(files(tmp_path)) == 200


def test_threads_may_use_more_spools_than_there_are_descriptors(tmp_path: Path) -> None:
    spools = Spools(tmp_path, descriptors=2)
    wrong: list[int] = []

    def work(number: int) -> None:
        spool = spools.new()
        for step in range(200):
            at = spool.append(b"%04d%04d" % (number, step))
            if spool.read(at, 8) != b"%04d%04d" % (number, step):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("piece", [1 << 20, 1_000_003])
def test_a_file_that_is_written_from_end_to_end_has_a_spool_for_each_block(
    tmp_path: Path, piece: int
) -> None:
    """Whatever the pieces are, and whether what was written before is in blocks by now or not. The first
    bytes lie where those of small files do."""
    spools = Spools(tmp_path)
    tree = Tree(new_spool=spools.begin)
    tree.upload_early = False
    content = Directory(tree, None, ".", ManifestIndex("")).create("large").content()
    for at in range(0, 150 << 20, piece):
        content.write(at, b"%010d" % at + bytes(piece - 10))
    assert [bytes(content.read(at, 10)) for at in (0, piece, 100 * piece)] == [
        b"%010d" % at for at in (0, piece, 100 * piece)
    ]
    first, second, third, fourth = (part for part in content.snapshot()[0])
    assert first.size + second.size == third.size == BLOCK_SIZE
    assert first.size < 2 * SHARED
    sources = [part.source for part in (first, second, third, fourth)]
    assert all(isinstance(source, DiskSpool) for source in sources)
    files_of = [source.file_of(part) for source, part in zip(sources, content.snapshot()[0], strict=True)]  # type: ignore[union-attr]
    # The second is full too, but only a part of a block.
    assert [path is not None for path in files_of] == [False, True, True, False]
    moves = Moves()
    for number, part in enumerate((first, second, third, fourth)):
        moves.add(part, Segment(f"{number}{BLOCK[1:]}", 0, part.size))
    content.settle(moves)
    content.append(b"more")
    last = content.snapshot()[0][-1]
    assert isinstance(last.source, DiskSpool)
    assert not last.source.is_shared
    assert last.source.room() == BLOCK_SIZE - 4


def test_a_write_over_the_end_of_a_spool_is_all_or_nothing(tmp_path: Path) -> None:
    spools = Spools(tmp_path)
    tree = Tree(new_spool=lambda *, large=False: spools.new(10))
    tree.upload_early = False
    content = Directory(tree, None, ".", ManifestIndex("")).create("f").content()
    content.write(0, b"12345678")
    os.symlink("/dev/full", tmp_path / "00000002.spool")
    version = content.version
    with pytest.raises(NoSpaceError):
        content.write(4, b"abcdefgh")
    assert (bytes(content.read(0, 100)), content.version) == (b"12345678", version)
    (tmp_path / "00000002.spool").unlink()
    content.write(4, b"abcdefgh")
    assert bytes(content.read(0, 100)) == b"1234abcdefgh"


def test_a_full_disk_has_a_name_and_changes_nothing(tmp_path: Path) -> None:
    spools = Spools(tmp_path)
    spool = spools.new()
    os.symlink("/dev/full", tmp_path / spool.name)
    with pytest.raises(NoSpaceError):
        spool.append(b"abc")
    assert (spool.size(), spools.bytes, spools.appended) == (0, 0, 0)


def test_a_file_that_was_cut_is_noticed(tmp_path: Path) -> None:
    spools = Spools(tmp_path)
    spool = spools.new()
    spool.append(b"abcdef")
    os.truncate(tmp_path / spool.name, 4)
    with pytest.raises(SaveFailed, match="shorter"):
        spool.read(2, 3)
    with pytest.raises(SaveFailed, match="shorter"):
        spool.read_into(2, [memoryview(bytearray(3))])


def test_a_spool_remembers_what_is_in_blocks(tmp_path: Path) -> None:
    spool = Spools(tmp_path).new()
    spool.append(bytes(100))
    spool.note_stored(10, Segment(BLOCK, 5, 20))
    spool.note_stored(50, Segment(BLOCK, 0, 50))
    assert spool.stored(0, 10) == []
    assert spool.stored(29, 1) == [(10, Segment(BLOCK, 5, 20))]
    assert [start for start, _ in spool.stored(0, 100)] == [10, 50]
    whole = [Segment(spool, 0, 100)]
    assert list(known_moves(whole).translate(whole)) == [
        Segment(spool, 0, 10),
        Segment(BLOCK, 5, 20),
        Segment(spool, 30, 20),
        Segment(BLOCK, 0, 50),
    ]


def test_files_that_nothing_knows_are_removed(tmp_path: Path) -> None:
    (tmp_path / "00000007.spool").write_bytes(b"needed")
    (tmp_path / "00000009.spool").write_bytes(b"left behind")
    spools = Spools(tmp_path)
    spool = spools.existing("00000007.spool")
    assert spools.existing("00000007.spool") is spool
    spools.remove_unknown()
    assert files(tmp_path) == ["00000007.spool"]
    assert (spool.read(0, 6), spools.bytes) == (b"needed", 6)
    assert spools.new().name == "00000008.spool", "new names don't meet old ones"


def test_before_the_disk_is_full_spools_go_that_only_wait_for_the_collector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a tree refers to is in a cycle, and Python's collector comes when it comes."""
    blocks, size = 1000, 4096
    asked = os.statvfs

    def small(directory: Path) -> os.statvfs_result:
        used = sum((path.stat().st_size + size - 1) // size for path in tmp_path.iterdir())
        fields = list(asked(directory))
        fields[0] = fields[1] = size
        fields[2], fields[3], fields[4] = blocks, blocks - used, blocks - used
        return os.statvfs_result(fields)

    monkeypatch.setattr(os, "statvfs", small)
    monkeypatch.setattr("arvados_fuse.writeback.spool.COLLECT_PAUSE", 0.0)
    spools = Spools(tmp_path)
    gc.disable()
    try:
        for _ in range(20):
            cycle: list[object] = [spools.new()]
            cycle.append(cycle)
            spool = cycle[0]
            assert isinstance(spool, DiskSpool)
            spool.append(bytes(300 * size))
    finally:
        gc.enable()
    spools.close()


def test_ranges_that_lie_within_each_other_are_no_trouble(tmp_path: Path) -> None:
    """A file is saved, and pieces of it again: whatever overlaps, the bytes are the same, and none twice."""
    chance = random.Random(7)
    spools = Spools(tmp_path)
    for _ in range(300):
        spool, data, moves = spools.new(), bytes(chance.randrange(256) for _ in range(60)), Moves()
        spool.append(data)
        blocks: dict[object, bytes] = {spool: data}
        for number in range(chance.randrange(9)):
            offset = chance.randrange(60)
            size = chance.randrange(1, 61 - offset)
            locator, before = f"{number:032x}+99", chance.randrange(4)
            blocks[locator] = b"#" * before + data[offset : offset + size]
            where = Segment(locator, before, size)
            spool.note_stored(offset, where)
            moves.add(Segment(spool, offset, size), where)
        starts = [chance.randrange(60) for _ in range(5)]
        state = [Segment(spool, start, chance.randrange(1, 61 - start)) for start in starts]
        wanted = b"".join(data[offset : offset + size] for _, offset, size in state)
        for found in (list(known_moves(state).translate(state)), list(moves.translate(state))):
            assert all(segment.size > 0 for segment in found)
            assert (
                b"".join(blocks[source][offset : offset + size] for source, offset, size in found) == wanted
            )


def test_what_a_longer_range_has_is_not_noted(tmp_path: Path) -> None:
    spool = Spools(tmp_path).new()
    spool.append(bytes(100))
    for offset, where in ((10, Segment(BLOCK, 0, 5)), (0, Segment(BLOCK, 0, 50)), (20, Segment(BLOCK, 0, 5))):
        spool.note_stored(offset, where)
    assert spool.stored(0, 100) == [(0, Segment(BLOCK, 0, 50))]


def test_a_file_that_is_asked_for_again_stays(tmp_path: Path) -> None:
    """As when a dead mount's journal is read: a spool is let go and needed again before its file is gone."""
    (tmp_path / "00000007.spool").write_bytes(b"needed")
    spools = Spools(tmp_path)
    first = spools.existing("00000007.spool")
    assert spools.bytes == 6
    del first
    gc.collect()
    spool = spools.existing("00000007.spool")
    spools.sweep()
    assert (spool.read(0, 6), spools.bytes) == (b"needed", 6)
    del spool
    gc.collect()
    spools.sweep()
    assert (files(tmp_path), spools.bytes) == ([], 0)
