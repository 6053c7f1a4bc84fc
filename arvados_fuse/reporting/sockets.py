"""Where the control socket of a running mount is: found from the mount's number and its owner alone.

Used by `control.py` (who listens) and `asking.py` (who asks). The number is that of the kernel's device
(`st_dev`, the third field of /proc/self/mountinfo, proc(5)), so that nobody has to touch the mount to find
it. Places follow from the user's number and not from the environment: root can find the mounts of others.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

LONGEST = 107
"""Bytes in the path of a Unix socket (unix(7))."""


def directories(user: int) -> Sequence[Path]:
    """Where the sockets of the user with this number may be, best first.

    What systemd makes for a user goes away when the user logs out, so there is always another one.
    """
    runtime = Path("/run/arv-mount") if user == 0 else Path(f"/run/user/{user}/arv-mount")
    return runtime, Path(f"/tmp/arv-mount-{user}")


def socket_path(directory: Path, minor: int) -> Path:
    """The socket in `directory` for the mount with this number."""
    return directory / f"{minor}.sock"


def ending_path(directory: Path, process: int) -> Path:
    """The socket in `directory` of a process whose mount is away: its number may be another one's by now."""
    return directory / f"ending-{process}.sock"


def make_private(directory: Path) -> None:
    """Make the directory (0700) where it is missing; its parent must exist. Raises OSError, also when it
    belongs to somebody else or others may enter it."""
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        if not belongs_to(directory, os.geteuid()):
            raise PermissionError(f"{directory} is not a directory of your own alone") from None


def belongs_to(directory: Path, user: int) -> bool:
    """Whether this is a directory (no link) of that user, which nobody else may enter. Raises OSError."""
    found = os.lstat(directory)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == user and not found.st_mode & 0o077
