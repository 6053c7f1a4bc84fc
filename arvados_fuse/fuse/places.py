"""What a request of the kernel is about, in words: the path on the mount.

Used for error reports, the watchdog and the list of busiest files; never fails and never waits.
"""

import os
from typing import Any

from arvados_fuse.errors import ArvadosFuseError
from arvados_fuse.tree.filesystem import FileSystem

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
    number = arguments[0]
    try:
        if operation in BY_FILE:
            path = filesystem.path_of_file(number)
        elif operation in BY_DIRECTORY:
            path = filesystem.path_of_directory(number)
        else:
            path = filesystem.path_of(number)
    except ArvadosFuseError:
        kind = "handle" if operation in BY_FILE | BY_DIRECTORY else "inode"
        return f"({kind} {number})"
    name = arguments[1] if len(arguments) > 1 and operation not in BY_ATTRIBUTE else None
    return os.path.join(path, os.fsdecode(name)) if isinstance(name, bytes) and operation != "write" else path
