"""Room on the disk that is set aside for the journal: a file that goes when there is no other room.

Used by `Journal`. A rename or a close that the disk is too full to write down would have to be refused
though it has happened here; so the journal gets its room before the disk is full, and again when it is not
full any more.

Threads: the lock of `pending` guards it.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

FILE_NAME = "reserve"
MOST = 8 << 20
"""Bytes; of a small disk a 16th part. Enough for the log of 4 MB that SQLite writes ahead, and for tens of
thousands of changed paths."""
LOOK_EVERY = 5.0
"""Seconds between two looks whether there is room again."""


class Reserve:
    """See the module. Constructing touches no disk."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self._looked = float("-inf")

    def renew(self) -> None:
        """Set room aside if none is, and there is plenty. Raises nothing."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY:
            return
        self._looked = now
        with suppress(OSError):
            if self._path.exists():
                return
            disk = os.statvfs(self._path.parent)
            size = min(MOST, disk.f_blocks * disk.f_frsize // 16)
            if disk.f_bavail * disk.f_frsize < 4 * size:
                return
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, size)
            except OSError:
                self.give()
            finally:
                os.close(descriptor)

    def give(self) -> bool:
        """Give the room back to the disk; False when there was none."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
