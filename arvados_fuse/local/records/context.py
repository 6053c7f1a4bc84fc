"""What a handler gets: the transaction, the caller, the time, and the parts of the package it may need.

Made by `service` for each call, used by one thread, gone when the call ends.
"""

import sqlite3
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from arvados_fuse.local.records.apierror import forbidden
from arvados_fuse.local.records.permissions import Access, Permissions
from arvados_fuse.local.signature import Signer
from arvados_fuse.local.site import SiteConfig

Record = dict[str, Any]
"""A record as JSON."""
Parameters = dict[str, Any]
"""The arguments of a call."""


@dataclass(frozen=True)
class Caller:
    """Who calls: the user behind the token, and the token itself (signatures are made for it)."""

    user_uuid: str
    is_admin: bool
    is_active: bool
    token_uuid: str
    token: str = field(repr=False)
    scopes: tuple[str, ...] = ("all",)

    def may(self, verb: str, path: str) -> bool:
        """Whether the token's scopes (Arvados API, "Scopes") allow `verb` on `path` below /arvados/v1/."""
        request = f"{verb} /arvados/v1/{path}"
        return any(
            scope == "all" or scope == request or (scope.endswith("/") and request.startswith(scope))
            for scope in self.scopes
        )


@dataclass
class Context:
    """now: the time of the call, as records hold it. last_log_id: the newest event of this call, 0 for none.
    prepared: what the handler's `prepare` made of the arguments before the transaction.
    """

    site: SiteConfig
    connection: sqlite3.Connection
    caller: Caller
    permissions: Permissions
    signer: Signer
    now: str
    last_log_id: int = 0
    prepared: Any = None

    @cached_property
    def access(self) -> Access:
        """What the caller may see in the state of this transaction."""
        return self.permissions.access(self.connection, self.caller.user_uuid, self.caller.is_admin, self.now)

    def permissions_changed(self) -> None:
        """To be called after adding, changing or removing a group, a user or a permission link."""
        self.permissions.changed(self.connection)
        self.__dict__.pop("access", None)

    def need_admin(self) -> None:
        """Raise ApiError 403 unless the caller is an administrator."""
        if not self.caller.is_admin:
            raise forbidden("only an administrator may do this")
