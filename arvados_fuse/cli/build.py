"""The only place that wires the floors together: from options and settings to a mount that can be run.

Used by the door. Order: `build` (asks the API server who we are), `mount`, `start` (threads), `run` in the
main thread, `close`. All in the process that serves the mount: threads may exist from `build` on, so fork
before it.
"""

import logging
import os
import queue
from pathlib import Path

from arvados_fuse.api import ApiClient, ApiSettings, EventListener, News, Pace
from arvados_fuse.cli.inside import Inside
from arvados_fuse.cli.preflight import shared_cache
from arvados_fuse.errors import SetupError
from arvados_fuse.fuse.notify import Notifier
from arvados_fuse.fuse.operations import Operations
from arvados_fuse.fuse.session import Session
from arvados_fuse.keep import BlockCache, BlockReplaced, DiskStore, RamStore
from arvados_fuse.options import MountOptions
from arvados_fuse.tree import Context, FileSystem, Place, build_root
from arvados_fuse.tree.attributes import Invalidation
from arvados_fuse.tree.follow import Follower
from arvados_fuse.tree.names import Names
from arvados_fuse.tree.replaced import Replacer

logger = logging.getLogger("arvados.arv-mount")

SHORTEST_POLL, LONGEST_POLL = 1.0, 5.0
"""Seconds between two questions for new events where there is no websocket."""


class MountSession:
    """One mount from first to last breath; see the module for the order of calls."""

    def __init__(
        self,
        filesystem: FileSystem,
        api: ApiClient,
        blocks: BlockCache,
        session: Session,
        mount_dir: Path,
        notifier: Notifier,
        follower: Follower,
        replacer: Replacer,
        listener: EventListener | None,
    ) -> None:
        self.filesystem = filesystem
        self.inside = Inside()
        self._api = api
        self._blocks = blocks
        self._session = session
        self._mount_dir = mount_dir
        self._notifier = notifier
        self._follower = follower
        self._replacer = replacer
        self._listener = listener

    def mount(self) -> None:
        """Mount at the directory of the options. Raises SetupError."""
        self._session.open()

    def start(self) -> None:
        """Start the threads; SIGINT and SIGTERM wait for `run` from here on."""
        self._session.hold_signals()
        channel = self._session.channel()
        if channel is not None:
            self._notifier.start(*channel, self._mount_dir)
            self.inside.start(channel[1])
        self._follower.start()
        self._replacer.start()
        if self._listener is not None:
            self._listener.start()

    def run(self) -> int | None:
        """Answer until unmounted: None, or the number of the signal that ended it."""
        return self._session.run()

    def close(self) -> None:
        """Take everything down; safe to call twice and after a failure in any earlier step."""
        if self._listener is not None:
            self._listener.close()
        self._follower.stop()
        self._replacer.stop()
        notified = self._notifier.stop()
        self._session.close(cut=not notified)
        self.inside.close()
        self.filesystem.close()
        self._blocks.close()
        self._api.close()


def build(options: MountOptions, settings: ApiSettings) -> MountSession:
    """Make the mount that `options` describe. Raises SetupError and what the API server answers."""
    if options.read_write:
        raise SetupError("--read-write is not available yet: this version reads.")
    api = ApiClient.connect(settings, retries=options.retries)
    replaced: queue.SimpleQueue[BlockReplaced] = queue.SimpleQueue()
    blocks = _blocks(options, settings, api, replaced)
    try:
        blocks.start()
        context = Context(
            api,
            blocks,
            names=Names(_slash_substitution(api), options.encoding),
            refresh_time=options.refresh_time,
            directory_cache=options.directory_cache,
            filters=options.filters,
            uid=os.getuid(),
            gid=os.getgid(),
        )
        places = [Place(mount.kind, mount.name) for mount in options.custom]
        root = build_root(context, options.mode, options.target, places)
    except BaseException:
        blocks.close()
        api.close()
        raise
    filesystem = FileSystem(context, root)
    session = Session(
        Operations(filesystem),
        options.mount_dir,
        fsname=options.fsname or f"arvados:{api.host}",
        subtype=options.subtype,
        allow_other=options.allow_other,
        read_only=not options.read_write,
    )
    invalidations: queue.SimpleQueue[Invalidation] = queue.SimpleQueue()
    news: queue.SimpleQueue[News] = queue.SimpleQueue()
    follower = Follower(context, filesystem.inodes, news, invalidations, refresh_time=options.refresh_time)
    return MountSession(
        filesystem,
        api,
        blocks,
        session,
        options.mount_dir,
        Notifier(invalidations),
        follower,
        Replacer(filesystem.inodes, replaced, invalidations),
        _listener(options, settings, api, news) if _changeable(options) and options.listen_events else None,
    )


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
        store = DiskStore(options.disk_cache_dir or shared_cache(os.environ), options.file_cache)
    return BlockCache(
        api,
        store,
        insecure=settings.insecure,
        ca_file=settings.ca_file or None,
        retries=options.retries,
        replicas=api.default_replication,
        news=news,
    )


def _slash_substitution(api: ApiClient) -> str:
    """What this cluster shows for `/` in names (`Collections.ForwardSlashNameSubstitution`), "" where not
    set."""
    collections = api.config().get("Collections")
    value = collections.get("ForwardSlashNameSubstitution") if isinstance(collections, dict) else ""
    return value if isinstance(value, str) else ""
