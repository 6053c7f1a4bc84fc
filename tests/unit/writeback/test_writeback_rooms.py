"""Rooms: one owner at a time, readable by nobody else; leftovers are found, other things are left alone."""

import time
from pathlib import Path

import pytest

from arvados_fuse.writeback.journal import Journal, Owner
from arvados_fuse.writeback.recovery import list_pending, take_over
from arvados_fuse.writeback.rooms import Room, leftovers, room_at

OWNER = Owner("h", "u")


def test_a_room_is_for_its_owner_only(tmp_path: Path) -> None:
    room = Room.create(tmp_path / "new" / "parent")
    for path in (room.path, room.spools, tmp_path / "new" / "parent"):
        assert path.stat().st_mode & 0o777 == 0o700
    assert (room.path / "lock").stat().st_mode & 0o777 == 0o600
    room.release()


def test_who_has_the_lock_has_the_room(tmp_path: Path) -> None:
    room = Room.create(tmp_path)
    assert leftovers(tmp_path) == []
    assert room_at(room.path) is None
    room.release()
    (taken,) = leftovers(tmp_path)
    assert taken.path == room.path
    assert room_at(room.path) is None
    assert leftovers(tmp_path) == []
    taken.release()


def test_leftovers_are_in_the_order_of_their_making_though_the_clock_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written later must be saved later: it may be the same file."""
    made = []
    for now in (1_000_000, 1_000_000, 990_000, 10, 2_000_000):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        room = Room.create(tmp_path)
        made.append(room.path)
        Journal.create(room.journal, OWNER, room.since).close()
        room.release()
    monkeypatch.undo()
    found = leftovers(tmp_path)
    assert [room.path for room in found] == made
    assert [room.since for room in found] == [1_000_000, 1_000_001, 1_000_002, 1_000_003, 2_000_000]
    for room in found:
        room.release()


def test_half_a_room_is_nothing_and_goes(tmp_path: Path) -> None:
    """Killed while a room was made or removed."""
    for number in range(4):
        room = Room.create(tmp_path)
        if number == 1:
            (room.spools / "00000001.spool").write_bytes(b"left behind")
        if number == 2:
            room.spools.rmdir()
        if number == 3:
            (room.path / "lock").unlink()
        room.release()
    assert list_pending(tmp_path) == []
    assert take_over(tmp_path, OWNER) == ([], [])
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_what_is_not_ours_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one").write_bytes(b"1")
    room = Room.create(tmp_path)
    Journal.create(room.journal, OWNER, 1.0).close()
    (room.path / "notes").write_bytes(b"2")
    room.release()
    assert take_over(tmp_path, OWNER) == ([], [])
    assert (tmp_path / "photos" / "one").read_bytes() == b"1"
    assert (room.path / "notes").read_bytes() == b"2"
    assert not room.journal.exists()
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == ["one"]


def test_a_directory_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert list_pending(tmp_path / "none") == []
    assert take_over(tmp_path / "none", OWNER) == ([], [])
    assert not (tmp_path / "none").exists()
