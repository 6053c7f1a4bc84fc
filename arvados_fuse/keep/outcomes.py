"""What the services answered for one block, and the one error that follows from it.

Used by `keep.transfer` and `keep.upload`. Threads: none of its own; belongs to one request.
"""

import re

import arvados.util

from arvados_fuse.errors import (
    AccessDenied,
    ArvadosFuseError,
    BlockCorrupt,
    BlockNotFound,
    QuotaExceeded,
    SignatureRefused,
    Unreachable,
)
from arvados_fuse.keep.services import KeepService

MISSING = (404, 410)
REFUSED = (401, 403)
TEMPORARY = (408, 409, 423, 429)
"""Answers below 500 worth another try, as the SDK has them, and 429; every 5xx but FULL is too."""
FULL = 507
"""Insufficient Storage: a service with no room left on any of its disks."""

WRONG_TRIES = 2
"""A service that gave wrong bytes so often is not asked again for that block."""

_SIGNATURE = re.compile(r"\+[AR][0-9A-Za-z@-]{40,}", re.ASCII)
"""Permission signatures in a server's words: they are not for logs."""


class Outcomes:
    """Collects, for one block, what each service answered last."""

    def __init__(self, stripped: str) -> None:
        self._stripped = stripped
        self._last: dict[KeepService, str] = {}
        self._kind: dict[KeepService, str] = {}
        self._wrong: dict[KeepService, int] = {}
        self._tries = 0
        self.request_id = arvados.util.new_request_id()
        """Sent with every attempt, so that the services' logs can be searched for it."""

    def status(self, service: KeepService, status: int, text: str) -> None:
        """The service answered with this HTTP status instead of the block."""
        if status in MISSING:
            kind = "missing"
        elif status in REFUSED:
            kind = "refused"
        elif status == FULL:
            kind = "full"
        elif status in TEMPORARY or status >= 500:
            kind = "temporary"
        else:
            kind = "rejected"
        first_line = _SIGNATURE.sub("", text.partition("\n")[0])[:120]
        self._note(service, kind, f"{status} {first_line}".rstrip())

    def broke(self, service: KeepService, error: Exception) -> None:
        """The exchange broke off."""
        self._note(service, "temporary", str(error) or type(error).__name__)

    def wrong(self, service: KeepService, text: str) -> None:
        """The service gave bytes that are not the block's."""
        self._wrong[service] = self._wrong.get(service, 0) + 1
        self._note(service, "wrong", text)

    def may_ask(self, service: KeepService) -> bool:
        """Whether asking it (again) can help."""
        kind = self._kind.get(service, "temporary")
        return kind == "temporary" or (kind == "wrong" and self._wrong[service] < WRONG_TRIES)

    @property
    def refused(self) -> bool:
        """Whether a service refused the signature or the token: the others would, too."""
        return "refused" in self._kind.values()

    def is_missing(self, service: KeepService) -> bool:
        """Whether it said that it does not have the block."""
        return self._kind.get(service) == "missing"

    def last(self, service: KeepService) -> str:
        """What it answered last, in words; never holds a token."""
        return self._last.get(service, "")

    def failure_to_read(self) -> ArvadosFuseError:
        """The error for those who wait for the block."""
        kinds = set(self._kind.values())
        server = " ".join(service.address for service in self._kind)
        if not kinds:
            return Unreachable(
                f"block {self._stripped}: there is no Keep service to ask", subject=self._stripped
            )
        if kinds == {"missing"}:
            text = f"Block not found error: {self._stripped} is on none of the Keep services ({self._told()})"
            return BlockNotFound(text, subject=self._stripped, server=server, request_id=self.request_id)
        if "refused" in kinds:
            text = f"block {self._stripped}: signature or token refused ({self._told()})"
            return SignatureRefused(text, subject=self._stripped, server=server, request_id=self.request_id)
        if "temporary" in kinds:
            text = f"block {self._stripped} could not be had, {self._tries} tries ({self._told()})"
            return Unreachable(text, subject=self._stripped, server=server, request_id=self.request_id)
        if "wrong" in kinds:
            text = f"block {self._stripped}: every copy fails its hash check ({self._told()})"
            return BlockCorrupt(text, subject=self._stripped, server=server, request_id=self.request_id)
        text = f"block {self._stripped} not given ({self._told()})"
        return Unreachable(text, subject=self._stripped, server=server, request_id=self.request_id)

    def failure_to_write(self, wanted: str) -> ArvadosFuseError:
        """The error for who wanted to store the block; `wanted` says what was wanted and what was reached."""
        kinds = set(self._kind.values())
        server = " ".join(service.address for service in self._kind)
        told = self._told() or "there is no writable Keep service"
        text = f"Keep write error: block {self._stripped}: {wanted} ({told})"
        if kinds and kinds <= {"refused", "missing"}:
            return AccessDenied(text, subject=self._stripped, server=server, request_id=self.request_id)
        if kinds == {"full"}:
            return QuotaExceeded(text, subject=self._stripped, server=server, request_id=self.request_id)
        return Unreachable(text, subject=self._stripped, server=server, request_id=self.request_id)

    def _note(self, service: KeepService, kind: str, text: str) -> None:
        self._tries += 1
        self._kind[service] = kind
        self._last[service] = text

    def _told(self) -> str:
        told = ", ".join(f"{service.address}: {text}" for service, text in self._last.items())
        return f"{told}; request {self.request_id}" if told else ""
