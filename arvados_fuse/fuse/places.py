"""What a request of the kernel is about, in words: the path on the mount.

Used for error reports, the watchdog and the list of busiest files; never fails and never waits.
"""

import os
from typing import Any

from arvados_fuse.errors import ArvadosFuseError
from arvados_fuse.tree.filesystem import FileSystem
from arvados_fuse.tree.nodes import Node

BY_FILE = frozenset({"read", "write", "flush", "fsync", "release"})
BY_DIRECTORY = frozenset({"readdir", "fsyncdir", "releasedir"})
"""Operations of which the first argument is a handle; with others it is an inode."""
WITHOUT = frozenset({"forget", "statfs", "destroy", "init"})
BY_ATTRIBUTE = frozenset({"getxattr", "setxattr", "removexattr"})
"""The second argument is the name of an attribute, not of an entry."""


def place(filesystem: FileSystem, operation: str, arguments: tuple[Any, ...]) -> str:
    """The path that `operation` was asked about, "" where there is none."""
    if operation in WITHOUT or not arguments:
        return ""
    node = _node(filesystem, operation, arguments[0])
    if node is None:
        return f"({'handle' if operation in BY_FILE | BY_DIRECTORY else 'inode'} {arguments[0]})"
    path = node.path()
    name = arguments[1] if len(arguments) > 1 and operation not in BY_ATTRIBUTE else None
    return os.path.join(path, os.fsdecode(name)) if isinstance(name, bytes) else path


def subject(filesystem: FileSystem, operation: str, arguments: tuple[Any, ...]) -> str:
    """The uuid or portable data hash of what `operation` was asked about, "" where there is none."""
    if operation in WITHOUT or not arguments:
        return ""
    node = _node(filesystem, operation, arguments[0])
    return "" if node is None else node.object()


def _node(filesystem: FileSystem, operation: str, number: int) -> Node | None:
    try:
        if operation in BY_FILE:
            return filesystem.open_file(number)
        if operation in BY_DIRECTORY:
            return filesystem.open_directory(number)
        return filesystem.inodes.get(number)
    except ArvadosFuseError:
        return None
