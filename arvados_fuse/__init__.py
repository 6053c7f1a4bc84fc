"""Arvados as a directory tree: the public names of the package.

Each name is loaded when it is first used, so that parts which need no kernel driver
(the collection model, the embedded Arvados) can be imported where llfuse is missing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from arvados_fuse.version import __version__

if TYPE_CHECKING:
    from arvados_fuse.collection import Collection
    from arvados_fuse.fuse.operations import Operations
    from arvados_fuse.tree.inode_cache import InodeCache
    from arvados_fuse.tree.inodes import Inodes

__all__ = ["Collection", "InodeCache", "Inodes", "Operations", "__version__"]

_HOME = {
    "Collection": "arvados_fuse.collection",
    "InodeCache": "arvados_fuse.tree.inode_cache",
    "Inodes": "arvados_fuse.tree.inodes",
    "Operations": "arvados_fuse.fuse.operations",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
