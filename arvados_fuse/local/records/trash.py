"""The trash: times of trashing and deletion, of collections and of groups.

Used by `collections` and `groups`. A record is in the trash when its `trash_at` is past; it can come back
until `delete_at`.
"""

from collections.abc import Mapping
from typing import Any

from arvados_fuse.local.records.context import Context, Record
from arvados_fuse.local.records.identifiers import later


def in_trash(context: Context, row: Mapping[str, Any]) -> bool:
    """Whether the record itself is in the trash now."""
    return row["trash_at"] is not None and row["trash_at"] <= context.now


def settle(context: Context, values: Record) -> None:
    """Complete a change of `trash_at`: `delete_at` follows it by the site's lifetime of trash.

    A time in the past means now, as in Arvados: nobody can put something into yesterday's trash.
    """
    if "trash_at" not in values:
        values.pop("delete_at", None)
        return
    if values["trash_at"] is None:
        values["delete_at"] = None
        return
    values["trash_at"] = max(values["trash_at"], context.now)
    earliest = later(values["trash_at"], context.site.default_trash_lifetime)
    values["delete_at"] = max(values.get("delete_at") or earliest, earliest)


def event(context: Context, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The type of event that a change from `old` to `new` makes: `trash`, `untrash` or `update`."""
    before, after = in_trash(context, old), in_trash(context, new)
    if before == after:
        return "update"
    return "trash" if after else "untrash"
