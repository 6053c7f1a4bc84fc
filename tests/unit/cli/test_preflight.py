"""Set-up errors that need no server: each is one sentence that says what to do next."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from arvados_fuse.cli import preflight
from arvados_fuse.errors import SetupError

NOBODY = 65534


def complaint(check: object, path: Path) -> str:
    assert callable(check)
    with pytest.raises(SetupError) as caught:
        check(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert str(path) in sentence
    return sentence


def test_an_empty_directory_is_a_mount_point(tmp_path: Path) -> None:
    preflight.check_mount_point(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_mount_points_that_are_none(tmp_path: Path) -> None:
    missing, file, full = tmp_path / "missing", tmp_path / "file", tmp_path / "full"
    file.write_text("")
    full.mkdir()
    (full / "x").write_text("")
    assert f"mkdir -p {missing}" in complaint(preflight.check_mount_point, missing)
    assert "not a directory" in complaint(preflight.check_mount_point, file)
    assert "not empty" in complaint(preflight.check_mount_point, full)


@contextlib.contextmanager
def not_root() -> Iterator[None]:
    """Root may do everything, so here it is somebody else."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_directory_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with not_root():
        assert "may not be entered" in complaint(preflight.check_mount_point, tmp_path / "closed")
        assert "may not be written" in complaint(preflight.check_mount_point, Path("/srv"))


def test_the_fuse_device(tmp_path: Path) -> None:
    preflight.check_fuse_device(Path("/dev/null"))
    assert "modprobe fuse" in complaint(preflight.check_fuse_device, tmp_path / "fuse")
    assert "modprobe fuse" in complaint(preflight.check_fuse_device, tmp_path)


def test_without_fusermount_an_ordinary_user_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SetupError, match="apt-get install fuse"):
        preflight.check_fusermount()
    (tmp_path / "fusermount3").write_text("")
    (tmp_path / "fusermount3").chmod(0o755)
    preflight.check_fusermount()


def test_allow_other_needs_a_line_in_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "fuse.conf"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "user_allow_other" in complaint(preflight.check_allow_other, conf)
    conf.write_text("#user_allow_other\n")
    assert "user_allow_other" in complaint(preflight.check_allow_other, conf)
    conf.write_text("mount_max = 3\n  user_allow_other  \n")
    preflight.check_allow_other(conf)
    conf.unlink()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    preflight.check_allow_other(conf)


def test_a_missing_cache_directory_is_made_for_the_user_alone(tmp_path: Path) -> None:
    cache = tmp_path / "a" / "b"
    preflight.check_cache_directory(cache)
    assert cache.stat().st_mode & 0o777 == 0o700


def test_a_cache_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "--disk-cache-dir" in complaint(preflight.check_cache_directory, tmp_path / "file" / "cache")
    assert "--disk-cache-dir" in complaint(preflight.check_cache_directory, tmp_path / "file")


def test_a_cache_directory_that_is_read_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with not_root():
        assert "ermission" in complaint(preflight.check_cache_directory, tmp_path)
        assert "ermission" in complaint(preflight.check_cache_directory, tmp_path / "below")
