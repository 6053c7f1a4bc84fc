"""What only the cluster knows of the options: whether it takes `--filters` and has the `--storage-classes`.

Used by `build.py`, so that a mistake is told before the mount is there, and not by every `ls` and `mkdir`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from arvados_fuse.api import ApiClient
from arvados_fuse.errors import ArvadosFuseError, RequestRefused, SetupError
from arvados_fuse.options import MountOptions
from arvados_fuse.tree.filters import ListFilters

NOBODY = ["=", "\n"]
"""A name that nothing has: the answer is empty."""


def checked(options: MountOptions, api: ApiClient) -> Mapping[str, Any]:
    """The cluster's configuration, when the options fit it. With `--filters` one or two small questions more.

    Raises SetupError, and what the API answers.
    """
    config = api.config()
    if options.storage_classes and options.read_write:
        _check_storage_classes(options.storage_classes, api.host, config.get("StorageClasses"))
    if options.filters:
        _check_filters(options, api)
    return config


def _check_filters(options: MountOptions, api: ApiClient) -> None:
    kinds = {mount.kind for mount in options.custom} if options.mode == "custom" else {options.mode}
    filters = ListFilters.parse(options.filters)
    try:
        if kinds & {"all", "home", "project", "shared"}:
            owner = options.target if options.mode == "project" else str(api.current_user().get("uuid"))
            both = [
                *([f"groups.{field}", *rest] for field, *rest in filters.groups),
                *([f"collections.{field}", *rest] for field, *rest in filters.collections),
            ]
            api.named_in_project(owner, NOBODY, filters=both, select=["uuid"])
        elif kinds == {"by_tag"}:
            next(api.list_links([["uuid", *NOBODY], *filters.links], select=["uuid"]), None)
    except RequestRefused as error:
        raise SetupError(
            f"{_plain(error)}; correct --filters: attributes and operators are those of the API"
        ) from error


def _check_storage_classes(wanted: Sequence[str], host: str, known: object) -> None:
    if not isinstance(known, Mapping) or not known:
        return
    for name in wanted:
        if name not in known:
            raise SetupError(f"--storage-classes: {host} has no {name!r}; it has {', '.join(sorted(known))}")


def _plain(error: ArvadosFuseError) -> str:
    return str(error).rstrip(". ")
