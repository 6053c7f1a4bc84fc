"""A small process that frees the programs on a mount when the process that serves it was killed.

Started by the notifier as `python guard.py MINOR PATH`, with a pipe from that process as its input. A
notification can be held up in the kernel by a program that waits for an answer; where the process that should
answer is killed then, its stuck thread keeps the kernel's connection open, and both would wait for ever. So
when that process dies without the word that all is well, the connection is cut (kernel documentation,
filesystems/fuse). The stuck thread keeps the pipe open too: the death is told by a signal.
Imports nothing but the standard library, and little of it: it runs as long as the mount.
"""

import ctypes
import os
import select
import signal
import sys

CONNECTIONS = "/sys/fs/fuse/connections"
ALL_IS_WELL = b"q"
MNT_FORCE, UMOUNT_NOFOLLOW = 1, 8
"""From sys/mount.h."""
LOOK_EVERY = 0.2
"""Seconds."""
PR_SET_PDEATHSIG = 1
"""From sys/prctl.h: the signal to get when the thread that started us ends."""


def cut(minor: int) -> bool:
    """Cut the connection with this number by its control file, which belongs to whoever mounted; False if
    that can't be had."""
    try:
        with open(f"{CONNECTIONS}/{minor}/abort", "w") as control:
            control.write("1")
    except OSError:
        return False
    return True


def cut_by_force(minor: int, path: str) -> None:
    """The same for root where the control files are missing, as in containers: a forced unmount, of a mount
    that is kept busy so that it stays. (What is written to an empty mount point would go to the local disk.)
    """
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        still_there = any(
            line.split(" ")[2].endswith(f":{minor}")
            and " - fuse" in line
            and line.split(" ")[4] == escaped(path)
            for line in table
        )
    if still_there:
        busy = os.open(path, os.O_PATH | os.O_CLOEXEC)
        ctypes.CDLL(None).umount2(os.fsencode(path), MNT_FORCE | UMOUNT_NOFOLLOW)
        os.close(busy)


def escaped(path: str) -> str:
    """As in mountinfo (proc(5))."""
    for character in "\\ \t\n":
        path = path.replace(character, f"\\{ord(character):03o}")
    return path


class _ParentEnds(Exception):
    pass


def _parent_ends(*_: object) -> None:
    # Every thread of the dying process that inherits us from another tells us again.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    raise _ParentEnds


def is_dead(process: int) -> bool:
    """Whether a process has ended, but for threads that can't (state in /proc/PID/stat, proc(5))."""
    try:
        with open(f"/proc/{process}/stat", "rb") as stat:
            return stat.read().rpartition(b") ")[2][:1] in b"ZX"
    except OSError:
        return True


def last_word(parent: int) -> bytes:
    """Wait until the parent says something or is dead."""
    signal.signal(signal.SIGUSR1, _parent_ends)
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGUSR1)
        return b"" if is_dead(parent) else os.read(0, 1)
    except _ParentEnds:
        # It dies, unless only the thread that started us has ended: look from time to time, then.
        while not is_dead(parent):
            if select.select([0], [], [], LOOK_EVERY)[0]:
                return os.read(0, 1)
        return b""


def main() -> None:
    """Wait for the end of the other process."""
    minor, path = int(sys.argv[1]), sys.argv[2]
    if last_word(os.getppid()) != ALL_IS_WELL and not cut(minor):
        cut_by_force(minor, path)


if __name__ == "__main__":
    main()
