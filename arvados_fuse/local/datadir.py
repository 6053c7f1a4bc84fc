"""The data directory of one embedded Arvados: where everything is, who serves it now, and what it remembers.

Used by the server process, by `control` and by the command. The directory is 0700 and holds: `site.json`
(cluster id, keys: `site.SiteConfig`), `server.json` (ports and Keep services), `user.json` (the first
user's token), `tls/`, `records.sqlite`, `keep/<n>/` (blocks), `server.log`, `server.out` (what the last
start said), `lock` (held by the one server, with its process id) and `running.json` (where it answers now).
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from arvados_fuse.errors import SetupError
from arvados_fuse.local.files import write_private

DEFAULT_RESERVE = 256 * 1024 * 1024
"""Free disk space, bytes, below which the Keep services say that they are full."""

LOCK_PATIENCE = 1.0
"""Seconds to retry the lock while others look at it, each for an instant."""


@dataclass(frozen=True)
class KeepSettings:
    """One Keep service. `port` 0: not chosen yet."""

    uuid: str
    port: int = 0
    read_only: bool = False


@dataclass(frozen=True)
class ServerSettings:
    """What must be the same after a restart, so that clients and records stay valid. `port` 0: not chosen
    yet.
    """

    port: int = 0
    keep: tuple[KeepSettings, ...] = ()
    reserve: int = DEFAULT_RESERVE

    def with_ports(self, port: int, keep_ports: list[int]) -> "ServerSettings":
        """Return the settings with the ports that were really bound."""
        keep = tuple(replace(each, port=number) for each, number in zip(self.keep, keep_ports, strict=True))
        return replace(self, port=port, keep=keep)


@dataclass(frozen=True)
class Running:
    """Where a running server answers. `host` is `address:port` of the API."""

    pid: int
    host: str
    keep: list[str] = field(default_factory=list)
    """Base URLs of the Keep services."""


class AlreadyServed(SetupError):
    """Another server process holds this data directory."""


class DataDirectory:
    """The paths below one data directory, and its small JSON files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.site = path / "site.json"
        self.settings = path / "server.json"
        self.user = path / "user.json"
        self.running = path / "running.json"
        self.lock = path / "lock"
        self.log = path / "server.log"
        self.output = path / "server.out"
        self.tls = path / "tls"
        self.records = path / "records.sqlite"

    def keep(self, number: int) -> Path:
        """Return the block directory of one Keep service."""
        return self.path / "keep" / str(number)

    def prepare(self) -> None:
        """Make the directory, private to its owner. Raises SetupError when it can't be, or isn't ours."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            names = os.listdir(self.path)
            if names and not {"site.json", "lock", "server.out"} & set(names):
                raise SetupError(
                    f"{self.path} is not empty and holds no embedded Arvados; name another directory"
                )
            if self.path.stat().st_uid != os.geteuid():
                raise SetupError(f"{self.path} belongs to another user; name another directory")
            self.path.chmod(0o700)
        except OSError as error:
            raise SetupError(f"The data directory {self.path} can't be used: {error.strerror}") from None

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Be the one server of this directory while the context lasts. Raises AlreadyServed, OSError."""
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + LOCK_PATIENCE
            while not _try_lock(descriptor, fcntl.LOCK_EX):
                # A shared lock beside ours means that somebody only looks; else a server has it, and waiting
                # for that one to end would start a second server behind the back of who stopped it.
                if not _try_lock(descriptor, fcntl.LOCK_SH) or time.monotonic() > deadline:
                    raise AlreadyServed(f"Another server is already running on {self.path}")
                fcntl.flock(descriptor, fcntl.LOCK_UN)
                time.sleep(0.02)
            try:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                yield
            finally:
                os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)

    def holder(self) -> int | None:
        """Return the process id of the server that holds this directory; None when there is none. Raises
        OSError.
        """
        try:
            descriptor = os.open(self.lock, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if _try_lock(descriptor, fcntl.LOCK_SH):
                return None
            text = os.read(descriptor, 32).strip()
            return int(text) if text.isdigit() else 0
        finally:
            os.close(descriptor)

    def load_settings(self) -> ServerSettings:
        """Return the remembered settings, or new ones. Raises SetupError when the file is spoiled."""
        value = self._load(self.settings)
        if value is None:
            return ServerSettings()
        try:
            keep = tuple(KeepSettings(**_known(KeepSettings, each)) for each in value.pop("keep"))
            return ServerSettings(keep=keep, **_known(ServerSettings, value))
        except (TypeError, KeyError, AttributeError):
            raise SetupError(f"{self.settings} is not the file that this program wrote") from None

    def save_settings(self, settings: ServerSettings) -> None:
        """Remember the settings. Raises OSError."""
        self._save(self.settings, asdict(settings))

    def load_running(self) -> Running | None:
        """Return where the server said it answers; it may have died since. Raises SetupError."""
        value = self._load(self.running)
        return None if value is None else Running(**_known(Running, value))

    def save_running(self, running: Running) -> None:
        """Say where this server answers. Raises OSError."""
        self._save(self.running, asdict(running))

    def load_user_token(self) -> str:
        """Return the first user's token, or "" before the first start. Raises SetupError."""
        value = self._load(self.user)
        return "" if value is None else str(value.get("token", ""))

    def save_user_token(self, token: str) -> None:
        """Keep the first user's token. Raises OSError."""
        self._save(self.user, {"token": token})

    def _load(self, path: Path) -> dict[str, Any] | None:
        try:
            value = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SetupError(f"{path} can't be read: {error.strerror}") from None
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise SetupError(f"{path} is not the file that this program wrote")
        return value

    def _save(self, path: Path, value: dict[str, Any]) -> None:
        write_private(path, json.dumps(value, indent=2, sort_keys=True).encode() + b"\n")


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _known(kind: Any, value: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that `kind` has fields for: a newer version may have written more."""
    names = {each.name for each in fields(kind)}
    return {name: each for name, each in value.items() if name in names}
