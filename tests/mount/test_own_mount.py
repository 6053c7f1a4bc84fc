"""A mount knows its own in the mount table: the end takes away that one and no other."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounting import mounted, needs_fuse
from servers import PROJECT, wait_for
from worlds import World, environment

from arvados_fuse.fuse.unmount import fuse_mounts, mounts_at, unmount

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount other things")


def run(program: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def umount(path: Path) -> None:
    subprocess.run(["umount", "-l", str(path)], check=True)


@needs_fuse
def test_a_mount_whose_directory_was_renamed_is_unmounted_where_it_is(world: World, tmp_path: Path) -> None:
    base, renamed = tmp_path / "base", tmp_path / "renamed"
    base.mkdir()
    with mounted(base, environment(world.server, world.token), "--home") as mount:
        base.rename(renamed)
        try:
            assert mounts_at(renamed / "mnt0")
            mount.process.terminate()
            assert mount.process.wait(60) == 0
            assert not mounts_at(renamed / "mnt0")
        finally:
            unmount(renamed / "mnt0")
            renamed.rename(base)


@pytest.mark.parametrize("above", [False, True], ids=["over it", "over the directory above"])
@needs_fuse
@needs_root
def test_what_was_mounted_over_a_mount_is_left_alone(world: World, tmp_path: Path, above: bool) -> None:
    base = tmp_path / "base"
    root, log = base / "mnt", tmp_path / "log"
    root.mkdir(parents=True)
    place = base if above else root
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, str(PROJECT / "bin/arv-mount"), "--foreground", "--home"),
                *("--disk-cache-dir", str(tmp_path / "cache"), str(root)),
            ],
            stderr=output,
            env={**os.environ, **environment(world.server, world.token), "PYTHONPATH": str(PROJECT)},
        )
    try:
        wait_for(lambda: mounts_at(root) or process.poll() is not None, "the mount is there")
        sorted(root.iterdir())
        subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True)
        try:
            (place / "precious").write_text("x")
            process.terminate()
            assert process.wait(60) == 1
            assert (place / "precious").read_text() == "x"
            assert f"something else is mounted over {place}; unmount that" in log.read_text()
        finally:
            umount(place)
    finally:
        unmount(root)
    assert mounts_at(root) == []


TAKEN_AWAY = """
import sys
from pathlib import Path
import llfuse
from arvados_fuse.errors import SetupError
from arvados_fuse.fuse import handshake
from arvados_fuse.fuse.session import Session
from arvados_fuse.fuse.unmount import unmount

where, agreed = Path(sys.argv[1]), handshake.agreed

def late(*arguments):
    unmount(where)
    return agreed(*arguments)

handshake.agreed = late
try:
    Session(llfuse.Operations(), where, fsname="test").open()
except SetupError as error:
    print(error)
"""


@needs_fuse
def test_a_mount_that_is_unmounted_while_it_is_being_mounted_says_so(tmp_path: Path) -> None:
    done = run(TAKEN_AWAY, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path} was unmounted while it was being mounted; mount it again.\n"
    assert mounts_at(tmp_path) == []


# Another mount is bound over the session's own; libfuse would wait for an answer of the lower one.
STACKED = """
import ctypes, os, sys
from pathlib import Path
import llfuse
from arvados_fuse.fuse import guard
from arvados_fuse.fuse.session import Session
from arvados_fuse.fuse.unmount import StillMounted, mounts_at

where, other = Path(sys.argv[1]), Path(sys.argv[2])
MS_BIND = 4096
cut = []
guard.cut = lambda minor: not cut.append(minor)
session = Session(llfuse.Operations(), where, fsname="test")
session.open()
(own,) = mounts_at(where)
assert not ctypes.CDLL(None).mount(os.fsencode(other), os.fsencode(where), None, MS_BIND, None)
descriptor, minor = session.channel()
os.close(descriptor)
try:
    session.close(cut=True)
except StillMounted:
    print("left")
print(minor == own.minor, cut == [own.minor])
"""


@pytest.fixture
def other(tmp_path: Path, world: World) -> Iterator[Path]:
    with mounted(tmp_path, environment(world.server, world.token), "--home") as mount:
        yield mount.root


@needs_fuse
@needs_root
def test_of_two_mounts_at_one_place_the_own_is_meant(tmp_path: Path, other: Path) -> None:
    where = tmp_path / "where"
    where.mkdir()
    try:
        done = run(STACKED, where, other)
        assert (done.returncode, done.stderr, done.stdout) == (0, "", "left\nTrue True\n")
        assert len(mounts_at(where)) == 2
        sorted(other.iterdir())
    finally:
        while mounts_at(where):
            umount(where)


CUT = """
import sys
from pathlib import Path
import llfuse
from arvados_fuse.fuse.session import Session

session = Session(llfuse.Operations(), Path(sys.argv[1]), fsname="test")
session.open()
session.close(cut=True)
"""


@needs_fuse
def test_a_mount_that_was_cut_off_is_unmounted_too(tmp_path: Path) -> None:
    done = run(CUT, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert str(tmp_path) not in [mount.path for mount in fuse_mounts()]
