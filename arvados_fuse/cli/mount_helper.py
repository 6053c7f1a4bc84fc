"""`mount.arvados`: what mount(8) runs for the type `arvados`, and so for lines of /etc/fstab.

`bin/mount.arvados` calls `main()`. mount(8) gives SPEC DIR and options separated by commas; they become
options of arv-mount, which then does the work in this process and goes into the background.
"""

import os
import pwd
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from arvados_fuse.cli.described import options

PROGRAM = "mount.arvados"
USAGE = f"usage: {PROGRAM} SPEC DIR [-fnsv] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]"
WRONG, FAILED = 1, 32
"""Exit codes of mount(8): wrong call, mount failure."""

_OF_MOUNT = """
    _netdev async atime auto bg defaults dev diratime exec group iversion lazytime nofail noauto noatime nodev
    nodiratime noexec noiversion nolazytime norelatime nosuid nouser nostrictatime owner relatime rw
    strictatime suid sync user users
"""
FOR_OTHERS = frozenset(_OF_MOUNT.split())
"""Options for mount(8), systemd and the kernel in lines of fstab; `rw` is what mount(8) says by itself."""
OTHER_PREFIXES = ("x-", "X-", "comment=", "user=", "helper=", "uhelper=")
_NO_MOUNT = """
    exec foreground unmount unmount-all unmount-timeout version help status top json warm pin unpin recover
    discard
"""
NOT_HERE = frozenset(_NO_MOUNT.split())
"""Options of arv-mount that do something else than mount."""
COLLECTION = re.compile(r"[a-z0-9]{5}-4zz18-[a-z0-9]{15}|[0-9a-f]{32}\+[0-9]+")
PROJECT = re.compile(r"[a-z0-9]{5}-(j7d0g|tpzed)-[a-z0-9]{15}")


class Refused(Exception):
    """The call can't be understood; the text is one sentence."""


@dataclass(frozen=True)
class Call:
    """What is to be done. settings: file with NAME=value lines; user: who mounts; both may be ""."""

    arguments: tuple[str, ...]
    settings: str = ""
    user: str = ""
    only_try: bool = False
    tell: bool = False


def parse(arguments: Sequence[str]) -> Call:
    """Read what mount(8) or mount.fuse(8) gives. Raises Refused."""
    places, given, flags = _split(arguments)
    if len(places) != 2:
        raise Refused(USAGE)
    spec, directory = places
    result, settings, user = _content(spec), "", ""
    known = {option.name: option for option in options() if option.name not in NOT_HERE}
    for item in _items(given):
        name, equals, value = item.partition("=")
        if name == "ro":
            result.append("--read-only")
        elif name in FOR_OTHERS or item.startswith(OTHER_PREFIXES):
            continue
        elif name == "settings" and value:
            settings = value
        elif name == "run-as" and value:
            user = value
        elif (option := known.get(name.replace("_", "-"))) is None:
            if "s" not in flags:
                raise Refused(f"there is no option {name}")
        elif bool(option.value) != bool(equals) and not (option.optional and not equals):
            raise Refused(f"the option {name} {'needs a value' if option.value else 'takes no value'}")
        else:
            result.append(f"--{option.name}{equals}{value}")
    return Call((*result, directory), settings, user, only_try="f" in flags, tell="v" in flags)


def _split(arguments: Sequence[str]) -> tuple[list[str], str, str]:
    """Places, the options together, the letters of the flags: all may stand in any order."""
    places: list[str] = []
    given: list[str] = []
    flags = ""
    waiting = iter(arguments)
    for argument in waiting:
        if argument in ("-o", "-t", "-N"):
            value = next(waiting, None)
            if value is None:
                raise Refused(USAGE)
            given += [value] if argument == "-o" else []
        elif argument.startswith("-o"):
            given.append(argument[2:])
        elif re.fullmatch("-[fnrsvw]+", argument):
            flags += argument[1:]
            given += ["ro"] if "r" in argument else []
        elif argument.startswith("-"):
            raise Refused(USAGE)
        else:
            places.append(argument)
    return places, ",".join(given), flags


def _items(text: str) -> list[str]:
    """Divided at commas but those in double quotes or behind a backslash."""
    found = re.findall(r'(?:\\.|"[^"]*"|[^,\\"])+', text)
    return [re.sub(r'\\(.)|"', lambda match: match[1] or "", item) for item in found]


def _content(spec: str) -> list[str]:
    """What to show: SPEC may be a uuid or a portable data hash; `none` and `arvados` leave it to options."""
    if COLLECTION.fullmatch(spec):
        return [f"--collection={spec}"]
    if PROJECT.fullmatch(spec):
        return [f"--project={spec}"]
    if spec in ("", "none", "arvados", "arv-mount"):
        return []
    raise Refused(f"{spec!r} is neither none nor the uuid of a collection or project")


def main(arguments: Sequence[str] | None = None) -> int:
    """Mount; the exit code as mount(8) has it."""
    try:
        call = parse(sys.argv[1:] if arguments is None else arguments)
        if call.tell:
            print(f"{PROGRAM}: arv-mount {shlex.join(call.arguments)}", file=sys.stderr)
        if call.only_try:
            return 0
        from arvados_fuse.cli.main import main as mount

        # Secrets are read before the user changes: the file may belong to root.
        settings = _settings(call.settings)
        if call.user:
            _become(call.user)
        os.environ.update(settings)
        if call.settings:  # to be read again when the token has ended, if that user may
            os.environ["ARVADOS_MOUNT_SETTINGS"] = os.path.abspath(call.settings)
    except Refused as refused:
        print(f"{PROGRAM}: {refused}", file=sys.stderr)
        return WRONG
    sys.argv[0] = "arv-mount"
    try:
        return FAILED if mount(call.arguments) else 0
    except SystemExit as exit_:  # a value that its option does not take
        return WRONG if exit_.code else 0


def _settings(path: str) -> dict[str, str]:
    if not path:
        return {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise Refused(f"the settings {path} can't be read ({why})") from None
    pairs = (line.strip().partition("=") for line in lines)
    return {
        name.strip(): value.strip()
        for name, equals, value in pairs
        if equals and name.strip() and not name.startswith(("#", ";"))
    }


def _become(name: str) -> None:
    """Be that user, with the home directory and nothing of the caller's own directories."""
    try:
        user = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
        os.initgroups(user.pw_name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    except KeyError:
        raise Refused(f"run-as: there is no user {name}") from None
    except PermissionError:
        raise Refused(f"run-as: only root may mount as {name}") from None
    for variable in [variable for variable in os.environ if variable.startswith("XDG_")]:
        del os.environ[variable]
    os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)
