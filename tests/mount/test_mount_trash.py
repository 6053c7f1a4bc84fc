"""`mv` out of the trash, and that nothing else changes there or in past versions, on a mount that writes."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mounting import Mounted, mounted, needs_fuse
from servers import wait_for
from worlds import Maker, environment

pytestmark = needs_fuse


@pytest.fixture
def home(mine: Maker, tmp_path: Path) -> Iterator[Mounted]:
    options = ("--home", "--read-write", "--debug", "--refresh-time", "3600")
    with mounted(tmp_path, environment(mine.server, mine.token), *options) as mount:
        wait_for(lambda: "Events: connected" in mount.log, "events arrive")
        yield mount


def throw(maker: Maker, path: str) -> None:
    assert maker.server.call("DELETE", path, token=maker.token).status == 200


def test_mv_brings_things_back(home: Mounted, mine: Maker) -> None:
    project = mine.project("p")
    uuid = mine.collection("c", {"f": b"back"}, owner_uuid=project)["uuid"]
    sub = mine.project("sub", owner_uuid=project)
    mine.collection("inner", {"g": b"inner"}, owner_uuid=sub)
    place = home.root / "p"
    wait_for((place / "c/f").exists, "it is there first")
    throw(mine, f"collections/{uuid}")
    throw(mine, f"groups/{sub}")
    wait_for(lambda: sorted(os.listdir(place / ".trash")) == ["c", "sub"], "they are in the trash")
    assert os.listdir(place) == []
    subprocess.run(["mv", place / ".trash/c", place / "again"], check=True)
    assert (place / "again/f").read_bytes() == b"back"
    subprocess.run(["mv", place / ".trash/sub", home.root], check=True)
    assert (home.root / "sub/inner/g").read_bytes() == b"inner"
    assert os.listdir(place / ".trash") == []
    (place / "again/new").write_bytes(b"it can be written again")
    assert (place / "again/new").read_bytes() == b"it can be written again"


def test_nothing_else_changes_there(home: Mounted, mine: Maker) -> None:
    project = mine.project("q")
    uuid = mine.collection("c", {"f": b"one"}, owner_uuid=project, preserve_version=True)["uuid"]
    mine.update("collections", uuid, manifest_text=mine.manifest({"f": b"two"}), preserve_version=True)
    thrown = mine.collection("thrown", {"f": b"thrown"}, owner_uuid=project)["uuid"]
    throw(mine, f"collections/{thrown}")
    place = home.root / "q"
    wait_for(lambda: (place / "c/f").read_bytes() == b"two", "it is there")
    trash, past = place / ".trash", place / "c/.versions/1"
    assert (past / "f").read_bytes() == b"one"
    changes: list[Callable[[], object]] = [
        lambda: (past / "f").write_bytes(b"no"),
        lambda: os.truncate(past / "f", 0),
        (past / "f").unlink,
        lambda: (past / "new").write_bytes(b"no"),
        (past / "new").mkdir,
        lambda: (past / "f").rename(past / "g"),
        lambda: past.rename(place / "moved"),
        past.rmdir,
        lambda: (trash / "thrown/f").write_bytes(b"no"),
        (trash / "thrown/f").unlink,
        (trash / "thrown").rmdir,
        (trash / "new").mkdir,
        lambda: (place / "c").rename(trash / "c"),
        lambda: trash.rename(place / "moved"),
        trash.rmdir,
    ]
    for number, change in enumerate(changes):
        with pytest.raises(OSError, match=r"Errno (1|13|30|39|95|18|16|22)\]"):
            change()
        assert (place / "c/f").read_bytes() == b"two", number
    assert (past / "f").read_bytes() == b"one"
    assert os.listdir(trash) == ["thrown"]
    assert (trash / "thrown/f").stat().st_size == 6
