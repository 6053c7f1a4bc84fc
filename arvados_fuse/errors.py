"""Every failure this project reports on purpose, as named kinds.

Each kind knows the errno that a program on the mount sees and the level at which the failure is logged.
All floors raise these; only `arvados_fuse.fuse` turns them into an answer to the kernel.
An error's text names the object and what to do, and never holds a token.
"""

import errno
import logging
from typing import ClassVar


class ArvadosFuseError(Exception):
    """Root of all kinds.

    subject: the object concerned (path, uuid, portable data hash or locator without its signature), or "".
    server: host and port that gave the answer, or "".
    request_id: the API server's id of the request, or "".
    """

    errno: ClassVar[int] = errno.EIO
    level: ClassVar[int] = logging.ERROR
    told = False
    """Its line is in the log already: who meets it next need not log it again."""

    def __init__(self, message: str, *, subject: str = "", server: str = "", request_id: str = "") -> None:
        super().__init__(message)
        self.subject = subject
        self.server = server
        self.request_id = request_id


class SetupError(ArvadosFuseError):
    """The mount can't start; the text is one sentence for a person, with the next step."""


# What a program asked for can't be had. These are ordinary answers, not incidents.


class NotFoundError(ArvadosFuseError):
    """No such file, collection, project or user, or it is not visible to this token."""

    errno = errno.ENOENT
    level = logging.DEBUG


class ExistsError(ArvadosFuseError):
    """The name is taken."""

    errno = errno.EEXIST
    level = logging.DEBUG


class NotADirectory(ArvadosFuseError):
    """A path goes through something that is not a directory."""

    errno = errno.ENOTDIR
    level = logging.DEBUG


class IsADirectory(ArvadosFuseError):
    """A file was needed and this is a directory."""

    errno = errno.EISDIR
    level = logging.DEBUG


class NotEmptyError(ArvadosFuseError):
    """The directory still has entries."""

    errno = errno.ENOTEMPTY
    level = logging.DEBUG


class InvalidArgument(ArvadosFuseError):
    """An argument has no meaning here (a negative offset, a `.` as a new name)."""

    errno = errno.EINVAL
    level = logging.DEBUG


class NameTooLong(ArvadosFuseError):
    """One path component is longer than 255 bytes."""

    errno = errno.ENAMETOOLONG
    level = logging.DEBUG


class IllegalName(ArvadosFuseError):
    """The bytes of a name can't be written in the encoding of the mount."""

    errno = errno.EILSEQ
    level = logging.DEBUG


class StaleFile(ArvadosFuseError):
    """The name stands for another file by now; the kernel looks it up once more."""

    errno = errno.ESTALE
    level = logging.DEBUG


class BadHandle(ArvadosFuseError):
    """The file or directory handle is not open, or not open for this."""

    errno = errno.EBADF
    level = logging.WARNING


class NotSupported(ArvadosFuseError):
    """The object can't do this (a device file, a plain file directly in a project)."""

    errno = errno.ENOTSUP
    level = logging.DEBUG


class NoSuchCall(ArvadosFuseError):
    """The file system has no such thing at all: links."""

    errno = errno.ENOSYS
    level = logging.DEBUG


class AttributeMissing(ArvadosFuseError):
    """No such extended attribute."""

    errno = errno.ENODATA
    level = logging.DEBUG


class RangeTooSmall(ArvadosFuseError):
    """The caller's buffer can't hold the answer."""

    errno = errno.ERANGE
    level = logging.DEBUG


# What is not allowed.


class ReadOnlyError(ArvadosFuseError):
    """The mount is read-only."""

    errno = errno.EROFS
    level = logging.DEBUG


class NotPermitted(ArvadosFuseError):
    """The object does not allow the operation, whoever asks."""

    errno = errno.EPERM
    level = logging.DEBUG


class AccessDenied(ArvadosFuseError):
    """The API server or a Keep service refused this token."""

    errno = errno.EACCES
    level = logging.WARNING


class QuotaExceeded(ArvadosFuseError):
    """The cluster refused more data for this user or project."""

    errno = errno.EDQUOT


class NoSpaceError(ArvadosFuseError):
    """A local disk that the mount needs is full."""

    errno = errno.ENOSPC


# What broke.


class ManifestError(ArvadosFuseError):
    """A manifest is not legal; the text names the line and the token.

    line: number of the line, from 1; 0 when unknown.
    """

    def __init__(self, message: str, *, line: int = 0, subject: str = "") -> None:
        super().__init__(message, subject=subject)
        self.line = line


class LocatorError(ArvadosFuseError):
    """A block locator is not legal."""


class Unreachable(ArvadosFuseError):
    """A server did not answer, or kept failing, until the deadline."""


class RequestRefused(ArvadosFuseError):
    """The API server found the request invalid (422); its own words are in the text."""

    errno = errno.EINVAL


class BadAnswer(ArvadosFuseError):
    """A server's answer does not have the documented form."""


class BlockNotFound(ArvadosFuseError):
    """No Keep service has the block."""


class BlockCorrupt(ArvadosFuseError):
    """Every copy of the block that could be had fails its hash check."""


class SignatureRefused(ArvadosFuseError):
    """A Keep service refused the block's permission signature: fetch the collection's record again."""

    errno = errno.EACCES
    level = logging.WARNING


class SaveFailed(ArvadosFuseError):
    """Unsaved changes could not be brought to the server; they stay in the journal."""
