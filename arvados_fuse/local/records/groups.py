"""Groups: projects, filter groups and roles.

Projects own records and stand in projects or users; filter groups show what their filters find (`contents`
evaluates them); roles are groups of users, owned by the system user and managed by whoever made them.
"""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from arvados_fuse.local.records import filters, links, logs, trash
from arvados_fuse.local.records.apierror import forbidden, invalid
from arvados_fuse.local.records.context import Context, Parameters, Record
from arvados_fuse.local.records.identifiers import uuid_kind
from arvados_fuse.local.records.naming import check_name, free_name
from arvados_fuse.local.records.permissions import MANAGE, WRITE
from arvados_fuse.local.records.schema import GROUPS, RESOURCES
from arvados_fuse.local.records.store import (
    answer,
    attributes_of,
    column_sql,
    find,
    find_writable,
    insert,
    need_owner,
    new_row,
    object_level,
    remove,
    row_of,
    update,
    writable_values,
)
from arvados_fuse.local.records.values import flag, text

CLASSES = ("project", "filter", "role")
_MAX_DEPTH = 100
"""Levels of projects in projects."""


def get(context: Context, parameters: Parameters) -> Record:
    """A group that the caller may see. Raises ApiError 404."""
    uuid = text(parameters, "uuid")
    find(context, GROUPS, uuid, include_trash=flag(parameters, "include_trash"))
    return answer(context, GROUPS, uuid, parameters)


def create(context: Context, parameters: Parameters) -> Record:
    """A new group in a project or home that the caller may write (a role: owned by the system user)."""
    given = attributes_of(GROUPS, parameters)
    values = writable_values(context, GROUPS, given, None)
    row = new_row(context, GROUPS, values)
    row["group_class"] = row["group_class"] or "project"
    _check(context, row)
    if row["group_class"] == "role":
        row["owner_uuid"] = context.site.system_user_uuid
    else:
        need_owner(context, row["owner_uuid"])
    trash.settle(context, row)
    ensure = flag(parameters, "ensure_unique_name")
    row["name"] = free_name(context, GROUPS, row["name"], row["owner_uuid"], row["uuid"], ensure=ensure)
    insert(context, GROUPS, row)
    if row["group_class"] == "role":
        links.grant(context, context.caller.user_uuid, "can_manage", row["uuid"])
    context.permissions_changed()
    logs.record(context, GROUPS, "create", None, row)
    return answer(context, GROUPS, row["uuid"], parameters)


def change(context: Context, parameters: Parameters) -> Record:
    """Change a group: its name, owner, properties, trash times."""
    row = find_writable(context, GROUPS, text(parameters, "uuid"))
    _need_manage_role(context, row)
    values = writable_values(context, GROUPS, attributes_of(GROUPS, parameters), row)
    return _change(context, row, values, parameters)


def put_in_trash(context: Context, parameters: Parameters) -> Record:
    """Put a project or filter group into the trash, with all that is in it; a role is removed at once."""
    row = find_writable(context, GROUPS, text(parameters, "uuid"), include_trash=True)
    if row["group_class"] != "role":
        values = {} if trash.in_trash(context, row) else {"trash_at": context.now}
        return _change(context, row, values, parameters)
    _need_manage_role(context, row)
    if row["uuid"] in (
        context.site.system_group_uuid,
        context.site.all_users_group_uuid,
        context.site.anonymous_group_uuid,
    ):
        raise forbidden(f"the role {row['uuid']} has to stay")
    record = answer(context, GROUPS, row["uuid"], parameters)
    links.remove_links_of(context, row["uuid"])
    remove(context, GROUPS, row["uuid"])
    context.permissions_changed()
    logs.record(context, GROUPS, "delete", row, None)
    return record


def untrash(context: Context, parameters: Parameters) -> Record:
    """Bring a group back from the trash. Raises ApiError 422 when its name was taken meanwhile."""
    row = find_writable(context, GROUPS, text(parameters, "uuid"), include_trash=True)
    if not trash.in_trash(context, row):
        raise invalid(f"the group {row['uuid']} is not in the trash")
    return _change(context, row, {"trash_at": None}, parameters)


def _need_manage_role(context: Context, row: Mapping[str, Any]) -> None:
    """Members write to a role only in the sense that they have what it has; changing it takes more."""
    if row["group_class"] == "role" and object_level(context, row["uuid"]) < MANAGE:
        raise forbidden(f"you may not change the role {row['uuid']}")


def _change(context: Context, row: Mapping[str, Any], values: Record, parameters: Parameters) -> Record:
    new = dict(row) | values
    if new["uuid"] != row["uuid"]:
        raise invalid("the uuid of a group can't change")
    if new["group_class"] != row["group_class"]:
        raise invalid("the class of a group can't change")
    if row["owner_uuid"] != new["owner_uuid"]:
        if row["group_class"] == "role":
            raise invalid("a role belongs to the system user")
        _check_move(context, row, new["owner_uuid"])
    if row["group_class"] == "role" and new["trash_at"] is not None:
        raise invalid("a role can't be put into the trash, only deleted")
    _check(context, new)
    if "trash_at" in values and values["trash_at"] != row["trash_at"]:
        trash.settle(context, values)
    if not trash.in_trash(context, dict(row) | values):
        ensure = flag(parameters, "ensure_unique_name")
        name = free_name(context, GROUPS, new["name"], new["owner_uuid"], row["uuid"], ensure=ensure)
        if name != row["name"]:
            values["name"] = name
    update(context, GROUPS, row["uuid"], values)
    changed = row_of(context, GROUPS, row["uuid"])
    assert changed is not None
    context.permissions_changed()
    logs.record(context, GROUPS, trash.event(context, row, changed), row, changed)
    return answer(context, GROUPS, row["uuid"], parameters)


def _check(context: Context, row: Mapping[str, Any]) -> None:
    if row["group_class"] not in CLASSES:
        raise invalid(f"group_class must be one of {', '.join(CLASSES)}")
    if not row["name"]:
        raise invalid("a group needs a name")
    check_name(context, GROUPS, row["name"])
    if row["group_class"] == "filter":
        filters_of_group(json.loads(row["properties"]))


def filters_of_group(properties: Any) -> dict[str, list[Any]]:
    """The filters of a filter group by the resource they name ("": all). Raises ApiError 422 for nonsense."""
    given = properties.get("filters")
    if not isinstance(given, list):
        raise invalid("a filter group needs an array of filters in properties.filters")
    found: dict[str, list[Any]] = {}
    for item in given:
        if not isinstance(item, list) or len(item) != 3 or not isinstance(item[0], str):
            raise invalid("each filter of a filter group must be an array of attribute, operator and operand")
        if item[0] == "uuid":
            found.setdefault("", []).append(item)
            continue
        name, _, attribute = item[0].partition(".")
        if name not in RESOURCES or not attribute:
            raise invalid(
                f"a filter group's attributes begin with a resource and a dot, unlike {item[0][:80]!r}"
            )
        found.setdefault(name, []).append([attribute, *item[1:]])
    for name, items in found.items():
        resource = RESOURCES[name or "groups"]
        filters.compile_filters(resource, items, filters.Binds(), partial(column_sql, resource))
    return found


def _check_move(context: Context, row: Mapping[str, Any], owner_uuid: str) -> None:
    """To move a group one needs to write where it is and where it goes; and it can't go into itself."""
    need_owner(context, owner_uuid)
    if context.access.owner_level(row["owner_uuid"]) < WRITE:
        raise forbidden(f"you may not take anything out of {row['owner_uuid']}")
    above: str | None = owner_uuid
    for _ in range(_MAX_DEPTH):
        if above == row["uuid"]:
            raise invalid(f"the project {row['uuid']} can't be moved into itself")
        parent = row_of(context, GROUPS, above) if above and uuid_kind(above) == GROUPS.kind else None
        if parent is None:
            return
        above = parent["owner_uuid"]
    raise invalid(f"projects can be nested {_MAX_DEPTH} deep at most")
