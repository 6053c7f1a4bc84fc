"""Links: permissions, tags, stars and whatever else ties two things together.

A permission link belongs to the system user; who manages its head makes, changes and removes it. Other links
belong to who made them and need no more than that their head is visible.
"""

from collections.abc import Mapping
from typing import Any

from arvados_fuse.local.records import logs
from arvados_fuse.local.records.apierror import forbidden, invalid
from arvados_fuse.local.records.context import Context, Parameters, Record
from arvados_fuse.local.records.identifiers import GROUP, USER, uuid_kind
from arvados_fuse.local.records.listing import list_records
from arvados_fuse.local.records.permissions import LEVELS, MANAGE, READ
from arvados_fuse.local.records.schema import BY_KIND, GROUPS, LINKS
from arvados_fuse.local.records.store import (
    answer,
    attributes_of,
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
from arvados_fuse.local.records.values import text


def get(context: Context, parameters: Parameters) -> Record:
    """A link that the caller may see. Raises ApiError 404."""
    uuid = text(parameters, "uuid")
    find(context, LINKS, uuid)
    return answer(context, LINKS, uuid, parameters)


def create(context: Context, parameters: Parameters) -> Record:
    """A new link. Raises ApiError 422 or 403 when its ends don't allow it."""
    row = new_row(context, LINKS, writable_values(context, LINKS, attributes_of(LINKS, parameters), None))
    if row["link_class"] == "permission":
        row["owner_uuid"] = context.site.system_user_uuid
    _check(context, row)
    insert(context, LINKS, row)
    _after(context, "create", None, row)
    return answer(context, LINKS, row["uuid"], parameters)


def change(context: Context, parameters: Parameters) -> Record:
    """Change a link that the caller may write; the ends of a permission stay what they are."""
    row = find_writable(context, LINKS, text(parameters, "uuid"))
    values = writable_values(context, LINKS, attributes_of(LINKS, parameters), row)
    new = dict(row) | values
    lasting = ["uuid", "link_class"]
    if row["link_class"] == "permission":
        lasting += ["head_uuid", "owner_uuid"]
    for name in lasting:
        if new[name] != row[name]:
            raise invalid(f"the {name} of this link can't change")
    _check(context, new)
    update(context, LINKS, row["uuid"], values)
    _after(context, "update", row, row_of(context, LINKS, row["uuid"]))
    return answer(context, LINKS, row["uuid"], parameters)


def delete(context: Context, parameters: Parameters) -> Record:
    """Remove a link that the caller may write."""
    row = find_writable(context, LINKS, text(parameters, "uuid"))
    record = answer(context, LINKS, row["uuid"], parameters)
    remove(context, LINKS, row["uuid"])
    _after(context, "delete", row, None)
    return record


def get_permissions(context: Context, parameters: Parameters) -> Record:
    """The permission links on an object that the caller manages. Raises ApiError 403."""
    uuid = text(parameters, "uuid")
    if object_level(context, uuid) < MANAGE:
        raise forbidden(f"you may not see who else may use {uuid[:80]!r}")
    filters = [["head_uuid", "=", uuid], ["link_class", "=", "permission"]]
    return list_records(context, LINKS, {"filters": filters, "limit": context.site.max_items_per_page})


def grant(context: Context, tail_uuid: str, name: str, head_uuid: str) -> None:
    """Make a permission link that the site itself wants, whoever calls; it makes no event."""
    values = {"tail_uuid": tail_uuid, "name": name, "head_uuid": head_uuid, "link_class": "permission"}
    insert(context, LINKS, new_row(context, LINKS, values | {"owner_uuid": context.site.system_user_uuid}))


def remove_links_of(context: Context, uuid: str) -> None:
    """Remove every link from and to an object that is about to be removed itself."""
    query = "SELECT * FROM links WHERE head_uuid = :uuid OR tail_uuid = :uuid"
    for row in context.connection.execute(query, {"uuid": uuid}).fetchall():
        remove(context, LINKS, row["uuid"])
        logs.record(context, LINKS, "delete", dict(row), None)


def _check(context: Context, row: Mapping[str, Any]) -> None:
    if not row["link_class"]:
        raise invalid("a link needs a link_class")
    head = row["head_uuid"] or ""
    kind = uuid_kind(head)
    if kind in BY_KIND and BY_KIND[kind].served and object_level(context, head) < READ:
        raise invalid(f"no object {head[:80]!r} is there for you to link to")
    if row["link_class"] != "permission":
        need_owner(context, row["owner_uuid"])
        return
    if row["name"] not in LEVELS:
        raise invalid(f"the name of a permission link must be one of {', '.join(LEVELS)}")
    if kind not in BY_KIND or not BY_KIND[kind].served:
        raise invalid("a permission link needs an object as head_uuid")
    tail = row["tail_uuid"] or ""
    if uuid_kind(tail) not in (USER, GROUP) or row_of(context, BY_KIND[uuid_kind(tail)], tail) is None:
        raise invalid(f"no user or role {tail[:80]!r} is there to be tail_uuid of a permission link")
    if uuid_kind(tail) == GROUP:
        group = row_of(context, GROUPS, tail)
        if group is None or group["group_class"] != "role":
            raise invalid("a permission can be given to users and roles, not to projects")
    if object_level(context, tail) < READ:
        raise invalid(f"no user or role {tail[:80]!r} is there for you")
    collection = row_of(context, BY_KIND["4zz18"], head) if kind == "4zz18" else None
    if collection is not None and collection["current_version_uuid"] != head:
        raise invalid("past versions have the permissions of the present one")
    if object_level(context, head) < MANAGE:
        raise forbidden(f"you may not decide who else may use {head}")


def _after(
    context: Context, event: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None
) -> None:
    row = new if new is not None else old
    if row is not None and row["link_class"] == "permission":
        context.permissions_changed()
    logs.record(context, LINKS, event, old, new)
