"""What tests need of the embedded Arvados and of the stock clients, from any rung.

`LocalServer` runs one server process that can't outlive the tests; `stock_venv` makes the virtual
environment with the stock SDK, its tools and stock arv-mount, installed from PyPI into the git-ignored
`.stock/` of the project.
"""

import fcntl
import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from arvados_fuse.local.control import LocalSettings, find_running

PROJECT = Path(__file__).parent.parent
STOCK = PROJECT / ".stock"
STOCK_MOUNT = "arvados_fuse==3.2.1"
STOCK_SDK = "arvados-python-client==3.2.1"
STOCK_VARIABLE = "ARVADOS_STOCK_VENV"
"""Names an existing virtual environment with STOCK_MOUNT in it, to save the time of making one."""

DEADLINE = 60.0

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str, deadline: float = DEADLINE) -> T:
    """Return the first true value of `condition`; fail with `what` after `deadline` seconds."""
    give_up = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {deadline:.0f} seconds: {what}")
        time.sleep(0.02)
    return value


class Answer(NamedTuple):
    """An HTTP answer: status, JSON or text, headers."""

    status: int
    body: Any
    headers: Mapping[str, str]


class LocalServer:
    """One embedded Arvados on `data_dir`: start, kill and restart it, and make raw requests of it."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.data_dir = data_dir
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._settings: LocalSettings | None = None

    @property
    def settings(self) -> LocalSettings:
        """How to reach it; of the last start."""
        assert self._settings is not None, "not started"
        return self._settings

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> "LocalServer":
        """Start it and wait until it answers."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "arvados_fuse.local", "serve", "--foreground", "--until-eof"]
        command += ["--quiet", "--data-dir", str(self.data_dir), *self.options]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        with open(self.data_dir / "server.out", "ab") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment
            )
        self._process = process

        def running() -> LocalSettings | None:
            if process.poll() is not None:
                raise AssertionError((self.data_dir / "server.out").read_text())
            return find_running(self.data_dir)

        self._settings = wait_for(running, "the embedded Arvados answers")
        return self

    def stop(self) -> int:
        """Stop it in good order; return its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it as `kill -9` does."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        assert process.stdin is not None
        process.stdin.close()
        return process.wait(DEADLINE)

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Return an environment for a stock client: this server, and nothing of the person who runs the
        tests.
        """
        home.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TMPDIR", "TZ")}
        mine = {"HOME": str(home), "LC_ALL": "C.UTF-8", **self.settings.environment()}
        return {**kept, **mine, **({"ARVADOS_API_TOKEN": token} if token else {})}

    def call(
        self,
        verb: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Make one API request (`body`: bytes as they are, else JSON); the first user's token unless told."""
        context = ssl.create_default_context(cafile=str(self.settings.ca_file))
        connection = http.client.HTTPSConnection(self.settings.host, timeout=60, context=context)
        path = path if path.startswith("/") else f"/arvados/v1/{path}"
        return _exchange(connection, verb, path, body, self._headers(token, headers))

    def keep(
        self,
        verb: str,
        path: str,
        body: bytes | None = None,
        *,
        token: str | None = None,
        service: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Make one request of a Keep service; the answer's body is bytes."""
        host = self.settings.keep_services[service].split("/")[2]
        connection = http.client.HTTPConnection(host, timeout=60)
        return _exchange(connection, verb, path, body, self._headers(token, headers), raw=True)

    def _headers(self, token: str | None, headers: Mapping[str, str] | None) -> dict[str, str]:
        token = self.settings.token if token is None else token
        authorization = {"Authorization": f"Bearer {token}"} if token else {}
        return {**authorization, **(headers or {})}

    def new_user(self, username: str, **attributes: Any) -> tuple[str, str]:
        """Make an active user; return its uuid and a token."""
        admin = self.settings.admin_token
        user = {"username": username, "email": f"{username}@localhost", "is_active": True, **attributes}
        uuid = self.call("POST", "users", {"user": user}, token=admin).body["uuid"]
        body = {"api_client_authorization": {"owner_uuid": uuid}}
        made = self.call("POST", "api_client_authorizations", body, token=admin).body
        return uuid, f"v2/{made['uuid']}/{made['api_token']}"


def _exchange(
    connection: http.client.HTTPConnection,
    verb: str,
    path: str,
    body: Any,
    headers: dict[str, str],
    *,
    raw: bool = False,
) -> Answer:
    try:
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers = {"Content-Type": "application/json", **headers}
        connection.request(verb, path, body, headers)
        response = connection.getresponse()
        text = response.read()
        return Answer(response.status, text if raw else json.loads(text), dict(response.headers.items()))
    finally:
        connection.close()


def memory(server: LocalServer) -> int:
    """Return the most memory, bytes, that the server has ever used."""
    for line in Path(f"/proc/{server.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


class StockClients:
    """The stock tools in their virtual environment."""

    def __init__(self, directory: Path) -> None:
        self.bin = directory / "bin"
        self.python = self.bin / "python"

    @property
    def arv_mount(self) -> Path | None:
        """Stock arv-mount; None where its FUSE library could not be built."""
        path = self.bin / "arv-mount"
        return path if path.exists() else None

    def run(
        self, environment: Mapping[str, str], *command: str, timeout: float = 120, check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """Run one of its commands (`arv-put`, `python`) and return what it said."""
        done = subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{command[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done


class StockMissing(Exception):
    """The stock clients can't be had here; the text says why."""


def stock_clients() -> StockClients:
    """Return the stock clients, installed from PyPI on the first call. Raises StockMissing."""
    given = os.environ.get(STOCK_VARIABLE)
    if given:
        return StockClients(Path(given))
    STOCK.mkdir(exist_ok=True)
    directory = STOCK / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    with open(STOCK / "lock", "wb") as lock:
        # Two test runs may want it at once; the second one waits for the first.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "complete").exists():
            _install(directory)
    return StockClients(directory)


def _install(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    try:
        venv.create(directory, with_pip=True)
    except subprocess.CalledProcessError as error:
        raise StockMissing(f"no virtual environment can be made: {error}") from error
    # Stock arv-mount is built from source against the FUSE headers; without them the SDK's tools still serve.
    for wanted in (STOCK_MOUNT, STOCK_SDK):
        said = _pip(directory, wanted)
        if said is None:
            (directory / "complete").touch()
            return
    raise StockMissing(f"pip can't install {STOCK_SDK}: {said}")


def _pip(directory: Path, wanted: str) -> str | None:
    """Install a package; return None, or the last thing that pip said when it failed."""
    command = [str(directory / "bin/python"), "-m", "pip", "install", "--quiet", wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line]
    return lines[-1] if lines else f"exit code {done.returncode}"
