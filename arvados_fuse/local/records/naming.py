"""Names of collections and groups: what is allowed, and that each is there once in its owner.

Used by `collections` and `groups`, inside the transaction that writes the name: with one writer at a time,
looking and then writing is safe.
"""

from arvados_fuse.local.records.apierror import invalid
from arvados_fuse.local.records.context import Context
from arvados_fuse.local.records.schema import Resource

MAX_NAME = 255
"""Characters of a name (the width of the column in Arvados)."""


def check_name(context: Context, resource: Resource, name: str | None) -> None:
    """Raise ApiError 422 when a collection or project can't be called `name`."""
    if name is None:
        return
    if len(name) > MAX_NAME:
        raise invalid(f"the name of a {resource.singular} has at most {MAX_NAME} characters")
    if "/" in name and not context.site.forward_slash_substitution:
        raise invalid(f"the name of a {resource.singular} can't hold '/' on this site")


def free_name(
    context: Context, resource: Resource, name: str | None, owner_uuid: str, uuid: str, *, ensure: bool
) -> str | None:
    """`name`, when no other untrashed record in `owner_uuid` has it; else, with `ensure`, one made from it.

    uuid: the record that will have the name. Raises ApiError 422 when the name is taken and `ensure` is
        False.
    """
    if not name or not _taken(context, resource, name, owner_uuid, uuid):
        return name
    if not ensure:
        raise invalid(f"the name {name!r} is taken in {owner_uuid}: it must be unique there")
    suffix = f" ({context.now[:23]}Z)"
    candidate = name[: MAX_NAME - len(suffix)] + suffix
    number = 1
    while _taken(context, resource, candidate, owner_uuid, uuid):
        number += 1
        suffix = f" ({context.now[:23]}Z {number})"
        candidate = name[: MAX_NAME - len(suffix)] + suffix
    return candidate


def _taken(context: Context, resource: Resource, name: str, owner_uuid: str, uuid: str) -> bool:
    current = "AND current_version_uuid = uuid" if "current_version_uuid" in resource.by_name else ""
    query = (
        f"SELECT 1 FROM {resource.name} WHERE owner_uuid = :owner AND name = :name AND uuid != :uuid"
        f" AND (trash_at IS NULL OR trash_at > :now) {current} LIMIT 1"
    )
    binds = {"owner": owner_uuid, "name": name, "uuid": uuid, "now": context.now}
    return context.connection.execute(query, binds).fetchone() is not None
