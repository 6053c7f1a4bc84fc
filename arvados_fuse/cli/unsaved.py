"""Asking a live mount to save before it is unmounted, and showing how saving goes.

Used by `main.py` before it takes a mount away, and by `saving.py`. Needs neither settings nor an API server.
"""

import contextlib
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arvados_fuse.cli import live
from arvados_fuse.cli.alive import recover_command
from arvados_fuse.cli.showing import changed_paths
from arvados_fuse.errors import ArvadosFuseError, SetupError
from arvados_fuse.fuse.unmount import MountPoint, mounts_at

QUIET = 1.0
"""Seconds of saving before progress is shown."""


def save_first(
    mount_dir: Path, *, subtype: str | None = None, recursive: bool = False, patience: float
) -> bool:
    """Ask the live mounts that `unmount` is about to take away to save everything; whether nothing is left.

    subtype, recursive: as there. patience: seconds without progress after which one is given up. A dead
    mount, or one that is not ours, is never touched. One that lives and does not answer is told of: it may
    have anything.
    """
    mounts = mounts_at(mount_dir, subtype=subtype, recursive=recursive)
    latest: dict[str, MountPoint] = {}
    for mount in mounts:
        latest.setdefault(mount.path, mount)
    # Each of them, whatever became of the one before.
    left = [mount for mount in latest.values() if not _save(mount, patience)]
    return not left


def _save(mount: MountPoint, patience: float) -> bool:
    mount_dir = Path(mount.path)
    line = ProgressLine()
    last, moved = (0, 0), time.monotonic()
    answer: Mapping[str, Any] = {}
    silent = ""
    try:
        for answer in live.ask(mount_dir, "save", silence=max(patience, 1.0)):
            files, size = int(answer["files"]), int(answer["bytes"])
            line.show(files, size)
            if (files, size) != last:
                last, moved = (files, size), time.monotonic()
            if not files or time.monotonic() - moved > patience:
                break
    except SetupError:
        pass  # dead, not one of ours, or somebody else's: nothing of it is left to save by asking
    except ArvadosFuseError as error:
        silent = "" if mount.read_only or last[0] else str(error)
    finally:
        line.end()
    if last[0]:
        print(_left(mount_dir, last[0], answer), file=sys.stderr)
    elif answer.get("error"):  # the disk is full: not even the journal has it
        print(f"arv-mount: not everything at {mount_dir} is saved: {answer['error']}", file=sys.stderr)
    if silent:
        _tell_silence(mount_dir, silent)
    return not (last[0] or silent or answer.get("error"))


def _tell_silence(mount_dir: Path, why: str) -> None:
    print(
        f"arv-mount: the mount at {mount_dir} does not tell what it has to save ({why}). What is closed is "
        "not lost: its process saves it, or keeps it. What became of it is told by: arv-mount --recover "
        "(with the --disk-cache-dir of that mount, if it had one); that also saves what is left when the "
        "process has ended",
        file=sys.stderr,
    )


def _left(mount_dir: Path, paths: int, answer: Mapping[str, Any]) -> str:
    """What is left, why, where it is and what to do."""
    room = Path(str(answer.get("kept_in", "")))
    why = str(answer.get("error") or answer.get("reason") or "why is not known")
    left = f"{changed_paths(paths)} at {mount_dir} {'is' if paths == 1 else 'are'}"
    if answer.get("error"):
        return (
            f"arv-mount: {left} not saved: {why}. Nothing is lost: it is kept in {room}, and once the reason "
            f"is gone it is saved by: {recover_command(room)} (or by the next mount with --read-write and "
            "this cache)"
        )
    return (
        f"arv-mount: {left} not saved yet: {why}. Nothing is lost: it is kept in {room}, and process "
        f"{answer.get('process')} goes on trying to save it. How that stands is told by: "
        f"{recover_command(room)}; that also saves what is left when the process has ended"
    )


class ProgressLine:
    """One line on a terminal that tells how saving goes; nothing when it goes fast or nobody watches.

    The terminal may be closed at any time: that keeps nothing from being saved.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._first: int | None = None
        self._shown = False

    def show(self, files: int, size: int) -> None:
        """files: paths that are left. size: bytes."""
        passed = time.monotonic() - self._began
        if self._first is None:
            self._first = size
        if passed < QUIET or not files or not sys.stderr.isatty():
            return
        done = self._first - size
        left = f", {size / done * passed:.0f} s left" if done > 0 and size else ""
        text = f"saving: {changed_paths(files)}, {size / 1e6:.1f} MB to go{left}"
        with contextlib.suppress(OSError):
            print(f"\r{text:<70}", end="", file=sys.stderr, flush=True)
        self._shown = True

    def end(self) -> None:
        """Leave the line."""
        if self._shown:
            with contextlib.suppress(OSError):
                print(file=sys.stderr, flush=True)
        self._shown = False
