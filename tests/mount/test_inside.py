"""Looking into running mounts from outside: the real command, real mounts."""

import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mounting import mounted, needs_fuse
from servers import PROJECT, wait_for
from worlds import World, environment

from arvados_fuse.cli.live import DoesNotListen, NotMounted, ask
from arvados_fuse.errors import NotSupported
from arvados_fuse.fuse.unmount import mounts_at
from arvados_fuse.reporting import sockets

pytestmark = needs_fuse


def socket_of(root: Path) -> Path:
    """Where the mount listens, once it does."""
    mount = mounts_at(root)[0]
    paths = [sockets.socket_path(place, mount.minor) for place in sockets.directories(mount.owner)]
    return wait_for(lambda: [path for path in paths if path.exists()], f"{root} listens")[0]


class TestControl:
    def test_a_mount_answers_and_takes_its_socket_away(self, world: World, tmp_path: Path) -> None:
        with pytest.raises(NotMounted, match="nothing is mounted"):
            list(ask(tmp_path, "nothing"))
        with mounted(tmp_path, environment(world.server, world.token), "--home") as mount:
            path = socket_of(mount.root)
            assert path.stat().st_mode & 0o777 == 0o600
            with pytest.raises(NotSupported, match="knows no request 'nothing'"):
                list(ask(mount.root, "nothing"))
        assert not path.exists()

    def test_two_mounts_have_two_sockets(self, world: World, tmp_path: Path) -> None:
        settings = environment(world.server, world.token)
        with mounted(tmp_path, settings, "--home") as one, mounted(tmp_path, settings, "--home") as two:
            first = socket_of(one.root)
            second = socket_of(two.root)
            assert first != second

    def test_asking_a_dead_mount_ends(self, world: World, tmp_path: Path) -> None:
        root, log = tmp_path / "dead", tmp_path / "log"
        root.mkdir()
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [sys.executable, str(PROJECT / "bin/arv-mount"), "--foreground", "--home", str(root)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={
                    **os.environ,
                    **environment(world.server, world.token),
                    "HOME": str(tmp_path),
                    "PYTHONPATH": str(PROJECT),
                },
            )
        try:
            wait_for(lambda: bool(mounts_at(root)), "the mount is there")
            path = socket_of(root)
            # Stopped: it is there and says nothing.
            process.send_signal(signal.SIGSTOP)
            before = time.monotonic()
            with pytest.raises(Exception, match="in time"):
                list(ask(root, "nothing", silence=0.3))
            assert time.monotonic() - before < 10
            process.kill()
            process.send_signal(signal.SIGCONT)
            process.wait()
            with pytest.raises((DoesNotListen, NotMounted)):
                list(ask(root, "nothing"))
        finally:
            process.kill()
            process.wait()
            subprocess.run(["fusermount", "-u", "-z", str(root)], check=False, capture_output=True)
        # What the dead left behind is cleared away by the next one that starts.
        with mounted(tmp_path, environment(world.server, world.token), "--home") as mount:
            mine = socket_of(mount.root)
            assert mine == path or not path.exists()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
    def test_others_may_not_ask(self, world: World, tmp_path: Path) -> None:
        nobody = pwd.getpwnam("nobody")
        with mounted(tmp_path, environment(world.server, world.token), "--home", "--allow-other") as mount:
            socket_of(mount.root)
            done = subprocess.run(
                [sys.executable, "-c", ASK, str(mount.root), str(nobody.pw_uid)],
                cwd=PROJECT,
                capture_output=True,
                text=True,
                check=False,
            )
            assert "only who mounted it, and root, may ask" in done.stdout + done.stderr


ASK = """
import os, sys
from pathlib import Path
from arvados_fuse.cli.live import ask
os.setuid(int(sys.argv[2]))
try:
    list(ask(Path(sys.argv[1]), "nothing"))
except Exception as error:
    print(error)
"""
