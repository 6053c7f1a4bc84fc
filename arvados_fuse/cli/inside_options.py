"""The options that look into a mount, for `parser.py`; what has to hold between them, for `command.py`."""

import argparse
from typing import NamedTuple

from arvados_fuse.cli import values


class Asked(NamedTuple):
    """What is asked of a running mount: `status`, `top`, or "" when nothing is."""

    what: str
    as_json: bool


NOTHING = Asked("", False)


def add_inside(parser: argparse.ArgumentParser) -> None:
    """Add the group."""
    group = parser.add_argument_group("seeing inside")
    asking = group.add_mutually_exclusive_group()
    for what, help_text in (
        ("status", "tell how the mount at MOUNT_DIR is doing, and exit"),
        ("top", "show what the mount at MOUNT_DIR is doing, live; q ends it"),
    ):
        asking.add_argument(
            f"--{what}", dest="ask", action="store_const", const=what, default="", help=help_text
        )
    group.add_argument("--json", dest="as_json", action="store_true", help="with --status: as JSON")
    group.add_argument(
        "--metrics-port",
        type=values.port,
        metavar="PORT",
        help="give metrics for Prometheus at http://127.0.0.1:PORT/metrics (0: any free port, see --status)",
    )
    group.add_argument(
        "--slow-request",
        type=values.seconds,
        default=60.0,
        metavar="SECONDS",
        help="log requests that take longer, with what every thread does (default 60; 0: never)",
    )


def asked(parser: argparse.ArgumentParser, found: argparse.Namespace) -> Asked:
    """What was asked for; wrong combinations end in `parser.error`."""
    if found.ask and found.action != "mount":
        other = found.action.replace("_", "-")
        parser.error(f"argument --{found.ask}: not allowed with argument --{other}")
    if found.as_json and found.ask != "status":
        parser.error("argument --json: only with --status")
    return Asked(found.ask, found.as_json)
