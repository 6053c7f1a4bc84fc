"""Where the cluster is and who we are: one frozen value.

Made once by the door from the environment and the user's `settings.conf`; read by the API client and the
block cache.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import arvados.util

from arvados_fuse.errors import SetupError

TRUE_WORDS = frozenset({"1", "t", "true", "y", "yes"})
"""What the Arvados tools take for yes in `ARVADOS_API_HOST_INSECURE`."""


SETTINGS_FILE = "ARVADOS_MOUNT_SETTINGS"
"""A variable that names a file with such settings (a service manager's, say), which come first."""


@dataclass(frozen=True)
class ApiSettings:
    """How to reach one cluster as one user.

    host: name and optional port. ca_file: PEM file of trusted authorities. keep_services: base URLs that take
    the place of what the cluster announces (`ARVADOS_KEEP_SERVICES`). deadline: seconds after which a call,
    with its retries, gives up.
    """

    host: str
    token: str = field(repr=False)
    insecure: bool = False
    ca_file: str = ""
    ca_file_missing: str = ""
    """What `SSL_CERT_FILE` names, when it is not there (and the machine's authorities are trusted)."""
    keep_services: tuple[str, ...] = ()
    deadline: float = 60.0
    environment: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """What `load` was given."""
    is_renewable: bool = False
    """Whether the token is from a file, which may be rewritten; a process's environment stays as it is."""

    @classmethod
    def load(cls, environment: Mapping[str, str]) -> "ApiSettings":
        """Read the settings as the Arvados tools do: each variable from `environment`, else from
        `settings.conf`.

        Raises SetupError when the host or the token is missing.
        """
        given, named = {k: v for k, v in environment.items() if v}, _named(environment)
        values = {**_configured(environment), **given, **named}
        missing = [name for name in ("ARVADOS_API_HOST", "ARVADOS_API_TOKEN") if not values.get(name)]
        if missing:
            them = "them" if len(missing) > 1 else "it"
            raise SetupError(
                f"{' and '.join(missing)} not set: export {them}, or put {them} into "
                "~/.config/arvados/settings.conf (in Workbench: Get API token)."
            )
        named_file = values.get("SSL_CERT_FILE", "")
        is_there = bool(named_file) and Path(named_file).exists()
        return cls(
            host=values["ARVADOS_API_HOST"].strip().removeprefix("https://").rstrip("/"),
            token=values["ARVADOS_API_TOKEN"].strip(),
            insecure=values.get("ARVADOS_API_HOST_INSECURE", "").strip().lower() in TRUE_WORDS,
            ca_file=named_file if is_there else str(arvados.util.ca_certs_path()),
            ca_file_missing="" if is_there else named_file,
            keep_services=tuple(values.get("ARVADOS_KEEP_SERVICES", "").split()),
            environment=dict(environment),
            is_renewable="ARVADOS_API_TOKEN" in named or "ARVADOS_API_TOKEN" not in given,
        )

    def again(self) -> "ApiSettings":
        """The settings as `load` finds them now. Raises SetupError."""
        return self.load(self.environment) if self.environment else self


def _configured(environment: Mapping[str, str]) -> dict[str, str]:
    """The `NAME=value` lines of the first readable `settings.conf`; none is no error."""
    for directory in _configuration_directories(environment):
        try:
            text = (directory / "settings.conf").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        return dict(_assignments(text))
    return {}


def _named(environment: Mapping[str, str]) -> dict[str, str]:
    """The lines of the file that the environment names; none when it can't be read (any more)."""
    path = environment.get(SETTINGS_FILE, "")
    try:
        lines = dict(_assignments(Path(path).read_text(encoding="utf-8"))) if path else {}
    except (OSError, UnicodeDecodeError):
        return {}
    return {name: value for name, value in lines.items() if value}


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            yield name.strip(), value.strip()


def _configuration_directories(environment: Mapping[str, str]) -> Iterator[Path]:
    """The order of the Arvados tools: systemd's directories, the user's, the machine's."""
    for name in environment.get("CONFIGURATION_DIRECTORY", "").split(":"):
        if name.startswith("/"):
            yield Path(name)
    home = environment.get("XDG_CONFIG_HOME", "")
    if not home.startswith("/"):
        home = f"{environment.get('HOME') or Path.home()}/.config"
    yield Path(home, "arvados")
    for name in (environment.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":"):
        if name.startswith("/"):
            yield Path(name, "arvados")
