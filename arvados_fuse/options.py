"""What a mount was asked to do, as one frozen value.

`cli/` makes it from the command line, `cli/build.py` reads it to wire the floors; no floor below the door
sees it whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Mode = Literal["all", "custom", "collection", "home", "project", "shared", "by_id", "by_pdh", "by_tag"]
CustomKind = Literal["home", "shared", "tmp", "by_id", "by_pdh", "by_tag"]


@dataclass(frozen=True)
class CustomMount:
    """One `--mount-KIND PATH`: `name` is a single path component at the root of the mount."""

    kind: CustomKind
    name: str


@dataclass(frozen=True)
class MountOptions:
    """Sizes are bytes, times are seconds; defaults are those of arv-mount 3.2.1."""

    mount_dir: Path
    mode: Mode = "all"
    target: str = ""
    """The uuid or portable data hash for the modes `collection` and `project`."""
    custom: Sequence[CustomMount] = ()
    filters: Sequence[Sequence[Any]] = ()
    local_dir: Path | None = None
    """Data directory of the embedded Arvados to use instead of a configured cluster."""

    read_write: bool = False
    allow_other: bool = False
    subtype: str = ""
    fsname: str = ""
    encoding: str = "utf-8"
    storage_classes: Sequence[str] = ()
    sync_on_close: bool = False
    refresh_time: float = 15.0
    listen_events: bool = True

    retries: int = 10
    directory_cache: int = 134217728
    directory_cache_given: bool = False
    """Whether somebody asked for that size: then it is not made smaller to fit into a container."""
    file_cache: int = 0
    """0: sized automatically from the disk (or from memory with `ram_cache`)."""
    ram_cache: bool = False
    spill_cache: int = 0
    """Bytes of memory for blocks while the disk takes none; 0: the usual size."""
    disk_cache_dir: Path | None = None

    foreground: bool = False
    exec_args: Sequence[str] = ()
    debug: bool = False
    logfile: Path | None = None
    crunchstat_interval: float = 0.0
    metrics_port: int | None = None
    """Where metrics are given on 127.0.0.1; 0: any free port; None: nowhere."""
    slow_request: float = 60.0
    """A request that is under way for so long is logged; 0: never."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Settings that take the place of the process's own (`ARVADOS_API_HOST`, ...)."""
