"""Taking mounts away from the outside, dead ones too; and our own, wherever it is by then.

Used by `arv-mount --unmount`, `--replace`, the end of `--exec`, and by `session.py`. Needs no llfuse, no API
server, no token. Nothing here looks at the mount point itself (stat, open): on a dead mount that waits for
ever. What is mounted is read from `/proc/self/mountinfo` (format: proc(5)), a stuck connection is cut by
`/sys/fs/fuse/connections/N/abort` (kernel documentation, filesystems/fuse).
"""

import ctypes
import logging
import os
import re
import shlex
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
MOST_LINKS = 40
"""In a row, as many as the kernel follows (path_resolution(7))."""
POLL = 0.05
"""Seconds between two looks at the mount table."""
POLITE_SHARE = 0.5
"""Part of the timeout in which a mount may end by itself (nobody uses it any more) before it is cut off."""


class MountPoint(NamedTuple):
    """One line of mountinfo. minor: for a FUSE mount the number of its kernel connection. owner: the number
    of the user who mounted. number, parent: those of the mount itself, and of that on which it lies.
    read_only: whether the kernel lets nobody change anything there."""

    path: str
    fstype: str
    source: str
    minor: int
    owner: int = 0
    number: int = 0
    parent: int = 0
    read_only: bool = False


class StillMounted(ArvadosFuseError):
    """The mount did not go away within the time given."""


def fuse_mounts() -> list[MountPoint]:
    """All FUSE mounts that this process can see, in the order they were made."""
    return [mount for mount in _table() if mount.fstype == "fuse" or mount.fstype.startswith("fuse.")]


def mounts_at(mount_dir: Path, *, subtype: str | None = None, recursive: bool = False) -> list[MountPoint]:
    """FUSE mounts at `mount_dir` (with `recursive`: and below it), the innermost and latest first."""
    return _matching(mount_point(mount_dir), subtype, recursive)


def mount_point(mount_dir: Path) -> str:
    """The path as mountinfo has it: of `mount_dir`, or of what it is a symbolic link to.

    Only the directories above are resolved, and links read, until something is mounted there: a dead mount is
    not touched.
    """
    path = _absolute(mount_dir)
    mounted = {mount.path for mount in fuse_mounts()}
    for _ in range(MOST_LINKS):
        if path in mounted:
            break
        try:
            path = _absolute(Path(path).parent / os.readlink(path))
        except OSError:  # no link, or none that may be read
            break
    return path


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


def own_mount(descriptor: int, mount_dir: Path) -> MountPoint | None:
    """The mount that was made a moment ago at `mount_dir` and is served on `descriptor`; None when it is
    unmounted already."""
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as told:
        number = re.search(r"^fuse_connection:\s*(\d+)$", told.read(), re.MULTILINE)
    at_place = mounts_at(mount_dir)
    if number is None:  # an older kernel; the latest one there is it
        return at_place[0] if at_place else None
    every = [*at_place, *fuse_mounts()]  # the directory can have been renamed
    return next((mount for mount in every if mount.minor == int(number[1])), None)


def as_it_is_now(mount: MountPoint) -> MountPoint | None:
    """The same mount, where it is by now; None when it is unmounted."""
    now = (one for one in fuse_mounts() if (one.number, one.minor) == (mount.number, mount.minor))
    return next(now, None)


def take_away(mount: MountPoint) -> None:
    """Unmount a mount of our own that is not served any more; done when nobody uses it any more.

    Raises StillMounted when its path leads to another mount, or it can't be unmounted.
    """
    now = as_it_is_now(mount)
    if now is None:
        return
    if over := _over(now):
        raise StillMounted(
            f"{now.path} is not served any more and could not be unmounted: something else is mounted over "
            f"{over.path}; unmount that, then run: arv-mount --unmount {shlex.quote(now.path)}"
        )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(now.path), MNT_DETACH | UMOUNT_NOFOLLOW):
        said = _unmount_once(now, forced=True)  # who is not root has the helper
        if as_it_is_now(mount) is not None:
            raise StillMounted(f"{now.path} is not served any more and could not be unmounted: {said}")


def _over(mount: MountPoint) -> MountPoint | None:
    """What is mounted over a mount, or over a directory above it, so that its path leads elsewhere."""
    table = _table()
    by_number = {line.number: line for line in table}
    below, lower = mount, by_number.get(mount.number)
    while lower is not None:
        for line in table:
            above = line.path.rstrip("/") + "/"
            if (
                line.parent == lower.number
                and line not in (below, lower)
                and f"{below.path}/".startswith(above)
            ):
                return line
        below, lower = lower, by_number.get(lower.parent) if lower.parent != lower.number else None
    return None


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
        if _over(mount):
            return
        libc = ctypes.CDLL(None, use_errno=True)
        flags = MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW
        if libc.umount2(os.fsencode(mount.path), flags):
            logger.debug("%s not unmounted by force: %s", mount.path, os.strerror(ctypes.get_errno()))


def _fusermount() -> str:
    """The unmount helper of libfuse 2 or 3: it works without root."""
    if program := fusermount.find():
        return program
    raise SetupError("fusermount was not found: install the package fuse (or fuse3).")


def _table() -> list[MountPoint]:
    """Every line of the mount table."""
    lines = []
    for line in MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        fields = line.split(" ")
        after = fields[fields.index("-") + 1 :]
        owner = re.search(r"\buser_id=(\d+)", after[2])
        lines.append(
            MountPoint(
                path=_unescaped(fields[4]),
                fstype=after[0],
                source=_unescaped(after[1]),
                minor=int(fields[2].partition(":")[2]),
                owner=int(owner[1]) if owner else 0,
                number=int(fields[0]),
                parent=int(fields[1]),
                read_only="ro" in fields[5].split(","),
            )
        )
    return lines


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
