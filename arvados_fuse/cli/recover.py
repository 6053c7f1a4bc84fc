"""`arv-mount --recover [--discard]`: what mounts that died could not save any more.

Used by `main.py`. Listing needs no server. Saving is done by the same write-back as that of a mount, and by
the next `--read-write` mount with the same cache by itself; this is for who wants to see it done, or undone.
"""

import sys
import time
from pathlib import Path

from arvados_fuse.cli import saving
from arvados_fuse.cli.settings import settings_of
from arvados_fuse.errors import ArvadosFuseError
from arvados_fuse.options import MountOptions
from arvados_fuse.writeback import Leftover, discard, list_pending

DEADLINE = 3600.0
"""Seconds that saving may take: it may be much, over a slow line."""


def run(options: MountOptions, *, throw_away: bool) -> int:
    """List what is there, then save it (or discard it); the exit code: 1 when something is left."""
    directory = saving.directory(options)
    found = list_pending(directory)
    for leftover in found:
        _tell(_line(leftover))
    if not found:
        _tell(f"Nothing is unsaved in {directory}.")
        return 0
    if throw_away:
        for leftover in found:
            discard(leftover)
        _tell("Discarded.")
        return 0
    return _save(options, directory)


def _save(options: MountOptions, directory: Path) -> int:
    from arvados_fuse.cli.build import Saving

    with Saving(options, settings_of(options)) as writeback:
        adoption = writeback.adopt()
        if not adoption.adopted:
            _tell("Nothing of it belongs to the user and server of your settings.")
            return 1
        try:
            writeback.save(None, deadline=DEADLINE)
        except ArvadosFuseError as error:
            _tell(f"Not all could be saved: {error}")
            _tell(f"What is left stays in {directory}.")
            return 1
    _tell("Saved.")
    return 1 if adoption.foreign else 0


def _line(leftover: Leftover) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(leftover.since))
    owner = f"{leftover.owner.user_uuid} at {leftover.owner.host}"
    problem = f" ({leftover.problem})" if leftover.problem else ""
    return (
        f"{leftover.path}: {leftover.paths} changed paths, {leftover.bytes} bytes of files, of {owner}, "
        f"mounted {when}{problem}"
    )


def _tell(line: str) -> None:
    print(line, file=sys.stderr)
