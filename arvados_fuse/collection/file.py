"""A file in a collection.

Made by `Directory`, which gives the same object for the same file as long as somebody holds it.
A file that was only listed is a name and a size; its segments are computed when it is first read.

Threads: any; see `tree` for the order of locks.
"""

from typing import TYPE_CHECKING

from arvados_fuse.collection.content import Content

if TYPE_CHECKING:
    from arvados_fuse.collection.directory import Directory


class File:
    """One file. `name` and `parent` tell where it is, or last was."""

    __slots__ = ("__weakref__", "_content", "_size", "name", "parent")

    def __init__(self, parent: "Directory", name: str, size: int, content: Content | None = None) -> None:
        self.parent = parent
        self.name = name
        self._size = size
        self._content = content

    def size(self) -> int:
        """Bytes."""
        content = self._content
        return self._size if content is None else content.size

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """The bytes from `offset`, at most `size`, less only at the end of the file.

        A read inside one block gives what the block store gave, without a copy.
        Raises an ArvadosFuseError when a block can't be had.
        """
        return self.content().read(self.parent.tree.blocks, offset, size)

    def same_content(self, other: "File") -> bool:
        """Whether both have the same bytes, as far as segments tell. Raises ManifestError like `content`."""
        return self is other or (self.size() == other.size() and self.content().same_as(other.content()))

    def content(self) -> Content:
        """The segments, computed when they are first needed. Raises ManifestError when its locators are not
        legal."""
        content = self._content
        if content is None:
            with self.parent.tree.lock:
                content = self._content
                if content is None:
                    content = self._content = self.parent.manifest_content(self.name)
        return content
