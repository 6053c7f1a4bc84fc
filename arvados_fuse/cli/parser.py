"""The options of arv-mount, as one argparse parser.

`make_parser()` is used by `command.py` and by whatever documents the options.
Names, defaults and exclusions are those of arv-mount 3.2.1; options of ours are added, none is renamed.
"""

import argparse
import os
import sys
from typing import Any

from arvados_fuse.cli import values
from arvados_fuse.cli.inside_options import add_inside
from arvados_fuse.cli.warm_options import add_warming
from arvados_fuse.options import CustomMount
from arvados_fuse.version import __version__

USAGE = """arv-mount [options] MOUNT_DIR
       arv-mount --local [DIR] [options] MOUNT_DIR
       arv-mount [options] MOUNT_DIR --exec COMMAND...
       arv-mount --unmount | --status | --top MOUNT_DIR
       arv-mount --recover [--discard]"""

EPILOG = """\
examples:
  arv-mount ~/arvados                      everything you can see, until unmounted
  arv-mount --local ~/arvados              the same with an Arvados of its own on this machine
  arv-mount --collection UUID dir          one collection
  arv-mount --home dir --exec md5sum dir/a/b   mount, run one command, unmount
  arv-mount --status ~/arvados             how the mount is doing
  arv-mount --unmount ~/arvados            unmount, even when the mount no longer answers

Which Arvados, and as whom: ARVADOS_API_HOST and ARVADOS_API_TOKEN from the environment, or else from
~/.config/arvados/settings.conf. Exit code: 0 done; 1 could not mount; 2 wrong options; with --exec that of
the command.
"""

LOCAL_DEFAULT = "~/.local/share/arvados-local"
"""For the help text: the data directory of `--local` without one, unless XDG_DATA_HOME says otherwise."""


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, indent_increment=2, max_help_position=30, width=min(_columns(), 100))


def _columns() -> int:
    try:
        return max(60, os.get_terminal_size(sys.stdout.fileno()).columns)
    except (OSError, ValueError, AttributeError):
        return 100


class _Mode(argparse.Action):
    """One of the exclusive modes: remembers the mode and, where there is one, its object."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        value: Any,
        option: str | None = None,
    ) -> None:
        namespace.mode = self.const
        namespace.target = value if isinstance(value, str) else ""


class _Custom(argparse.Action):
    """A `--mount-KIND PATH`: appended in the order of the command line."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        value: Any,
        option: str | None = None,
    ) -> None:
        namespace.custom = [*namespace.custom, CustomMount(kind=self.const, name=value)]


def make_parser(program: str = "arv-mount") -> argparse.ArgumentParser:
    """The parser; `program` is the name that `--version` prints (usage and errors say `arv-mount`)."""
    parser = argparse.ArgumentParser(
        prog="arv-mount",
        usage=USAGE,
        description="Show Arvados collections and projects as a directory tree.",
        epilog=EPILOG,
        formatter_class=_Help,
        add_help=False,
    )
    parser.set_defaults(mode=None, target="", custom=[])
    mount_dir = parser.add_argument(
        "mount_dir", metavar="MOUNT_DIR", help="where to mount: an empty directory"
    )
    # Whether it is missing is for parse() to say: `--local MOUNT_DIR` has taken it for its own DIR.
    mount_dir.required = False
    _add_contents(parser)
    _add_custom(parser)
    _add_server(parser)
    _add_access(parser)
    _add_running(parser)
    _add_saving(parser)
    _add_unmounting(parser)
    _add_cache(parser)
    add_inside(parser)
    add_warming(parser)
    _add_logging(parser, program)
    return parser


def _add_contents(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to show (one of these)")
    modes = group.add_mutually_exclusive_group()

    def mode(option: str, help_text: str, metavar: str | None = None) -> None:
        modes.add_argument(
            option,
            action=_Mode,
            nargs=None if metavar else 0,
            const=option.removeprefix("--").replace("-", "_"),
            dest="mode",
            metavar=metavar,
            help=help_text,
        )

    mode("--all", "the directories home, shared, by_id and by_tag (default)")
    mode("--home", "your home project")
    mode("--project", "one project", "UUID")
    mode("--collection", "one collection", "UUID_OR_PDH")
    mode("--shared", "a directory for each project shared with you")
    mode("--by-id", "collections and projects, each under its uuid or portable data hash once you name it")
    mode("--by-pdh", "the same with portable data hashes only")
    mode("--by-tag", "a directory for each tag")
    mode("--custom", "what the --mount-* options below say (default when there is one)")


def _add_custom(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "a layout of your own (each may be repeated; NAME is one directory name)"
    )
    for kind, help_text in (
        ("home", "your home project, as NAME"),
        ("shared", "projects shared with you, as NAME"),
        ("tmp", "a new collection to write to, gone at unmount, as NAME (with --read-write)"),
        ("by-id", "collections and projects by uuid or portable data hash, as NAME"),
        ("by-pdh", "collections by portable data hash, as NAME"),
        ("by-tag", "a directory for each tag, as NAME"),
    ):
        group.add_argument(
            f"--mount-{kind}",
            action=_Custom,
            const=kind.replace("-", "_"),
            dest="custom",
            metavar="NAME",
            default=[],
            help=help_text,
        )
    group.add_argument(
        "--filters",
        type=values.filters,
        default=[],
        metavar="JSON",
        help="show only what matches: Arvados list filters as JSON, a file that holds them, or - for "
        "standard input; collections.name and the like apply to one kind of object",
    )


def _add_server(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which Arvados")
    group.add_argument(
        "--local",
        nargs="?",
        const="",
        metavar="DIR",
        help="an Arvados of its own on this machine, started when needed, with its data in DIR "
        f"(default {LOCAL_DEFAULT})",
    )
    group.add_argument(
        "--retries",
        type=values.count,
        default=10,
        metavar="N",
        help="how often to repeat a request that failed for a passing reason (default 10)",
    )
    group.add_argument(
        "--refresh-time",
        type=values.seconds,
        default=15.0,
        metavar="SECONDS",
        help="how old what you see may get before it is asked for again (default 15)",
    )
    group.add_argument(
        "--disable-event-listening",
        action="store_true",
        help="do not listen for changes; --refresh-time alone decides",
    )
    group.add_argument(
        "--storage-classes",
        type=values.storage_classes,
        default=(),
        metavar="NAMES",
        help="storage classes for new collections, separated by commas",
    )


def _add_access(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("who may do what")
    group.add_argument(
        "--read-only", dest="read_write", action="store_false", default=False, help="change nothing (default)"
    )
    group.add_argument(
        "--read-write",
        dest="read_write",
        action="store_true",
        help="changes go to Arvados (the last of this and --read-only counts)",
    )
    group.add_argument("--enable-write", dest="read_write", action="store_true", help=argparse.SUPPRESS)
    group.add_argument("--allow-other", action="store_true", help="let other users of this machine in")
    group.add_argument(
        "--encoding",
        type=values.encoding,
        default="utf-8",
        help="encoding of file names on the mount (default utf-8)",
    )
    group.add_argument("--subtype", default="", help="let the mount's type read fuse.SUBTYPE")
    group.add_argument("--fsns", default="", help=argparse.SUPPRESS)


def _add_running(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how to run")
    group.add_argument("--foreground", action="store_true", help="stay in the foreground")
    group.add_argument(
        "--exec",
        nargs=argparse.REMAINDER,
        dest="exec_args",
        metavar="COMMAND",
        help="mount, run COMMAND, unmount; takes the rest of the line, so it comes last (or ends with --, "
        "after which only MOUNT_DIR may follow)",
    )


def _add_saving(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("saving (with --read-write)")
    group.add_argument(
        "--sync-on-close",
        action="store_true",
        help="let closing a file wait until it is saved (default: files are safe on disk when closed, and "
        "saved together a moment later)",
    )
    group.add_argument(
        "--recover",
        dest="action",
        action="store_const",
        const="recover",
        default="mount",
        help="list what mounts that died could not save, save it and exit (the next --read-write mount does "
        "so by itself)",
    )
    group.add_argument(
        "--discard",
        action="store_true",
        help="with --recover: throw it away instead of saving it",
    )


def _add_unmounting(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("unmounting (any FUSE mount; with --subtype only mounts of that type)")
    actions = group.add_mutually_exclusive_group()
    for action, help_text in (
        ("unmount", "unmount what is mounted at MOUNT_DIR and exit"),
        ("unmount-all", "unmount everything at and below MOUNT_DIR and exit"),
        ("replace", "unmount what is mounted at MOUNT_DIR, then mount"),
    ):
        actions.add_argument(
            f"--{action}",
            dest="action",
            action="store_const",
            const=action.replace("-", "_"),
            default="mount",
            help=help_text,
        )
    group.add_argument(
        "--unmount-timeout",
        type=values.seconds,
        default=2.0,
        metavar="SECONDS",
        help="how long an unmount may take before it is forced (default 2.0)",
    )


def _add_cache(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("caches (sizes in bytes)")
    kinds = group.add_mutually_exclusive_group()
    kinds.add_argument(
        "--disk-cache",
        dest="ram_cache",
        action="store_false",
        default=False,
        help="keep blocks on disk (default)",
    )
    kinds.add_argument("--ram-cache", dest="ram_cache", action="store_true", help="keep blocks in memory")
    group.add_argument(
        "--disk-cache-dir",
        metavar="DIR",
        help="where the disk cache is (default ~/.cache/arvados/keep, shared with other Arvados tools)",
    )
    group.add_argument(
        "--file-cache",
        type=values.count,
        default=0,
        metavar="BYTES",
        help="size of the block cache (default 0: fitted to this machine)",
    )
    group.add_argument(
        "--directory-cache",
        type=values.count,
        metavar="BYTES",
        help="memory for directory listings (default 134217728, 128 MiB; less in a small container)",
    )


def _add_logging(parser: argparse.ArgumentParser, program: str) -> None:
    group = parser.add_argument_group("messages")
    group.add_argument("--logfile", metavar="FILE", help="append messages to FILE instead of standard error")
    group.add_argument("--debug", action="store_true", help="tell more, with tracebacks")
    group.add_argument(
        "--crunchstat-interval",
        type=values.seconds,
        default=0.0,
        metavar="SECONDS",
        help="write statistics to standard error this often (default 0: never)",
    )
    group.add_argument(
        "--version", action="version", version=f"{program} {__version__}", help="print the version"
    )
    group.add_argument("-h", "--help", action="help", help="print this text")
