"""Extended attributes as programs get them: getfattr, buffers of all sizes, ls."""

import ctypes
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from counting import request_counter
from mounting import Mounted, mounted, needs_fuse
from worlds import World, environment

pytestmark = needs_fuse


@pytest.fixture(scope="module")
def home(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    base = tmp_path_factory.mktemp("xattrs")
    with mounted(base, environment(world.server, world.token), "--home", "--refresh-time", "3600") as mount:
        yield mount


def test_getfattr_shows_all(home: Mounted, world: World) -> None:
    try:
        done = subprocess.run(
            ["getfattr", "-d", home.root / "plain/data/numbers.bin"],
            capture_output=True,
            text=True,
            check=True,
        )
    except FileNotFoundError:
        pytest.skip("no getfattr here")
    shown = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert sorted(shown) == [
        f"user.arvados.{name}"
        for name in (
            "modified_at",
            "owner_uuid",
            "portable_data_hash",
            "properties",
            "storage_classes",
            "uuid",
        )
    ]
    assert shown["user.arvados.uuid"] == f'"{world.ids["plain"]}"'
    assert shown["user.arvados.portable_data_hash"] == f'"{world.ids["plain_pdh"]}"'
    assert shown["user.arvados.properties"] == '"{}"'
    assert done.stderr.replace("getfattr: Removing leading '/' from absolute path names\n", "") == ""


def test_sizes_as_in_xattr7(home: Mounted, world: World) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    path, name = os.fsencode(home.root / "project"), b"user.arvados.uuid"
    buffer = ctypes.create_string_buffer(100)
    assert libc.getxattr(path, name, None, 0) == 27
    assert libc.getxattr(path, name, buffer, 27) == 27
    assert buffer.value.decode() == world.ids["project"]
    assert libc.getxattr(path, name, buffer, 26) == -1
    assert ctypes.get_errno() == errno.ERANGE
    length = libc.listxattr(path, None, 0)
    assert length > 27
    assert libc.listxattr(path, buffer, 10) == -1
    assert ctypes.get_errno() == errno.ERANGE


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("user.nothing", errno.ENODATA),
        ("user.arvados.nothing", errno.ENODATA),
        ("security.selinux", errno.ENOTSUP),
        ("security.capability", errno.ENOTSUP),
        ("trusted.overlay.opaque", errno.ENOTSUP),
    ],
)
def test_other_names(home: Mounted, name: str, number: int) -> None:
    with pytest.raises(OSError, match=r"^\[Errno") as caught:
        os.getxattr(home.root / "plain/README.txt", name)
    assert caught.value.errno == number


def test_ls_and_cp_cause_no_request(home: Mounted, world: World, tmp_path: Path) -> None:
    """They ask for security labels and access lists."""
    plain = home.root / "plain/data"
    plain.joinpath("numbers.bin").read_bytes()
    requests = request_counter(world.server)
    subprocess.run(["ls", "-lZ", plain], stdout=subprocess.DEVNULL, check=True)
    subprocess.run(["ls", "-l", plain], stdout=subprocess.DEVNULL, check=True)
    subprocess.run(["cp", "-a", plain / "numbers.bin", tmp_path / "copy"], check=True)
    assert (tmp_path / "copy").read_bytes() == plain.joinpath("numbers.bin").read_bytes()
    assert requests() == []
