"""Start, find and stop the embedded Arvados of a data directory.

Used by `arv-mount --local`, by the command `python -m arvados_fuse.local`, and by tests. The server is a
process of its own that outlives its starter. Any thread and any number of processes may call these at once:
a lock in the data directory lets one server win, and everybody gets that one.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import arvados_fuse
from arvados_fuse.errors import SetupError
from arvados_fuse.local.certificate import TlsFiles
from arvados_fuse.local.client import answers
from arvados_fuse.local.datadir import DataDirectory
from arvados_fuse.local.site import SiteConfig

PROGRAM = "arvados-local"
"""What the command calls itself in front of an error sentence."""

START_DEADLINE = 60.0
"""Seconds until a server must answer; it takes about one, on a busy machine some more."""

STOP_DEADLINE = 20.0
"""Seconds that a server gets to finish what is under way before it is killed."""

POLL = 0.05
"""Seconds between two looks at something that only another process can change."""

EXIT_ALREADY_SERVED = 3
"""Exit code of `serve` when another server holds the data directory."""

MAX_OUTPUT = 64 * 1024


@dataclass(frozen=True)
class LocalSettings:
    """How to reach a running embedded Arvados. `host` is `address:port` of the API."""

    host: str
    token: str = field(repr=False)
    """Token of the first user, who has a home project and is no administrator."""
    admin_token: str = field(repr=False)
    """Token of the system's own user, who may do everything."""
    ca_file: Path
    """Certificate of the authority that signed the server's certificate."""
    ca_bundle: Path
    """The machine's authorities and ours, for programs that take only one file."""
    keep_services: tuple[str, ...]
    """Base URLs of the Keep services."""
    data_dir: Path

    def environment(self) -> dict[str, str]:
        """Return the variables that make the stock SDK and its tools use this server.

        `SSL_CERT_FILE` is how the SDK takes an authority. The empty ones undo what may be set for another
        cluster.
        """
        return {
            "ARVADOS_API_HOST": self.host,
            "ARVADOS_API_TOKEN": self.token,
            "ARVADOS_API_HOST_INSECURE": "",
            "ARVADOS_KEEP_SERVICES": "",
            "ARVADOS_KEEP_PROXY": "",
            "SSL_CERT_FILE": str(self.ca_bundle),
        }


def default_data_dir(environment: Mapping[str, str]) -> Path:
    """Return `$XDG_DATA_HOME/arvados-local`, or `~/.local/share/arvados-local`."""
    base = environment.get("XDG_DATA_HOME", "")
    # The XDG specification tells programs to ignore a relative path.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".local/share") / "arvados-local"


def ensure_running(
    data_dir: Path,
    *,
    port: int | None = None,
    keep_services: int | None = None,
    signature_ttl: int | None = None,
    deadline: float = START_DEADLINE,
    progress: Callable[[str], None] | None = None,
) -> LocalSettings:
    """Return the settings of the server of `data_dir`, started if it isn't running.

    port, keep_services (count) and signature_ttl (seconds) count only for a start. deadline: seconds.
    progress is called with a sentence before a start. Raises SetupError with one sentence. Leaves no thread
    and no child.
    """
    data = DataDirectory(data_dir.absolute())
    data.prepare()
    found = find_running(data.path)
    if found is not None:
        return found
    if progress is not None:
        progress(f"Starting an embedded Arvados in {data.path}")
    command = _command("--deadline", str(deadline), *_options(data, port, keep_services, signature_ttl))
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=_environment(),
            timeout=deadline + STOP_DEADLINE,
            check=False,
        )
        if done.returncode != 0:
            raise SetupError(_last_line(done.stderr) or f"The embedded Arvados did not start; see {data.log}")
    found = find_running(data.path)
    if found is None:
        raise SetupError(f"The embedded Arvados in {data.path} does not answer; see {data.log}")
    return found


def start_detached(
    data_dir: Path,
    *,
    port: int | None = None,
    keep_services: int | None = None,
    signature_ttl: int | None = None,
    deadline: float = START_DEADLINE,
) -> LocalSettings:
    """Start a server as a child that outlives this process, or join another's start, and wait until it
    answers.

    For a process that ends soon after: the child is never waited for. Raises SetupError.
    """
    data = DataDirectory(data_dir.absolute())
    data.prepare()
    give_up = time.monotonic() + deadline
    child: subprocess.Popen[bytes] | None = None
    said_from = 0
    while (found := find_running(data.path)) is None:
        if child is None and data.holder() is None:
            child, said_from = _spawn(data, _options(data, port, keep_services, signature_ttl))
        elif child is not None and child.poll() is not None:
            if child.returncode != EXIT_ALREADY_SERVED:
                reason = _said(data, said_from) or f"it said nothing; see {data.log}"
                raise SetupError(f"The embedded Arvados did not start: {reason}")
            child = None
        if time.monotonic() > give_up:
            if child is not None:
                child.kill()
                child.wait()
            raise SetupError(
                f"The embedded Arvados in {data.path} did not answer within {deadline:.0f} seconds; "
                f"see {data.log}"
            )
        time.sleep(POLL)
    return found


def find_running(data_dir: Path) -> LocalSettings | None:
    """Return the settings of the server of `data_dir` if one is running and answers. Raises SetupError."""
    data = DataDirectory(data_dir.absolute())
    try:
        running = data.load_running()
        if running is None or data.holder() != running.pid:
            return None
        files = TlsFiles.below(data.tls)
        if not answers(running.host, files.ca):
            return None
        site = SiteConfig.load(data.site)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SetupError(f"The data directory {data.path} can't be read: {error.strerror}") from None
    return LocalSettings(
        host=running.host,
        token=data.load_user_token(),
        admin_token=site.system_root_token,
        ca_file=files.ca,
        ca_bundle=files.bundle,
        keep_services=tuple(running.keep),
        data_dir=data.path,
    )


def stop_running(data_dir: Path, *, deadline: float = STOP_DEADLINE) -> bool:
    """Stop the server of `data_dir`; return whether there was one. After `deadline` seconds it is killed."""
    data = DataDirectory(data_dir.absolute())
    give_up = time.monotonic() + deadline
    told: int | None = None
    while (pid := data.holder()) is not None:
        if told is None and pid:
            _signal(pid, signal.SIGTERM)
            told = pid
        elif told is not None and pid not in (0, told):
            # Somebody has started the next one meanwhile.
            break
        elif time.monotonic() > give_up:
            _signal(told, signal.SIGKILL)
        time.sleep(POLL)
    return told is not None


def _options(
    data: DataDirectory, port: int | None, keep_services: int | None, signature_ttl: int | None
) -> list[str]:
    options = ["--data-dir", str(data.path), "--quiet"]
    given = (("--port", port), ("--keep-services", keep_services), ("--signature-ttl", signature_ttl))
    for option, value in given:
        if value is not None:
            options += [option, str(value)]
    return options


def _command(*options: str) -> list[str]:
    return [sys.executable, "-m", "arvados_fuse.local", "serve", *options]


def _environment() -> dict[str, str]:
    # The package may be a source tree that is found only because of the starter's working directory.
    package_root = str(Path(arvados_fuse.__file__).parent.parent)
    search_path = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(search_path)}


def _spawn(data: DataDirectory, options: list[str]) -> tuple["subprocess.Popen[bytes]", int]:
    """Start a server; return it and where in `server.out` its words begin."""
    descriptor = os.open(data.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "ab") as output:
        if os.fstat(descriptor).st_size > MAX_OUTPUT:
            output.truncate(0)
        said_from = os.fstat(descriptor).st_size
        child = subprocess.Popen(
            _command("--foreground", *options),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=_environment(),
            start_new_session=True,
        )
    return child, said_from


def _said(data: DataDirectory, said_from: int) -> str:
    with open(data.output, "rb") as output:
        output.seek(said_from)
        return _last_line(output.read(MAX_OUTPUT))


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix(f"{PROGRAM}: ") if lines else ""


def _signal(pid: int | None, number: int) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
