"""The only place that wires the floors together: from options and settings to a mount that can be run.

Used by the door. Order: `build` (asks the API server who we are), `mount`, `start` (threads), `run` in the
main thread, `close`. All in the process that serves the mount: threads may exist from `build` on, so fork
before it.
"""

import contextlib
import logging
import os
import queue
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from arvados_fuse.api import ApiClient, ApiSettings, EventListener, News, Pace
from arvados_fuse.cli import logs, possible, saving, warm
from arvados_fuse.cli.inside import Inside
from arvados_fuse.cli.preflight import shared_cache
from arvados_fuse.fuse.notify import Notifier, expires_names
from arvados_fuse.fuse.operations import Operations
from arvados_fuse.fuse.session import Session
from arvados_fuse.keep import BlockCache, BlockReplaced, DiskStore, RamStore
from arvados_fuse.options import MountOptions
from arvados_fuse.tree import Context, FileSystem, Place, build_root
from arvados_fuse.tree.attributes import Invalidation
from arvados_fuse.tree.follow import Follower
from arvados_fuse.tree.names import Names
from arvados_fuse.tree.replaced import Replacer
from arvados_fuse.tree.rights import RightsWatch
from arvados_fuse.tree.writable import WritableFileSystem
from arvados_fuse.writeback import WriteBack

logger = logging.getLogger("arvados.arv-mount")

SHORTEST_POLL, LONGEST_POLL = 1.0, 5.0
"""Seconds between two questions for new events where there is no websocket."""


class MountSession:
    """One mount from first to last breath; see the module for the order of calls."""

    def __init__(
        self,
        filesystem: FileSystem,
        inside: Inside,
        api: ApiClient,
        blocks: BlockCache,
        session: Session,
        mount_dir: Path,
        notifier: Notifier,
        follower: Follower,
        replacer: Replacer,
        listener: EventListener | None,
        rights: RightsWatch,
        unsaved: Path,
    ) -> None:
        self.filesystem = filesystem
        self._unsaved = unsaved
        self.inside = inside
        self._api = api
        self._blocks = blocks
        self._session = session
        self._mount_dir = mount_dir
        self._notifier = notifier
        self._follower = follower
        self._replacer = replacer
        self._listener = listener
        self._rights = rights
        self._saved = False

    def mount(self) -> None:
        """Mount at the directory of the options. Raises SetupError."""
        self._session.open()

    def start(self) -> None:
        """Start the threads."""
        channel = self._session.channel()
        if channel is not None:
            self._notifier.start(*channel, self._mount_dir)
            self.inside.start(channel[1])
        writeback = self.filesystem.context.writeback
        if writeback is not None:
            writeback.start()
            writeback.adopt()
        self._follower.start()
        self._replacer.start()
        if self._listener is not None:
            self._listener.start()
            self._rights.start()

    def run(self) -> int | None:
        """Answer until unmounted: None, or the number of the signal that ended it."""
        return self._session.run()

    def close(self) -> bool:
        """Take everything down; safe to call twice and after a failure in any earlier step.

        Gives whether everything that was changed is saved; what is not stays on disk. Raises what a step
        raised, when all are done.
        """
        self._saved = False
        with contextlib.ExitStack() as steps:  # each is taken whatever became of the one before
            for step in reversed(
                (
                    self.inside.ending,
                    *([self._listener.close] if self._listener is not None else []),
                    self._rights.stop,
                    self._follower.stop,
                    self._replacer.stop,
                    self._unmount,
                    self.inside.unmounted,
                    self._save,
                    self.inside.close,
                    self.filesystem.close,
                    self._blocks.close,
                    self._api.close,
                )
            ):
                steps.callback(step)
        return self._saved

    def _unmount(self) -> None:
        held = True
        try:
            held = not self._notifier.stop()
        finally:
            self._session.close(cut=held)

    def _save(self) -> None:
        context = self.filesystem.context
        self._saved = context.writeback is None or saving.drain(context.writeback, context, self._unsaved)


def build(options: MountOptions, settings: ApiSettings) -> MountSession:
    """Make the mount that `options` describe. Raises SetupError and what the API server answers."""
    api = ApiClient.connect(settings, retries=options.retries)
    api.tell_new_tokens(logs.hide)
    replaced: queue.SimpleQueue[BlockReplaced] = queue.SimpleQueue()
    blocks = _blocks(options, settings, api, replaced)
    sink = saving.SavedSink()
    writeback: WriteBack | None = None
    try:
        blocks.start()
        config = possible.checked(options, api)
        writeback = saving.make_writeback(options, api, blocks, sink) if options.read_write else None
        context = Context(
            api,
            blocks,
            names=Names(_slash_substitution(config), options.encoding),
            refresh_time=options.refresh_time,
            directory_cache=options.directory_cache,
            filters=options.filters,
            uid=os.getuid(),
            gid=os.getgid(),
            writeback=writeback,
            storage_classes=options.storage_classes,
            sync_on_close=options.sync_on_close,
            expires_names=expires_names(os.uname().release),
        )
        sink.context = context
        if writeback is not None:
            api.tell_new_tokens(_retry_with(writeback))
        places = [Place(mount.kind, mount.name) for mount in options.custom]
        root = build_root(context, options.mode, options.target, places)
    except BaseException:
        if writeback is not None:
            writeback.close(timeout=0.0)
        blocks.close()
        api.close()
        raise
    # Without write-back nothing can be changed.
    filesystem = (FileSystem if context.writeback is None else WritableFileSystem)(context, root)
    operations = Operations(filesystem)
    session = Session(
        operations,
        options.mount_dir,
        fsname=options.fsname or f"arvados:{api.host}",
        subtype=options.subtype,
        allow_other=options.allow_other,
        read_only=not options.read_write,
    )
    invalidations: queue.SimpleQueue[Invalidation] = queue.SimpleQueue()
    news: queue.SimpleQueue[News] = queue.SimpleQueue()
    follower = Follower(context, filesystem.inodes, news, invalidations, refresh_time=options.refresh_time)
    events = _changeable(options) and options.listen_events
    listener = _listener(options, settings, api, news) if events else None
    inside = Inside(options, operations, filesystem, api, blocks, listener)
    inside.control.register("save", saving.answer_save(context, saving.directory(options)))
    warm.register(inside.control, filesystem)
    return MountSession(
        filesystem,
        inside,
        api,
        blocks,
        session,
        options.mount_dir,
        Notifier(invalidations),
        follower,
        Replacer(filesystem.inodes, replaced, invalidations),
        listener,
        RightsWatch(context, news),
        saving.directory(options),
    )


class Saving:
    """Write-back without a mount, as a context: for what dead mounts left behind."""

    def __init__(self, options: MountOptions, settings: ApiSettings) -> None:
        """Asks the API server who we are. Raises SetupError and what it answers."""
        self._api = ApiClient.connect(settings, retries=options.retries)
        self._blocks = _blocks(options, settings, self._api, queue.SimpleQueue())
        self._writeback = saving.make_writeback(options, self._api, self._blocks, saving.SavedSink())

    def __enter__(self) -> WriteBack:
        self._blocks.start()
        self._writeback.start()
        return self._writeback

    def __exit__(self, *_: object) -> None:
        self._writeback.close(timeout=0.0)
        self._blocks.close()
        self._api.close()


def _retry_with(writeback: WriteBack) -> Callable[[str], None]:
    """For each new token: keep it out of logs, and try again what was refused with the old one."""

    def tell(token: str) -> None:
        logs.hide(token)
        writeback.retry()

    return tell


def _changeable(options: MountOptions) -> bool:
    """Whether anything that is shown can change elsewhere: content by hash can't."""
    if options.mode == "custom":
        return any(mount.kind not in ("by_pdh", "tmp") for mount in options.custom)
    return options.mode != "by_pdh"


def _listener(
    options: MountOptions, settings: ApiSettings, api: ApiClient, news: "queue.SimpleQueue[News]"
) -> EventListener:
    # Without a websocket changes must show within the refresh time too.
    pace = Pace(poll_every=min(LONGEST_POLL, max(SHORTEST_POLL, options.refresh_time / 3)))
    return EventListener(settings, api, news, url=api.websocket_url, token=api.token, pace=pace)


def _blocks(
    options: MountOptions, settings: ApiSettings, api: ApiClient, news: "queue.SimpleQueue[BlockReplaced]"
) -> BlockCache:
    store: DiskStore | RamStore
    if options.ram_cache:
        store = RamStore(options.file_cache)
    else:
        place = options.disk_cache_dir or shared_cache(os.environ)
        store = DiskStore(place, options.file_cache, spill_limit=options.spill_cache)
    return BlockCache(
        api,
        store,
        insecure=settings.insecure,
        ca_file=settings.ca_file or None,
        retries=options.retries,
        replicas=api.default_replication,
        news=news,
    )


def _slash_substitution(config: Mapping[str, Any]) -> str:
    """What this cluster shows for `/` in names (`Collections.ForwardSlashNameSubstitution`), "" where not
    set."""
    collections = config.get("Collections")
    value = collections.get("ForwardSlashNameSubstitution") if isinstance(collections, dict) else ""
    return value if isinstance(value, str) else ""
