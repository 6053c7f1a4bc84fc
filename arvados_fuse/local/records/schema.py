"""What the API offers: every resource with its attributes and methods, as one declarative table.

`RESOURCES` (name to `Resource`) is the one truth: the tables in SQLite, the checks of arguments, the answers
and the server's discovery document come from it. A discovery document is made of: for each resource its
`methods` (HTTP verb, path, parameters, whether it takes a body under the resource's `singular`) and its
`schema` (`attributes`). Constants, any thread.
"""

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from arvados_fuse.local.records import attributes as a
from arvados_fuse.local.records.apierror import not_found
from arvados_fuse.local.records.attributes import Attribute

ParameterType = Literal["string", "integer", "boolean", "Array", "Hash"]
Verb = Literal["GET", "POST", "PUT", "DELETE"]


@dataclass(frozen=True)
class Parameter:
    """One argument of a method. location: `path` or `query` (a body's fields count as query)."""

    name: str
    type: ParameterType
    required: bool = False
    default: Any = None
    location: Literal["path", "query"] = "query"


@dataclass(frozen=True)
class Method:
    """path: below `/arvados/v1/`, with `{uuid}` for the record. body: it takes `{singular: {attributes}}`.

    writes: it can change records. answer: what comes back, a `record` or a `list`.
    """

    name: str
    verb: Verb
    path: str
    parameters: tuple[Parameter, ...] = ()
    body: bool = False
    writes: bool = False
    answer: Literal["record", "list"] = "record"


@dataclass(frozen=True)
class Resource:
    """name: as in paths (`keep_services`). schema: the record type (`KeepService`). kind: letters in uuids.

    served: records of it can exist here; else it is only there so that clients get an empty list.
    """

    name: str
    singular: str
    schema: str
    kind: str
    attributes: tuple[Attribute, ...]
    methods: tuple[Method, ...] = ()
    served: bool = True
    by_name: "MappingProxyType[str, Attribute]" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", MappingProxyType({item.name: item for item in self.attributes}))

    @property
    def record_kind(self) -> str:
        """The `kind` of one record, as `arvados#keepService`."""
        return f"arvados#{self.schema[0].lower()}{self.schema[1:]}"

    @property
    def stored(self) -> tuple[Attribute, ...]:
        """The attributes that are columns."""
        return tuple(item for item in self.attributes if item.stored)

    def method(self, name: str) -> Method:
        """The method called `name`. Raises ApiError 404."""
        for method in self.methods:
            if method.name == name:
                return method
        raise not_found(f"{self.name} has no method {name[:80]!r}")


UUID = Parameter("uuid", "string", required=True, location="path")
SELECT = Parameter("select", "Array")
INCLUDE_TRASH = Parameter("include_trash", "boolean", default=False)
OLD_VERSIONS = Parameter("include_old_versions", "boolean", default=False)
UNIQUE_NAME = Parameter("ensure_unique_name", "boolean", default=False)
CLUSTER = Parameter("cluster_id", "string")
LIST_PARAMETERS = (
    Parameter("filters", "Array"),
    Parameter("where", "Hash"),
    Parameter("order", "Array"),
    SELECT,
    Parameter("distinct", "boolean", default=False),
    Parameter("limit", "integer", default=100),
    Parameter("offset", "integer", default=0),
    Parameter("count", "string", default="exact"),
    CLUSTER,
    Parameter("bypass_federation", "boolean", default=False),
)
REPLACE = (Parameter("replace_files", "Hash"), Parameter("replace_segments", "Hash"))


def _list(name: str, *more: Parameter) -> Method:
    return Method("list", "GET", name, LIST_PARAMETERS + more, answer="list")


def _get(name: str, *more: Parameter) -> Method:
    return Method("get", "GET", f"{name}/{{uuid}}", (UUID, SELECT, *more))


def _create(name: str, *more: Parameter) -> Method:
    return Method("create", "POST", name, (SELECT, UNIQUE_NAME, CLUSTER, *more), body=True, writes=True)


def _update(name: str, *more: Parameter) -> Method:
    return Method("update", "PUT", f"{name}/{{uuid}}", (UUID, SELECT, *more), body=True, writes=True)


def _delete(name: str) -> Method:
    return Method("delete", "DELETE", f"{name}/{{uuid}}", (UUID,), writes=True)


def _act(name: str, action: str, *more: Parameter) -> Method:
    return Method(action, "POST", f"{name}/{{uuid}}/{action}", (UUID, SELECT, *more), writes=True)


def _unserved(name: str, singular: str, schema: str, kind: str, items: tuple[Attribute, ...]) -> Resource:
    trash = (INCLUDE_TRASH,) if name == "container_requests" else ()
    methods = (_list(name, *trash), _get(name, *trash), _create(name), _update(name), _delete(name))
    return Resource(name, singular, schema, kind, items, methods, served=False)


COLLECTIONS = Resource(
    "collections",
    "collection",
    "Collection",
    "4zz18",
    a.COLLECTION,
    (
        _list("collections", INCLUDE_TRASH, OLD_VERSIONS),
        _get("collections", INCLUDE_TRASH),
        _create("collections", *REPLACE),
        _update("collections", *REPLACE),
        _delete("collections"),
        _act("collections", "trash"),
        _act("collections", "untrash", UNIQUE_NAME),
    ),
)
GROUPS = Resource(
    "groups",
    "group",
    "Group",
    "j7d0g",
    a.GROUP,
    (
        Method(
            "contents",
            "GET",
            "groups/contents",
            (
                *LIST_PARAMETERS,
                INCLUDE_TRASH,
                Parameter("uuid", "string", default=""),
                Parameter("recursive", "boolean", default=False),
                Parameter("include", "Array"),
                OLD_VERSIONS,
                Parameter("exclude_home_project", "boolean", default=False),
            ),
            answer="list",
        ),
        Method(
            "shared",
            "GET",
            "groups/shared",
            (*LIST_PARAMETERS, INCLUDE_TRASH, Parameter("include", "string")),
            answer="list",
        ),
        _list("groups", INCLUDE_TRASH),
        _get("groups", INCLUDE_TRASH),
        _create("groups", Parameter("async", "boolean", default=False)),
        _update("groups", Parameter("async", "boolean", default=False)),
        _delete("groups"),
        _act("groups", "trash"),
        _act("groups", "untrash", UNIQUE_NAME),
    ),
)
LINKS = Resource(
    "links",
    "link",
    "Link",
    "o0j2j",
    a.LINK,
    (
        _list("links"),
        _get("links"),
        _create("links"),
        _update("links"),
        _delete("links"),
        Method("get_permissions", "GET", "permissions/{uuid}", (UUID,), answer="list"),
    ),
)
USERS = Resource(
    "users",
    "user",
    "User",
    "tpzed",
    a.USER,
    (
        Method("current", "GET", "users/current"),
        Method("system", "GET", "users/system"),
        _list("users"),
        _get("users"),
        _create("users"),
        _update("users", Parameter("bypass_federation", "boolean", default=False)),
        _delete("users"),
        _act("users", "activate"),
    ),
)
TOKENS = Resource(
    "api_client_authorizations",
    "api_client_authorization",
    "ApiClientAuthorization",
    "gj3su",
    a.TOKEN,
    (
        Method("current", "GET", "api_client_authorizations/current"),
        _list("api_client_authorizations"),
        _get("api_client_authorizations"),
        _create("api_client_authorizations"),
        _update("api_client_authorizations"),
        _delete("api_client_authorizations"),
        Method(
            "create_system_auth",
            "POST",
            "api_client_authorizations/create_system_auth",
            (Parameter("scopes", "Array", default=["all"]),),
            writes=True,
        ),
    ),
)
LOGS = Resource("logs", "log", "Log", "57u5n", a.LOG, (_list("logs"), _get("logs"), _create("logs")))
KEEP_SERVICES = Resource(
    "keep_services",
    "keep_service",
    "KeepService",
    "bi6l4",
    a.KEEP_SERVICE,
    (
        Method("accessible", "GET", "keep_services/accessible", answer="list"),
        _list("keep_services"),
        _get("keep_services"),
        _create("keep_services"),
        _update("keep_services"),
        _delete("keep_services"),
    ),
)
_UNSERVED = (
    _unserved("container_requests", "container_request", "ContainerRequest", "xvhdp", a.CONTAINER_REQUEST),
    _unserved("containers", "container", "Container", "dz642", a.CONTAINER),
    _unserved("workflows", "workflow", "Workflow", "7fd4e", a.WORKFLOW),
    _unserved("authorized_keys", "authorized_key", "AuthorizedKey", "fngyi", a.AUTHORIZED_KEY),
    _unserved("credentials", "credential", "Credential", "oss07", a.CREDENTIAL),
    _unserved("virtual_machines", "virtual_machine", "VirtualMachine", "2x53u", a.VIRTUAL_MACHINE),
    _unserved("user_agreements", "user_agreement", "UserAgreement", "gv0sa", a.USER_AGREEMENT),
)

RESOURCES: MappingProxyType[str, Resource] = MappingProxyType(
    {item.name: item for item in (COLLECTIONS, GROUPS, LINKS, USERS, TOKENS, LOGS, KEEP_SERVICES, *_UNSERVED)}
)
BY_KIND: MappingProxyType[str, Resource] = MappingProxyType({item.kind: item for item in RESOURCES.values()})
BY_RECORD_KIND: MappingProxyType[str, Resource] = MappingProxyType(
    {item.record_kind: item for item in RESOURCES.values()}
)


def resource(name: str) -> Resource:
    """The resource called `name`. Raises ApiError 404."""
    found = RESOURCES.get(name)
    if found is None:
        raise not_found(f"there is no resource {name[:80]!r}")
    return found
