"""`mount -t arvados` for real: mount(8) finds the helper in a /sbin of the test's own (mount namespace)."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from mounting import needs_fuse
from servers import PROJECT, wait_for
from worlds import World, environment

UNSHARE = ["unshare", "--mount", "--propagation", "private"]


def impossible() -> str:
    if os.geteuid() != 0 or not shutil.which("mount"):
        return "only root can mount by mount(8)"
    if subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode:
        return "no mount namespaces here"
    return ""


pytestmark = [needs_fuse, pytest.mark.skipif(bool(impossible()), reason=impossible() or "-")]


@pytest.fixture
def sbin(tmp_path: Path) -> Path:
    """What stands for /sbin: the helper, run by this Python, under all names that mount(8) looks for."""
    directory = tmp_path / "sbin"
    directory.mkdir()
    helper = directory / "mount.arvados"
    helper.write_text(f'#!/bin/sh\nexec {sys.executable} {PROJECT}/bin/mount.arvados "$@"\n')
    helper.chmod(0o755)
    (directory / "mount.fuse.arv-mount").symlink_to("mount.arvados")
    return directory


def in_namespace(sbin: Path, variables: Mapping[str, str], script: str) -> "subprocess.CompletedProcess[str]":
    place = os.path.realpath("/sbin")
    return subprocess.run(
        [*UNSHARE, "sh", "-c", f"PATH=/bin:/usr/bin; mount --bind {sbin} {place} && {script}"],
        env={**os.environ, "PYTHONPATH": str(PROJECT), "HOME": str(sbin.parent), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_line_of_fstab(world: World, sbin: Path, tmp_path: Path) -> None:
    mnt, settings, fstab = tmp_path / "mnt", tmp_path / "settings.conf", tmp_path / "fstab"
    mnt.mkdir()
    variables = environment(world.server, world.token)
    settings.write_text(
        "# of the cluster\n" + "".join(f"{name}={value}\n" for name, value in variables.items())
    )
    options = f"home,settings={settings},disk-cache-dir={tmp_path}/cache,ro,allow_other,nofail,_netdev"
    fstab.write_text(f"none {mnt} arvados {options} 0 0\n")
    script = (
        f"mount --fstab {fstab} {mnt} && cat {mnt}/plain/README.txt; grep {mnt} /proc/mounts; umount {mnt}"
    )
    done = in_namespace(sbin, {}, script)
    assert done.returncode == 0, done.stderr
    first, line = done.stdout.splitlines()
    assert first == "hello"
    assert f" {mnt} fuse ro," in line
    assert "allow_other" in line
    wait_for(lambda: not processes(mnt), "the mount's process ends")


@pytest.mark.parametrize("kind", ["arvados", "fuse.arv-mount"])
def test_one_collection_by_hand(world: World, sbin: Path, tmp_path: Path, kind: str) -> None:
    mnt = tmp_path / "mnt"
    mnt.mkdir()
    variables = environment(world.server, world.token)
    mount = f"mount -t {kind} -o ro,disk_cache_dir={tmp_path}/cache {world.ids['plain']} {mnt}"
    done = in_namespace(sbin, variables, f"{mount} && cat {mnt}/README.txt; umount {mnt}")
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    wait_for(lambda: not processes(mnt), "the mount's process ends")


def test_what_fails_is_told_with_the_exit_code_of_mount(world: World, sbin: Path, tmp_path: Path) -> None:
    mnt = tmp_path / "mnt"
    mnt.mkdir()
    variables = {**environment(world.server, world.token), "ARVADOS_API_TOKEN": ""}
    done = in_namespace(sbin, variables, f"mount -t arvados none {mnt}")
    assert done.returncode == 32
    assert "ARVADOS_API_TOKEN not set" in done.stderr
    done = in_namespace(sbin, variables, f"mount -t arvados -o bogus none {mnt}")
    assert done.returncode == 1
    assert "there is no option bogus" in done.stderr


def test_as_a_user_with_what_belongs_to_that_user(world: World, sbin: Path, tmp_path: Path) -> None:
    mnt = tmp_path / "mnt"
    mnt.mkdir()
    variables = {**environment(world.server, world.token), "HOME": "/nowhere", "XDG_CACHE_HOME": "/nowhere"}
    options = f"home,run-as={os.getuid()},logfile={tmp_path}/log,debug,disk-cache-dir={tmp_path}/cache"
    done = in_namespace(
        sbin, variables, f"mount -t arvados -o {options} none {mnt} && ls {mnt}; umount {mnt}"
    )
    assert done.returncode == 0, done.stderr
    assert "plain" in done.stdout.split()
    wait_for(lambda: not processes(mnt), "the mount's process ends")


def processes(mnt: Path) -> list[int]:
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(mnt) in words:
            found.append(int(directory.name))
    return found
