"""The journal can't be written for a moment."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from drivers import TreeDriver, read, refused
from worlds import Maker, session

from arvados_fuse.errors import NoSpaceError
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
