"""The server as a process: start, status, stop, restarts, crashes, locks, secrets, sockets."""

import contextlib
import hashlib
import http.client
import json
import os
import re
import socket
import sqlite3
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import PROJECT, LocalServer, wait_for

from arvados_fuse.errors import SetupError
from arvados_fuse.local.control import ensure_running, find_running, stop_running
from arvados_fuse.local.datadir import DataDirectory


def command(*arguments: str, home: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run `python -m arvados_fuse.local`."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    if home is not None:
        environment = {**environment, "HOME": str(home), "XDG_DATA_HOME": str(home / "data")}
    return subprocess.run(
        [sys.executable, "-m", "arvados_fuse.local", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A data directory whose server, if any, is stopped in the end."""
    directory = tmp_path / "arvados"
    yield directory
    stop_running(directory)


def test_serve_status_env_stop(tmp_path: Path) -> None:
    started = command("serve", home=tmp_path)
    try:
        assert started.returncode == 0, started.stderr
        assert re.fullmatch(r"The embedded Arvados answers at https://127\.0\.0\.1:\d+/\n", started.stdout)
        assert command("serve", home=tmp_path).stdout == started.stdout
        status = command("status", home=tmp_path)
        assert (status.returncode, str(tmp_path / "data/arvados-local") in status.stdout) == (0, True)
        variables = json.loads(command("env", "--json", home=tmp_path).stdout)
        assert f"https://{variables['ARVADOS_API_HOST']}/" in started.stdout
        shell = command("env", home=tmp_path).stdout
        script = (
            f"ARVADOS_KEEP_SERVICES=other\n{shell}echo $ARVADOS_API_HOST ${{ARVADOS_KEEP_SERVICES-unset}}"
        )
        said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
        assert said == f"{variables['ARVADOS_API_HOST']} unset\n"
        insecure = json.loads(command("env", "--json", "--insecure", home=tmp_path).stdout)
        assert insecure["ARVADOS_API_HOST_INSECURE"] == "1"
        assert "SSL_CERT_FILE" not in insecure
    finally:
        stopped = command("stop", home=tmp_path)
    assert (stopped.returncode, stopped.stdout) == (0, "stopped\n")
    assert command("status", home=tmp_path).returncode == 3
    assert command("stop", home=tmp_path).returncode == 0
    nobody = command("env", home=tmp_path)
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert nobody.stderr.endswith("start one with: python -m arvados_fuse.local serve\n")
    nobody = command("env", "--data-dir", str(tmp_path / "an other"), home=tmp_path)
    assert nobody.stderr.endswith(f" serve --data-dir '{tmp_path}/an other'\n")
    assert nobody.stderr.count("\n") == 1


def test_users_and_tokens(local_server: LocalServer) -> None:
    where = ("--data-dir", str(local_server.data_dir))
    made = command("user", "create", "carol", "--last-name", "Jones", *where)
    assert made.returncode == 0, made.stderr
    uuid, token = made.stdout.split()
    current = local_server.call("GET", "users/current", token=token).body
    assert (current["uuid"], current["is_admin"], current["is_active"]) == (uuid, False, True)
    assert (current["email"], current["full_name"]) == ("carol@localhost", "Carol Jones")
    listed = command("user", "list", *where).stdout
    assert uuid in listed
    again = command("user", "create", "carol", *where)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    second = command("token", "create", "carol", *where).stdout.strip()
    assert local_server.call("GET", "users/current", token=second).body["uuid"] == uuid
    assert command("token", "delete", second.split("/")[1], *where).returncode == 0
    assert local_server.call("GET", "users/current", token=second).status == 401
    assert command("token", "create", "nobody", *where).returncode == 1
    admin = command("user", "create", "boss", "--admin", *where).stdout.split()[1]
    assert local_server.call("GET", "users/current", token=admin).body["is_admin"] is True


def test_help_and_wrong_arguments() -> None:
    assert "in a hurry" in command("--help").stdout
    assert command("serve", "--help").returncode == 0
    for wrong in (["serve", "--port", "70000"], ["serve", "--keep-services", "0"], ["nonsense"], []):
        assert command(*wrong).returncode == 2


def test_ensure_running_starts_once_and_finds(data_dir: Path) -> None:
    said: list[str] = []
    first = ensure_running(data_dir, keep_services=1, progress=said.append)
    assert len(said) == 1
    assert len(first.keep_services) == 1
    assert ensure_running(data_dir, progress=said.append) == first
    assert len(said) == 1
    assert find_running(data_dir) == first
    assert first.token not in repr(first)
    assert first.admin_token not in repr(first)


def test_two_callers_at_once_get_one_server(data_dir: Path) -> None:
    found = []

    def start() -> None:
        found.append(ensure_running(data_dir))

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1


def test_two_servers_on_one_directory(fresh_server: LocalServer) -> None:
    second = command("serve", "--foreground", "--data-dir", str(fresh_server.data_dir))
    assert second.returncode == 3
    assert second.stderr == f"arvados-local: Another server is already running on {fresh_server.data_dir}\n"
    assert fresh_server.call("GET", "users/current").status == 200


def test_port_taken_is_one_sentence(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=rf"port {port} on 127\.0\.0\.1 can't be used") as failed:
            ensure_running(data_dir, port=port)
    assert "\n" not in str(failed.value)


def test_taken_keep_port_is_replaced(fresh_server: LocalServer) -> None:
    locator = (
        fresh_server.keep("PUT", f"/{hashlib.md5(b'moved').hexdigest()}", b"moved").body.decode().strip()
    )
    fresh_server.stop()
    before = fresh_server.settings
    with socket.create_server(("127.0.0.1", int(before.keep_services[0].strip("/").rpartition(":")[2]))):
        fresh_server.start()
    after = fresh_server.settings
    assert after.host == before.host
    assert after.keep_services[0] != before.keep_services[0]
    assert after.keep_services[1] == before.keep_services[1]
    assert fresh_server.keep("GET", f"/{locator}").body == b"moved"
    listed = fresh_server.call("GET", "keep_services/accessible").body["items"]
    urls = {f"http://{each['service_host']}:{each['service_port']}/" for each in listed}
    assert urls == set(after.keep_services)


def test_directory_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(SetupError, match="not empty and holds no embedded Arvados"):
        ensure_running(tmp_path)
    assert os.listdir(tmp_path) == ["precious.txt"]
    with pytest.raises(SetupError):
        ensure_running(tmp_path / "precious.txt")


@pytest.mark.parametrize("name", ["site.json", "server.json", "records.sqlite"])
def test_spoiled_files_are_one_sentence(fresh_server: LocalServer, name: str) -> None:
    fresh_server.stop()
    (fresh_server.data_dir / name).write_bytes(b"spoiled" * 1000)
    with pytest.raises(SetupError, match=name) as failed:
        ensure_running(fresh_server.data_dir)
    assert "\n" not in str(failed.value)


def test_fewer_keep_services_than_before_is_refused(fresh_server: LocalServer) -> None:
    fresh_server.stop()
    with pytest.raises(SetupError, match="2 Keep services"):
        ensure_running(fresh_server.data_dir, keep_services=1)


def test_everything_survives_a_restart(fresh_server: LocalServer) -> None:
    before = fresh_server.settings
    data = b"survivor"
    name = hashlib.md5(data).hexdigest()
    locator = fresh_server.keep("PUT", f"/{name}", data).body.decode().strip()
    manifest = f". {locator} 0:8:f\n"
    made = fresh_server.call(
        "POST", "collections", {"collection": {"manifest_text": manifest, "name": "s"}}
    ).body
    assert fresh_server.stop() == 0
    assert find_running(fresh_server.data_dir) is None
    fresh_server.start()
    assert fresh_server.settings == before
    assert fresh_server.keep("GET", f"/{locator}").body == data
    again = fresh_server.call("GET", f"collections/{made['uuid']}").body
    assert again["portable_data_hash"] == made["portable_data_hash"]
    services = fresh_server.call("GET", "keep_services/accessible").body["items"]
    assert len(services) == 2


def test_sockets_are_on_loopback_only(local_server: LocalServer) -> None:
    inodes = {
        os.readlink(f"/proc/{local_server.pid}/fd/{name}")
        for name in os.listdir(f"/proc/{local_server.pid}/fd")
        if os.path.lexists(f"/proc/{local_server.pid}/fd/{name}")
    }
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                listening.append(fields[1].split(":")[0])
    assert listening == ["0100007F"] * 3


def test_certificate_is_checked_and_fits(local_server: LocalServer) -> None:
    host, _, port = local_server.settings.host.partition(":")
    for name in ("localhost", host):
        context = ssl.create_default_context(cafile=str(local_server.settings.ca_file))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        with (
            socket.create_connection((host, int(port))) as plain,
            context.wrap_socket(plain, server_hostname=name) as connection,
        ):
            assert connection.version() in ("TLSv1.2", "TLSv1.3")
    with socket.create_connection((host, int(port))) as plain, pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context(cafile=str(local_server.settings.ca_file)).wrap_socket(
            plain, server_hostname="example.org"
        )


def test_files_are_private(fresh_server: LocalServer) -> None:
    fresh_server.keep("PUT", f"/{hashlib.md5(b'x').hexdigest()}", b"x")
    directory = fresh_server.data_dir
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    checked = 0
    for path in directory.rglob("*"):
        # server.out was made by this test's own helper.
        if path.is_file() and path.name != "server.out":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            checked += 1
        elif path.is_dir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    assert checked > 10


def test_no_token_in_the_log(fresh_server: LocalServer) -> None:
    """Every token that the server ever saw, good or bad, in every place where one can stand."""
    settings = fresh_server.settings
    _, other = fresh_server.new_user("talkative")
    wrong = "v2/zzzzz-gj3su-000000000000000/" + "w" * 50
    for token in (settings.token, settings.admin_token, other, wrong):
        fresh_server.call("GET", "users/current", token=token)
        fresh_server.call("GET", f"users/current?api_token={token}", token="")
        fresh_server.call("GET", f"/websocket?api_token={token[:-1]}", token="")
        fresh_server.call("GET", f"/{token}", token="")
        fresh_server.call("GET", f"collections/{token}")
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        fresh_server.call("POST", "collections?_method=GET", f"api_token={token}".encode(), headers=form)
        fresh_server.keep("GET", f"/{'a' * 32}+3", token=token)
        fresh_server.keep("PUT", f"/{token}", b"x", token=token)
    fresh_server.stop()
    said = b"".join(
        path.read_bytes() for path in fresh_server.data_dir.glob("server.*") if path.suffix != ".json"
    )
    assert b"GET /arvados/v1/users/current 200" in said
    for token in (settings.token, settings.admin_token, other, wrong):
        assert token.split("/")[-1][:-1].encode() not in said


def test_server_ends_with_its_starter(tmp_path: Path) -> None:
    server = LocalServer(tmp_path / "data").start()
    process = server._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == 0
    assert DataDirectory(server.data_dir).holder() is None


def test_log_is_limited(tmp_path: Path) -> None:
    program = (
        "import logging, pathlib, sys\n"
        "from arvados_fuse.local.server import server_log\n"
        "server_log.MAX_BYTES = 100_000\n"
        "server_log.start_logging(pathlib.Path(sys.argv[1]))\n"
        "for _ in range(1000): logging.getLogger('x').info('%s', '.' * 1000)\n"
        "print(server_log.KEPT_FILES)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    line = [sys.executable, "-c", program, str(tmp_path / "server.log")]
    done = subprocess.run(line, env=environment, check=True, timeout=120, capture_output=True)
    files = list(tmp_path.iterdir())
    assert len(files) == int(done.stdout) + 1
    assert sum(path.stat().st_size for path in files) <= 100_000 * len(files)


class Writer(threading.Thread):
    """Stores blocks and records until the server dies; remembers what was acknowledged."""

    def __init__(self, server: LocalServer, name: str) -> None:
        super().__init__()
        self.server = server
        self.name = name
        self.blocks: list[tuple[str, bytes]] = []
        self.records: list[tuple[str, str]] = []

    def run(self) -> None:
        with contextlib.suppress(OSError, EOFError, json.JSONDecodeError, http.client.HTTPException):
            for count in range(100_000):
                data = f"{self.name} {count} ".encode() * (1 + count % 5 * 20_000)
                answer = self.server.keep("PUT", f"/{hashlib.md5(data).hexdigest()}", data, service=count % 2)
                assert answer.status == 200
                locator = answer.body.decode().strip()
                self.blocks.append((locator, data))
                manifest = f". {locator} 0:{len(data)}:file\n"
                body = {"collection": {"manifest_text": manifest, "name": f"{self.name} {count}"}}
                made = self.server.call("POST", "collections", body)
                assert made.status == 200
                self.records.append((made.body["uuid"], made.body["portable_data_hash"]))


def test_kill_in_the_middle_of_writes_loses_nothing_acknowledged(fresh_server: LocalServer) -> None:
    for again in range(2):
        writers = [Writer(fresh_server, f"{again} {number}") for number in range(4)]
        for writer in writers:
            writer.start()
        wait_for(
            lambda: min(len(writer.records) for writer in writers) >= 5,  # noqa: B023
            "every writer has written something",
        )
        fresh_server.kill()
        for writer in writers:
            writer.join()
        with sqlite3.connect(fresh_server.data_dir / "records.sqlite") as records:
            assert records.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        records.close()
        fresh_server.start()
        for writer in writers:
            for locator, data in writer.blocks:
                services = [fresh_server.keep("GET", f"/{locator}", service=number) for number in (0, 1)]
                assert data in [answer.body for answer in services if answer.status == 200]
            for uuid, portable_data_hash in writer.records:
                record = fresh_server.call("GET", f"collections/{uuid}")
                assert record.body["portable_data_hash"] == portable_data_hash
        assert not list((fresh_server.data_dir / "keep").glob("*/tmp/*"))
        fresh_server.call(
            "PUT", f"users/{fresh_server.call('GET', 'users/current').body['uuid']}", {"user": {}}
        )


def test_stop_lets_requests_finish(fresh_server: LocalServer) -> None:
    """What was under way when the server was told to stop is either refused or done, never half done."""
    writer = Writer(fresh_server, "writer")
    writer.start()
    wait_for(lambda: len(writer.records) >= 3, "it writes")
    started = time.monotonic()
    assert fresh_server.stop() == 0
    assert time.monotonic() - started < 30
    writer.join()
    fresh_server.start()
    for uuid, _ in writer.records:
        assert fresh_server.call("GET", f"collections/{uuid}").status == 200


def test_killed_server_leaves_no_false_traces(fresh_server: LocalServer) -> None:
    fresh_server.kill()
    assert (fresh_server.data_dir / "running.json").exists()
    assert find_running(fresh_server.data_dir) is None
    assert not stop_running(fresh_server.data_dir)
    fresh_server.start()
    assert fresh_server.call("GET", "users/current").status == 200
