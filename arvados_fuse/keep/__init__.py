"""Blocks: locators, services, streaming fetch, cache."""

from arvados_fuse.keep.cache import BlockCache, DiskStore, RamStore
from arvados_fuse.keep.locator import Locator
from arvados_fuse.keep.services import KeepService, ServiceDirectory, rendezvous

__all__ = ["BlockCache", "DiskStore", "KeepService", "Locator", "RamStore", "ServiceDirectory", "rendezvous"]
