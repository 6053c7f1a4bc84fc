"""`Records`: everything that the API of the embedded Arvados means, without HTTP.

The server calls `Records.call` for each request, from any number of threads; readers never wait for the
writer. `HANDLERS` says which function answers which method; `schema` says which methods there are and what
they take.
"""

import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arvados_fuse.local.records import (
    collections,
    contents,
    groups,
    identifiers,
    keepservices,
    links,
    logs,
    sweeping,
    tokens,
    users,
)
from arvados_fuse.local.records.apierror import ApiError, forbidden, not_found
from arvados_fuse.local.records.context import Caller, Context, Parameters, Record
from arvados_fuse.local.records.database import Database
from arvados_fuse.local.records.listing import list_records
from arvados_fuse.local.records.logs import LogRow
from arvados_fuse.local.records.permissions import Permissions
from arvados_fuse.local.records.schema import LOGS, USERS, Method, Resource, resource
from arvados_fuse.local.records.store import answer, find
from arvados_fuse.local.records.values import check_json, text
from arvados_fuse.local.signature import Signer
from arvados_fuse.local.site import SiteConfig

log = logging.getLogger("arvados.local.records")

Handler = Callable[[Context, Parameters], Any]


def _get_log(context: Context, parameters: Parameters) -> Record:
    uuid = text(parameters, "uuid")
    find(context, LOGS, uuid)
    return answer(context, LOGS, uuid, parameters)


def _create_log(context: Context, parameters: Parameters) -> Record:
    return answer(context, LOGS, logs.create(context, parameters)["uuid"], parameters)


HANDLERS: dict[str, dict[str, Handler]] = {
    "collections": {
        "list": collections.list_,
        "get": collections.get,
        "create": collections.create,
        "update": collections.change,
        "delete": collections.put_in_trash,
        "trash": collections.put_in_trash,
        "untrash": collections.untrash,
    },
    "groups": {
        "contents": contents.contents,
        "shared": contents.shared,
        "get": groups.get,
        "create": groups.create,
        "update": groups.change,
        "delete": groups.put_in_trash,
        "trash": groups.put_in_trash,
        "untrash": groups.untrash,
    },
    "links": {
        "get": links.get,
        "create": links.create,
        "update": links.change,
        "delete": links.delete,
        "get_permissions": links.get_permissions,
    },
    "users": {
        "current": users.current,
        "system": users.system,
        "get": users.get,
        "create": users.create,
        "update": users.change,
        "delete": users.delete,
        "activate": users.activate,
    },
    "api_client_authorizations": {
        "current": tokens.current,
        "get": tokens.get,
        "create": tokens.create,
        "update": tokens.change,
        "delete": tokens.delete,
        "create_system_auth": tokens.create_system_auth,
    },
    "logs": {"get": _get_log, "create": _create_log},
    "keep_services": {
        "accessible": keepservices.accessible,
        "get": keepservices.get,
        "create": keepservices.create,
        "update": keepservices.change,
        "delete": keepservices.delete,
    },
}
_PREPARE: dict[str, dict[str, Handler]] = {
    "collections": {"create": collections.prepare_create, "update": collections.prepare_update},
}
_FOR_INACTIVE = {
    ("users", "current"),
    ("api_client_authorizations", "current"),
    ("keep_services", "accessible"),
}


class Records:
    """All records of one site. Any thread may call any method."""

    def __init__(self, database: Database, site: SiteConfig) -> None:
        self._database = database
        self._site = site
        self._signer = Signer(site.blob_signing_key.encode(), site.blob_signature_ttl)
        self._permissions = Permissions()
        self._listeners_lock = threading.Lock()
        self._listeners: list[Callable[[int], None]] = []

    @classmethod
    def open(cls, path: Path, config: SiteConfig) -> "Records":
        """The records in the file `path`; without one, those of a new site (0600).

        Raises sqlite3.Error when the file can't be used, ValueError when it belongs to another site or a
        newer version.
        """
        database = Database(path)
        database.open()
        records = cls(database, config)
        try:
            records._seed()
        except BaseException:
            database.close()
            raise
        return records

    def close(self) -> None:
        """Let go of the file; calls from now on raise ApiError 503."""
        self._database.close()

    @property
    def signer(self) -> Signer:
        """Makes and checks the site's block signatures; the Keep services use the same one."""
        return self._signer

    def call(self, token: str, resource_name: str, method_name: str, params: Parameters) -> Any:
        """Answer one API call, as JSON-able values.

        params: arguments of path, query and body together (`{"uuid": ..., "collection": {...}, "select":
            [...]}`).
        Raises ApiError with the status and the words for the client; a change is then not made at all.
        """
        target = resource(resource_name)
        method = target.method(method_name)
        handler = self._handler(target, method_name)
        for name, value in params.items():
            if name != target.singular and name != "manifest_text":
                check_json(value, name)
        if not method.writes:
            with self._database.reading() as connection:
                return handler(self._context(connection, token, target, method, params), params)
        prepare = _PREPARE.get(resource_name, {}).get(method_name)
        with self._database.reading() as connection:
            # Refused here, a bad token costs nobody the right to write.
            context = self._context(connection, token, target, method, params)
            prepared = prepare(context, params) if prepare else None
        with self._database.writing() as connection:
            context = self._context(connection, token, target, method, params)
            context.prepared = prepared
            result = handler(context, params)
        self._announce(context.last_log_id)
        return result

    def authenticate(self, token: str) -> Caller:
        """Who `token` stands for. Raises ApiError 401. The Keep services ask this for every request."""
        with self._database.reading() as connection:
            return tokens.authenticate(connection, self._site, token, identifiers.now())

    def create_token(self, user_uuid: str, expires_at: str | None = None) -> str:
        """A new `v2/...` token for `user_uuid`, for the site's own set-up. Raises ApiError 404."""
        with self._database.writing() as connection:
            context = self._context(
                connection, self._site.system_root_token, USERS, USERS.method("create"), {}
            )
            find(context, USERS, user_uuid)
            return tokens.make(context, user_uuid, expires_at)[0]

    def events_after(self, last_id: int, limit: int = 1000) -> list[LogRow]:
        """At most `limit` events with an id greater than `last_id`, oldest first, whoever may see them."""
        with self._database.reading() as connection:
            return logs.events_after(connection, last_id, limit)

    def last_event_id(self) -> int:
        """The id of the newest event, 0 before the first."""
        with self._database.reading() as connection:
            return int(connection.execute("SELECT coalesce(max(id), 0) FROM logs").fetchone()[0])

    def visible_to(self, token: str, row: LogRow) -> bool:
        """Whether the user behind `token` may see the event. Raises ApiError 401."""
        with self._database.reading() as connection:
            context = self._context(connection, token, LOGS, LOGS.method("list"), {})
            return logs.visible(context, row)

    def on_change(self, callback: Callable[[int], None]) -> None:
        """Call `callback` with the id of the newest event after every change, from the thread that made it.

        It must return at once and not raise.
        """
        with self._listeners_lock:
            self._listeners = [*self._listeners, callback]

    def sweep(self) -> int:
        """Remove for ever what has been in the trash for its time, and old events; the server calls this.

        Returns how many records went, without the events.
        """
        with self._database.writing() as connection:
            root = Caller(self._site.system_user_uuid, True, True, "", "")
            context = self._context_for(connection, root, identifiers.now())
            count = sweeping.sweep(context)
            sweeping.prune_logs(context)
        self._announce(context.last_log_id)
        return count

    def check(self) -> list[str]:
        """What SQLite finds wrong with the file, nothing in good health. Reads the whole file."""
        with self._database.reading() as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
        return [] if found == ["ok"] else found

    def _handler(self, target: Resource, method: str) -> Handler:
        handler = HANDLERS.get(target.name, {}).get(method)
        if handler is not None:
            return handler
        if method == "list":
            return lambda context, params: list_records(context, target, params)
        if method == "get":
            return _missing(target)
        return _refused(target)

    def _context(
        self, connection: sqlite3.Connection, token: str, target: Resource, method: Method, params: Parameters
    ) -> Context:
        now = identifiers.now()
        caller = tokens.authenticate(connection, self._site, token, now)
        if not caller.is_active and (target.name, method.name) not in _FOR_INACTIVE:
            raise forbidden("this user is not active")
        if not caller.may(method.verb, method.path.format(uuid=params.get("uuid"))):
            raise forbidden("this token's scopes don't allow this request")
        return self._context_for(connection, caller, now)

    def _context_for(self, connection: sqlite3.Connection, caller: Caller, now: str) -> Context:
        return Context(self._site, connection, caller, self._permissions, self._signer, now)

    def _announce(self, log_id: int) -> None:
        if not log_id:
            return
        for listener in self._listeners:
            try:
                listener(log_id)
            except Exception:
                # The change is made and stays made, whatever a listener does.
                log.exception("a listener for changes failed")

    def _seed(self) -> None:
        with self._database.writing() as connection:
            found = connection.execute("SELECT uuid FROM users ORDER BY rowid LIMIT 1").fetchone()
            if found is not None:
                if found["uuid"] != self._site.system_user_uuid:
                    raise ValueError(
                        f"these records belong to the site {found['uuid'][:5]}, not {self._site.cluster_id}"
                    )
                return
            root = Caller(self._site.system_user_uuid, True, True, "", "")
            users.seed(self._context_for(connection, root, identifiers.now()))


def _missing(target: Resource) -> Handler:
    def handler(context: Context, parameters: Parameters) -> Any:
        raise not_found(f"no {target.singular} {text(parameters, 'uuid')[:80]!r} is there")

    return handler


def _refused(target: Resource) -> Handler:
    def handler(context: Context, parameters: Parameters) -> Any:
        raise ApiError(422, f"this server keeps no {target.name}")

    return handler
