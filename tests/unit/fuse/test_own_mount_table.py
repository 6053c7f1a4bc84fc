"""Where our own mount is by now, and whether its path still leads to it: from the text of the mount table."""

import os
from pathlib import Path

import pytest

from arvados_fuse.errors import ArvadosFuseError
from arvados_fuse.fuse import unmount
from arvados_fuse.fuse.unmount import MountPoint, StillMounted, as_it_is_now, own_mount, take_away

ROOT = "20 1 8:1 / / rw - ext4 /dev/root rw"
PARENT = "30 20 0:40 / /none/a rw - tmpfs none rw"
OURS = "31 30 0:900001 / /none/a/b/mnt rw - fuse arvados:host rw,user_id=0"
OVER = {
    "over it": "32 31 0:41 / /none/a/b/mnt rw - tmpfs none rw",
    "over the directory above": "32 30 0:41 / /none/a/b rw - tmpfs none rw",
    "over a mount above": "32 30 0:41 / /none/a rw - tmpfs none rw",
}
BESIDE = {
    "beside it": "32 30 0:41 / /none/a/b/mn rw - tmpfs none rw",
    "below it": "32 31 0:41 / /none/a/b/mnt/by_id rw - tmpfs none rw",
    "in what the mount above covers": "25 20 0:41 / /none/a/b rw - tmpfs none rw",
}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "mountinfo"
    monkeypatch.setattr(unmount, "MOUNTINFO", path)
    return path


def ours() -> MountPoint:
    return MountPoint("/none/a/b/mnt", "fuse", "arvados:host", 900001, number=31, parent=30)


@pytest.mark.parametrize("line", OVER.values(), ids=OVER)
def test_what_lies_over_a_mount_is_found(table: Path, line: str) -> None:
    table.write_text("\n".join([ROOT, PARENT, OURS, line]))
    with pytest.raises(StillMounted, match="something else is mounted over"):
        take_away(ours())


@pytest.mark.parametrize("line", BESIDE.values(), ids=BESIDE)
def test_what_lies_elsewhere_does_not_count(table: Path, line: str) -> None:
    table.write_text("\n".join([ROOT, PARENT, OURS, line]))
    with pytest.raises(ArvadosFuseError) as failure:  # there is no such mount really
        take_away(ours())
    assert "mounted over" not in str(failure.value)


def test_a_mount_is_known_by_its_numbers(table: Path) -> None:
    table.write_text("\n".join([ROOT, OURS.replace("/none/a/b", "/renamed"), OURS.replace("31 30", "40 30")]))
    found = as_it_is_now(ours())
    assert found is not None
    assert found.path == "/renamed/mnt"
    table.write_text(OURS.replace("900001", "900002"))
    assert as_it_is_now(ours()) is None
    take_away(ours())


def test_where_the_kernel_does_not_tell_the_connection_it_is_the_latest_mount(table: Path) -> None:
    over = OURS.replace("31 30 0:900001", "32 31 0:900002")
    table.write_text("\n".join([ROOT, OURS, over]))
    descriptor = os.open("/", os.O_RDONLY)
    try:
        found = own_mount(descriptor, Path("/none/a/b/mnt"))
        assert found is not None
        assert found.minor == 900002
        table.write_text(ROOT)
        assert own_mount(descriptor, Path("/none/a/b/mnt")) is None
    finally:
        os.close(descriptor)
