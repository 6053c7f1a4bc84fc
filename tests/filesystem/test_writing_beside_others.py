"""Others change a file that is open or unsaved here: whatever comes of ours, theirs is not undone."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from drivers import TreeDriver, read
from servers import wait_for
from worlds import Maker, session

from arvados_fuse.cli.build import MountSession
from arvados_fuse.tree.collection_state import CollectionState
from arvados_fuse.writeback import pending as pending_rows

CONFLICT = "~conflict~"


class Beside:
    """Two mounts of one collection that has `f` and `g`."""

    def __init__(self, maker: Maker, directory: Path) -> None:
        self.maker = maker
        self.directory = directory
        self.uuid = str(maker.collection("beside", {"f": b"theirs and ours\n", "g": b"g"})["uuid"])

    @contextmanager
    def mount(self) -> Iterator[tuple[MountSession, TreeDriver]]:
        cache = self.directory / secrets.token_hex(4)
        cache.mkdir()
        with session(
            self.maker.server, self.maker.token, cache, read_write=True, mode="collection", target=self.uuid
        ) as built:
            yield built, TreeDriver(built.filesystem)

    def state(self, built: MountSession) -> CollectionState:
        state = built.filesystem.context.known_collection(self.uuid)
        assert state is not None
        return state

    def others_write(self, name: str, data: bytes) -> None:
        """Another mount replaces what is at a path, and saves it."""
        with self.mount() as (_, driver):
            file = driver.open_file(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            file.write(0, data)
            file.fsync()
            file.close()

    def hear(self, built: MountSession, driver: TreeDriver) -> None:
        """Our mount learns what others have changed."""
        working = self.state(built).working
        assert working is not None
        taken = working.taken
        self.state(built).expire()
        driver.names("")
        wait_for(lambda: working.taken > taken, "the newer record is taken")

    def saved(self) -> dict[str, bytes]:
        """What a fresh mount shows, conflict names without their time."""
        with self.mount() as (_, driver):
            return {
                name.partition("~")[0] + CONFLICT * (CONFLICT in name): read(driver, name)
                for name in driver.names("")
            }


@pytest.fixture
def beside(mine: Maker, tmp_path: Path) -> Beside:
    return Beside(mine, tmp_path)


def test_a_file_that_is_only_open_shows_theirs_when_it_is_closed(beside: Beside) -> None:
    with beside.mount() as (built, driver):
        busy = driver.open_file("g", os.O_RDWR)
        file = driver.open_file("f", os.O_RDWR)
        beside.others_write("f", b"their line\n")
        beside.hear(built, driver)
        assert file.read(0, 100) == b"theirs and ours\n"
        file.close()
        assert read(driver, "f") == b"their line\n"
        file = driver.open_file("f", os.O_RDWR)
        file.write(11, b"our line\n")
        file.fsync()
        file.close()
        busy.close()
    assert beside.saved() == {"f": b"their line\nour line\n", "g": b"g"}


def test_a_file_that_is_written_later_leaves_theirs_beside_it(beside: Beside) -> None:
    with beside.mount() as (built, driver):
        file = driver.open_file("f", os.O_RDWR)
        beside.others_write("f", b"their line\n")
        beside.hear(built, driver)
        another = driver.open_file("f", os.O_RDWR)
        another.write(0, b"OURS")
        another.fsync()
        another.close()
        file.close()
    assert beside.saved() == {"f": b"OURSrs and ours\n", f"f{CONFLICT}": b"their line\n", "g": b"g"}


def test_a_file_that_is_removed_while_it_is_open_leaves_theirs(beside: Beside) -> None:
    with beside.mount() as (built, driver):
        file = driver.open_file("f", os.O_RDWR)
        beside.others_write("f", b"their line\n")
        beside.hear(built, driver)
        driver.unlink("f")
        file.close()
    assert beside.saved() == {f"f{CONFLICT}": b"their line\n", "g": b"g"}


def test_a_change_that_was_taken_back_is_none(beside: Beside) -> None:
    """Ours was new and unsaved when others made a file of that name; then ours was removed, and made anew."""
    with beside.mount() as (built, driver):
        busy = driver.open_file("g", os.O_RDWR)
        new = driver.open_file("new", os.O_RDWR | os.O_CREAT)
        beside.others_write("new", b"their line\n")
        beside.hear(built, driver)
        driver.unlink("new")
        new.close()
        assert read(driver, "new") == b"their line\n"
        again = driver.open_file("new", os.O_RDWR)
        again.write(0, b"OUR")
        again.close()
        busy.close()
    assert beside.saved() == {"f": b"theirs and ours\n", "g": b"g", "new": b"OURir line\n"}


def test_what_others_remove_goes_when_nothing_of_ours_comes(beside: Beside) -> None:
    with beside.mount() as (built, driver):
        busy = driver.open_file("g", os.O_RDWR)
        file = driver.open_file("f", os.O_RDWR)
        with beside.mount() as (_, other):
            other.unlink("f")
        beside.hear(built, driver)
        assert driver.names("") == ["f", "g"]
        file.close()
        assert driver.names("") == ["g"]
        busy.close()
    assert beside.saved() == {"g": b"g"}


def test_what_we_saved_is_ours_however_much_was_saved_since(
    beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that stays open is saved again and again, also one in more pieces than are remembered."""
    monkeypatch.setattr(pending_rows, "REMEMBERED", 20)
    with beside.mount() as (_, driver):
        log = driver.open_file("f", os.O_RDWR)
        for turn in range(3):
            for piece in range(15):
                log.write(2 * piece, b"%d" % turn)
            log.fsync()
            for number in range(15):
                small = driver.open_file(f"small{number}", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
                small.write(0, b"%d" % turn)
                small.close()
            driver.fsync_directory("")
        log.close()
    names = beside.saved().keys()
    assert not [name for name in names if CONFLICT in name]
    assert len(names) == 17
