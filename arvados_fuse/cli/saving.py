"""Wiring of write-back for a `--read-write` mount, and what a person sees of it when the mount ends.

Used by `build.py` (open, the sink of what was saved) and `MountSession.close` (drain).
"""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from arvados_fuse.api import ApiClient
from arvados_fuse.cli.alive import recover_command
from arvados_fuse.cli.preflight import shared_cache
from arvados_fuse.cli.showing import changed_paths, counted
from arvados_fuse.cli.unsaved import ProgressLine
from arvados_fuse.errors import ArvadosFuseError, Unreachable
from arvados_fuse.keep import BlockCache
from arvados_fuse.options import MountOptions
from arvados_fuse.reporting.control import Handler
from arvados_fuse.tree import Context
from arvados_fuse.writeback import Owner, Saved, Status, WriteBack

logger = logging.getLogger("arvados.arv-mount")

ROOM = "arv-mount-unsaved"
"""Directory below the block cache where changes wait for the server, one directory for each mount."""
DRAIN = 600.0
"""Seconds that the end of a mount waits for what is unsaved; it stays on disk after that."""
MAKE_ROOM = 10.0
"""Seconds that it waits for room on the disk first, if there is none to write down what is unsaved."""
STEP = 0.5
"""Seconds between two answers to `save`."""
ENOUGH = 2
"""Times Ctrl-C that end a drain."""


class SavedSink:
    """Tells the tree what was saved; called by the committer's threads."""

    def __init__(self) -> None:
        self.context: Context | None = None

    def put(self, item: Saved) -> None:
        """See `writeback.Sink`."""
        state = self.context.known_collection(item.uuid) if self.context is not None else None
        if state is not None:
            state.saved(item.record, item.committed)


def directory(options: MountOptions) -> Path:
    """Where this mount keeps what is unsaved, and finds what dead mounts left."""
    return (options.disk_cache_dir or shared_cache(os.environ)) / ROOM


def make_writeback(options: MountOptions, api: ApiClient, blocks: BlockCache, sink: SavedSink) -> WriteBack:
    """Ready to save once it is started. Raises NoSpaceError, SaveFailed, and what the API answers."""
    owner = Owner(api.host, str(api.current_user().get("uuid") or ""))
    return WriteBack.open(directory(options), owner=owner, records=api, blocks=blocks, saved=sink)


def record_open_files(context: Context) -> str:
    """Write down files that nobody closed yet, as they are now, and what the journal had no room for.

    Gives why that can't be done, or "".
    """
    errors = []
    for state in context.working():
        try:
            if state.working is not None:
                state.working.flush_all()
        except ArvadosFuseError as error:
            errors.append(f"{state.key}: what was changed last is in no journal: {error}")
    return "; ".join(errors)


def answer_save(context: Context, room: Path) -> Handler:
    """The control request `save`: save everything now. Answers tell what is left, why it could not be saved
    yet (`reason`), where it is kept (`kept_in`), by which `process`; the last one whether and why something
    can't be saved (`error`)."""

    def answers(_arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        writeback = context.writeback
        if writeback is None:
            return
        record_open_files(context)
        while True:
            error = ""
            try:
                writeback.save(None, deadline=STEP)
            except Unreachable:
                pass
            except ArvadosFuseError as refusal:
                # Without what is said to who waits in the mount: here that is said for all paths together.
                error = f"{refusal.subject}: {refusal.__cause__}" if refusal.__cause__ else str(refusal)
            status = writeback.status()
            if not error and status.is_clean():
                error = record_open_files(context)
                status = writeback.status()
            yield {
                "files": status.files,
                "bytes": status.bytes,
                "error": error,
                "reason": _reasons(status) or f"{context.api.host} has not answered yet",
                "kept_in": str(room),
                "process": os.getpid(),
            }
            if error or status.is_clean():
                return

    return answers


def drain(writeback: WriteBack, context: Context, room: Path) -> bool:
    """Save everything, also of files that nobody closed; what is left is said. Whether all is saved.

    Ctrl-C tells what would be left; a second one, or SIGTERM, ends it.
    """
    lost = record_open_files(context)
    if lost:
        # What is saved makes room.
        with contextlib.suppress(ArvadosFuseError):
            writeback.save(None, deadline=MAKE_ROOM)
        lost = record_open_files(context)
    if lost:
        logger.error("%s", lost)
    watch = _DrainWatch(writeback)
    with watch.signals():
        try:
            status = writeback.close(timeout=DRAIN, progress=watch.progress)
        except _Enough:
            status = writeback.close(timeout=0.0)
    watch.line.end()
    if not status.is_clean():
        reasons = _reasons(status)
        logger.error(
            "%s not saved%s. What is left is kept in %s, and saved by the next arv-mount --read-write with "
            "this cache or by %s",
            counted(status.files, "changed path is", "changed paths are"),
            f": {reasons}" if reasons else "",
            room,
            recover_command(room),
        )
    return not lost and status.is_clean()


def _reasons(status: Status) -> str:
    return "; ".join(sorted({one.error for one in status.collections if one.error}))


class _Enough(Exception):
    """Whoever waits for the end of the mount does not want to wait any longer."""


class _DrainWatch:
    """Shows how the drain goes, and listens for signals meanwhile."""

    def __init__(self, writeback: WriteBack) -> None:
        self.line = ProgressLine()
        self._writeback = writeback
        self._asked = 0

    def progress(self, status: Status) -> None:
        """See `WriteBack.close`."""
        self.line.show(status.files, status.bytes)
        if self._asked >= ENOUGH:
            raise _Enough

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM, which are held since the mount began, but for what the caller ignores."""
        both = (signal.SIGINT, signal.SIGTERM)
        ending = [number for number in both if signal.getsignal(number) is not signal.SIG_IGN]
        before = [signal.signal(number, self._signalled) for number in ending]
        held = signal.pthread_sigmask(signal.SIG_UNBLOCK, ending)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            for number, handler in zip(ending, before, strict=True):
                signal.signal(number, handler)

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        self._asked += ENOUGH if number == signal.SIGTERM else 1
        if self._asked < ENOUGH:
            status = self._writeback.status()
            self.line.end()
            what = changed_paths(status.files)
            with contextlib.suppress(OSError):  # the terminal may be closed
                print(
                    f"{what} ({status.bytes} bytes) would stay on this machine, to be saved by the next "
                    "mount. Ctrl-C once more ends it.",
                    file=sys.stderr,
                    flush=True,
                )
