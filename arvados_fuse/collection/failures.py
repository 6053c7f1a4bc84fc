"""What the collection model reports, as kinds that are both ours and Python's.

A program written for the Arvados SDK catches `OSError` and looks at `errno`; the floors above catch
`ArvadosFuseError`. Each kind here is both, so neither has to know the other.
"""

import errno as _errno
import logging
from typing import ClassVar

from arvados_fuse import errors


class PathNotFound(errors.NotFoundError, FileNotFoundError):  # type: ignore[misc]
    """Nothing has this path."""


class PathExists(errors.ExistsError, FileExistsError):  # type: ignore[misc]
    """The path is taken."""


class NotADirectoryPath(errors.NotADirectory, NotADirectoryError):  # type: ignore[misc]
    """The path goes through a file."""


class IsADirectoryPath(errors.IsADirectory, IsADirectoryError):  # type: ignore[misc]
    """A file was needed and the path is a directory."""


class DirectoryNotEmpty(errors.NotEmptyError, OSError):  # type: ignore[misc]
    """The directory still has entries."""


class CollectionReadOnly(errors.ReadOnlyError, OSError):  # type: ignore[misc]
    """The collection was opened for reading only."""


class BadArgument(errors.InvalidArgument, ValueError, OSError):  # type: ignore[misc]
    """An argument that has no meaning here."""


class ReadFailed(errors.ArvadosFuseError, OSError):  # type: ignore[misc]
    """The content can't be read: there is no block store, or a block is shorter than its locator says."""


class FileTooLarge(errors.ArvadosFuseError, OSError):
    """The file would be larger than a manifest can well describe."""

    errno: ClassVar[int] = _errno.EFBIG  # type: ignore[misc]
    level: ClassVar[int] = logging.DEBUG
