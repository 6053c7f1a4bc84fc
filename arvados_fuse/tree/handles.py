"""Open files and directories by handle number.

Used by `FileSystem`. Numbers are never used twice. Any thread may call; single dictionary operations need no
lock.
"""

import itertools
from typing import Generic, NamedTuple, TypeVar

from arvados_fuse.errors import BadHandle
from arvados_fuse.tree.nodes import Content, FileNode, Snapshot

H = TypeVar("H")


class FileHandle(NamedTuple):
    """An open file: the node it was opened by, and its content as it was then."""

    node: FileNode
    content: Content


class Handles(Generic[H]):
    """Number to what was opened."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._open: dict[int, H] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, opened: H) -> int:
        number = next(self._numbers)
        self._open[number] = opened
        return number

    def get(self, number: int) -> H:
        """Raises BadHandle."""
        try:
            return self._open[number]
        except KeyError:
            raise BadHandle(f"handle {number} is not open") from None

    def find(self, number: int | None) -> H | None:
        """What was opened, None when nothing was."""
        return None if number is None else self._open.get(number)

    def replace(self, number: int, opened: H) -> None:
        """Something else is behind the number from now on."""
        if number in self._open:
            self._open[number] = opened

    def remove(self, number: int) -> H:
        """Raises BadHandle."""
        try:
            return self._open.pop(number)
        except KeyError:
            raise BadHandle(f"handle {number} is not open") from None


FileHandles = Handles[FileHandle]
DirectoryHandles = Handles[Snapshot]
