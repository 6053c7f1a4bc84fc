"""A mount point while a mount is being made there: so that of two that begin at once one is refused.

Used by `main.py`. Between the look whether something is mounted and the mount itself the servers are asked,
which takes its time. What is locked (flock(2)) is the directory itself: whatever name leads there, whoever
the users are, and nothing is left behind.
"""

import contextlib
import fcntl
import os
from pathlib import Path

from arvados_fuse.errors import SetupError
from arvados_fuse.fuse.unmount import mounts_at


class Claim:
    """Held by a process until `release`, or its end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """The mount is there, and tells by itself that it is; safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def claim(mount_dir: Path) -> Claim:
    """Claim the directory; to be done before it is looked at. Raises SetupError when another one has it.

    What is no directory, has a mount, or can't be locked (some network file systems) is claimed by nobody:
    `preflight.py` has better words for most of that.
    """
    descriptor = -1
    if not mounts_at(mount_dir):  # a dead mount must not be touched
        with contextlib.suppress(OSError):
            descriptor = os.open(mount_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    claimed = Claim(descriptor)
    try:
        if descriptor >= 0:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        claimed.release()
        raise SetupError(
            f"another arv-mount is about to mount at {mount_dir}; see how that ends with: "
            f"arv-mount --status {mount_dir}"
        ) from None
    except OSError:
        claimed.release()
    return claimed
