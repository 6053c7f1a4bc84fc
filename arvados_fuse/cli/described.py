"""The options of arv-mount as values, for what is made of them: manual page, completion, fstab helper.

Used by `mount_helper.py` and by `scripts/documents.py`. Pure.
"""

import argparse
from typing import NamedTuple

from arvados_fuse.cli.parser import make_parser


class Option(NamedTuple):
    """One option as a person sees it.

    names: with dashes, the long one last. value: the metavar, "" for a switch. many: takes several values.
    optional: the value may be left out. default: as in the help text, "" where there is none to tell.
    """

    names: tuple[str, ...]
    value: str
    many: bool
    optional: bool
    help: str
    default: str
    group: str
    hidden: bool

    @property
    def name(self) -> str:
        """The long name, without dashes."""
        return self.names[-1].lstrip("-")


def options() -> list[Option]:
    """All options in the order of the help text, the hidden ones too."""
    found = []
    # argparse has no public way to list what was added to a parser.
    for group in make_parser()._action_groups:
        for action in group._group_actions:
            if action.option_strings:
                found.append(_option(action, group.title or ""))
    return found


def _option(action: argparse.Action, group: str) -> Option:
    many = action.nargs in (argparse.REMAINDER, "*", "+")
    takes_value = action.nargs != 0
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    hidden = action.help == argparse.SUPPRESS
    return Option(
        names=tuple(sorted(action.option_strings, key=len)),
        value=metavar if takes_value else "",
        many=many,
        optional=action.nargs == "?",
        help="" if hidden or action.help is None else action.help.replace("%%", "%"),
        default=_default(action) if takes_value and not hidden else "",
        group=group,
        hidden=hidden,
    )


def _default(action: argparse.Action) -> str:
    """Numbers and texts; what is empty or made of several parts is told by the help text alone."""
    value = action.default
    if isinstance(value, bool) or not isinstance(value, int | float | str) or value == "":
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
