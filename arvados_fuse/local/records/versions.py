"""Past versions of collections: when a change keeps one, and how they follow the present one.

Used by `collections`. A past version is a record with its own uuid; its `current_version_uuid` is the present
one's.
Rules: Arvados, "using collection versioning".
"""

from collections.abc import Mapping
from typing import Any

from arvados_fuse.local.records.context import Context, Record
from arvados_fuse.local.records.identifiers import COLLECTION, new_uuid, unix_time
from arvados_fuse.local.records.schema import COLLECTIONS
from arvados_fuse.local.records.store import insert

_VERSIONED = ("name", "description", "properties", "portable_data_hash")
_FOLLOWED = ("owner_uuid", "trash_at", "delete_at", "replication_desired", "storage_classes_desired")
"""What past versions always have in common with the present one."""


def keep_past(context: Context, row: Mapping[str, Any], values: Record) -> None:
    """Before the change `values` of the present version `row`: keep the past one if it should be kept.

    Puts the new version number and `preserve_version` into `values`.
    """
    if not any(name in values and values[name] != row[name] for name in _VERSIONED):
        return
    values["version"] = row["version"] + 1
    site = context.site
    idle = site.preserve_version_if_idle
    rested = idle >= 0 and unix_time(context.now) - unix_time(row["modified_at"]) >= idle
    if not site.collection_versioning or not (
        row["preserve_version"] or values.get("preserve_version") or rested
    ):
        return
    past = dict(row) | {"uuid": new_uuid(site.cluster_id, COLLECTION), "current_version_uuid": row["uuid"]}
    insert(context, COLLECTIONS, past)
    if not values.get("preserve_version"):
        values["preserve_version"] = 0


def follow(context: Context, uuid: str, values: Record) -> None:
    """After the change `values` of the present version `uuid`: bring its past versions along."""
    common = {name: values[name] for name in _FOLLOWED if name in values}
    if common:
        sets = ", ".join(f"{name} = :{name}" for name in common)
        query = f"UPDATE collections SET {sets} WHERE current_version_uuid = :uuid AND uuid != :uuid"
        context.connection.execute(query, common | {"uuid": uuid})
