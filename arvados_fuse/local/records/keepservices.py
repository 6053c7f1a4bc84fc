"""Keep services: where clients find blocks. The server registers its own with `create`, as an administrator.

Everybody may read them.
"""

from arvados_fuse.local.records import logs
from arvados_fuse.local.records.apierror import invalid
from arvados_fuse.local.records.context import Context, Parameters, Record
from arvados_fuse.local.records.listing import list_records
from arvados_fuse.local.records.schema import KEEP_SERVICES
from arvados_fuse.local.records.store import (
    answer,
    attributes_of,
    find,
    insert,
    new_row,
    remove,
    row_of,
    update,
    writable_values,
)
from arvados_fuse.local.records.values import text


def accessible(context: Context, parameters: Parameters) -> Record:
    """All services; on one machine every client reaches every one."""
    return list_records(context, KEEP_SERVICES, parameters | {"limit": context.site.max_items_per_page})


def get(context: Context, parameters: Parameters) -> Record:
    """One service. Raises ApiError 404."""
    uuid = text(parameters, "uuid")
    find(context, KEEP_SERVICES, uuid)
    return answer(context, KEEP_SERVICES, uuid, parameters)


def create(context: Context, parameters: Parameters) -> Record:
    """A new service; administrators only."""
    context.need_admin()
    row = new_row(
        context,
        KEEP_SERVICES,
        writable_values(context, KEEP_SERVICES, attributes_of(KEEP_SERVICES, parameters), None),
    )
    _check(row)
    insert(context, KEEP_SERVICES, row)
    logs.record(context, KEEP_SERVICES, "create", None, row)
    return answer(context, KEEP_SERVICES, row["uuid"], parameters)


def change(context: Context, parameters: Parameters) -> Record:
    """Change a service; administrators only."""
    context.need_admin()
    row = find(context, KEEP_SERVICES, text(parameters, "uuid"))
    values = writable_values(context, KEEP_SERVICES, attributes_of(KEEP_SERVICES, parameters), row)
    _check(dict(row) | values)
    update(context, KEEP_SERVICES, row["uuid"], values)
    if values.pop("uuid", row["uuid"]) != row["uuid"]:
        raise invalid("the uuid of a keep service can't change")
    uuid: str = row["uuid"]
    changed = row_of(context, KEEP_SERVICES, uuid)
    logs.record(context, KEEP_SERVICES, "update", row, changed)
    return answer(context, KEEP_SERVICES, uuid, parameters)


def delete(context: Context, parameters: Parameters) -> Record:
    """Remove a service; administrators only."""
    context.need_admin()
    row = find(context, KEEP_SERVICES, text(parameters, "uuid"))
    record = answer(context, KEEP_SERVICES, row["uuid"], parameters)
    remove(context, KEEP_SERVICES, row["uuid"])
    logs.record(context, KEEP_SERVICES, "delete", row, None)
    return record


def _check(row: Record) -> None:
    if (
        not row["service_host"]
        or not isinstance(row["service_port"], int)
        or not 0 < row["service_port"] < 65536
    ):
        raise invalid("a keep service needs a service_host and a service_port from 1 to 65535")
