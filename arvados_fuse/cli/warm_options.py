"""The options that fill a running mount's cache, for `parser.py`; what has to hold between them, for
`command.py`.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Warming(NamedTuple):
    """Paths on running mounts, made absolute by text alone, and what shall be done with what is there."""

    paths: Sequence[Path]
    pin: bool
    unpin: bool


def add_warming(parser: argparse.ArgumentParser) -> None:
    """Add the group."""
    group = parser.add_argument_group("the cache of a running mount")
    for name, help_text in (
        ("warm", "have everything at and below PATH, on a mount, in its cache, and exit"),
        ("pin", "the same, and never evict it; content under its hash can then be read without the cluster"),
        ("unpin", "let go of what was pinned at and below PATH"),
    ):
        group.add_argument(f"--{name}", nargs="*", metavar="PATH", help=help_text)


def settle_paths(found: argparse.Namespace) -> None:
    """With these options there is no MOUNT_DIR: what stands there is one more path."""
    if _is_given(found) and found.mount_dir is None:
        found.mount_dir = next(iter(_paths(found)), ".")
    elif _is_given(found):
        found.warm = [*(found.warm or []), found.mount_dir]


def warming(parser: argparse.ArgumentParser, found: argparse.Namespace) -> Warming | None:
    """What was asked for, None if nothing; wrong combinations end in `parser.error`."""
    if not _is_given(found):
        return None
    if found.pin is not None and found.unpin is not None:
        parser.error("argument --unpin: not allowed with argument --pin")
    if found.action != "mount":
        other = found.action.replace("_", "-")
        parser.error(f"argument --{other}: not allowed with --warm, --pin and --unpin")
    if "" in _paths(found):
        parser.error("a PATH is empty: name it (the current directory is .)")
    if not _paths(found):
        parser.error("--warm, --pin and --unpin need a PATH on a mount")
    paths = [Path(os.path.abspath(path)) for path in _paths(found)]
    return Warming(paths, found.pin is not None, found.unpin is not None)


def _is_given(found: argparse.Namespace) -> bool:
    return any(value is not None for value in (found.warm, found.pin, found.unpin))


def _paths(found: argparse.Namespace) -> list[str]:
    return [*(found.warm or []), *(found.pin or []), *(found.unpin or [])]
