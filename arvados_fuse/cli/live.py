"""Asking the mount at a directory something, from another process.

Used by the commands that talk to a running mount (`--status`, `--top`, ...). The mount is found by the text
of its path in the kernel's mount table; a mount that is dead is never touched, so asking it can't hang.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from arvados_fuse.errors import SetupError
from arvados_fuse.fuse.unmount import fuse_mounts, mounts_at
from arvados_fuse.reporting import asking


class NotMounted(SetupError):
    """There is no FUSE mount at the directory."""


class DoesNotListen(SetupError):
    """There is a mount, but its process is gone, or it is no arv-mount that can be asked."""


def mount_of(path: Path) -> Path:
    """The mount point of the FUSE mount on which `path` lies, `path` itself where there is none.

    By text alone: to look up anything below a dead mount would hang.
    """
    text = os.path.abspath(path)
    found = [mount.path for mount in fuse_mounts() if f"{text}/".startswith(f"{mount.path.rstrip('/')}/")]
    return Path(max(found, key=len)) if found else path


def ask(
    mount_dir: Path,
    name: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    silence: float = 10.0,
    deadline: float | None = None,
) -> Iterator[dict[str, Any]]:
    """What the mount at `mount_dir` answers to the request `name`, one by one as it comes.

    silence: seconds without an answer after which it is given up; deadline: seconds for all together.
    Raises NotMounted, DoesNotListen, Unreachable, and the kind of error with which the mount answered.
    """
    mounts = mounts_at(mount_dir)
    if not mounts:
        if not os.path.lexists(mount_dir):
            raise NotMounted(
                f"nothing is mounted at {mount_dir}, which does not exist; make it and mount with: "
                f"mkdir -p {mount_dir} && arv-mount {mount_dir}"
            )
        raise NotMounted(f"nothing is mounted at {mount_dir}; mount with: arv-mount {mount_dir}")
    mount = mounts[0]
    try:
        yield from asking.ask(mount.minor, mount.owner, name, arguments, silence=silence, deadline=deadline)
    except asking.NobodyListens:
        raise DoesNotListen(
            f"the mount at {mount.path} does not listen: its process is gone (clear it away with: "
            f"arv-mount --unmount {mount.path}), or another program made it"
        ) from None
