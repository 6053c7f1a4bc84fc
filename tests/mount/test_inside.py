"""Looking into running mounts from outside: the real command, real mounts."""

import errno
import hashlib
import json
import os
import pwd
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mounting import mounted, needs_fuse
from servers import PROJECT, LocalServer, StockClients, wait_for
from worlds import Maker, World, environment

from arvados_fuse.cli.live import DoesNotListen, NotMounted, ask
from arvados_fuse.errors import NotSupported
from arvados_fuse.fuse.unmount import mounts_at, unmount
from arvados_fuse.reporting import sockets

pytestmark = needs_fuse


def socket_of(root: Path) -> Path:
    """Where the mount listens, once it does."""
    mount = mounts_at(root)[0]
    paths = [sockets.socket_path(place, mount.minor) for place in sockets.directories(mount.owner)]
    return wait_for(lambda: [path for path in paths if path.exists()], f"{root} listens")[0]


def is_dead(path: Path) -> bool:
    """Whether there is a socket of this name to which nobody listens."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(10)
        return probe.connect_ex(str(path)) == errno.ECONNREFUSED


def command(*arguments: str, **extra: str) -> "subprocess.CompletedProcess[str]":
    """The real command, without any Arvados configured."""
    return subprocess.run(
        [sys.executable, str(PROJECT / "bin/arv-mount"), *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), **extra},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


class TestControl:
    def test_a_mount_answers_and_takes_its_socket_away(self, world: World, tmp_path: Path) -> None:
        with pytest.raises(NotMounted, match="nothing is mounted"):
            list(ask(tmp_path, "nothing"))
        with mounted(tmp_path, environment(world.server, world.token), "--home") as mount:
            path = socket_of(mount.root)
            before = path.stat()
            assert before.st_mode & 0o777 == 0o600
            with pytest.raises(NotSupported, match="knows no request 'nothing'"):
                list(ask(mount.root, "nothing"))
        # Or another mount of this machine has got the number by now.
        assert not path.exists() or path.stat().st_ctime_ns != before.st_ctime_ns

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
            assert mine == path or not is_dead(path)

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


def shapes(log: str) -> list[str]:
    """The first report in a log with its numbers blanked out, once there is a second one."""
    lines = [line for line in log.splitlines() if line.startswith("crunchstat: ")]
    if len({line.split()[1] for line in lines}) == len(lines):
        return []
    number = re.compile(r"(?<= )\d+(\.\d+)?(?= )")

    def zeros(found: "re.Match[str]") -> str:
        return "0" + re.sub(r"\d", "0", found[1] or "")

    first = [number.sub(zeros, line) for line in lines]
    return first[: [line.split()[1] for line in lines].index("fuseop:flush") + 1]


class TestCrunchstat:
    def test_every_interval_on_standard_error(self, world: World, tmp_path: Path) -> None:
        options = ["--home", "--crunchstat-interval", "0.5"]
        with mounted(tmp_path, environment(world.server, world.token), *options) as mount:
            data = (mount.root / "plain/data/numbers.bin").read_bytes()

            def lines() -> list[str]:
                found = [line for line in mount.log.splitlines() if line.startswith("crunchstat: blkio")]
                return [line for line in found if f"0 write {len(data)} read --" in line]

            line = wait_for(lines, "the bytes that were read are told")[0]
            assert line.startswith(f"crunchstat: blkio:0:0 0 write {len(data)} read -- interval 0.")
            assert re.search(r"interval 0\.\d{4} seconds 0 write \d+ read$", line)
            first = [line.split()[1] for line in mount.log.splitlines()[:24]]
            assert first[:5] == ["keepcalls", "net:keep0", "keepcache", "blkio:0:0", "fuseops"]
            assert (first[5], first[23]) == ("fuseop:read", "fuseop:flush")
            found = re.findall(r"fuseop:lookup (\d+) count \S+ time --", mount.log)
            assert int(found[-1]) >= 3

    def test_the_form_is_that_of_3_2_1(self, world: World, stock: StockClients, tmp_path: Path) -> None:
        if stock.arv_mount is None:
            pytest.skip("stock arv-mount could not be built here")
        settings = environment(world.server, world.token)
        with mounted(tmp_path, settings, "--home", "--crunchstat-interval=1") as mount:
            ours = wait_for(lambda: shapes(mount.log), "our statistics")
        root, log = tmp_path / "stock", tmp_path / "stock.log"
        root.mkdir()
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [str(stock.arv_mount), "--foreground", "--home", "--crunchstat-interval=1", str(root)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=world.server.environment(tmp_path / "home", world.token),
            )
        try:
            theirs = wait_for(lambda: shapes(log.read_text()), "their statistics")
        finally:
            unmount(root, timeout=10)
            process.kill()
            process.wait()
        assert ours == theirs

    def test_0_means_never(self, world: World, tmp_path: Path) -> None:
        with mounted(tmp_path, environment(world.server, world.token), "--crunchstat-interval=0") as mount:
            os.listdir(mount.root / "home")
            assert "crunchstat" not in mount.log


class TestStatus:
    def test_json(self, world: World, tmp_path: Path) -> None:
        settings = environment(world.server, world.token)
        with mounted(tmp_path, settings, "--home") as mount, open(mount.root / "plain/README.txt") as opened:
            assert opened.read() == "hello\n"
            wait_for(lambda: self.told(mount.root)["events"]["state"] == "connected", "events are there")
            told = self.told(mount.root)
            assert told["mount"]["path"] == str(mount.root)
            assert (told["mount"]["mode"], told["mount"]["read_write"]) == ("home", False)
            assert told["mount"]["process"] == mount.process.pid
            assert abs(told["mount"]["since"] - time.time()) < 120
            assert told["server"]["host"] == world.server.settings.host
            assert told["server"]["user"]["uuid"] == world.user
            assert told["open"] == {"files": 1, "directories": 0}
            assert told["bytes"]["read"] == 6
            assert told["cache"]["directory"] == str(tmp_path / "cache")
            assert told["cache"]["limit"] >= told["cache"]["used"] >= 6
            assert told["operations"]["read"] == {**told["operations"]["read"], "count": 1, "failures": 0}
            assert told["errors"] == {"count": 0, "latest": []}
            assert world.token not in json.dumps(told)
            documented = (PROJECT / "docs/inside.md").read_text()
            names = {*told, *(name for part in told.values() if isinstance(part, dict) for name in part)}
            assert [name for name in names - {*told["operations"]} if f"`{name}`" not in documented] == []

    def test_text(self, world: World, tmp_path: Path) -> None:
        settings = environment(world.server, world.token)
        with mounted(tmp_path, settings, "--mount-home", "h", "--mount-by-pdh", "p") as mount:
            (mount.root / "h/plain/README.txt").read_bytes()
            done = command("--status", str(mount.root))
            assert (done.returncode, done.stderr) == (0, "")
            first, *rest = done.stdout.splitlines()
            assert first == f"{mount.root}: h (home), p (by_pdh), read-only"
            words = [line.split()[0] for line in rest]
            assert words == [
                "server",
                "mounted",
                "events",
                "cache",
                "listings",
                "open",
                "unsaved",
                "moved",
                "errors",
            ]
            assert f"{world.server.settings.host} as Ada L" in rest[0]
            assert f"process {mount.process.pid}" in rest[1]
            assert "nothing" in rest[6]
            assert "6 B read and 0 B written by programs" in rest[7]
            assert rest[8].split() == ["errors", "none"]
            below = command("--status", str(mount.root / "h/plain"))
            assert below.stdout.splitlines()[0] == first

    def test_a_failure_is_told_with_its_object(self, mine: Maker, tmp_path: Path) -> None:
        data = secrets.token_bytes(5)
        made = mine.collection("lost", {"lost.txt": data})
        missing = hashlib.md5(data).hexdigest()
        copies = list(mine.server.data_dir.rglob(missing))
        assert copies
        for copy in copies:
            copy.unlink()
        with mounted(tmp_path, environment(mine.server, mine.token), "--by-id") as mount:
            with pytest.raises(OSError, match="Input/output error"):
                (mount.root / made["uuid"] / "lost.txt").read_bytes()
            told = self.told(mount.root)
            trouble = next(one for one in told["errors"]["latest"] if one["operation"] == "read")
            assert trouble["path"] == f"{made['uuid']}/lost.txt"
            assert trouble["subject"] == f"{missing}+5"
            done = command("--status", str(mount.root))
            assert f"read {made['uuid']}/lost.txt: " in done.stdout

    def test_what_is_unsaved_and_why(self, fresh_server: LocalServer, tmp_path: Path) -> None:
        token = fresh_server.new_user("writer")[1]
        made = Maker(fresh_server, token).collection("c", {"a.txt": b"a"})
        options = ["--home", "--read-write", "--disable-event-listening", "--retries=0"]
        with mounted(tmp_path, environment(fresh_server, token), *options) as mount:
            assert self.told(mount.root)["unsaved"]["files"] == 0
            assert os.listdir(mount.root / "c") == ["a.txt"]
            fresh_server.kill()
            (mount.root / "c/b.txt").write_bytes(b"12345")

            def failed() -> Any:
                unsaved = self.told(mount.root)["unsaved"]
                return unsaved if unsaved["collections"] and unsaved["collections"][0]["error"] else None

            unsaved = wait_for(failed, "the mount tells why it could not save")
            assert (unsaved["files"], unsaved["bytes"]) == (1, 5)
            assert unsaved["collections"][0]["uuid"] == made["uuid"]
            text = command("--status", str(mount.root)).stdout
            assert "  unsaved   1 file, 5 B, for " in text
            assert f"            {made['uuid']}: {unsaved['collections'][0]['error'][:20]}" in text
            fresh_server.start()
            wait_for(lambda: self.told(mount.root)["unsaved"]["files"] == 0, "everything is saved")

    def test_in_the_background(self, world: World, tmp_path: Path) -> None:
        root, log = tmp_path / "mnt", tmp_path / "log"
        root.mkdir()
        settings = {**environment(world.server, world.token), "HOME": str(tmp_path)}
        options = ["--home", "--crunchstat-interval=0.2", "--logfile", str(log)]
        assert command(*options, str(root), **settings).returncode == 0
        try:
            process = self.told(root)["mount"]["process"]
            assert os.getsid(process) == process
            wait_for(lambda: "crunchstat: keepcalls" in log.read_text(), "statistics are in the log file")
            path = socket_of(root)
            made = path.stat().st_ctime_ns
        finally:
            assert command("--unmount", str(root)).returncode == 0
        wait_for(lambda: not path.exists() or path.stat().st_ctime_ns != made, "the socket is gone")

    def test_nothing_to_tell(self, tmp_path: Path) -> None:
        done = command("--status", str(tmp_path))
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            f"arv-mount: nothing is mounted at {tmp_path}; mount with: arv-mount {tmp_path}\n"
        )

    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            (["--status", "--top"], "not allowed with argument"),
            (["--status", "--unmount"], "argument --status: not allowed with argument --unmount"),
            (["--json"], "argument --json: only with --status"),
            (["--metrics-port", "65536"], "expected a port"),
            (["--slow-request", "-1"], "expected seconds"),
        ],
    )
    def test_wrong_options(self, tmp_path: Path, arguments: list[str], why: str) -> None:
        done = command(*arguments, str(tmp_path))
        assert done.returncode == 2
        assert why in done.stderr

    @staticmethod
    def told(root: Path) -> Any:
        done = command("--status", "--json", str(root))
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)


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
