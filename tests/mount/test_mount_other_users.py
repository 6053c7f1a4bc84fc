"""Programs of another user than the one who mounted, as in containers and on shared machines."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounting import mounted, needs_fuse
from servers import LocalServer
from worlds import Maker, environment

pytestmark = [needs_fuse, pytest.mark.skipif(os.geteuid() != 0, reason="only root can play another user")]

NOBODY = 65534


def as_nobody(script: str, where: Path, data: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """Run by a user that only the kernel knows, in a directory (that its path need not lead that user to)."""
    return subprocess.run(
        ["sh", "-ec", script],
        cwd=where,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        input=data,
        capture_output=True,
        check=False,
    )


@pytest.fixture(scope="module")
def user(local_server: LocalServer) -> Maker:
    return Maker(local_server, local_server.new_user(f"other{secrets.token_hex(4)}")[1])


@pytest.fixture
def top(user: Maker, tmp_path: Path) -> Iterator[Path]:
    """Where a collection is, on a mount of root for everybody."""
    uuid = user.collection(secrets.token_hex(4), {"f": b"old"})["uuid"]
    with mounted(tmp_path, environment(user.server, user.token), "--read-write", "--allow-other") as mount:
        yield mount.root / "by_id" / uuid


def test_modes_and_times_are_accepted_from_everybody(top: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.tar"
    (tmp_path / "d").mkdir()
    (tmp_path / "d/program").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "d/program").chmod(0o4755)
    subprocess.run(["tar", "cf", packed, "-C", tmp_path, "d"], check=True)
    modes = "echo new > f; chmod 755 f; chmod u+s f; touch -d 2020-01-01 f; mkdir made; chmod 700 made"
    done = as_nobody(f"{modes}; tar xpf -", top, packed.read_bytes())
    assert (done.returncode, done.stderr) == (0, b"")
    assert (top / "f").read_bytes() == b"new\n"
    assert (top / "f").stat().st_mtime == 1577836800
    assert (top / "d/program").read_bytes() == b"#!/bin/sh\n"
    assert {path.stat().st_mode & 0o7777 for path in (top / "f", top / "made", top / "d/program")} == {0o777}


def test_what_can_not_be_written_says_so_to_everybody(top: Path, user: Maker) -> None:
    pdh = user.collection("fixed", {"f": b"old"})["portable_data_hash"]
    fixed = top.parent / pdh
    assert as_nobody("test -w f && test -x made || mkdir made", top).returncode == 0
    assert as_nobody("! test -w f && ! test -w . && test -r f && test -x .", fixed).returncode == 0
    for change in ("echo new > f", "echo new > g", "rm -f f", "mkdir d", "mv f g", "truncate -s 1 f"):
        assert as_nobody(change, fixed).returncode != 0, change
    assert (fixed / "f").read_bytes() == b"old"
    assert os.listdir(fixed) == ["f"]
