"""The one exception that leaves `Records`: an answer with an HTTP status and words for the person who asked.

Everything in this package raises it; the server turns it into `{"errors": [...]}`.
"""

from collections.abc import Sequence


class ApiError(Exception):
    """status: the HTTP status (401, 403, 404, 409, 422, 503). errors: texts without secrets, at least one."""

    def __init__(self, status: int, errors: Sequence[str] | str) -> None:
        self.status = status
        self.errors: list[str] = [errors] if isinstance(errors, str) else list(errors)
        super().__init__(f"{status}: {'; '.join(self.errors)}")


def invalid(text: str) -> ApiError:
    """422: what was asked for has no meaning, or breaks a rule."""
    return ApiError(422, text)


def forbidden(text: str) -> ApiError:
    """403: visible, but not allowed for this token."""
    return ApiError(403, text)


def not_found(text: str) -> ApiError:
    """404: not there, or not visible to this token."""
    return ApiError(404, text)
