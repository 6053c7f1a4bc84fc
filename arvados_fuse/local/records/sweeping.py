"""The end of trash and of old events: what has been there for its time is removed for ever.

`Records.sweep` calls it in one transaction of its own.
"""

from arvados_fuse.local.records import links, logs
from arvados_fuse.local.records.collections import forget_manifest
from arvados_fuse.local.records.context import Context
from arvados_fuse.local.records.identifiers import later
from arvados_fuse.local.records.schema import COLLECTIONS, GROUPS, Resource
from arvados_fuse.local.records.store import remove, row_of

_ENDED_GROUPS = """
    WITH RECURSIVE ended(uuid) AS (
        SELECT uuid FROM groups WHERE delete_at <= :now
        UNION
        SELECT groups.uuid FROM ended JOIN groups ON groups.owner_uuid = ended.uuid
    ) SELECT uuid FROM ended"""


LOGS_AGE = 14 * 24 * 3600.0
"""Seconds, as Arvados has it by default (`AuditLogs.MaxAge`)."""
LOGS_KEPT = 100_000
"""The newest events that stay when there are more within that time: some 50 MB."""


def prune_logs(context: Context, *, age: float = LOGS_AGE, kept: int = LOGS_KEPT) -> int:
    """Remove the events older than `age` (seconds), and all but the newest `kept`; returns how many.

    The newest one stays in any case: who listens starts from its id.
    """
    oldest = later(context.now, -age)
    query = """
        DELETE FROM logs WHERE id < (SELECT max(id) FROM logs) AND (
            created_at < :oldest
            OR id <= (SELECT id FROM logs ORDER BY id DESC LIMIT 1 OFFSET :kept)
        )"""
    return context.connection.execute(query, {"oldest": oldest, "kept": kept}).rowcount


def sweep(context: Context) -> int:
    """Remove collections and groups whose `delete_at` is past, and what such groups own; returns how many."""
    binds = {"now": context.now}
    groups = [row[0] for row in context.connection.execute(_ENDED_GROUPS, binds)]
    query = f"SELECT uuid FROM collections WHERE delete_at <= :now OR owner_uuid IN ({_ENDED_GROUPS})"
    ended = [row[0] for row in context.connection.execute(query, binds)]
    hashes = {_end(context, COLLECTIONS, uuid) for uuid in ended}
    for portable_data_hash in hashes:
        if portable_data_hash:
            forget_manifest(context, portable_data_hash)
    for uuid in groups:
        _end(context, GROUPS, uuid)
    if groups:
        context.permissions_changed()
    return len(ended) + len(groups)


def _end(context: Context, resource: Resource, uuid: str) -> str | None:
    """Remove one record and the links to it; returns its portable data hash, if it has one."""
    row = row_of(context, resource, uuid)
    if row is None:
        return None
    links.remove_links_of(context, uuid)
    remove(context, resource, uuid)
    if row.get("current_version_uuid", uuid) == uuid:
        logs.record(context, resource, "delete", row, None)
    return row.get("portable_data_hash")
