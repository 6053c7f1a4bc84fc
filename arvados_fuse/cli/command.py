"""One command line of arv-mount, as one frozen value.

`parse()` is used by `main.py`. Nothing here looks at the file system (a dead mount would hang), reads
settings or starts a thread.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from arvados_fuse.cli.inside_options import NOTHING, Asked, asked
from arvados_fuse.cli.parser import make_parser
from arvados_fuse.cli.warm_options import Warming, settle_paths, warming
from arvados_fuse.options import Mode, MountOptions

Action = Literal["mount", "replace", "unmount", "unmount_all", "recover"]


CLEARING = ("unmount", "unmount_all", "replace")
"""Actions that take away what is there; an empty name, as of a variable that is not set, is none for them."""
WITHOUT_DASHES = ("status", "top", "unmount", "unmount-all", "replace", "recover", "warm", "pin", "unpin")
"""What people take for commands, though they are options."""
DIRECTORY_CACHE = 134217728
"""Bytes; the default of 3.2.1."""


@dataclass(frozen=True)
class Command:
    """What one command line asks for. `unmount_timeout` is in seconds. asked, warming: of a running
    mount."""

    action: Action
    options: MountOptions
    unmount_timeout: float = 2.0
    discard: bool = False
    asked: Asked = NOTHING
    warming: Warming | None = None


class UsageError(Exception):
    """The options contradict each other in a way that arv-mount has always answered with exit code 1."""


def parse(arguments: Sequence[str], program: str = "arv-mount") -> Command:
    """The command in `arguments` (without the program's name).

    Raises UsageError for what exits with 1; argparse itself raises SystemExit for --help and --version (0)
    and for wrong options (2).
    """
    parser = make_parser(program)
    found, unknown = parser.parse_known_args(list(arguments))
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{_meant(found.mount_dir, unknown)}")
    settle_paths(found)
    _settle_mount_dir(parser, found, arguments)
    asking = asked(parser, found)
    _check_layout(found)
    options = MountOptions(
        mount_dir=_absolute(found.mount_dir),
        mode=_mode(found),
        target=found.target,
        custom=tuple({custom.name: custom for custom in found.custom}.values()),
        filters=tuple(tuple(item) for item in found.filters),
        local_dir=_local_dir(found.local),
        read_write=found.read_write,
        allow_other=found.allow_other,
        subtype=found.subtype,
        fsname=found.fsns,
        encoding=found.encoding,
        storage_classes=found.storage_classes,
        sync_on_close=found.sync_on_close,
        refresh_time=found.refresh_time,
        listen_events=not found.disable_event_listening,
        retries=found.retries,
        directory_cache=DIRECTORY_CACHE if found.directory_cache is None else found.directory_cache,
        directory_cache_given=found.directory_cache is not None,
        file_cache=found.file_cache,
        ram_cache=found.ram_cache,
        disk_cache_dir=_absolute(found.disk_cache_dir) if found.disk_cache_dir else None,
        foreground=found.foreground,
        exec_args=tuple(found.exec_args or ()),
        debug=found.debug,
        logfile=_absolute(found.logfile) if found.logfile else None,
        crunchstat_interval=found.crunchstat_interval,
        metrics_port=found.metrics_port,
        slow_request=found.slow_request,
    )
    return Command(
        action=found.action,
        options=options,
        unmount_timeout=found.unmount_timeout,
        discard=found.discard,
        asked=asking,
        warming=warming(parser, found),
    )


def _mode(found: argparse.Namespace) -> Mode:
    """`--custom` without any `--mount-*` has always shown all."""
    if found.custom:
        return "custom"
    mode: Mode = found.mode or "all"
    return "all" if mode == "custom" else mode


def _local_dir(given: str | None) -> Path | None:
    """The data directory of `--local`, None when it was not asked for."""
    if given is None:
        return None
    if given:
        return _absolute(given)
    from arvados_fuse.local.control import default_data_dir  # only now: it loads much

    return default_data_dir(os.environ)


def _settle_mount_dir(
    parser: argparse.ArgumentParser, found: argparse.Namespace, arguments: Sequence[str]
) -> None:
    """`--local MNT` means MNT is the mount point; `--local=DIR` never does."""
    if found.mount_dir is None and found.local and found.local in arguments:
        found.mount_dir, found.local = found.local, ""
    if found.action == "recover":
        found.mount_dir = found.mount_dir or "."
    if found.discard and found.action != "recover":
        parser.error("--discard goes with --recover")
    if found.mount_dir is None:
        why = "; --exec took the rest of the line as the command, so put MOUNT_DIR before --exec"
        parser.error(f"the following arguments are required: MOUNT_DIR{why if found.exec_args else ''}")
    if not found.mount_dir and (found.action in CLEARING or found.ask):
        parser.error("MOUNT_DIR is empty: name the directory (the current one is .)")


def _meant(mount_dir: str | None, unknown: Sequence[str]) -> str:
    """A hint for who leaves out the dashes."""
    words = [word for word in (mount_dir, *unknown) if word in WITHOUT_DASHES]
    return f" (did you mean --{words[0]}?)" if words else ""


def _check_layout(found: argparse.Namespace) -> None:
    if found.custom and found.mode not in (None, "custom"):
        raise UsageError(f"Cannot combine '{found.mode}' mode with custom --mount-* options.")
    for custom in found.custom:
        if custom.name in ("", ".", "..") or "/" in custom.name or "\0" in custom.name:
            raise UsageError(f"Mount point '{custom.name}' is not supported.")


def _absolute(path: str) -> Path:
    """Made absolute by text alone: looking a path up could hang on a dead mount."""
    return Path(os.path.abspath(path))
