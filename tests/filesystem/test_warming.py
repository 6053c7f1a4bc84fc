"""Whole trees in the cache before anybody reads them; pinned content without the cluster."""

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from drivers import TreeDriver, read
from servers import LocalServer
from worlds import Maker, World, session

from arvados_fuse.cli.build import MountSession
from arvados_fuse.errors import NoSpaceError, NotFoundError, NotSupported
from arvados_fuse.keep.store import SMALLEST_LIMIT
from arvados_fuse.tree.inodes import ROOT
from arvados_fuse.tree.warming import WarmingRun

MIB = 1 << 20


@contextmanager
def opened(
    maker: Maker, cache: Path, **options: Any
) -> Iterator[tuple[MountSession, WarmingRun, TreeDriver]]:
    """A mount's floors with what answers requests."""
    with session(maker.server, maker.token, cache, **options) as built:
        fs = built.filesystem
        yield built, WarmingRun(fs.context, fs.inodes.directory(ROOT)), TreeDriver(fs)


def last(steps: Any) -> dict[str, Any]:
    """What a run tells at its end."""
    done: dict[str, Any] = list(steps)[-1]["done"]
    return done


def received(built: MountSession) -> int:
    """Bytes that came from Keep."""
    return built.filesystem.context.blocks.counters.get("net.received_bytes")


@pytest.fixture
def own(fresh_server: LocalServer) -> Maker:
    return Maker(fresh_server, fresh_server.settings.token)


def make_tree(maker: Maker) -> dict[str, bytes]:
    """A project with collections in it and below; every file's path and content."""
    files: dict[str, bytes] = {}
    project = maker.project("project")
    for owner, way in ((project, "project"), (maker.project("sub", owner_uuid=project), "project/sub")):
        for number in range(2):
            inside = {f"d{n}/f{n}": secrets.token_bytes(10_000) for n in range(3)}
            maker.collection(f"c{number}", inside, owner_uuid=owner)
            files |= {f"home/{way}/c{number}/{path}": data for path, data in inside.items()}
    return files


def test_a_whole_project(mine: Maker, tmp_path: Path) -> None:
    files = make_tree(mine)
    mine.collection("beside", {"f": b"not wanted"})
    with opened(mine, tmp_path, mode="all") as (built, run, root):
        steps = list(run.warm(["home/project"], pin=False))
        assert steps[-1]["done"] == {"files": 12, "bytes": 120_000, "failures": 0}
        assert any(step.get("files") == step.get("all_files") == 12 for step in steps)
        assert received(built) == 120_000
        for path, data in files.items():
            assert read(root, path) == data
        assert received(built) == 120_000, "nothing more had to be fetched"


def test_one_directory_one_file_several_paths(mine: Maker, tmp_path: Path) -> None:
    make_tree(mine)
    with opened(mine, tmp_path, mode="all") as (built, run, _):
        assert last(run.warm(["home/project/c0/d1"], pin=False))["files"] == 1
        assert received(built) == 10_000
        paths = ["home/project/c0/d0/f0", "home/project/sub/c1/"]
        assert last(run.warm(paths, pin=False))["files"] == 4
        assert received(built) == 50_000


def test_paths_that_are_nothing_of_the_kind(mine: Maker, tmp_path: Path) -> None:
    make_tree(mine)
    with opened(mine, tmp_path, mode="all") as (_, run, _root):
        for path in ("home/nothing", "home/project/c0/nothing", "home/project/c0/d0/f0/deeper"):
            with pytest.raises(NotFoundError):
                list(run.warm([path], pin=False))
        with pytest.raises(NotSupported):
            list(run.warm(["README"], pin=False))


def test_a_tree_that_contains_itself_ends(world: World, tmp_path: Path) -> None:
    maker = Maker(world.server, world.token)
    with opened(maker, tmp_path, mode="home") as (_, run, _root):
        assert last(run.warm([""], pin=False))["files"] > 0


def test_a_missing_block_fails_its_file_only(own: Maker, tmp_path: Path) -> None:
    data = secrets.token_bytes(1000)
    own.collection("c", {"a": b"first", "b": data, "c": b"third"})
    for path in own.server.data_dir.rglob(f"{hashlib.md5(data).hexdigest()}*"):
        path.unlink()
    with opened(own, tmp_path / "cache", mode="home") as (_, run, _root):
        *_, failure, done = list(run.warm(["c"], pin=False))
        assert done["done"]["failures"] == 1
        assert failure["failure"]["path"] == "c/b"
        assert "Block not found" in failure["failure"]["message"]


def test_pinned_content_is_readable_without_the_cluster(own: Maker, tmp_path: Path) -> None:
    data = secrets.token_bytes(200_000)
    made = own.collection("c", {"d/pinned": data, "d/other": b"other"})
    pdh = made["portable_data_hash"]
    with opened(own, tmp_path, mode="all", deadline=2.0) as (_, run, _root):
        assert last(run.warm(["home/c/d/pinned"], pin=True))["files"] == 1
    # Another mount, later, which never saw the collection.
    with opened(own, tmp_path, mode="all", deadline=2.0) as (built, run, root):
        own.server.kill()
        path = f"by_id/{pdh}/d/pinned"
        assert read(root, path) == data
        assert root.names(f"by_id/{pdh}/d") == ["other", "pinned"]
        with pytest.raises(OSError, match="Input/output"):
            root.names(f"by_id/{'0' * 32}+99")
        assert last(run.unpin([])) == {"unpinned": 1}
        assert built.filesystem.context.blocks.pins is not None
        assert built.filesystem.context.blocks.pins.all() == []


def test_what_is_not_pinned_of_it_is_fetched_with_new_signatures(mine: Maker, tmp_path: Path) -> None:
    made = mine.collection("c", {"pinned": secrets.token_bytes(1000), "other": b"other"})
    pdh = made["portable_data_hash"]
    with opened(mine, tmp_path, mode="all") as (_, run, _root):
        list(run.warm(["home/c/pinned"], pin=True))
    with opened(mine, tmp_path, mode="all") as (_, run, root):
        # Read without asking the API server, so without signatures; Keep wants them.
        assert read(root, f"by_id/{pdh}/other") == b"other"
        assert last(run.warm([f"by_id/{pdh}"], pin=False))["failures"] == 0
        assert last(run.unpin(["home/c"])) == {"unpinned": 1}
        assert last(run.unpin(["home/c"])) == {"unpinned": 0}


def test_unpinning_below(mine: Maker, tmp_path: Path) -> None:
    make_tree(mine)
    with opened(mine, tmp_path, mode="all") as (_, run, _root):
        list(run.warm(["home/project"], pin=True))
        assert last(run.unpin(["home/project/sub/c0/d0"])) == {"unpinned": 0}, (
            "the whole collection is pinned"
        )
        assert last(run.unpin(["home/project/sub"])) == {"unpinned": 2}
        assert last(run.unpin(["home"])) == {"unpinned": 2}


def test_more_than_fits_is_refused_before_anything_is_fetched(mine: Maker, tmp_path: Path) -> None:
    pieces = {f"f{number}": secrets.token_bytes(20 * MIB) for number in range(4)}
    mine.collection("c", pieces)
    with opened(mine, tmp_path, mode="home", file_cache=SMALLEST_LIMIT) as (built, run, _root):
        with pytest.raises(NoSpaceError, match="file-cache"):
            list(run.warm(["c"], pin=False))
        with pytest.raises(NoSpaceError, match="unpin"):
            list(run.warm(["c"], pin=True))
        assert received(built) == 0
        assert last(run.warm(["c/f0", "c/f1"], pin=True))["failures"] == 0
