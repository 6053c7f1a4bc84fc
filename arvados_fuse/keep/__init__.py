"""Blocks: locators, services, streaming fetch, cache, upload."""

from arvados_fuse.keep.cache import BlockCache
from arvados_fuse.keep.disk_store import DiskStore
from arvados_fuse.keep.locator import Locator
from arvados_fuse.keep.pins import Pin, Pins
from arvados_fuse.keep.ram_store import RamStore
from arvados_fuse.keep.reader import Ahead, Company, Reader
from arvados_fuse.keep.services import KeepService, ServiceDirectory, rendezvous
from arvados_fuse.keep.transfer import BlockReplaced, Timeouts
from arvados_fuse.keep.warm import Failure, Progress, Wanted, Warming

__all__ = [
    "Ahead",
    "BlockCache",
    "BlockReplaced",
    "Company",
    "DiskStore",
    "Failure",
    "KeepService",
    "Locator",
    "Pin",
    "Pins",
    "Progress",
    "RamStore",
    "Reader",
    "ServiceDirectory",
    "Timeouts",
    "Wanted",
    "Warming",
    "rendezvous",
]
