"""Blocks: locators, services, streaming fetch, cache, upload."""

from arvados_fuse.keep.cache import BlockCache
from arvados_fuse.keep.disk_store import DiskStore
from arvados_fuse.keep.locator import Locator
from arvados_fuse.keep.ram_store import RamStore
from arvados_fuse.keep.reader import Ahead, Reader
from arvados_fuse.keep.services import KeepService, ServiceDirectory, rendezvous
from arvados_fuse.keep.transfer import BlockReplaced, Timeouts

__all__ = [
    "Ahead",
    "BlockCache",
    "BlockReplaced",
    "DiskStore",
    "KeepService",
    "Locator",
    "RamStore",
    "Reader",
    "ServiceDirectory",
    "Timeouts",
    "rendezvous",
]
