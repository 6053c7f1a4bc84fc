"""Lists: the arguments of `list` checked, turned into one statement, and answered.

Used by every resource; `contents` uses the pieces for lists over several kinds. One call, one thread.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from arvados_fuse.local.records.apierror import invalid
from arvados_fuse.local.records.context import Context, Parameters, Record
from arvados_fuse.local.records.filters import Binds, compile_filters, where_as_filters
from arvados_fuse.local.records.identifiers import COLLECTION, GROUP, LINK, LOG, TOKEN
from arvados_fuse.local.records.schema import Resource
from arvados_fuse.local.records.store import column_sql, columns_sql, selected, show_all
from arvados_fuse.local.records.values import array, flag, whole

DEFAULT_LIMIT = 100
HUGE = 2**31
"""A limit or offset from here on is a mistake or an attack and is refused. Below, the page limit holds."""
MAX_ORDER = 50

_ORDER = re.compile(r"\s*(?:(\w+)\.)?(\w+)(?:\s+(asc|desc))?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class ListArguments:
    """What a list was asked for, checked for form; attributes are checked where the resource is known."""

    filters: list[Any]
    order: list[tuple[str, str, str]]
    """(table or "", attribute, `asc` or `desc`)"""
    limit: int
    offset: int
    exact: bool
    distinct: bool
    include_trash: bool
    include_old_versions: bool


def list_arguments(context: Context, parameters: Parameters) -> ListArguments:
    """Check the arguments of a list. Raises ApiError 422."""
    filters = array(parameters, "filters")
    if parameters.get("where"):
        filters = filters + where_as_filters(parameters["where"])
    count = parameters.get("count") or "exact"
    if count not in ("exact", "none"):
        raise invalid("count must be exact or none")
    limit = whole(parameters, "limit", DEFAULT_LIMIT)
    offset = whole(parameters, "offset", 0)
    if limit >= HUGE or offset >= HUGE:
        raise invalid(f"limit and offset must be less than {HUGE}")
    return ListArguments(
        filters=filters,
        order=_order(parameters.get("order")),
        limit=min(limit, context.site.max_items_per_page),
        offset=offset,
        exact=count == "exact",
        distinct=flag(parameters, "distinct"),
        include_trash=flag(parameters, "include_trash"),
        include_old_versions=flag(parameters, "include_old_versions"),
    )


def list_records(
    context: Context,
    resource: Resource,
    parameters: Parameters,
    extra: Callable[[Binds], str] | None = None,
) -> Record:
    """The answer of `list`: what the caller may see of `resource` and the arguments allow.

    extra: gives the SQL of one more condition. Raises ApiError 422 for arguments with no meaning.
    """
    arguments = list_arguments(context, parameters)
    names = selected(resource, parameters, listing=True)
    binds = Binds()
    binds.values["now"] = context.now
    condition = visible_sql(
        context,
        resource,
        binds,
        include_trash=arguments.include_trash,
        old_versions=arguments.include_old_versions,
    )
    filters = compile_filters(resource, arguments.filters, binds, partial(column_sql, resource))
    where = f"({condition}) AND ({filters}){f' AND ({extra(binds)})' if extra else ''}"
    order = order_sql(resource, arguments.order)
    answer = list_answer(f"{resource.record_kind}List", arguments)
    if not resource.served:
        return answer | ({"items_available": 0} if arguments.exact else {})
    if arguments.distinct and "select" in parameters:
        rows, total = _distinct(context, resource, names, where, arguments, binds)
    else:
        sql = f"SELECT {columns_sql(resource, names)} FROM {resource.name} WHERE {where} ORDER BY {order}"
        limits = f" LIMIT {binds.add(arguments.limit)} OFFSET {binds.add(arguments.offset)}"
        rows = context.connection.execute(sql + limits, binds.values).fetchall() if arguments.limit else []
        total = 0
        if arguments.exact:
            count = f"SELECT count(*) FROM {resource.name} WHERE {where}"
            total = context.connection.execute(count, binds.values).fetchone()[0]
    answer["items"] = show_all(context, resource, rows, names)
    if arguments.exact:
        answer["items_available"] = total
    return answer


def list_answer(kind: str, arguments: ListArguments) -> Record:
    """An answer without items."""
    return {
        "kind": kind,
        "etag": "",
        "self_link": "",
        "offset": arguments.offset,
        "limit": arguments.limit,
        "items": [],
    }


def visible_sql(
    context: Context,
    resource: Resource,
    binds: Binds,
    *,
    include_trash: bool = False,
    old_versions: bool = False,
) -> str:
    """SQL that holds for the rows of `resource` that the caller may see (`:now` must be bound)."""
    name = resource.name
    access = context.access
    parts = []
    if resource.kind == TOKEN:
        parts.append(f"{name}.user_uuid = {binds.add(access.user_uuid)}")
    elif access.reach is not None and resource.served and resource.kind != "bi6l4":
        ways = [f"{name}.owner_uuid IN {access.owners(binds)}", f"{name}.uuid IN {access.targets(binds)}"]
        if resource.kind == COLLECTION:
            ways.append(f"{name}.current_version_uuid IN {access.targets(binds)}")
        elif resource.kind == LOG:
            ways.append(f"{name}.object_uuid IN {access.targets(binds)}")
            ways.append(f"{name}.object_owner_uuid IN {access.owners(binds)}")
        elif resource.kind == LINK:
            ways.append(_managed_link_sql(context, binds))
        parts.append(f"({' OR '.join(ways)})")
    if resource.kind in (COLLECTION, GROUP) and not include_trash:
        parts.append(f"({name}.trash_at IS NULL OR {name}.trash_at > :now)")
        hidden = access.hidden_owners(binds)
        if hidden:
            parts.append(f"{name}.owner_uuid NOT IN {hidden}")
    if resource.kind == COLLECTION and not old_versions:
        parts.append(f"{name}.current_version_uuid = {name}.uuid")
    return " AND ".join(parts) or "1"


def order_sql(resource: Resource, order: list[tuple[str, str, str]]) -> str:
    """The ORDER BY of a list: what was asked for, else newest first; then by uuid, so that it is total."""
    parts = []
    for table, name, direction in order:
        if table not in ("", resource.name):
            raise invalid(f"{resource.name} can't be ordered by {table}.{name}"[:200])
        if name not in resource.by_name:
            raise invalid(f"{resource.name} have no attribute {name[:80]!r} to order by")
        parts.append(f"{column_sql(resource, name)} {direction_sql(name, direction)}")
    if not parts:
        parts.append(f"{resource.name}.modified_at DESC")
    if not any(name == "uuid" for _, name, _ in order):
        parts.append(f"{resource.name}.uuid ASC")
    return ", ".join(parts)


def direction_sql(name: str, direction: str) -> str:
    """`asc` or `desc` for SQL: records without a value come last in ascending order, as Arvados has it."""
    if name in ("uuid", "created_at", "modified_at"):
        return direction
    return f"{direction} NULLS {'LAST' if direction == 'asc' else 'FIRST'}"


def _managed_link_sql(context: Context, binds: Binds) -> str:
    """Permission links that give the caller something, or on objects that the caller manages."""
    access = context.access
    managed = f"links.head_uuid IN {access.targets(binds, 3)}"
    owned = " OR ".join(
        f"EXISTS (SELECT 1 FROM {table} AS t WHERE t.uuid = links.head_uuid"
        f" AND t.owner_uuid IN {access.owners(binds, 3)})"
        for table in ("collections", "groups")
    )
    mine = f"links.tail_uuid = {binds.add(access.user_uuid)}"
    return f"(links.link_class = 'permission' AND ({mine} OR {managed} OR {owned}))"


def _order(value: Any) -> list[tuple[str, str, str]]:
    if value is None or value == "":
        return []
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list) or len(value) > MAX_ORDER:
        raise invalid("order must be an array of strings such as 'name asc'")
    order = []
    for item in value:
        match = _ORDER.fullmatch(item) if isinstance(item, str) else None
        if match is None:
            raise invalid(f"order can't be {json.dumps(item)[:80]}: attribute, then asc or desc")
        order.append((match[1] or "", match[2], (match[3] or "asc").lower()))
    return order


def _distinct(
    context: Context, resource: Resource, names: list[str], where: str, arguments: ListArguments, binds: Binds
) -> tuple[list[Any], int]:
    """Each set of values once. Only stored attributes: the others are worked out from the whole record."""
    columns = ", ".join(f'{column_sql(resource, name)} AS "{name}"' for name in names)
    order = [part for part in arguments.order if part[1] in names] or [("", names[0], "asc")]
    by = ", ".join(f'"{name}" {direction}' for _, name, direction in order)
    inner = f"SELECT DISTINCT {columns} FROM {resource.name} WHERE {where}"
    total = context.connection.execute(f"SELECT count(*) FROM ({inner})", binds.values).fetchone()[0]
    limits = f" LIMIT {binds.add(arguments.limit)} OFFSET {binds.add(arguments.offset)}"
    rows = context.connection.execute(f"{inner} ORDER BY {by}{limits}", binds.values).fetchall()
    return rows, total
