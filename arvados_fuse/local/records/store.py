"""Single records: finding, showing, adding, changing and removing rows of any resource.

Used by the modules of the resources. One call, one thread; every function works in the transaction of its
`Context`.
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from arvados_fuse.local.records.apierror import forbidden, invalid, not_found
from arvados_fuse.local.records.context import Context, Parameters, Record
from arvados_fuse.local.records.identifiers import GROUP, LINK, LOG, TOKEN, USER, UUID, new_uuid, uuid_kind
from arvados_fuse.local.records.permissions import MANAGE, READ, WRITE
from arvados_fuse.local.records.schema import BY_KIND, Resource
from arvados_fuse.local.records.values import array, check_json, decode, encode

MANIFEST = "(SELECT text FROM manifests WHERE manifests.portable_data_hash = collections.portable_data_hash)"
FILE_NAMES = f"arv_file_names({MANIFEST})"
IS_TRASHED = "({0}.trash_at IS NOT NULL AND {0}.trash_at <= :now)"
_DECODED = ("Hash", "Array", "boolean")
"""Types of attributes that are stored in another form than they are shown in."""
_HIDDEN = ("uuid", "owner_uuid", "modified_at")
"""Columns that every answer needs for etag, can_write and the like."""


def attributes_of(resource: Resource, parameters: Parameters) -> Record:
    """The attributes that a create or update sends: under the resource's singular, or bare.

    Raises ApiError 422 for attributes that don't exist and values that no record can hold.
    """
    given = parameters.get(resource.singular)
    if given is None:
        given = {
            name: value for name, value in parameters.items() if name in resource.by_name and name != "uuid"
        }
    if not isinstance(given, dict):
        raise invalid(f"{resource.singular} must be an object")
    for name, value in given.items():
        if name not in resource.by_name and name not in ("kind", "href"):
            raise invalid(f"{resource.name} have no attribute {str(name)[:80]!r}")
        if name not in ("manifest_text", "unsigned_manifest_text"):
            check_json(value, name)
    return {name: value for name, value in given.items() if name in resource.by_name}


def writable_values(
    context: Context, resource: Resource, given: Record, current: Mapping[str, Any] | None
) -> Record:
    """Those of `given` that the caller may set, encoded for SQLite; `current`: the row before, if any.

    Raises ApiError 403 for attributes of administrators, 422 for read-only attributes that differ and wrong
    types.
    """
    values: Record = {}
    for name, value in given.items():
        attribute = resource.by_name[name]
        if attribute.setter == "server" or not attribute.stored:
            continue
        encoded = encode(attribute, value)
        unchanged = current is not None and current[name] == encoded
        if attribute.setter == "fixed":
            if current is not None and not unchanged and value is not None:
                raise invalid(f"{name} is read-only")
            continue
        if attribute.setter == "admin" and not unchanged and not context.caller.is_admin:
            if current is None and encoded == encode(attribute, attribute.default):
                continue
            raise forbidden(f"only an administrator may set {name}")
        values[name] = encoded
    return values


def new_row(context: Context, resource: Resource, values: Record) -> Record:
    """A whole new row: `values`, defaults, uuid, times and the caller as owner and author."""
    row: Record = {item.name: encode(item, item.default) for item in resource.stored if item.name != "id"}
    row.update(values)
    uuid = row["uuid"] or new_uuid(context.site.cluster_id, resource.kind)
    if not UUID.fullmatch(uuid) or uuid_kind(uuid) != resource.kind:
        raise invalid(f"{str(uuid)[:80]!r} can't be the uuid of a {resource.singular}")
    row.update(
        uuid=uuid,
        owner_uuid=row["owner_uuid"] or context.caller.user_uuid,
        created_at=context.now,
        modified_at=context.now,
        modified_by_user_uuid=context.caller.user_uuid,
    )
    return row


def insert(context: Context, resource: Resource, row: Record) -> None:
    """Add `row`. Raises ApiError 422 when its uuid is taken."""
    names = list(row)
    columns = ", ".join(f'"{name}"' for name in names)
    places = ", ".join(f":{name}" for name in names)
    try:
        context.connection.execute(f"INSERT INTO {resource.name} ({columns}) VALUES ({places})", row)
    except sqlite3.IntegrityError:
        raise invalid(f"the uuid {row['uuid']} is taken") from None


def update(context: Context, resource: Resource, uuid: str, values: Record, *, touch: bool = True) -> None:
    """Change columns of the record `uuid`; with `touch`, also when and by whom it was modified."""
    if touch:
        values = values | {"modified_at": context.now, "modified_by_user_uuid": context.caller.user_uuid}
    sets = ", ".join(f'"{name}" = :{name}' for name in values)
    context.connection.execute(
        f"UPDATE {resource.name} SET {sets} WHERE uuid = :_uuid", values | {"_uuid": uuid}
    )


def remove(context: Context, resource: Resource, uuid: str) -> None:
    """Take the record `uuid` out for ever."""
    context.connection.execute(f"DELETE FROM {resource.name} WHERE uuid = ?", (uuid,))


def row_of(context: Context, resource: Resource, uuid: str) -> Record | None:
    """The row with this uuid, whoever may see it; None without one."""
    query = f"SELECT * FROM {resource.name} WHERE uuid = ?"
    row = context.connection.execute(query, (uuid,)).fetchone()
    return None if row is None else dict(row)


def find(context: Context, resource: Resource, uuid: str, *, include_trash: bool = False) -> Record:
    """The row `uuid` if the caller may see it. Raises ApiError 404 otherwise."""
    row = row_of(context, resource, uuid)
    if row is None or level_on(context, resource, row) < READ:
        raise not_found(f"no {resource.singular} {uuid[:80]!r} is there for you")
    if not include_trash and _in_trash(context, resource, row):
        raise not_found(f"the {resource.singular} {uuid[:80]!r} is in the trash")
    return row


def find_writable(
    context: Context, resource: Resource, uuid: str, *, include_trash: bool = False, level: int = WRITE
) -> Record:
    """The row `uuid` for a change. Raises ApiError 404 when the caller can't see it, 403 when not change."""
    row = find(context, resource, uuid, include_trash=include_trash)
    if level_on(context, resource, row) < level:
        what = "manage" if level == MANAGE else "change"
        raise forbidden(f"you may read but not {what} the {resource.singular} {uuid}")
    return row


def level_on(context: Context, resource: Resource, row: Mapping[str, Any]) -> int:
    """The level (0 to 3) of the caller on `row`."""
    access = context.access
    level = access.level(row["uuid"], row["owner_uuid"])
    if level == MANAGE:
        return level
    if resource.kind == "4zz18" and row["current_version_uuid"] != row["uuid"]:
        level = max(level, access.level(row["current_version_uuid"], None))
    elif resource.kind == TOKEN:
        level = MANAGE if row["user_uuid"] == access.user_uuid else 0
    elif resource.kind == "bi6l4":
        level = max(level, READ)
    elif resource.kind == LOG:
        level = max(level, min(READ, access.level(row["object_uuid"] or "", row["object_owner_uuid"])))
    elif resource.kind == LINK and row["link_class"] == "permission":
        level = max(level, READ if row["tail_uuid"] == access.user_uuid else 0)
        if object_level(context, row["head_uuid"]) == MANAGE:
            level = MANAGE
    return level


def object_level(context: Context, uuid: str | None) -> int:
    """The level (0 to 3) of the caller on the object `uuid` of any kind; 0 when there is none."""
    resource = BY_KIND.get(uuid_kind(uuid or ""))
    if resource is None or not resource.served:
        return 0
    row = row_of(context, resource, uuid or "")
    return 0 if row is None else level_on(context, resource, row)


def need_owner(context: Context, owner_uuid: str | None) -> None:
    """Check that the caller may put something into `owner_uuid`, a user or a project outside the trash.

    Raises ApiError 422 when it can't own anything or is not visible, 403 when the caller may not write there.
    """
    owner_uuid = owner_uuid or ""
    kind = uuid_kind(owner_uuid)
    resource = BY_KIND.get(kind)
    row = row_of(context, resource, owner_uuid) if resource is not None and kind in (USER, GROUP) else None
    access = context.access
    if (
        row is None
        or resource is None
        or max(access.level(owner_uuid, row["owner_uuid"]), access.owner_level(owner_uuid)) < READ
    ):
        raise invalid(f"no user or project {owner_uuid[:80]!r} is there for you to own this")
    if kind == GROUP and row["group_class"] != "project":
        raise invalid(f"a group of class {row['group_class']!r} can't own anything ({owner_uuid})")
    if kind == GROUP and _in_trash(context, resource, row):
        raise invalid(f"the project {owner_uuid} is in the trash")
    if access.owner_level(owner_uuid) < WRITE:
        raise forbidden(f"you may not put anything into {owner_uuid}")


def selected(resource: Resource, parameters: Parameters, *, listing: bool = False) -> list[str]:
    """Names of the attributes to show. Raises ApiError 422 when `select` names one that doesn't exist."""
    chosen = array(parameters, "select")
    if not chosen:
        return [
            item.name
            for item in resource.attributes
            if item.listed or (not listing and item.name == "manifest_text")
        ]
    for name in chosen:
        if not isinstance(name, str) or (name not in resource.by_name and name != "kind"):
            raise invalid(f"{resource.name} have no attribute {str(name)[:80]!r} to select")
    return [name for name in dict.fromkeys(chosen) if name != "kind"]


def columns_sql(resource: Resource, names: Iterable[str]) -> str:
    """The select list for showing the attributes `names`; the statement must bind `:now`."""
    wanted = dict.fromkeys((*_HIDDEN, *names))
    parts = [f'{_shown_sql(resource, name)} AS "{name}"' for name in wanted if _has_sql(resource, name)]
    if resource.kind == USER and "full_name" in wanted:
        parts += ["first_name AS _first", "last_name AS _last"]
    if resource.kind == USER and "is_invited" in wanted:
        parts.append("is_active AS _active")
    if resource.kind == LINK:
        parts += ["head_uuid AS _head", "tail_uuid AS _tail"]
    return ", ".join(parts)


def column_sql(resource: Resource, name: str) -> str:
    """The SQL of an attribute that filters and orders may use. Raises ApiError 422 for others."""
    if name == "is_trashed":
        return IS_TRASHED.format(resource.name)
    if name == "file_names" and resource.kind == "4zz18":
        return FILE_NAMES
    attribute = resource.by_name.get(name)
    if attribute is None or not attribute.stored:
        raise invalid(f"{resource.name} can't be filtered or ordered by {name[:80]!r}")
    return f'{resource.name}."{name}"'


def show(context: Context, resource: Resource, row: Mapping[str, Any], names: Iterable[str]) -> Record:
    """The record that `row` (from `columns_sql`) stands for, with the attributes `names` and its kind."""
    record: Record = {"kind": resource.record_kind}
    for name in names:
        attribute = resource.by_name[name]
        if name == "etag":
            record[name] = _etag(row)
        elif name in ("can_write", "can_manage"):
            level = context.access.level(row["uuid"], row["owner_uuid"])
            record[name] = level >= (WRITE if name == "can_write" else MANAGE)
        elif name in ("head_kind", "tail_kind"):
            record[name] = kind_of(row["_head"] if name == "head_kind" else row["_tail"])
        elif name == "full_name":
            record[name] = " ".join(part for part in (row["_first"], row["_last"]) if part)
        elif name == "is_invited":
            record[name] = bool(row["_active"])
        elif name == "api_token":
            record[name] = None
        else:
            record[name] = decode(attribute, row[name])
    return record


def show_all(
    context: Context, resource: Resource, rows: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> list[Record]:
    """The records that rows of one statement stand for. What is shown as it is stored takes no look at each
    attribute of each row."""
    attributes = [resource.by_name[name] for name in names]
    if not all(item.stored and item.type not in _DECODED for item in attributes):
        return [show(context, resource, row, names) for row in rows]
    shown = ("kind", *names)
    kind = resource.record_kind
    return [dict(zip(shown, (kind, *[row[name] for name in names]), strict=True)) for row in rows]


def answer(context: Context, resource: Resource, uuid: str, parameters: Parameters) -> Record:
    """The record `uuid` as an answer, with the attributes that `select` names. The row must be there."""
    names = selected(resource, parameters)
    sql = f"SELECT {columns_sql(resource, names)} FROM {resource.name} WHERE uuid = :uuid"
    row = context.connection.execute(sql, {"uuid": uuid, "now": context.now}).fetchone()
    return show(context, resource, row, names)


def kind_of(uuid: str | None) -> str | None:
    """The `arvados#...` kind that a uuid belongs to; None when it is none."""
    resource = BY_KIND.get(uuid_kind(uuid or ""))
    return resource.record_kind if resource else None


def _has_sql(resource: Resource, name: str) -> bool:
    return resource.by_name[name].stored or name in ("is_trashed", "manifest_text", "unsigned_manifest_text")


def _shown_sql(resource: Resource, name: str) -> str:
    # Manifests are to be shown, but are too large to filter or order by.
    return MANIFEST if name.endswith("manifest_text") else column_sql(resource, name)


def _etag(row: Mapping[str, Any]) -> str:
    return hashlib.md5(f"{row['uuid']} {row['modified_at']}".encode(), usedforsecurity=False).hexdigest()


def _in_trash(context: Context, resource: Resource, row: Mapping[str, Any]) -> bool:
    if resource.kind not in ("4zz18", GROUP):
        return False
    if row["trash_at"] is not None and row["trash_at"] <= context.now:
        return True
    trashed = context.access.trashed
    return f'"{row["owner_uuid"]}"' in trashed or f'"{row["uuid"]}"' in trashed
