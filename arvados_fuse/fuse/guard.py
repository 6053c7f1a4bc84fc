"""A small process that frees the programs on a mount when the process that serves it was killed.

Started by the notifier as `python guard.py MINOR PATH`, with a pipe from that process as its input. A
notification can be held up in the kernel by a program that waits for an answer; where the process that should
answer is killed then, its stuck thread keeps the kernel's connection open, and both would wait for ever. So
when the pipe ends without the word that all is well, the connection is cut (kernel documentation,
filesystems/fuse). Imports nothing but the standard library, and little of it: it runs as long as the mount.
"""

import ctypes
import os
import sys

CONNECTIONS = "/sys/fs/fuse/connections"
ALL_IS_WELL = b"q"
MNT_FORCE, UMOUNT_NOFOLLOW = 1, 8
"""From sys/mount.h."""


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


def main() -> None:
    """Wait for the end of the other process."""
    minor, path = int(sys.argv[1]), sys.argv[2]
    if os.read(0, 1) != ALL_IS_WELL and not cut(minor):
        cut_by_force(minor, path)


if __name__ == "__main__":
    main()
