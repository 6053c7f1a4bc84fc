"""What can be checked on this machine before a server is asked; a failure is one sentence with the next step.

Used by `main.py` before the mount is built. Raises SetupError; changes nothing but creating a missing cache
directory.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from arvados_fuse.errors import SetupError
from arvados_fuse.fuse import fusermount
from arvados_fuse.fuse.unmount import mount_point, mounts_at
from arvados_fuse.options import MountOptions

FUSE_DEVICE = Path("/dev/fuse")
FUSE_CONF = Path("/etc/fuse.conf")


def check(options: MountOptions) -> MountOptions:
    """Everything below, cheapest and likeliest first; the options with its real places."""
    check_mount_point(options.mount_dir)
    # The kernel follows all links when it mounts; whoever looks for the mount later has its real name.
    options = dataclasses.replace(options, mount_dir=Path(mount_point(options.mount_dir)))
    check_fuse_device(FUSE_DEVICE)
    check_fusermount()
    if options.allow_other:
        check_allow_other(FUSE_CONF)
    if options.ram_cache:
        return options
    directory = options.disk_cache_dir or shared_cache(os.environ)
    check_cache_directory(directory)
    return dataclasses.replace(options, disk_cache_dir=directory)


def check_mount_point(path: Path) -> None:
    """An empty directory that the user may enter and that carries no FUSE mount.

    The mount table is asked first: looking into a mount that is stuck would hang.
    """
    if mounts_at(path):
        raise SetupError(
            f"{path} has a FUSE mount on it already, alive or dead; "
            f"unmount it with: arv-mount --unmount {path} (or mount with --replace)"
        )
    try:
        with os.scandir(path) as entries:
            empty = next(iter(entries), None) is None
    except FileNotFoundError:
        raise SetupError(f"{path} does not exist; make it with: mkdir -p {path}", subject=str(path)) from None
    except NotADirectoryError:
        raise SetupError(f"{path} is not a directory; give an empty directory to mount on") from None
    except PermissionError:
        raise SetupError(f"{path} may not be entered by you; give an empty directory of your own") from None
    except OSError as error:
        raise SetupError(f"{path} can't be used as a mount point: {error.strerror}") from None
    if not os.access(path, os.W_OK, effective_ids=True):  # fusermount insists on it
        raise SetupError(f"{path} may not be written by you; give an empty directory of your own")
    if not empty:
        raise SetupError(f"{path} is not empty; give an empty directory, or move its files away first")


def check_fuse_device(device: Path) -> None:
    """The kernel's side of FUSE is there and this user may open it."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise SetupError(
            f"this machine has no {device}; load the kernel module with: modprobe fuse "
            f"(in a container: start it with --device {device} --cap-add SYS_ADMIN)"
        ) from None
    except PermissionError:
        raise SetupError(
            f"{device} may not be opened by you; let an administrator run: chmod 666 {device} "
            "(in a container: --cap-add SYS_ADMIN)"
        ) from None
    except OSError as error:
        raise SetupError(
            f"{device} does not work here ({error.strerror}); load the kernel module with: modprobe fuse"
        ) from None


def check_fusermount() -> None:
    """Who isn't root mounts through the set-uid helper of the Debian package fuse (or fuse3)."""
    if os.geteuid() != 0 and fusermount.find() is None:
        raise SetupError("the program fusermount is missing; install it with: apt-get install fuse")


def check_allow_other(conf: Path) -> None:
    """fusermount lets only root use allow_other unless its configuration says otherwise."""
    if os.geteuid() == 0:
        return
    try:
        lines = conf.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    if "user_allow_other" not in (line.strip() for line in lines):
        raise SetupError(
            "--allow-other is not permitted here; "
            f"let an administrator add the line user_allow_other to {conf}"
        )


def shared_cache(environment: Mapping[str, str]) -> Path:
    """The block cache that the Arvados tools on this machine share, by their rules."""
    if systemd := environment.get("CACHE_DIRECTORY"):
        return Path(systemd.partition(":")[0], "keep")
    if os.path.isabs(base := environment.get("XDG_CACHE_HOME", "")):
        return Path(base, "arvados", "keep")
    return Path(os.path.expanduser("~"), ".cache", "arvados", "keep")


def check_cache_directory(path: Path) -> None:
    """Made when missing, private to the user (0700); must take files."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK | os.X_OK, effective_ids=True)
        why = "no permission"
    except OSError as error:
        writable, why = False, error.strerror or str(error)
    if not writable:
        raise SetupError(
            f"the cache directory {path} can't be written ({why}); "
            "give another one with --disk-cache-dir, or use --ram-cache"
        )
