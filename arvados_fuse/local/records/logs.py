"""The `logs`: one row for each change of a record, and what clients write there themselves.

`record` is called by every module that changes a record; the server's websocket reads with `events_after`. In
an event's properties stand only the few attributes that events carry (Arvados: is_trashed, name, owner_uuid,
portable_data_hash, state).
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from arvados_fuse.local.records.apierror import invalid
from arvados_fuse.local.records.context import Context, Parameters, Record
from arvados_fuse.local.records.identifiers import LINK, LOG, new_uuid, uuid_kind
from arvados_fuse.local.records.schema import LOGS, Resource
from arvados_fuse.local.records.store import (
    attributes_of,
    insert,
    kind_of,
    new_row,
    object_level,
    writable_values,
)

_CARRIED = ("name", "owner_uuid", "portable_data_hash")
_NO_EVENTS = ("logs", "api_client_authorizations")
"""Resources whose changes make no event: the events themselves, and secrets."""


@dataclass(frozen=True)
class LogRow:
    """One event as the websocket sends it; `properties` has old_attributes and new_attributes."""

    id: int
    uuid: str
    owner_uuid: str
    event_type: str
    event_at: str
    object_uuid: str
    object_owner_uuid: str
    object_kind: str
    properties: Mapping[str, Any]
    summary: str | None = None


def record(
    context: Context,
    resource: Resource,
    event: str,
    old: Mapping[str, Any] | None,
    new: Mapping[str, Any] | None,
) -> None:
    """Write the event for a change from the row `old` to the row `new` (None where there is none)."""
    row = new if new is not None else old
    if resource.name in _NO_EVENTS or row is None:
        return
    properties = {"old_attributes": _carried(context, old), "new_attributes": _carried(context, new)}
    values = {
        "uuid": new_uuid(context.site.cluster_id, LOG),
        "owner_uuid": context.caller.user_uuid,
        "created_at": context.now,
        "modified_at": context.now,
        "modified_by_user_uuid": context.caller.user_uuid,
        "event_type": event,
        "event_at": context.now,
        "object_uuid": row["uuid"],
        "object_owner_uuid": row["owner_uuid"],
        "object_kind": resource.record_kind,
        "summary": f"{event} of {row['uuid']}",
        "properties": json.dumps(properties, ensure_ascii=False),
    }
    columns, places = ", ".join(values), ", ".join(f":{name}" for name in values)
    context.last_log_id = (
        context.connection.execute(f"INSERT INTO logs ({columns}) VALUES ({places})", values).lastrowid or 0
    )


def create(context: Context, parameters: Parameters) -> Record:
    """A client's own log entry, on an object it can see. Returns the row as inserted."""
    given = attributes_of(LOGS, parameters)
    values = writable_values(context, LOGS, given, None)
    target = values.get("object_uuid")
    if target is not None and not object_level(context, target):
        raise invalid(f"no object {target[:80]!r} is there for you")
    row = new_row(context, LOGS, values)
    row["event_at"] = row["event_at"] or context.now
    row["object_owner_uuid"] = context.caller.user_uuid
    row["object_kind"] = kind_of(target)
    insert(context, LOGS, row)
    context.last_log_id = context.connection.execute("SELECT max(id) FROM logs").fetchone()[0]
    return row


def events_after(connection: sqlite3.Connection, last_id: int, limit: int) -> list[LogRow]:
    """At most `limit` events with an id greater than `last_id`, oldest first."""
    rows = connection.execute("SELECT * FROM logs WHERE id > ? ORDER BY id LIMIT ?", (last_id, limit))
    return [
        LogRow(
            id=row["id"],
            uuid=row["uuid"],
            owner_uuid=row["owner_uuid"],
            event_type=row["event_type"] or "",
            event_at=row["event_at"],
            object_uuid=row["object_uuid"] or "",
            object_owner_uuid=row["object_owner_uuid"] or "",
            object_kind=row["object_kind"] or "",
            properties=json.loads(row["properties"]),
            summary=row["summary"],
        )
        for row in rows
    ]


def visible(context: Context, row: LogRow) -> bool:
    """Whether the caller may see the event: it can read the object or its owner's objects, or caused it.

    A permission can be read by whom it is given to, as long as it is there: its end is not told to them.
    """
    access = context.access
    if access.level(row.object_uuid, row.object_owner_uuid) or row.owner_uuid == access.user_uuid:
        return True
    return uuid_kind(row.object_uuid) == LINK and bool(object_level(context, row.object_uuid))


def _carried(context: Context, row: Mapping[str, Any] | None) -> Record | None:
    if row is None:
        return None
    names = row.keys()
    carried = {name: row[name] for name in _CARRIED if name in names}
    if "trash_at" in names:
        carried["is_trashed"] = row["trash_at"] is not None and row["trash_at"] <= context.now
    return carried
