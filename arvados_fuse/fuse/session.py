"""The life of one FUSE mount in this process: mount, serve, take down.

Used by `cli/build.py`. llfuse allows one mount per process. `run` belongs to the main thread (signals).
"""

import logging
from pathlib import Path

import llfuse

from arvados_fuse.errors import SetupError

logger = logging.getLogger("arvados.arvados_fuse")

WORKERS = 48
"""Threads that answer the kernel. Many, because a request that waits for the network keeps its thread."""
MAX_READ = 131072
"""Bytes per read request: the most that libfuse 2 passes on, and what arv-mount has always asked for."""


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
            "default_permissions",
            "nonempty",
            f"max_read={MAX_READ}",
            f"fsname={fsname.replace(',', '_')}",
        }
        if subtype:
            self._options.add(f"subtype={subtype}")
        if allow_other:
            self._options.add("allow_other")
        if read_only:
            self._options.add("ro")
        self._open = False

    def open(self) -> None:
        """Mount. Programs that look wait until `run` answers. Raises SetupError."""
        try:
            llfuse.init(self._operations, str(self._mount_dir), self._options)
        except RuntimeError as error:
            raise SetupError(
                f"mounting at {self._mount_dir} failed ({error}); the lines above from fusermount say why."
            ) from error
        self._open = True

    def run(self) -> int | None:
        """Answer the kernel until the mount is taken away (None) or a signal ends the loop (its number)."""
        ended: int | None = llfuse.main(workers=WORKERS)
        return ended

    def close(self) -> None:
        """Unmount if still mounted; safe to call twice."""
        if self._open:
            self._open = False
            llfuse.close(unmount=True)
