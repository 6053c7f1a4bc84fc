"""One collection in two places of a mount: what is changed in one shows in the other."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounting import mounted, needs_fuse
from servers import LocalServer, wait_for
from worlds import Maker, environment

pytestmark = needs_fuse

SOON = 5.0
"""Seconds within which a program at the other place sees it."""


@pytest.fixture
def places(local_server: LocalServer, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """The same collection by its name and by its uuid."""
    user = Maker(local_server, local_server.new_user(f"places{secrets.token_hex(4)}")[1])
    files = {"f": b"first", "d/g": b"g", "gone": b"gone", "d/moved": b"moved"}
    uuid = user.collection("both", files)["uuid"]
    with mounted(tmp_path, environment(local_server, user.token), "--read-write") as mount:
        yield mount.root / "home/both", mount.root / "by_id" / uuid


def content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


@pytest.mark.parametrize("saved", [True, False], ids=["saved", "still open"])
def test_changes_show_in_the_other_place(places: tuple[Path, Path], saved: bool) -> None:
    here, there = places
    for path in ("f", "d/g", "gone", "d/moved", "new", "d"):
        with_nothing = content(there / path) if path != "d" else os.listdir(there / path)
        assert with_nothing is not None or path == "new"
    with open(here / "f", "wb") as file:
        file.write(b"second, and longer")
        file.flush()
        (here / "new").write_bytes(b"new")
        (here / "gone").unlink()
        (here / "d/moved").rename(here / "renamed")
        if saved:
            os.fsync(file.fileno())
        wanted = {
            "f": b"second, and longer",
            "d/g": b"g",
            "gone": None,
            "d/moved": None,
            "new": b"new",
            "renamed": b"moved",
        }
        for path, data in wanted.items():
            wait_for(lambda path=path, data=data: content(there / path) == data, path, SOON)  # type: ignore[misc]
        assert sorted(os.listdir(there)) == ["d", "f", "new", "renamed"]
        assert os.listdir(there / "d") == ["g"]
