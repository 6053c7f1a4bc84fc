"""News for the kernel: names and pages that it should forget.

The floors below put `Invalidation`s on a queue, from any thread, and never wait. One thread of its own writes
them to the kernel, because the kernel may hold a notification up until a program has finished what it does
there; it holds no lock. Written here and not by llfuse, whose queue is bounded, goes on after the unmount,
and can't say that a name is only to be asked for again.
"""

import logging
import os
import queue
import re
import struct
import subprocess
import sys
import threading
from pathlib import Path

from arvados_fuse.fuse import guard
from arvados_fuse.tree.attributes import Invalidation

logger = logging.getLogger("arvados.arvados_fuse")

HEADER = struct.Struct("=IiQ")
INODE = struct.Struct("=Qqq")
ENTRY = struct.Struct("=QII")
NOTIFY_INODE, NOTIFY_ENTRY = 2, 3
EXPIRE_ONLY = 1
"""fuse_out_header, fuse_notify_inval_inode_out, fuse_notify_inval_entry_out and their codes: linux/fuse.h.
EXPIRE_ONLY: keep the name but ask before it is used again (Linux 6.2; before, the field was ignored and the
name is dropped)."""
EXPIRING_SINCE = (6, 2)
STOP_WITHIN = 1.0
"""Seconds."""


def expires_names(release: str) -> bool:
    """Whether a kernel of this release (uname(2)) can be told to ask again for a name that it keeps."""
    version = re.match(r"(\d+)\.(\d+)", release)
    return version is not None and (int(version[1]), int(version[2])) >= EXPIRING_SINCE


def encoded(invalidation: Invalidation) -> bytes:
    """The message to the kernel."""
    if invalidation.name:
        name = invalidation.name
        body = ENTRY.pack(invalidation.inode, len(name), EXPIRE_ONLY) + name + b"\0"
        code = NOTIFY_ENTRY
    else:
        # An offset below 0 leaves the pages alone; the length 0 is: to the end.
        body = INODE.pack(invalidation.inode, -1 if invalidation.attributes_only else 0, 0)
        code = NOTIFY_INODE
    return HEADER.pack(HEADER.size + len(body), code, 0) + body


class Notifier:
    """Empties `invalidations` into the kernel; `start` after the mount, `stop` before the unmount."""

    def __init__(self, invalidations: "queue.SimpleQueue[Invalidation]") -> None:
        self._queue = invalidations
        self._descriptor = -1
        self._guard: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, descriptor: int, minor: int, mount_dir: Path) -> None:
        """Take over `descriptor`, a duplicate of that on which the mount is served; minor: see MountPoint."""
        self._descriptor = descriptor
        self._guard = _start_guard(minor, mount_dir)
        self._thread = threading.Thread(target=self._run, name="notify", daemon=True)
        self._thread.start()

    def stop(self) -> bool:
        """End the thread; safe to call twice. False if the kernel holds it: cutting the connection helps."""
        self._stopping.set()
        self._queue.put(Invalidation(0))  # wakes it
        ended = True
        if self._thread is not None:
            self._thread.join(STOP_WITHIN)
            ended = not self._thread.is_alive()
            if ended:
                os.close(self._descriptor)
                self._thread = None
        if self._guard is not None:
            self._dismiss(self._guard)
            self._guard = None
        return ended

    def _dismiss(self, process: "subprocess.Popen[bytes]") -> None:
        try:
            process.communicate(guard.ALL_IS_WELL, timeout=STOP_WITHIN)
        except (OSError, subprocess.TimeoutExpired):
            process.kill()
            process.communicate()

    def _run(self) -> None:
        while True:
            invalidation = self._queue.get()
            if self._stopping.is_set():
                return
            try:
                os.write(self._descriptor, encoded(invalidation))
            except FileNotFoundError:
                pass  # the kernel does not know it: nothing to forget
            except OSError as error:
                logger.debug("%s: %s", invalidation, error)


def _start_guard(minor: int, mount_dir: Path) -> "subprocess.Popen[bytes] | None":
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, str(minor), str(mount_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # what is sent to our group is not for it
        )
    except OSError as error:
        logger.warning(
            "If this process is killed, programs on the mount may have to be killed too: %s", error
        )
        return None
