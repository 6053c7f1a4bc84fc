"""From the verb and the path of an API request to the method that it means.

Used by `api`. The methods are those of `records.schema`. Constants and pure functions.
"""

from typing import Any, NamedTuple

from arvados_fuse.local.records.schema import RESOURCES, Method, Resource


class Target(NamedTuple):
    """What a request is for; `path_values` holds the uuid when the path has one."""

    resource: Resource
    method: Method
    path_values: dict[str, Any]


class NoSuchPath(Exception):
    """Nothing is at this path."""


class VerbNotAllowed(Exception):
    """The path exists, but not with this verb."""


def _parts(path: str) -> tuple[str, ...]:
    return tuple(path.strip("/").split("/"))


_ROUTES: tuple[tuple[tuple[str, ...], Resource, Method], ...] = tuple(
    (_parts(method.path), resource, method) for resource in RESOURCES.values() for method in resource.methods
)


def find_method(verb: str, path: str) -> Target:
    """Return what a verb and a path below `/arvados/v1/` mean. Raises NoSuchPath, VerbNotAllowed."""
    verb = "PUT" if verb == "PATCH" else verb
    parts = _parts(path)
    if len(parts) == 3 and parts[0] == "groups" and parts[2] == "contents":
        # The older way to write groups/contents?uuid=<uuid>; arv-mount's users and scripts still do.
        return find_method(verb, "groups/contents")._replace(path_values={"uuid": parts[1]})
    found: Target | None = None
    path_exists = False
    for pattern, resource, method in _ROUTES:
        if len(pattern) != len(parts):
            continue
        values: dict[str, Any] = {}
        for wanted, given in zip(pattern, parts, strict=True):
            if wanted == "{uuid}":
                values["uuid"] = given
            elif wanted != given:
                break
        else:
            path_exists = True
            # `users/current` is also of the form `users/{uuid}`: the path without a uuid in it means itself.
            if method.verb == verb and (found is None or not values):
                found = Target(resource, method, values)
    if found is not None:
        return found
    raise VerbNotAllowed if path_exists else NoSuchPath
