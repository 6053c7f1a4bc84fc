"""What the tree tells about an object: `Attributes`, and how long that may be believed.

Used by all nodes; `fuse/` turns it into the kernel's form. Values only.
"""

import stat
from typing import NamedTuple

import ciso8601

from arvados_fuse.errors import NotFoundError

FOREVER = 10 * 365 * 86400.0
"""Seconds, for what can't change: a tree under its portable data hash. (The kernel counts in jiffies: not
infinity.)"""
BLOCK_SIZE = 131072
"""Bytes, `st_blksize`: what one read request of the kernel carries, so that `cp` reads in such pieces."""
SIZE_MAX = (1 << 63) - 1
"""Bytes, the most that `st_size` can hold."""
NAME_MAX = 255
"""Bytes of one name in a path, as `statfs` tells programs."""

DIRECTORY_MODE = stat.S_IFDIR | 0o555
FILE_MODE = stat.S_IFREG | 0o555
SPECIAL_MODE = stat.S_IFREG | 0o444
WRITABLE_DIRECTORY_MODE = stat.S_IFDIR | 0o777
WRITABLE_FILE_MODE = stat.S_IFREG | 0o777
"""Modes of what can't and can be changed; x is always set on files because Arvados stores no modes."""


class Attributes(NamedTuple):
    """`stat` of one inode. size: bytes. mtime_ns: ns since 1970. timeout: seconds to believe name and
    attributes. links: names that it has."""

    ino: int
    mode: int
    size: int
    mtime_ns: int
    uid: int
    gid: int
    timeout: float
    links: int = 1

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


class Changes(NamedTuple):
    """What is to be changed in the attributes of an inode; None for what stays. size: bytes. mtime_ns: ns
    since 1970."""

    size: int | None = None
    mtime_ns: int | None = None


class Invalidation(NamedTuple):
    """What the kernel should ask for again: the name `name` in the directory `inode`.

    Without a name: attributes and pages of `inode` itself, with `attributes_only` not the pages.
    """

    inode: int
    name: bytes = b""
    attributes_only: bool = False


class Statistics(NamedTuple):
    """`statfs`, in bytes and numbers of files."""

    block_size: int
    total: int
    free: int
    files: int
    files_free: int
    name_max: int = NAME_MAX


class Missing(NotFoundError):
    """No such name in a directory. timeout: seconds for which that may be remembered."""

    def __init__(self, name: str, *, timeout: float = 0.0) -> None:
        super().__init__(f"no entry {name!r}", subject=name)
        self.timeout = timeout


def nanoseconds(timestamp: object) -> int:
    """An API timestamp (ISO 8601, UTC) as ns since 1970; 0 for none or nonsense."""
    if not isinstance(timestamp, str):
        return 0
    try:
        moment = ciso8601.parse_datetime(timestamp)
        seconds = int(moment.timestamp())
    except (ValueError, OverflowError):
        return 0
    return seconds * 1_000_000_000 + moment.microsecond * 1000
