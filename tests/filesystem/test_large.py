"""Very large collections: what a refresh asks for, and memory that stays within the directory cache."""

import gc
import re
import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from counting import request_counter
from drivers import TreeDriver, exists
from servers import LocalServer
from worlds import Maker, session

from arvados_fuse.api import ApiClient
from arvados_fuse.tree.inodes import ROOT

MILLION = 1_000_000
PER_DIRECTORY = 1000
MANY = 100_000
COLLECTIONS = 10
MEASURED = 3
CAP = 12 << 20
"""Bytes of the directory cache; one collection of MANY files needs most of it."""


def manifest(block: str, files: int, mark: str) -> str:
    """So many small files in directories of PER_DIRECTORY."""
    tokens = " ".join(f"{number % 90}:{number % 10}:file{number:04d}" for number in range(PER_DIRECTORY))
    lines = [f"./{mark}{number:04d} {block} {tokens}\n" for number in range(files // PER_DIRECTORY)]
    return "".join(lines)


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Maker]:
    """On a server of its own: its log is counted, its database large."""
    server = LocalServer(tmp_path_factory.mktemp("large") / "data")
    try:
        server.start()
        yield Maker(server, server.settings.token)
    finally:
        server.stop()


def test_refresh_of_a_million_files_is_one_small_request(
    maker: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = manifest(maker.block(bytes(range(100))), MILLION, "d")
    uuid = maker.make("collections", name="million", manifest_text=text)["uuid"]
    requests = request_counter(maker.server)
    answers: list[int] = []
    real = ApiClient.get_collection

    def spy(client: ApiClient, key: str, **options: Any) -> Any:
        record = real(client, key, **options)
        answers.append(len(repr(record)))
        return record

    monkeypatch.setattr(ApiClient, "get_collection", spy)
    with session(
        maker.server, maker.token, tmp_path, mode="collection", target=uuid, refresh_time=3600.0
    ) as built:
        root = TreeDriver(built.filesystem)
        assert len(root.names("d0500")) == PER_DIRECTORY
        requests()
        answers.clear()
        for number in range(3):
            state = built.filesystem.context.known_collection(uuid)
            assert state is not None
            state.expire()
            assert exists(root, f"d0500/file0{number}00")
            assert root.stat("d0999/file0999").size == 9
            assert len(requests()) == 1
        assert max(answers) < 2000, "bytes of an answer"


def test_a_walk_over_ten_large_collections_stays_within_the_cap(maker: Maker, tmp_path: Path) -> None:
    """What the kernel holds comes on top: here it holds the root, and two files of the first."""
    project = maker.project("large ones")
    block, uuids = maker.block(bytes(range(100))), []
    for number in range(COLLECTIONS):
        text = manifest(block, MANY, f"c{number}d")
        made = maker.make("collections", name=f"c{number}", manifest_text=text, owner_uuid=project)
        uuids.append(made["uuid"])
    del text
    with session(
        maker.server, maker.token, tmp_path, mode="project", target=project, directory_cache=CAP
    ) as built:
        fs = built.filesystem
        root = TreeDriver(fs)
        held = [fs.lookup(ROOT, b"c0")]
        held.append(fs.lookup(held[0].ino, b"c0d0007"))
        held += [fs.lookup(held[1].ino, name) for name in (b"file0001", b"file0999")]
        opened = root.open("c0/c0d0050/file0055")
        for number in range(COLLECTIONS - MEASURED):
            assert walked(root, f"c{number}") == MANY
            assert fs.context.cache.total <= CAP
            fs.check()
        # From here on memory is measured, which takes long: from nothing, and again past the cap.
        for state in filter(None, map(fs.context.known_collection, uuids)):
            while state.shrink():
                pass
        gc.collect()
        tracemalloc.start()
        for number in range(COLLECTIONS - MEASURED, COLLECTIONS):
            assert walked(root, f"c{number}") == MANY
            assert fs.context.cache.total <= CAP
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        fs.check()
        print(f"{grown >> 20} MiB grown with a cache of {CAP >> 20} MiB")
        assert grown < CAP * 1.2, "what is counted is what is used"
        assert bytes(opened.read(0, 10)) == bytes(range(100))[55:60]
        opened.close()
        assert fs.getattr(held[2].ino).size == 1
        fs.forget([(each.ino, 1) for each in held])
        assert len(fs.inodes) == 1


def walked(root: TreeDriver, collection: str) -> int:
    """How many files `find` sees there: names of all, attributes of some."""
    fs, count = root.fs, 0
    for directory in root.names(collection):
        with root.at(f"{collection}/{directory}") as found:
            fh = fs.opendir(found.ino)
            entries = list(fs.readdir(fh, 2))
            fs.releasedir(fh)
            count += len(entries)
            for entry in islice(entries, 0, None, 250):
                each = fs.lookup(found.ino, entry.name)
                assert each.size == int(re.sub(rb"\D", b"", entry.name)) % 10
                fs.forget([(each.ino, 1)])
    return count
