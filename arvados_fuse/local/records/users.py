"""Users: the `users` resource, and the users and groups that every site has from its first day.

Administrators make users; a user may change its own names and prefs. An active user belongs to the group All
users and is visible to its members, as Arvados does it when a user is set up.
"""

import re
from collections.abc import Mapping
from typing import Any

from arvados_fuse.local.records import links, logs
from arvados_fuse.local.records.apierror import forbidden, invalid
from arvados_fuse.local.records.context import Context, Parameters, Record
from arvados_fuse.local.records.schema import GROUPS, USERS
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

_USERNAME = re.compile(r"[A-Za-z][A-Za-z0-9]*")


def current(context: Context, parameters: Parameters) -> Record:
    """The caller's own record."""
    return answer(context, USERS, context.caller.user_uuid, parameters)


def system(context: Context, parameters: Parameters) -> Record:
    """The system user's record."""
    return answer(context, USERS, context.site.system_user_uuid, parameters)


def get(context: Context, parameters: Parameters) -> Record:
    """A user that the caller may see. Raises ApiError 404."""
    uuid = text(parameters, "uuid")
    if uuid != context.caller.user_uuid:
        find(context, USERS, uuid)
    return answer(context, USERS, uuid, parameters)


def create(context: Context, parameters: Parameters) -> Record:
    """A new user; administrators only."""
    context.need_admin()
    values = writable_values(context, USERS, attributes_of(USERS, parameters), None)
    values["owner_uuid"] = context.site.system_user_uuid
    if not values.get("username") and values.get("email"):
        values["username"] = _free_username(context, str(values["email"]).partition("@")[0])
    _check(context, values, "")
    row = new_row(context, USERS, values)
    insert(context, USERS, row)
    if row["is_active"]:
        join_all_users(context, row["uuid"])
    context.permissions_changed()
    logs.record(context, USERS, "create", None, row)
    return answer(context, USERS, row["uuid"], parameters)


def change(context: Context, parameters: Parameters) -> Record:
    """Change a user: administrators any, others themselves and only what is theirs to change."""
    row = find(context, USERS, text(parameters, "uuid"))
    if row["uuid"] != context.caller.user_uuid:
        context.need_admin()
    values = writable_values(context, USERS, attributes_of(USERS, parameters), row)
    values.pop("owner_uuid", None)
    if values.get("uuid", row["uuid"]) != row["uuid"]:
        raise invalid("the uuid of a user can't change")
    _check(context, values, row["uuid"])
    update(context, USERS, row["uuid"], values)
    if values.get("is_active") and not row["is_active"]:
        join_all_users(context, row["uuid"])
    context.permissions_changed()
    logs.record(context, USERS, "update", row, row_of(context, USERS, row["uuid"]))
    return answer(context, USERS, row["uuid"], parameters)


def activate(context: Context, parameters: Parameters) -> Record:
    """Make a user active; administrators only (there are no agreements to sign here)."""
    return change(context, {"uuid": text(parameters, "uuid"), "user": {"is_active": True}})


def delete(context: Context, parameters: Parameters) -> Record:
    """Remove a user that owns nothing; administrators only."""
    context.need_admin()
    row = find(context, USERS, text(parameters, "uuid"))
    if row["uuid"] in (
        context.site.system_user_uuid,
        context.site.anonymous_user_uuid,
        context.caller.user_uuid,
    ):
        raise forbidden(f"the user {row['uuid']} has to stay")
    for table in ("collections", "groups"):
        query = f"SELECT 1 FROM {table} WHERE owner_uuid = ? LIMIT 1"
        if context.connection.execute(query, (row["uuid"],)).fetchone():
            raise invalid(f"the user {row['uuid']} still owns {table}")
    record = answer(context, USERS, row["uuid"], parameters)
    context.connection.execute("DELETE FROM api_client_authorizations WHERE user_uuid = ?", (row["uuid"],))
    links.remove_links_of(context, row["uuid"])
    remove(context, USERS, row["uuid"])
    context.permissions_changed()
    logs.record(context, USERS, "delete", row, None)
    return record


def join_all_users(context: Context, user_uuid: str) -> None:
    """Put a user into the group All users: it is a member, and the members can see it."""
    group = context.site.all_users_group_uuid
    links.grant(context, user_uuid, "can_write", group)
    links.grant(context, group, "can_read", user_uuid)


def seed(context: Context) -> None:
    """Make the users and groups that every site has. To be called once, for a new database."""
    site = context.site
    for uuid, first, last, admin in (
        (site.system_user_uuid, "root", "", 1),
        (site.anonymous_user_uuid, "Anonymous", "", 0),
    ):
        values = {"uuid": uuid, "first_name": first, "last_name": last, "is_active": 1, "is_admin": admin}
        values |= {"email": "root" if admin else "anonymous", "owner_uuid": site.system_user_uuid}
        insert(context, USERS, new_row(context, USERS, values))
    for uuid, name in (
        (site.system_group_uuid, "System group"),
        (site.all_users_group_uuid, "All users"),
        (site.anonymous_group_uuid, "Anonymous users"),
    ):
        values = {"uuid": uuid, "name": name, "group_class": "role", "owner_uuid": site.system_user_uuid}
        insert(context, GROUPS, new_row(context, GROUPS, values))
    links.grant(context, site.anonymous_user_uuid, "can_read", site.anonymous_group_uuid)
    # Whatever is open to people without an account is open to everybody with one.
    links.grant(context, site.all_users_group_uuid, "can_read", site.anonymous_group_uuid)
    context.permissions_changed()


def _check(context: Context, values: Mapping[str, Any], uuid: str) -> None:
    username = values.get("username")
    if not username:
        return
    if not _USERNAME.fullmatch(username):
        raise invalid("username must be letters and digits and begin with a letter")
    query = "SELECT 1 FROM users WHERE username = ? AND uuid != ?"
    if context.connection.execute(query, (username, uuid)).fetchone():
        raise invalid(f"the username {username!r} is taken")


def _free_username(context: Context, wish: str) -> str | None:
    base = re.sub(r"^[^A-Za-z]+|[^A-Za-z0-9]", "", wish)
    if not base:
        return None
    taken = {row[0] for row in context.connection.execute("SELECT username FROM users")}
    number = 1
    name = base
    while name in taken:
        number += 1
        name = f"{base}{number}"
    return name
