"""Taking mounts away from the outside, dead ones too.

Used by `arv-mount --unmount`, `--replace` and the end of `--exec`. Needs no llfuse, no API server, no token.
Nothing here looks at the mount point itself (stat, open): on a dead mount that waits for ever. What is
mounted is read from `/proc/self/mountinfo` (format: proc(5)), a stuck connection is cut by
`/sys/fs/fuse/connections/N/abort` (kernel documentation, filesystems/fuse).
"""

import contextlib
import ctypes
import logging
import os
import re
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from arvados_fuse.errors import ArvadosFuseError, SetupError
from arvados_fuse.fuse import fusermount, guard

logger = logging.getLogger("arvados.arv-mount")

MOUNTINFO = Path("/proc/self/mountinfo")
MNT_FORCE, MNT_DETACH, UMOUNT_NOFOLLOW = 1, 2, 8
"""From sys/mount.h and linux/fs.h."""
POLL = 0.05
"""Seconds between two looks at the mount table."""
POLITE_SHARE = 0.5
"""Part of the timeout in which a mount may end by itself (nobody uses it any more) before it is cut off."""


class MountPoint(NamedTuple):
    """One line of mountinfo that is a FUSE mount. minor: the number of its kernel connection. owner: the
    number of the user who mounted."""

    path: str
    fstype: str
    source: str
    minor: int
    owner: int = 0


class StillMounted(ArvadosFuseError):
    """The mount did not go away within the time given."""


def fuse_mounts() -> list[MountPoint]:
    """All FUSE mounts that this process can see, in the order they were made."""
    mounts = []
    for line in MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        fields = line.split(" ")
        after = fields[fields.index("-") + 1 :]
        if after[0] == "fuse" or after[0].startswith("fuse."):
            minor = int(fields[2].partition(":")[2])
            owner = re.search(r"\buser_id=(\d+)", after[2])
            mounts.append(
                MountPoint(
                    _unescaped(fields[4]),
                    after[0],
                    _unescaped(after[1]),
                    minor,
                    int(owner[1]) if owner else 0,
                )
            )
    return mounts


def mounts_at(mount_dir: Path, *, subtype: str | None = None, recursive: bool = False) -> list[MountPoint]:
    """FUSE mounts at `mount_dir` (with `recursive`: and below it), the innermost and latest first."""
    path = _absolute(mount_dir)
    found = _matching(path, subtype, recursive)
    if not found:
        with contextlib.suppress(
            OSError
        ):  # a symbolic link to a mount point: follow it without touching its end
            found = _matching(_absolute(Path(path).parent / os.readlink(path)), subtype, recursive)
    return found


def unmount(
    mount_dir: Path, *, subtype: str | None = None, timeout: float = 2.0, recursive: bool = False
) -> None:
    """Unmount what is mounted at `mount_dir`; nothing mounted there is success.

    subtype: only mounts of type `fuse.<subtype>`. timeout: seconds. recursive: also everything below.
    First the kernel is asked to unmount what is idle; what is still in use after half the time is cut off.
    Raises StillMounted when something is left at the end, SetupError when fusermount is missing.
    """
    begun = time.monotonic()
    while mounts := mounts_at(mount_dir, subtype=subtype, recursive=recursive):
        elapsed = time.monotonic() - begun
        forced = elapsed >= timeout * POLITE_SHARE
        said = _unmount_once(mounts[0], forced=forced)
        if mounts[0] not in mounts_at(mount_dir, subtype=subtype, recursive=recursive):
            continue
        if elapsed >= timeout and forced:
            raise StillMounted(
                f"{mounts[0].path} is still mounted after {timeout:g} s: {said or 'no reason given'}"
            )
        time.sleep(POLL)


def _unmount_once(mount: MountPoint, *, forced: bool) -> str:
    """One attempt; what fusermount said when it failed."""
    if forced:
        abort(mount)
        if mount not in fuse_mounts():
            return ""
    command = [_fusermount(), "-u", *(["-z"] if forced else []), "--", mount.path]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except subprocess.TimeoutExpired:
        return "fusermount did not come back"
    return done.stderr.strip() if done.returncode else ""


def abort(mount: MountPoint) -> None:
    """Cut the kernel's connection to the daemon: every request under way and to come fails at once.

    Through the control file, which belongs to whoever mounted; in containers, where that is often missing,
    root can have the same by a forced unmount (umount2(2), MNT_FORCE).
    """
    if not guard.cut(mount.minor):
        logger.debug("connection of %s not aborted by its control file", mount.path)
        libc = ctypes.CDLL(None, use_errno=True)
        flags = MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW
        if libc.umount2(os.fsencode(mount.path), flags):
            logger.debug("%s not unmounted by force: %s", mount.path, os.strerror(ctypes.get_errno()))


def _fusermount() -> str:
    """The unmount helper of libfuse 2 or 3: it works without root."""
    if program := fusermount.find():
        return program
    raise SetupError("fusermount was not found: install the package fuse (or fuse3).")


def _matching(path: str, subtype: str | None, recursive: bool) -> list[MountPoint]:
    below = path.rstrip("/") + "/"
    return [
        mount
        for mount in reversed(fuse_mounts())
        if (mount.path == path or (recursive and mount.path.startswith(below)))
        and (subtype is None or mount.fstype == f"fuse.{subtype}")
    ]


def _absolute(mount_dir: Path) -> str:
    """The path as mountinfo has it; only the directories above the mount point are resolved."""
    path = os.path.abspath(mount_dir)
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def _unescaped(field: str) -> str:
    """Blanks, tabs, newlines and backslashes stand as three octal digits in mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
