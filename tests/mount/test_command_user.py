"""The command as an ordinary user, on machines that lack something.

Each is played in a mount namespace of its own, in which device and helper are hidden or shown as elsewhere.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from mounting import needs_fuse
from servers import PROJECT, LocalServer
from worlds import World, environment

from arvados_fuse.fuse.fusermount import find

NOBODY = 65534
USER = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
UNSHARE = ["unshare", "--mount", "--propagation", "private"]


def impossible() -> str:
    """Why this can't be played here, or ""."""
    if os.geteuid() != 0:
        return "only root can play another user"
    helper = find()
    if helper is None or not shutil.which("setpriv"):
        return "fusermount or setpriv is missing"
    if subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode:
        return "no mount namespaces here"
    if subprocess.run([*USER, sys.executable, "-c", ""], capture_output=True, check=False).returncode:
        return "an ordinary user can't run this Python"
    return ""


pytestmark = [needs_fuse, pytest.mark.skipif(bool(impossible()), reason=impossible() or "-")]


@dataclass
class Machine:
    """Where an ordinary user lives; `before` are shell commands that root runs in the namespace."""

    base: Path
    variables: dict[str, str]
    before: tuple[str, ...] = ()

    @property
    def mnt(self) -> Path:
        return self.base / "user" / "mnt"

    def run(
        self, *arguments: str, before: Sequence[str] = (), user: bool = True, path: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        command = [*(USER if user else []), sys.executable, str(PROJECT / "bin" / "arv-mount"), *arguments]
        script = " && ".join([*self.before, *before, f"exec {shlex.join(command)}"])
        variables = {**self.variables, "PATH": path + os.environ["PATH"]}
        return subprocess.run(
            [*UNSHARE, "sh", "-c", script],
            env=variables,
            cwd=self.base / "user",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def refusal(self, *arguments: str, before: Sequence[str] = (), path: str = "") -> str:
        """The one sentence of a set-up that fails."""
        done = self.run(*arguments, before=before, path=path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("arv-mount: ")
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr


@pytest.fixture
def machine(
    world: World, local_server: LocalServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    # pytest's own directories are 0700.
    base = Path(os.path.realpath(tmp_path_factory.mktemp("user")))
    for directory in (base, base.parent, base.parent.parent):
        directory.chmod(directory.stat().st_mode | 0o011)
    home = base / "user"
    home.mkdir()
    (home / "mnt").mkdir()
    device = base / "fuse"
    os.mknod(device, 0o020666, os.stat("/dev/fuse").st_rdev)
    device.chmod(0o666)
    variables = environment(world.server, world.token)
    bundle = home / "ca.pem"
    bundle.write_bytes(Path(variables["SSL_CERT_FILE"]).read_bytes())
    for path in (home, home / "mnt", bundle):
        os.chown(path, NOBODY, NOBODY)
    yield Machine(
        base,
        {**variables, "SSL_CERT_FILE": str(bundle), "HOME": str(home), "PYTHONPATH": str(PROJECT)},
        (f"mount --bind {device} /dev/fuse",),
    )
    for directory in (base.parent, base.parent.parent):
        directory.chmod(directory.stat().st_mode & ~0o077)


def hidden(program: str) -> list[str]:
    """Commands after which no `fusermount` is where it was."""
    places = {
        os.path.realpath(path) for path in (f"/usr/bin/{program}", f"/bin/{program}") if os.path.exists(path)
    }
    return [f"mount --bind /dev/null {place}" for place in sorted(places)]


def test_an_ordinary_user_mounts(machine: Machine, world: World) -> None:
    done = machine.run(
        "--home", str(machine.mnt), "--exec", "sh", "-c", "id -u; ls -d mnt/plain; stat -c %u mnt/plain"
    )
    assert (done.returncode, done.stdout) == (0, f"{NOBODY}\nmnt/plain\n{NOBODY}\n"), done.stderr
    assert (machine.base / "user/.cache/arvados/keep").stat().st_mode & 0o777 == 0o700


def test_allow_other_that_is_not_permitted(machine: Machine, tmp_path: Path) -> None:
    conf = tmp_path / "fuse.conf"
    conf.write_text("# user_allow_other\n")
    bind = f"mount --bind {conf} /etc/fuse.conf"
    if not Path("/etc/fuse.conf").exists():
        bind = "true"
    sentence = machine.refusal("--allow-other", str(machine.mnt), before=[bind])
    assert "add the line user_allow_other to /etc/fuse.conf" in sentence


def test_a_cache_directory_of_somebody_else(machine: Machine) -> None:
    sentence = machine.refusal("--disk-cache-dir", "/srv/arvados-cache", str(machine.mnt))
    assert "/srv/arvados-cache can't be written (Permission denied)" in sentence


def test_a_mount_point_of_somebody_else(machine: Machine) -> None:
    (machine.base / "theirs").mkdir()
    assert "may not be written by you" in machine.refusal(str(machine.base / "theirs"))


def test_a_device_that_only_root_may_open(machine: Machine) -> None:
    sentence = machine.refusal(str(machine.mnt), before=["chmod 600 /dev/fuse"])
    assert "/dev/fuse may not be opened by you" in sentence


def test_no_device(machine: Machine) -> None:
    (machine.base / "dev").mkdir()
    # All of /dev but the standard files is gone.
    nodes = " && ".join(
        f"touch {machine.base}/dev/{name} && mount --bind /dev/{name} {machine.base}/dev/{name}"
        for name in ("null", "zero", "random", "urandom")
    )
    sentence = machine.refusal(str(machine.mnt), before=[nodes, f"mount --rbind {machine.base}/dev /dev"])
    assert "this machine has no /dev/fuse" in sentence
    assert "modprobe fuse" in sentence


def test_no_fusermount(machine: Machine) -> None:
    before = hidden("fusermount") + hidden("fusermount3")
    assert "apt-get install fuse" in machine.refusal(str(machine.mnt), before=before)


@pytest.mark.parametrize("name", ["fusermount", "fusermount3"])
def test_only_one_of_the_two_helpers(machine: Machine, name: str) -> None:
    helper = find()
    assert helper is not None
    only = machine.base / "only"
    only.mkdir()
    shutil.copy(os.path.realpath(helper), only / name)
    (only / name).chmod(0o4755)
    before = hidden("fusermount") + hidden("fusermount3")
    done = machine.run(
        "--home", str(machine.mnt), "--exec", "ls", "-d", "mnt/plain", before=before, path=f"{only}:"
    )
    assert (done.returncode, done.stdout) == (0, "mnt/plain\n"), done.stderr
    ours = f"{sys.executable} {PROJECT}/bin/arv-mount --unmount"
    script = f"{ours} {machine.mnt}; grep -c {machine.mnt} /proc/mounts"
    done = machine.run(
        "--home", str(machine.mnt), "--exec", "sh", "-c", script, before=before, user=False, path=f"{only}:"
    )
    assert done.stdout == "0\n", done.stderr


def test_root_needs_no_helper(machine: Machine) -> None:
    before = hidden("fusermount") + hidden("fusermount3")
    done = machine.run(
        "--home", str(machine.mnt), "--exec", "ls", "-d", "mnt/plain", before=before, user=False
    )
    assert (done.returncode, done.stdout) == (0, "mnt/plain\n"), done.stderr
