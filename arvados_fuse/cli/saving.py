"""Wiring of write-back for a `--read-write` mount, and what a person sees of it when the mount ends.

Used by `build.py` (open, the sink of what was saved) and `MountSession.close` (drain).
"""

import logging
import os
import sys
import time
from pathlib import Path

from arvados_fuse.api import ApiClient
from arvados_fuse.cli.preflight import shared_cache
from arvados_fuse.keep import BlockCache
from arvados_fuse.options import MountOptions
from arvados_fuse.tree import Context
from arvados_fuse.writeback import Owner, Saved, Status, WriteBack

logger = logging.getLogger("arvados.arv-mount")

ROOM = "arv-mount-unsaved"
"""Directory below the block cache where changes wait for the server, one directory for each mount."""
DRAIN = 600.0
"""Seconds that the end of a mount waits for what is unsaved; it stays on disk after that."""
QUIET = 1.0
"""Seconds of saving before progress is shown."""


class SavedSink:
    """Tells the tree what was saved; called by the committer's threads."""

    def __init__(self) -> None:
        self.context: Context | None = None

    def put(self, item: Saved) -> None:
        """See `writeback.Sink`."""
        state = self.context.known_collection(item.uuid) if self.context is not None else None
        if state is not None:
            state.saved(item.record)


def directory(options: MountOptions) -> Path:
    """Where this mount keeps what is unsaved, and finds what dead mounts left."""
    return (options.disk_cache_dir or shared_cache(os.environ)) / ROOM


def make_writeback(options: MountOptions, api: ApiClient, blocks: BlockCache, sink: SavedSink) -> WriteBack:
    """Ready to save once it is started. Raises NoSpaceError, SaveFailed, and what the API answers."""
    owner = Owner(api.host, str(api.current_user().get("uuid") or ""))
    return WriteBack.open(directory(options), owner=owner, records=api, blocks=blocks, saved=sink)


def drain(writeback: WriteBack, context: Context, room: Path) -> Status:
    """Save everything, also of files that nobody closed; what is left is on disk and said."""
    for state in context.working():
        if state.working is not None:
            state.working.flush_all()
    line = _ProgressLine()
    status = writeback.close(timeout=DRAIN, progress=line.show)
    line.end()
    if not status.is_clean():
        reasons = sorted({one.error for one in status.collections if one.error})
        why = f": {'; '.join(reasons)}" if reasons else ""
        logger.error(
            "%d changed paths are not saved%s. They are kept in %s, and saved by the next arv-mount "
            "--read-write with this cache or by arv-mount --recover",
            status.files,
            why,
            room,
        )
    return status


class _ProgressLine:
    """One line on a terminal that tells how saving goes; nothing when it goes fast or nobody watches."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._first: int | None = None
        self._shown = False

    def show(self, status: Status) -> None:
        """See `WriteBack.close`."""
        passed = time.monotonic() - self._began
        if self._first is None:
            self._first = status.bytes
        if passed < QUIET or status.is_clean() or not sys.stderr.isatty():
            return
        done = self._first - status.bytes
        left = f", {status.bytes / done * passed:.0f} s left" if done > 0 and status.bytes else ""
        text = f"saving: {status.files} paths, {status.bytes / 1e6:.1f} MB to go{left}"
        print(f"\r{text:<70}", end="", file=sys.stderr, flush=True)
        self._shown = True

    def end(self) -> None:
        """Leave the line."""
        if self._shown:
            print(file=sys.stderr)
