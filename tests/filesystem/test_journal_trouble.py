"""The journal can't be written for a moment."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from drivers import TreeDriver, read, refused
from servers import wait_for
from worlds import Maker, session
from writing_bench import compare, record_of, sdk_reads

from arvados_fuse.errors import NoSpaceError
from arvados_fuse.tree import recorder, working
from arvados_fuse.writeback.journal import Journal


def _full(*_: Any) -> None:
    raise NoSpaceError("no space left for the journal")


def test_what_could_not_be_recorded_is_not_taken_for_recorded(
    mine: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next fsync does it, rather than to say that all is well."""
    uuid = mine.collection("c", {"f": b"old"})["uuid"]
    options = {"mode": "collection", "target": uuid}
    with session(mine.server, mine.token, tmp_path, read_write=True, **options) as built:
        file = TreeDriver(built.filesystem).open_file("f", os.O_RDWR)
        file.write(0, b"new")
        with monkeypatch.context() as patch, refused(errno.ENOSPC):
            patch.setattr(Journal, "write", _full)
            file.fsync()
        file.fsync()
        with session(mine.server, mine.token, tmp_path / "other", **options) as other:
            assert read(TreeDriver(other.filesystem), "f") == b"new"
        file.close()


def test_what_could_not_be_recorded_is_recorded_with_what_comes_next(
    mine: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sees a change sees it after a crash too, once something later is in the journal."""
    uuid = mine.collection("c", {"f": b"old", "g": b"g"})["uuid"]
    options = {"mode": "collection", "target": uuid}
    with session(mine.server, mine.token, tmp_path, read_write=True, **options) as built:
        tree = TreeDriver(built.filesystem)
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "write", _full)
            file = tree.open_file("f", os.O_WRONLY | os.O_TRUNC)
            file.write(0, b"new")
            with refused(errno.ENOSPC):
                file.close()
            with refused(errno.ENOSPC):
                tree.unlink("g")
        assert read(tree, "f") == b"new"
        writeback = built.filesystem.context.writeback
        assert writeback is not None
        assert not writeback.is_pending(uuid)
        tree.mkdir("d")
        assert writeback.pending(uuid).keys() == {"f", "g", "d"}
        writeback.save(uuid, deadline=20)
        with session(mine.server, mine.token, tmp_path / "other", **options) as other:
            shown = TreeDriver(other.filesystem)
            assert read(shown, "f") == b"new"
            assert sorted(shown.names("")) == ["d", "f"]


def test_what_could_not_be_recorded_is_recorded_while_somebody_looks(
    mine: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not forgotten when nothing else is unsaved, and nothing comes after it."""
    made = mine.collection("c", {"f": b"old"})
    uuid, before = made["uuid"], made["portable_data_hash"]
    monkeypatch.setattr(recorder, "AGAIN", 0.1)
    monkeypatch.setattr(working, "REST_AFTER", 0.0)
    with session(mine.server, mine.token, tmp_path, read_write=True, mode="collection", target=uuid) as built:
        tree = TreeDriver(built.filesystem)
        file = tree.open_file("f", os.O_WRONLY | os.O_TRUNC)
        file.write(0, b"new")
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "write", _full)
            with refused(errno.ENOSPC):
                file.close()
            for _ in range(5):
                assert read(tree, "f") == b"new"
        writeback = built.filesystem.context.writeback
        assert writeback is not None

        def is_recorded() -> bool:
            assert read(tree, "f") == b"new"
            record = mine.server.call("GET", f"collections/{uuid}", token=mine.token).body
            return writeback.is_pending(uuid) or record["portable_data_hash"] != before

        wait_for(is_recorded, "it is in the journal, or saved")


def test_what_moved_to_another_collection_is_recorded_in_both_or_in_none(
    mine: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of them is changed next: it is never saved where it came to lie and left where it was."""
    files = {"d/f": b"f", "g": b"g", "h": b"h", "stays": b"stays"}
    one, other = (mine.collection(name, files)["uuid"] for name in "ab")
    with session(mine.server, mine.token, tmp_path, read_write=True, mode="by_id") as built:
        tree = TreeDriver(built.filesystem)
        writeback = built.filesystem.context.writeback
        assert writeback is not None
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "write", _full)
            for name, new in (("d", "moved"), ("g", "g2"), ("h", "h2")):
                with refused(errno.ENOSPC):
                    tree.rename(f"{one}/{name}", f"{other}/{new}")
            assert not any(map(writeback.is_pending, (one, other)))
        tree.mkdir(f"{one}/e")
        assert writeback.pending(one).keys() >= {"d/f", "g", "h", "e"}
        assert writeback.pending(other).keys() >= {"moved/f", "g2", "h2"}
        writeback.save(None, deadline=20)
    for uuid, expected in (
        (one, {"e": None, "stays": b"stays"}),
        (other, files | {"moved/f": b"f", "g2": b"g", "h2": b"h"}),
    ):
        compare(sdk_reads(mine, record_of(mine, uuid)["manifest_text"]), expected, uuid)
