"""The kernel-free file system: inodes, handles and the nodes of the tree."""

from arvados_fuse.tree.context import Context
from arvados_fuse.tree.filesystem import FileSystem
from arvados_fuse.tree.layout import Place, build_root

__all__ = ["Context", "FileSystem", "Place", "build_root"]
