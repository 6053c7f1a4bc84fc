"""Directories of mounts: each mount has its own room, with a lock file, a journal and a directory of spools.

Used by `WriteBack` and `recovery`. A room whose lock nobody holds is a leftover of a dead mount. Rooms are
made and looked at under a lock of their parent, held for moments, so that nobody sees half a room.

Threads: any; a `Room` belongs to one owner.
"""

import calendar
import contextlib
import fcntl
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from arvados_fuse.writeback.journal import FILE_NAME
from arvados_fuse.writeback.reserve import FILE_NAME as RESERVE
from arvados_fuse.writeback.spool import SUFFIX, disk_error

LOCK, SPOOLS = "lock", "spool"

NAME = re.compile(r"\d{8}T\d{6}-\d+-[0-9a-f]{8}")
"""What rooms are called (time, process, chance); nothing else is looked at, or removed."""
STAMP = "%Y%m%dT%H%M%S"


class Room:
    """A room that this process has locked."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def create(cls, parent: Path) -> "Room":
        """A new room, readable by nobody else. Raises NoSpaceError, SaveFailed."""
        try:
            parent.mkdir(0o700, parents=True, exist_ok=True)
            with _gate(parent):
                # Leftovers are saved in the order of their times, whatever was done to the clock in between.
                since = max([int(time.time()), *(_time_of(room) + 1 for room in _rooms(parent))])
                stamp = time.strftime(STAMP, time.gmtime(since))
                path = parent / f"{stamp}-{os.getpid()}-{secrets.token_hex(4)}"
                path.mkdir(0o700)
                (path / SPOOLS).mkdir(0o700)
                descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise disk_error(error, str(parent)) from error
        return cls(path, descriptor)

    @property
    def since(self) -> int:
        """When it was made, in seconds since 1970; later than every room that was there then."""
        return _time_of(self.path)

    @property
    def journal(self) -> Path:
        """Where the journal is."""
        return self.path / FILE_NAME

    @property
    def spools(self) -> Path:
        """Where the spools are."""
        return self.path / SPOOLS

    def release(self) -> None:
        """Let others have it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def remove(self) -> None:
        """Remove the room with all that is in it, the journal first, so that no row outlives its bytes."""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.journal}{suffix}").unlink(missing_ok=True)
        (self.path / RESERVE).unlink(missing_ok=True)
        # Nothing of somebody else's: a directory that holds more than what is ours stays.
        with contextlib.suppress(OSError):
            for path in self.spools.glob(f"*{SUFFIX}"):
                path.unlink()
            self.spools.rmdir()
        with _gate(self.path.parent):
            with contextlib.suppress(OSError):
                (self.path / LOCK).unlink()
                self.path.rmdir()
            self.release()


def leftovers(parent: Path) -> list[Room]:
    """The rooms of dead mounts, locked by us from now on; live ones are not among them.

    A room that cannot be opened (another user's) is passed over.
    """
    if not parent.is_dir():
        return []
    found = []
    with _gate(parent):
        for path in _rooms(parent):
            room = _take(path)
            if room is not None:
                found.append(room)
    return found


def room_at(path: Path) -> Room | None:
    """One dead room; None when it is not there, or alive."""
    if not NAME.fullmatch(path.name) or not path.is_dir():
        return None
    with _gate(path.parent):
        return _take(path)


def _rooms(parent: Path) -> list[Path]:
    """All that are there, oldest first."""
    return sorted(path for path in parent.iterdir() if NAME.fullmatch(path.name) and path.is_dir())


def _time_of(room: Path) -> int:
    """When it was made, in seconds since 1970; 0 for a time that never was."""
    try:
        return calendar.timegm(time.strptime(room.name.partition("-")[0], STAMP))
    except ValueError:
        return 0


def _take(path: Path) -> Room | None:
    descriptor = -1
    try:
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if descriptor >= 0:
            os.close(descriptor)
        return None
    return Room(path, descriptor)


@contextlib.contextmanager
def _gate(parent: Path) -> Iterator[None]:
    """Hold the lock of the directory of all rooms. Raises NoSpaceError, SaveFailed."""
    path = parent / ".lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise disk_error(error, str(path)) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
