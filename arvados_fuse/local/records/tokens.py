"""API tokens: who a token stands for, and the `api_client_authorizations` resource.

`service` authenticates every call with `authenticate`. Only a SHA-256 of a token's secret is kept, so a token
can't be read back: it is shown once, when it is made. Forms: `v2/<uuid>/<secret>`, or the bare secret.
"""

import hashlib
import hmac
import json
import re
import secrets
import sqlite3

from arvados_fuse.local.records.apierror import ApiError, invalid, not_found
from arvados_fuse.local.records.context import Caller, Context, Parameters, Record
from arvados_fuse.local.records.identifiers import TOKEN, new_uuid
from arvados_fuse.local.records.schema import TOKENS
from arvados_fuse.local.records.store import (
    attributes_of,
    columns_sql,
    insert,
    new_row,
    remove,
    selected,
    show,
    update,
    writable_values,
)
from arvados_fuse.local.records.values import array
from arvados_fuse.local.signature import token_secret
from arvados_fuse.local.site import SiteConfig

_V2 = re.compile(r"v2/([a-z0-9]{5}-gj3su-[a-z0-9]{15})/([A-Za-z0-9]+)")
_QUERY = (
    "SELECT t.uuid, t.expires_at, t.user_uuid, t.scopes, u.is_admin, u.is_active"
    " FROM api_client_authorizations t JOIN users u ON u.uuid = t.user_uuid WHERE t.secret_hash = ?"
)


def authenticate(connection: sqlite3.Connection, site: SiteConfig, token: str, now: str) -> Caller:
    """The caller that `token` stands for at the time `now`. Raises ApiError 401."""
    secret = token_secret(token)
    if hmac.compare_digest(secret.encode(errors="replace"), site.system_root_token.encode()):
        return Caller(site.system_user_uuid, True, True, f"{site.cluster_id}-{TOKEN}-000000000000000", token)
    row = connection.execute(_QUERY, (_hashed(secret),)).fetchone() if secret else None
    if row is None or (row["expires_at"] is not None and row["expires_at"] <= now):
        raise ApiError(401, "this token is not valid here: it is unknown, deleted or expired")
    claimed = _V2.fullmatch(token)
    if token.startswith("v2/") and (claimed is None or claimed[1] != row["uuid"]):
        raise ApiError(401, "this token is not valid here: its uuid and its secret don't belong together")
    scopes = tuple(str(scope) for scope in json.loads(row["scopes"]))
    return Caller(row["user_uuid"], bool(row["is_admin"]), bool(row["is_active"]), row["uuid"], token, scopes)


def make(
    context: Context, user_uuid: str, expires_at: str | None, scopes: str = '["all"]'
) -> tuple[str, Record]:
    """A new token for `user_uuid`: its `v2/...` text, which is not kept, and its row."""
    secret = secrets.token_hex(25)
    values = {"user_uuid": user_uuid, "owner_uuid": user_uuid, "expires_at": expires_at, "scopes": scopes}
    row = new_row(context, TOKENS, values | {"uuid": new_uuid(context.site.cluster_id, TOKEN)})
    insert(context, TOKENS, row | {"secret_hash": _hashed(secret)})
    return f"v2/{row['uuid']}/{secret}", row


def current(context: Context, parameters: Parameters) -> Record:
    """The record of the token that makes this call."""
    if context.caller.user_uuid == context.site.system_user_uuid:
        row: Record | None = _one(context, context.caller.token_uuid)
        if row is None:
            raise not_found("the system's own token has no record")
        return _shown(context, row, parameters)
    return get(context, parameters | {"uuid": context.caller.token_uuid})


def get(context: Context, parameters: Parameters) -> Record:
    """A token of the caller's own. Raises ApiError 404 for others'."""
    row = _own(context, str(parameters.get("uuid")))
    return _shown(context, row, parameters)


def create(context: Context, parameters: Parameters) -> Record:
    """A new token for the caller (administrators: for `owner_uuid`); `api_token` shows its secret, once."""
    given = attributes_of(TOKENS, parameters)
    values = writable_values(context, TOKENS, given, None)
    user_uuid = given.get("user_uuid") or values.get("owner_uuid") or context.caller.user_uuid
    if user_uuid != context.caller.user_uuid:
        context.need_admin()
        if not isinstance(user_uuid, str):
            raise invalid("user_uuid must be a string")
        if context.connection.execute("SELECT 1 FROM users WHERE uuid = ?", (user_uuid,)).fetchone() is None:
            raise not_found(f"no user {str(user_uuid)[:80]!r} is there")
    token, row = make(context, user_uuid, values.get("expires_at"), values.get("scopes", '["all"]'))
    stored = _one(context, row["uuid"])
    assert stored is not None
    return _shown(context, stored, parameters) | {"api_token": token_secret(token)}


def create_system_auth(context: Context, parameters: Parameters) -> Record:
    """A new token for the system user; administrators only."""
    context.need_admin()
    body = {"scopes": array(parameters, "scopes") or ["all"], "owner_uuid": context.site.system_user_uuid}
    return create(context, {"api_client_authorization": body})


def change(context: Context, parameters: Parameters) -> Record:
    """Change when a token of the caller's own expires, or its scopes."""
    row = _own(context, str(parameters.get("uuid")))
    values = writable_values(context, TOKENS, attributes_of(TOKENS, parameters), row)
    wanted: Record = {name: values[name] for name in ("expires_at", "scopes") if name in values}
    update(context, TOKENS, row["uuid"], wanted)
    return _shown(context, _own(context, row["uuid"]), parameters)


def delete(context: Context, parameters: Parameters) -> Record:
    """End a token of the caller's own."""
    row = _own(context, str(parameters.get("uuid")))
    answer = _shown(context, row, {})
    remove(context, TOKENS, row["uuid"])
    return answer


def _own(context: Context, uuid: str) -> Record:
    row = _one(context, uuid)
    if row is None or (row["user_uuid"] != context.caller.user_uuid and not context.caller.is_admin):
        raise not_found(f"no token {uuid[:80]!r} is there for you")
    return row


def _one(context: Context, uuid: str) -> Record | None:
    names = [item.name for item in TOKENS.attributes]
    sql = f"SELECT {columns_sql(TOKENS, names)} FROM api_client_authorizations WHERE uuid = :uuid"
    row = context.connection.execute(sql, {"uuid": uuid, "now": context.now}).fetchone()
    return None if row is None else dict(row)


def _shown(context: Context, row: Record, parameters: Parameters) -> Record:
    return show(context, TOKENS, row, selected(TOKENS, parameters))


def _hashed(secret: str) -> str:
    # A plain hash is enough: the secret is 200 random bits, nobody can guess its way back.
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
