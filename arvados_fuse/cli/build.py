"""The only place that wires the floors together: from options and settings to a mount that can be run.

Used by the door. Order: `build` (asks the API server who we are), `mount`, `start` (threads), `run` in the
main thread, `close`. All in the process that serves the mount: threads may exist from `build` on, so fork
before it.
"""

import logging
import os

from arvados_fuse.api import ApiClient, ApiSettings
from arvados_fuse.cli.preflight import shared_cache
from arvados_fuse.errors import SetupError
from arvados_fuse.fuse.notify import Notifier
from arvados_fuse.fuse.operations import Operations
from arvados_fuse.fuse.session import Session
from arvados_fuse.keep import BlockCache, DiskStore, RamStore
from arvados_fuse.options import MountOptions
from arvados_fuse.tree import Context, FileSystem, Place, build_root
from arvados_fuse.tree.names import Names

logger = logging.getLogger("arvados.arv-mount")


class MountSession:
    """One mount from first to last breath; see the module for the order of calls."""

    def __init__(
        self,
        filesystem: FileSystem,
        api: ApiClient,
        blocks: BlockCache,
        session: Session,
        notifier: Notifier,
    ) -> None:
        self.filesystem = filesystem
        self._api = api
        self._blocks = blocks
        self._session = session
        self._notifier = notifier

    def mount(self) -> None:
        """Mount at the directory of the options. Raises SetupError."""
        self._session.open()

    def start(self) -> None:
        """Start the threads."""
        self._blocks.start()
        self._notifier.start()

    def run(self) -> int | None:
        """Answer until unmounted: None, or the number of the signal that ended it."""
        return self._session.run()

    def close(self) -> None:
        """Take everything down; safe to call twice and after a failure in any earlier step."""
        self._session.close()
        self._notifier.stop()
        self.filesystem.close()
        self._blocks.close()
        self._api.close()


def build(options: MountOptions, settings: ApiSettings) -> MountSession:
    """Make the mount that `options` describe. Raises SetupError and what the API server answers."""
    if options.read_write:
        raise SetupError("--read-write is not available yet: this version reads.")
    api = ApiClient.connect(settings, retries=options.retries)
    blocks = _blocks(options, settings, api)
    try:
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
    return MountSession(filesystem, api, blocks, session, Notifier())


def _blocks(options: MountOptions, settings: ApiSettings, api: ApiClient) -> BlockCache:
    store: DiskStore | RamStore
    if options.ram_cache:
        store = RamStore(options.file_cache)
    else:
        store = DiskStore(options.disk_cache_dir or shared_cache(os.environ), options.file_cache)
    return BlockCache(
        api, store, insecure=settings.insecure, ca_file=settings.ca_file or None, retries=options.retries
    )


def _slash_substitution(api: ApiClient) -> str:
    """What this cluster shows for `/` in names (`Collections.ForwardSlashNameSubstitution`), "" where not
    set."""
    collections = api.config().get("Collections")
    value = collections.get("ForwardSlashNameSubstitution") if isinstance(collections, dict) else ""
    return value if isinstance(value, str) else ""
