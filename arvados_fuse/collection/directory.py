"""A directory of a collection as programs and the tree floor have it.

What it holds is in `view`, how it is changed in `edits`, what works by path in `paths` and `tree_api`.
"""

from typing import Any

from arvados_fuse.collection.edits import DirectoryEdits
from arvados_fuse.collection.tree_api import TreeApi


class Directory(DirectoryEdits, TreeApi):
    """One directory; the root of a collection has no parent and the name "."."""

    __slots__ = ()

    def here(self) -> "Directory":
        """Itself: see `PathApi`."""
        return self

    def clone(self, new_parent: Any = None, new_name: str | None = None) -> "Directory":
        """A copy that lies nowhere until `new_parent.add` puts it there: the SDK's name for `copy_of`."""
        parent = self if new_parent is None else new_parent.here()
        return self.copy_of(parent.tree, None if new_parent is None else parent, new_name or self.name)
