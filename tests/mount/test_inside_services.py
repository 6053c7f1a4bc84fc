"""Metrics, slow requests and systemd: the real command on real mounts."""

import configparser
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounting import mounted, needs_fuse
from prometheus_client.parser import text_string_to_metric_families
from servers import PROJECT, LocalServer, wait_for
from worlds import Maker, World, environment

from arvados_fuse.cli.live import ask
from arvados_fuse.cli.parser import make_parser
from arvados_fuse.cli.saving import DRAIN

pytestmark = needs_fuse


def test_metrics(world: World, tmp_path: Path) -> None:
    with mounted(tmp_path, environment(world.server, world.token), "--home", "--metrics-port=0") as mount:
        (mount.root / "plain/README.txt").read_bytes()
        (told,) = ask(mount.root, "status")
        with urllib.request.urlopen(told["metrics"], timeout=20) as answer:
            text = answer.read().decode()
        values = {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert values["arv_mount_program_bytes_total", "read"] == 6
        assert values["arv_mount_operations_total", "lookup"] >= 2
        assert world.token not in text
        port = int(told["metrics"].split(":")[2].split("/")[0])
        with pytest.raises(OSError, match="refused"), socket.create_connection((own_address(), port), 5):
            pass


def own_address() -> str:
    """An address of this machine that is not the one of the metrics."""
    return "127.0.0.2"


def test_a_port_that_is_taken(world: World, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = subprocess.run(
            [
                sys.executable,
                str(PROJECT / "bin/arv-mount"),
                f"--metrics-port={taken.getsockname()[1]}",
                "--ram-cache",
                str(tmp_path),
            ],
            env={**os.environ, **environment(world.server, world.token), "PYTHONPATH": str(PROJECT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert re.fullmatch(
        r"arv-mount: metrics can't be given on port \d+ \(.*\); give another one.*\n", done.stderr
    )
    assert not os.path.ismount(tmp_path)


def test_a_slow_request_is_logged_with_stacks(fresh_server: LocalServer, tmp_path: Path) -> None:
    token = fresh_server.new_user("slow")[1]
    made = Maker(fresh_server, token).collection("slow", {"a.txt": b"a"})
    settings = environment(fresh_server, token)
    options = ["--by-id", "--slow-request=0.5", "--disable-event-listening"]
    with mounted(tmp_path, settings, *options) as mount:
        os.kill(fresh_server.pid, signal.SIGSTOP)
        path = mount.root / "by_id" / made["uuid"] / "a.txt"
        reader = threading.Thread(target=path.exists)
        try:
            reader.start()
            wait_for(lambda: "What every thread does" in mount.log, "the slow request is told")
            (told,) = ask(mount.root, "status")
            assert any(made["uuid"] in request["path"] for request in told["pending"])
        finally:
            os.kill(fresh_server.pid, signal.SIGCONT)
        reader.join(60)
        line = next(line for line in mount.log.splitlines() if "under way" in line)
        assert "WARNING: lookup by_id/" in line
        assert made["uuid"] in line
        assert 'operations.py"' in mount.log
        assert any(one["operation"] == "slow" for one in told["errors"]["latest"])
        assert mount.log.count(line.split(" is under way")[0].split("WARNING: ")[1]) <= 2


class Manager:
    """The socket of a systemd that is none."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.settimeout(60)

    def hear(self) -> dict[str, str]:
        lines = self._socket.recv(65536).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager() -> Iterator[Manager]:
    with tempfile.TemporaryDirectory(prefix="sd") as directory:
        manager = Manager(Path(directory))
        yield manager
        manager.close()


class TestSystemd:
    def test_ready_alive_stopping(self, world: World, tmp_path: Path, manager: Manager) -> None:
        settings = {
            **environment(world.server, world.token),
            "NOTIFY_SOCKET": str(manager.path),
            "WATCHDOG_USEC": "200000",
        }
        with mounted(tmp_path, settings, "--home") as mount:
            first = manager.hear()
            assert first["READY"] == "1"
            assert first["MAINPID"] == str(mount.process.pid)
            assert str(mount.root) in first["STATUS"]
            assert os.listdir(mount.root)
            assert [manager.hear() for _ in range(3)] == [{"WATCHDOG": "1"}] * 3
        heard = manager.hear()
        while "WATCHDOG" in heard:
            heard = manager.hear()
        assert heard["STOPPING"] == "1"

    def test_the_watchdog_of_another_process_is_left_alone(
        self, world: World, tmp_path: Path, manager: Manager
    ) -> None:
        settings = {
            **environment(world.server, world.token),
            "NOTIFY_SOCKET": str(manager.path),
            "WATCHDOG_USEC": "1000",
            "WATCHDOG_PID": "1",
        }
        with mounted(tmp_path, settings, "--home"):
            assert "READY" in manager.hear()
        assert "STOPPING" in manager.hear()

    def test_a_manager_that_is_gone_harms_nobody(self, world: World, tmp_path: Path) -> None:
        settings = {**environment(world.server, world.token), "NOTIFY_SOCKET": str(tmp_path / "nobody")}
        with mounted(tmp_path, settings, "--home") as mount:
            assert os.listdir(mount.root)

    def test_the_unit_file_uses_options_that_exist(self) -> None:
        unit = configparser.ConfigParser(interpolation=None, strict=False)
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read(PROJECT / "contrib/arv-mount@.service")
        service = unit["Service"]
        assert service["Type"] == "notify"
        assert int(service["WatchdogSec"]) >= 10
        program, *arguments = service["ExecStart"].split()
        assert program.endswith("/arv-mount")
        found = make_parser().parse_args([word.replace("%f", "/mnt/x") for word in arguments])
        assert found.mount_dir == "/mnt/x"
        assert "--foreground" in arguments

    def test_the_unit_file_gives_a_mount_the_time_to_save(self) -> None:
        unit = configparser.ConfigParser(interpolation=None, strict=False)
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read(PROJECT / "contrib/arv-mount@.service")
        service = unit["Service"]
        # A command that unmounts comes back before all is saved, and then systemd sends SIGTERM.
        assert "ExecStop" not in service
        assert service["KillMode"] == "mixed"
        assert int(service["TimeoutStopSec"]) > DRAIN

    @pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
    def test_systemd_understands_the_unit_file(self, tmp_path: Path) -> None:
        text = (PROJECT / "contrib/arv-mount@.service").read_text()
        unit = tmp_path / "arv-mount@x.service"
        unit.write_text(text.replace("/usr/local/bin/arv-mount", str(PROJECT / "bin/arv-mount")))
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(unit)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stdout) == (0, "")
        assert str(unit) not in done.stderr
