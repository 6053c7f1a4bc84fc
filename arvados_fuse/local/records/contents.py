"""Lists over several kinds: what a project holds, and what is shared with the caller.

`groups.contents` and `groups.shared`. One statement finds the page in the right order over all kinds; then
each kind's records are fetched by uuid. Where only one kind can be there, one statement does all.
"""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from arvados_fuse.local.records.apierror import invalid, not_found
from arvados_fuse.local.records.context import Context, Parameters, Record
from arvados_fuse.local.records.filters import Binds, compile_filters
from arvados_fuse.local.records.groups import filters_of_group
from arvados_fuse.local.records.identifiers import GROUP, USER, uuid_kind
from arvados_fuse.local.records.listing import (
    ListArguments,
    direction_sql,
    list_answer,
    list_arguments,
    list_records,
    visible_sql,
)
from arvados_fuse.local.records.schema import COLLECTIONS, GROUPS, RESOURCES, USERS, Resource
from arvados_fuse.local.records.store import column_sql, columns_sql, find, selected, show_all
from arvados_fuse.local.records.values import array, flag, text

LISTED = (GROUPS, COLLECTIONS)
"""The kinds that projects hold here, in the order in which a list without an order shows them."""
_INCLUDES = ("owner_uuid", "container_uuid", "collection_uuid")
_BELOW = """
    WITH RECURSIVE below(uuid) AS (
        SELECT {0}
        UNION
        SELECT groups.uuid FROM below JOIN groups ON groups.owner_uuid = below.uuid
            WHERE groups.group_class = 'project'
    ) SELECT uuid FROM below"""


def contents(context: Context, parameters: Parameters) -> Record:
    """What a project, a filter group or a home holds; without `uuid`, whatever the caller may see.

    Raises ApiError 404 when the group is not visible, 422 for arguments with no meaning.
    """
    arguments = list_arguments(context, parameters)
    binds = Binds()
    binds.values["now"] = context.now
    place, more = _place(context, parameters, binds)
    by_kind = _filters_by_kind(arguments.filters)
    parts = []
    for resource in LISTED:
        condition = _condition(context, resource, arguments, binds, by_kind[resource.name], more)
        if condition is not None:
            where = f"{place.format(resource.name)} AND {condition}"
            if resource is GROUPS:
                where += " AND groups.group_class IN ('project', 'filter')"
            parts.append((resource, where))
    includes = _includes(parameters)
    names = _selected(parameters)
    if includes:
        names = {kind: list(dict.fromkeys((*shown, "owner_uuid"))) for kind, shown in names.items()}
    answer = list_answer("arvados#objectList", arguments)
    if arguments.limit and parts:
        answer["items"] = _page(context, parts, arguments, binds, names)
    if arguments.exact:
        total = 0
        for resource, where in parts:
            count = f"SELECT count(*) FROM {resource.name} WHERE {where}"
            total += context.connection.execute(count, binds.values).fetchone()[0]
        answer["items_available"] = total
    if includes:
        answer["included"] = _included(context, answer["items"], includes)
    return answer


def shared(context: Context, parameters: Parameters) -> Record:
    """The groups at the top of what others share with the caller; `include=owner_uuid` adds their owners."""
    wanted = _includes(parameters)
    chosen = array(parameters, "select")
    if wanted and chosen and "owner_uuid" not in chosen:
        parameters = parameters | {"select": [*chosen, "owner_uuid"]}
    listed = list_records(
        context, GROUPS, parameters, lambda binds: _shared_sql(context, binds).format(GROUPS.name)
    )
    if wanted:
        listed["included"] = _included(context, listed["items"], wanted)
    return listed


def _place(context: Context, parameters: Parameters, binds: Binds) -> tuple[str, dict[str, list[Any]]]:
    """SQL for being in the place that was asked for (`{0}`: the table), and a filter group's own filters."""
    uuid = parameters.get("uuid") or ""
    if not uuid:
        home = flag(parameters, "exclude_home_project")
        return (_shared_sql(context, binds) if home else "1"), {}
    kind = uuid_kind(text(parameters, "uuid"))
    if kind not in (USER, GROUP):
        raise not_found(f"no project {str(uuid)[:80]!r} is there for you")
    if kind == USER:
        if uuid != context.caller.user_uuid:
            find(context, USERS, uuid)
    else:
        group = find(context, GROUPS, uuid, include_trash=flag(parameters, "include_trash"))
        if group["group_class"] == "filter":
            return "1", filters_of_group(json.loads(group["properties"]))
    owner = binds.add(uuid)
    if flag(parameters, "recursive"):
        return f"{{0}}.owner_uuid IN ({_BELOW.format(owner)})", {}
    return f"{{0}}.owner_uuid = {owner}", {}


def _shared_sql(context: Context, binds: Binds) -> str:
    """SQL for being at the top of what others share (Arvados, groups.shared): owned by another user, or by
    something that the caller can't see or that is no project.
    """
    me = binds.add(context.caller.user_uuid)
    reach = context.access.reach
    readable = f"g.uuid IN {context.access.targets(binds)} AND " if reach is not None else ""
    parent = (
        f"SELECT 1 FROM groups AS g WHERE {readable}g.uuid = {{0}}.owner_uuid AND g.group_class = 'project'"
    )
    return f"({{0}}.owner_uuid != {me} AND NOT EXISTS ({parent}))"


def _filters_by_kind(filters: list[Any]) -> dict[str, list[Any]]:
    """The filters that each listed kind has to fulfil: those that name it and those that name none."""
    found: dict[str, list[Any]] = {resource.name: [] for resource in LISTED}
    for item in filters:
        name = item[0] if isinstance(item, list) and item and isinstance(item[0], str) else ""
        table, dot, _ = name.partition(".")
        if dot and table in RESOURCES:
            if table in found:
                found[table].append(item)
            else:
                compile_filters(RESOURCES[table], [item], Binds(), partial(column_sql, RESOURCES[table]))
            continue
        for filters_of_kind in found.values():
            filters_of_kind.append(item)
    return found


def _condition(
    context: Context,
    resource: Resource,
    arguments: ListArguments,
    binds: Binds,
    filters: list[Any],
    more: Mapping[str, list[Any]],
) -> str | None:
    """SQL for what the caller may see of one kind and the filters allow; None when nothing can pass them."""
    if any(_lacks(resource, item) for item in filters):
        return None
    own = [*more.get("", ()), *more.get(resource.name, ())]
    visible = visible_sql(
        context,
        resource,
        binds,
        include_trash=arguments.include_trash,
        old_versions=arguments.include_old_versions,
    )
    passed = compile_filters(resource, [*own, *filters], binds, partial(column_sql, resource))
    if any(_names_others(resource, item) for item in [*own, *filters]):
        return None
    return f"({visible}) AND ({passed})"


def _names_others(resource: Resource, item: Any) -> bool:
    """Whether a (correct) filter asks for objects of other kinds."""
    if not isinstance(item, list) or item[:2] != ["uuid", "is_a"]:
        return False
    wanted = item[2] if isinstance(item[2], list) else [item[2]]
    return resource.record_kind not in wanted


def _lacks(resource: Resource, item: Any) -> bool:
    """Whether a filter is on an attribute that another listed kind has and this one has not."""
    name = item[0] if isinstance(item, list) and item and isinstance(item[0], str) else ""
    return name not in resource.by_name and any(name in other.by_name for other in LISTED)


def _selected(parameters: Parameters) -> dict[str, list[str]]:
    """The attributes to show of each kind; `select` may name any that one of them has."""
    chosen = array(parameters, "select")
    names: dict[str, list[str]] = {}
    for resource in LISTED:
        known = [
            name for name in chosen if isinstance(name, str) and (name in resource.by_name or name == "kind")
        ]
        names[resource.name] = selected(resource, {"select": known} if chosen else {}, listing=True)
        if chosen and not known:
            names[resource.name] = []
    for name in chosen:
        if not isinstance(name, str) or (
            name != "kind" and not any(name in resource.by_name for resource in LISTED)
        ):
            raise invalid(f"nothing in a project has an attribute {str(name)[:80]!r} to select")
    for shown in names.values():
        # Manifests are not for lists over kinds (Arvados, groups.contents).
        shown[:] = [name for name in shown if not name.endswith("manifest_text")]
    return names


def _page(
    context: Context,
    parts: list[tuple[Resource, str]],
    arguments: ListArguments,
    binds: Binds,
    names: dict[str, list[str]],
) -> list[Record]:
    order, keys = _order(arguments)
    limits = f" LIMIT {binds.add(arguments.limit)} OFFSET {binds.add(arguments.offset)}"
    if len(parts) == 1:
        resource, where = parts[0]
        shown = names[resource.name]
        columns = [columns_sql(resource, shown), "0 AS part", *_keys_sql(resource, keys)]
        sql = f"SELECT {', '.join(columns)} FROM {resource.name} WHERE {where} ORDER BY {order}{limits}"
        rows = context.connection.execute(sql, binds.values).fetchall()
        return show_all(context, resource, rows, shown)
    queries = []
    for number, (resource, where) in enumerate(parts):
        columns = [f"{number} AS part", f"{resource.name}.uuid AS uuid", *_keys_sql(resource, keys)]
        queries.append(f"SELECT {', '.join(columns)} FROM {resource.name} WHERE {where}")
    sql = f"SELECT part, uuid FROM ({' UNION ALL '.join(queries)}) ORDER BY {order}{limits}"
    found = context.connection.execute(sql, binds.values).fetchall()
    records: dict[str, Record] = {}
    for number, (resource, _) in enumerate(parts):
        wanted = [row["uuid"] for row in found if row["part"] == number]
        records.update(_records(context, resource, wanted, names[resource.name]))
    return [records[row["uuid"]] for row in found]


def _keys_sql(resource: Resource, keys: list[tuple[str, str]]) -> list[str]:
    """The columns of one kind that a list is ordered by."""
    found = []
    for number, (table, name) in enumerate(keys):
        has = table in ("", resource.name) and name in resource.by_name
        found.append(f"{column_sql(resource, name) if has else 'NULL'} AS key{number}")
    return found


def _order(arguments: ListArguments) -> tuple[str, list[tuple[str, str]]]:
    """The ORDER BY over all kinds, and which (table, attribute) each of its keys is."""
    keys: list[tuple[str, str]] = []
    parts: list[str] = []
    for table, name, direction in arguments.order:
        if table and table not in RESOURCES:
            raise invalid(f"a project holds no {table[:80]}")
        if not any(
            name in resource.by_name and table in ("", resource.name) for resource in RESOURCES.values()
        ):
            raise invalid(f"nothing in a project has an attribute {name[:80]!r} to order by")
        parts.append(f"key{len(keys)} {direction_sql(name, direction)}")
        keys.append((table, name))
    if not any(table == "" for table, _ in keys):
        parts += ["part", f"key{len(keys)} DESC"]
        keys.append(("", "modified_at"))
    return ", ".join([*parts, "uuid"]), keys


def _records(context: Context, resource: Resource, uuids: list[str], names: list[str]) -> dict[str, Record]:
    binds = Binds()
    binds.values["now"] = context.now
    sql = f"SELECT {columns_sql(resource, names)} FROM {resource.name} WHERE uuid IN {binds.array(uuids)}"
    rows = context.connection.execute(sql, binds.values).fetchall()
    shown = show_all(context, resource, rows, names)
    return {row["uuid"]: record for row, record in zip(rows, shown, strict=True)}


def _includes(parameters: Parameters) -> list[str]:
    value = parameters.get("include")
    wanted = [value] if isinstance(value, str) and value else value or []
    if not isinstance(wanted, list) or any(name not in _INCLUDES for name in wanted):
        raise invalid(f"include can name {', '.join(_INCLUDES)}")
    return wanted


def _included(context: Context, items: list[Record], wanted: list[str]) -> list[Record]:
    """The owners of `items`, as far as the caller may see them."""
    if "owner_uuid" not in wanted:
        return []
    owners = list(dict.fromkeys(item["owner_uuid"] for item in items if "owner_uuid" in item))
    found: list[Record] = []
    for resource in (USERS, GROUPS):
        binds = Binds()
        binds.values["now"] = context.now
        visible = visible_sql(context, resource, binds)
        names = selected(resource, {}, listing=True)
        sql = f"SELECT {columns_sql(resource, names)} FROM {resource.name} WHERE {visible}"
        sql += f" AND {resource.name}.uuid IN {binds.array(owners)} ORDER BY uuid"
        rows = context.connection.execute(sql, binds.values).fetchall()
        found.extend(show_all(context, resource, rows, names))
    return found
