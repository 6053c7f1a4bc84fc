"""Large directories, and memory that stays bounded."""

import gc
import tracemalloc
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
from drivers import TreeDriver, exists, read, walk
from servers import wait_for
from worlds import Maker, World, session

from arvados_fuse.collection import collector
from arvados_fuse.tree.version import Version

MANY = 100_000


@pytest.fixture(scope="module")
def large(world: World) -> str:
    """A collection with one directory of 10^5 files and 100 directories of 100; its portable data hash."""
    mine = Maker(world.server, world.other_token)
    block = mine.block(bytes(range(100)))
    names = " ".join(f"{number % 90}:{number % 10}:file{number:06d}" for number in range(MANY))
    lines = [f"./flat {block} {names}\n"]
    few = " ".join(f"{number % 90}:{number % 10}:f{number:02d}" for number in range(100))
    lines += [f"./tree/d{number:02d} {block} {few}\n" for number in range(100)]
    return str(mine.make("collections", name="large", manifest_text="".join(lines))["portable_data_hash"])


@pytest.fixture
def root(world: World, large: str, tmp_path: Path) -> Iterator[TreeDriver]:
    with session(world.server, world.other_token, tmp_path, mode="collection", target=large) as built:
        yield TreeDriver(built.filesystem)


@pytest.mark.parametrize("piece", [1, 7, 1000, MANY * 2])
def test_a_listing_can_be_read_in_pieces_of_any_size(root: TreeDriver, piece: int) -> None:
    fs = root.fs
    directory = fs.lookup(1, b"flat")
    fh = fs.opendir(directory.ino)
    names: list[bytes] = []
    offset = 0
    wanted = MANY if piece >= 1000 else 300 * piece
    while len(names) < wanted + 2:
        entries = list(islice(fs.readdir(fh, offset), piece))
        if not entries:
            break
        names += [entry.name for entry in entries]
        offset = entries[-1].next_offset
    assert names[:2] == [b".", b".."]
    assert names[2:] == [f"file{number:06d}".encode() for number in range(len(names) - 2)]
    assert len(names) == wanted + 2 if wanted == MANY else len(names) > wanted
    # Going back gives the same again.
    again = next(iter(fs.readdir(fh, 52)))
    assert again.name == b"file000050"
    fs.releasedir(fh)
    fs.forget([(directory.ino, 1)])


def test_listed_numbers_are_those_of_stat(root: TreeDriver) -> None:
    fs = root.fs
    directory = fs.lookup(1, b"flat")
    fh = fs.opendir(directory.ino)
    for entry in islice(fs.readdir(fh, 2), 200):
        found = fs.lookup(directory.ino, entry.name)
        assert found.ino == entry.ino
        fs.forget([(found.ino, 1)])
    fs.releasedir(fh)
    fs.forget([(directory.ino, 1)])


def test_a_walk_leaves_nothing_behind(root: TreeDriver) -> None:
    fs = root.fs
    assert sum(1 for _ in walk(root, "tree")) == 100 * 100 + 100
    assert len(root.names("flat")) == MANY
    assert len(fs.inodes) == 1


def test_a_file_that_the_kernel_knows_is_small(root: TreeDriver) -> None:
    fs = root.fs
    directory = fs.lookup(1, b"flat")
    fs.forget([(fs.lookup(directory.ino, b"file000000").ino, 1)])
    gc.collect()
    tracemalloc.start()
    numbers = [fs.lookup(directory.ino, f"file{number:06d}".encode()).ino for number in range(20_000)]
    each = tracemalloc.get_traced_memory()[0] / len(numbers)
    tracemalloc.stop()
    assert each < 700, f"{each:.0f} bytes"
    fs.check()
    fs.forget([(number, 1) for number in numbers] + [(directory.ino, 1)])
    assert len(fs.inodes) == 1


def test_the_directory_cache_has_its_size(mine: Maker, tmp_path: Path) -> None:
    project = mine.project("many collections")
    block = mine.block(bytes(range(100)))
    files = {f"d{number % 5}/file{number:04d}": (number % 90, number % 10) for number in range(500)}
    lines: dict[str, list[str]] = {}
    for path, (position, size) in files.items():
        directory, _, name = path.partition("/")
        lines.setdefault(directory, []).append(f"{position}:{size}:{name}")
    text = "".join(f"./{directory} {block} {' '.join(tokens)}\n" for directory, tokens in lines.items())
    for number in range(20):
        mine.make("collections", name=f"c{number:02d}", manifest_text=text, owner_uuid=project)
    cap = 150_000  # less than three of them
    with session(
        mine.server, mine.token, tmp_path, mode="project", target=project, directory_cache=cap
    ) as built:
        root, fs = TreeDriver(built.filesystem), built.filesystem
        held = fs.lookup(1, b"c00")
        opened = root.open("c00/d1/file0001")
        for _ in range(2):
            for number in range(20):
                found = [path for path, told in walk(root, f"c{number:02d}") if not told.is_dir]
                assert len(found) == len(files)
                assert fs.context.cache.total <= cap
                fs.check()
        assert opened.read(0, 100) == bytes(range(100))[1:2]
        assert read(root, "c00/d4/file0009") == bytes(range(100))[9:18]
        opened.close()
        fs.forget([(held.ino, 1)])
        assert len(fs.inodes) == 1


def test_trees_that_were_replaced_do_not_stay(
    mine: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others change a large collection again and again, and we look: few of its trees are in memory."""
    block = mine.block(b"x")
    lines = "".join(f"./d{number:05d} {block} 0:1:f\n" for number in range(2000))
    uuid = mine.make("collections", name="changing", manifest_text=lines)["uuid"]
    monkeypatch.setattr(collector, "LOADED_LIMIT", 3 * len(lines))
    gc.collect()
    gc.disable()  # by itself it may look in time, and may not
    try:
        options = {"mode": "collection", "target": uuid, "refresh_time": 0.0}
        with session(mine.server, mine.token, tmp_path, **options) as built:
            root = TreeDriver(built.filesystem)
            assert root.names("d00000") == ["f"]
            for number in range(12):
                text = f"{lines}./new {block} 0:1:f{number}\n"
                mine.update("collections", uuid, manifest_text=text)
                wait_for(partial(exists, root, f"new/f{number}"), "the change is seen")
                assert sum(isinstance(each, Version) for each in gc.get_objects()) <= 6
    finally:
        gc.enable()


def test_what_was_only_listed_and_stated_goes_without_the_cycle_collector(
    world: World, tmp_path: Path
) -> None:
    mine = Maker(world.server, world.other_token)
    project = mine.project("only listed")
    for number in range(20):
        mine.make("collections", name=f"c{number:02d}", owner_uuid=project)
    with session(world.server, world.other_token, tmp_path, mode="project", target=project) as built:
        root = TreeDriver(built.filesystem)
        context = built.filesystem.context
        gc.collect()
        gc.disable()
        try:
            names = [name.encode() for name in root.names("")]
            inodes = [root.fs.lookup(1, name).ino for name in names]
            assert len(context._collections.values()) == 20
            root.fs.forget([(ino, 1) for ino in inodes])
            assert len(context._collections.values()) == 0
        finally:
            gc.enable()
        root.fs.check()
