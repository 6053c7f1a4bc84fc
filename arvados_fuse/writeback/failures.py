"""What is said about changes that could not be saved.

Used by the committer and `relief`. Pure functions.
"""

from collections.abc import Collection

from arvados_fuse.errors import (
    AccessDenied,
    ArvadosFuseError,
    BadAnswer,
    NoSpaceError,
    QuotaExceeded,
    SaveFailed,
    SignatureRefused,
    Unreachable,
)

_KINDS = (AccessDenied, NoSpaceError, QuotaExceeded, SignatureRefused, Unreachable)
"""Kinds whose errno tells the program that calls fsync or close what they mean here. Others become
SaveFailed (EIO): after ENOENT or EINVAL many programs believe that all is well, or that fsync is not there.
"""

NO_ANSWER = (Unreachable, BadAnswer)
"""Kinds that say nothing of whether a change will be taken: it is tried again soon, and nobody is told of a
refusal."""


def told(error: ArvadosFuseError) -> str:
    """The error as one sentence, with the request's id."""
    text = str(error) or type(error).__name__
    return f"{text} (request {error.request_id})" if error.request_id else text


def refresh(error: ArvadosFuseError, uuid: str, paths: Collection[str]) -> ArvadosFuseError:
    """A new error for somebody who waited: with what is not saved as its subject."""
    kind = next((kind for kind in _KINDS if isinstance(error, kind)), SaveFailed)
    first = f"{uuid}/{min(paths)}" if paths else uuid
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    fresh = kind(
        f"{first}{more}: not saved, kept in the journal: {error}",
        subject=first,
        server=error.server,
        request_id=error.request_id,
    )
    fresh.__cause__ = error
    return fresh
