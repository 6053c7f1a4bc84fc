"""A file system that does nothing, as fast as llfuse lets it: the ceiling of this machine.

`python -m benchmarks.null_fs MOUNT_DIR --large BYTES --parts N --files N --small BYTES --flat N --workers N`

Run by the measurements in a process of its own, in a session like that of arv-mount, with as many
threads: a mount with one is cheaper, but one program that waits would make all others wait. It shows
`large`, `part0` ... (zeros), `tree/d00000/f000000` ..., and `flat/f000000` ...; every answer is computed from
the name or the inode number, and llfuse's global lock is never released, because that costs as well.
"""

import argparse
import errno
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import llfuse

from arvados_fuse.fuse.session import MAX_READ, WORKERS, Session

PER_DIRECTORY = 100
TIMEOUT = 15.0
"""Seconds that the kernel may keep an answer, as arv-mount's default is."""

LARGE, PARTS, TREE, FLAT = 2, 3, 1000, 1001
DIRECTORIES, TREE_FILES, FLAT_FILES = 10_000, 10_000_000, 20_000_000
"""Where the inode numbers of each kind begin."""


class NullFileSystem(llfuse.Operations):  # type: ignore[misc]
    """Answers computed from names and numbers."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__()
        self._a = arguments
        self._zeros = memoryview(bytes(MAX_READ))

    def _entry(self, inode: int) -> llfuse.EntryAttributes:
        a = self._a
        if inode == llfuse.ROOT_INODE or TREE <= inode < TREE_FILES:
            mode, size = stat.S_IFDIR | 0o555, 0
        elif inode >= TREE_FILES:
            mode, size = stat.S_IFREG | 0o444, a.small
        else:
            mode, size = stat.S_IFREG | 0o444, a.large if inode == LARGE else a.large // max(1, a.parts)
        entry = llfuse.EntryAttributes()
        entry.st_ino, entry.st_mode, entry.st_size = inode, mode, size
        entry.entry_timeout = entry.attr_timeout = TIMEOUT
        return entry

    def getattr(self, inode: int, ctx: Any = None) -> llfuse.EntryAttributes:
        """stat."""
        return self._entry(inode)

    def lookup(self, parent_inode: int, name: bytes, ctx: Any = None) -> llfuse.EntryAttributes:
        """The number is in the name."""
        if parent_inode >= DIRECTORIES:
            return self._entry(TREE_FILES + int(name[1:]))
        if parent_inode == FLAT:
            return self._entry(FLAT_FILES + int(name[1:]))
        if parent_inode == TREE:
            return self._entry(DIRECTORIES + int(name[1:]))
        known = {b"large": LARGE, b"tree": TREE, b"flat": FLAT}
        if name in known:
            return self._entry(known[name])
        if name.startswith(b"part"):
            return self._entry(PARTS + int(name[4:]))
        raise llfuse.FUSEError(errno.ENOENT)

    def opendir(self, inode: int, ctx: Any = None) -> int:
        """The handle is the inode."""
        return inode

    def readdir(self, fh: int, off: int) -> Iterator[tuple[bytes, llfuse.EntryAttributes, int]]:
        """The names of the three kinds of directories that are listed."""
        a, numbers = self._a, range(0)
        letter, start = b"f", TREE_FILES
        if fh >= DIRECTORIES:
            first = (fh - DIRECTORIES) * PER_DIRECTORY
            numbers = range(first, min(first + PER_DIRECTORY, a.files))
        elif fh == TREE:
            letter, start, numbers = b"d", DIRECTORIES, range((a.files + PER_DIRECTORY - 1) // PER_DIRECTORY)
        elif fh == FLAT:
            start, numbers = FLAT_FILES, range(a.flat)
        digits = 5 if letter == b"d" else 6
        for place, number in enumerate(numbers[off:], off + 1):
            yield b"%s%0*d" % (letter, digits, number), self._entry(start + number), place

    def open(self, inode: int, flags: int, ctx: Any = None) -> int:
        """The handle is the inode."""
        return inode

    def read(self, fh: int, off: int, size: int) -> memoryview:
        """Zeros."""
        left = self._entry(fh).st_size - off if fh >= TREE_FILES else size
        return self._zeros[: min(size, max(0, left))]

    def release(self, fh: int) -> None:
        """Nothing was kept."""

    def releasedir(self, fh: int) -> None:
        """Nothing was kept."""


def main(arguments: Sequence[str]) -> int:
    """Mount and serve until unmounted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mount_dir", type=Path)
    for option in ("--large", "--parts", "--files", "--small", "--flat"):
        parser.add_argument(option, type=int, default=0)
    parser.add_argument("--workers", type=int, default=WORKERS)
    options = parser.parse_args(arguments)
    session = Session(NullFileSystem(options), options.mount_dir, fsname="null")
    session.open()
    try:
        session.run(options.workers)
    finally:
        session.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
