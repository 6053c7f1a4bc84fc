"""The life of one FUSE mount in this process: mount, serve, take down.

Used by `cli/build.py`. llfuse allows one mount per process. `run` belongs to the main thread (signals).
"""

import contextlib
import errno
import logging
import os
from pathlib import Path

import llfuse

from arvados_fuse.errors import SetupError
from arvados_fuse.fuse import fusermount, handshake
from arvados_fuse.fuse.unmount import MountPoint, abort, as_it_is_now, own_mount, take_away

logger = logging.getLogger("arvados.arvados_fuse")

WORKERS = 48
"""Threads that answer the kernel. Many, because a request that waits for the network keeps its thread."""
MAX_READ = 512 * 1024
"""Bytes per read request. What is read from end to end takes four times fewer than with the 128 KiB of
libfuse 2, to which arv-mount 3.2.1 keeps."""
_GONE = {errno.ENOENT, errno.ENODEV, errno.ENOTCONN, errno.ECONNABORTED}
"""What the kernel says on the connection of a mount that is unmounted or cut off."""


class Session:
    """One mount at `mount_dir`. Constructing does nothing; `open` mounts."""

    def __init__(
        self,
        operations: llfuse.Operations,
        mount_dir: Path,
        *,
        fsname: str,
        subtype: str = "",
        allow_other: bool = False,
        read_only: bool = True,
    ) -> None:
        self._operations = operations
        self._mount_dir = mount_dir
        self._options = {
            "big_writes",
            "nonempty",
            f"max_read={MAX_READ}",
            f"fsname={fsname.replace(',', '_')}",
        }
        if subtype:
            self._options.add(f"subtype={subtype}")
        if allow_other:
            self._options.add("allow_other")
        if read_only:
            # With the second one only who mounted could set modes and times; `tar` of others sets them, too.
            self._options |= {"ro", "default_permissions"}
        self._open = False
        self._descriptor = -1
        self._mount: MountPoint | None = None
        self._alias = fusermount.Alias()

    def open(self) -> None:
        """Mount. Programs that look wait until `run` answers. Raises SetupError."""
        before = _fuse_descriptors()
        self._alias.make()
        try:
            llfuse.init(self._operations, str(self._mount_dir), self._options)
        except RuntimeError as error:
            self._alias.remove()
            raise SetupError(
                f"mounting at {self._mount_dir} failed ({error}); the lines above from fusermount say why."
            ) from error
        self._open = True
        (self._descriptor,) = _fuse_descriptors() - before
        self._mount = own_mount(self._descriptor, self._mount_dir)
        try:
            handshake.shake(self._descriptor, self._operations, MAX_READ)
        except OSError as error:
            self.close()
            if error.errno in _GONE:
                raise SetupError(
                    f"{self._mount_dir} was unmounted while it was being mounted; mount it again."
                ) from error
            raise SetupError(f"mounting at {self._mount_dir} failed: {error}") from error
        if self._mount is not None:
            _read_ahead(self._mount)

    def channel(self) -> tuple[int, int] | None:
        """A duplicate of the descriptor on which the mount is served, which the caller closes before `close`
        comes; and the number of the connection, as in MountPoint. None when it is unmounted already."""
        mount = as_it_is_now(self._mount) if self._open and self._mount is not None else None
        return None if mount is None else (os.dup(self._descriptor), mount.minor)

    def run(self, workers: int = WORKERS) -> int | None:
        """Answer the kernel until the mount is taken away (None) or a signal ends the loop (its number).

        Signals: see `Ending.run`.
        """
        ended: int | None = llfuse.main(workers=workers)
        return ended

    def close(self, *, cut: bool = False) -> None:
        """Unmount if still mounted; safe to call twice. Raises StillMounted when that can't be done.

        cut: first fail every request that waits, where something else than the descriptor keeps them waiting.
        """
        if not self._open:
            return
        self._open = False
        mount = as_it_is_now(self._mount) if self._mount is not None else None
        with contextlib.ExitStack() as then:
            then.callback(self._alias.remove)
            if mount is not None:
                then.callback(take_away, mount)
                if cut:
                    abort(mount)
            # llfuse would unmount what is at the path, be it ours or not, and leave ours when it was cut off.
            llfuse.close(unmount=False)


def _read_ahead(mount: MountPoint) -> None:
    """Let the kernel read ahead as much as a request may carry.

    That is root's to say, in sysfs. Otherwise it stays at 128 KiB, and 256 for programs which tell that they
    read from end to end (`cp`, `cat`).
    """
    setting = Path(f"/sys/class/bdi/0:{mount.minor}/read_ahead_kb")
    with contextlib.suppress(OSError, ValueError):
        if int(setting.read_text()) < MAX_READ >> 10:
            setting.write_text(f"{MAX_READ >> 10}")


def _fuse_descriptors() -> set[int]:
    """Our descriptors that are connections of mounts (llfuse does not tell which one it uses)."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself is gone by now
            if os.readlink(f"/proc/self/fd/{name}") == "/dev/fuse":
                found.add(int(name))
    return found
