"""The attributes of every kind of record: one truth for tables, answers, filters and discovery.

`schema` puts them together with the methods; read there how to use them. Constants, any thread. Names and
types are those of the Arvados API (discovery document of release 3).
"""

from dataclasses import dataclass
from typing import Any, Literal

AttributeType = Literal["string", "text", "integer", "float", "boolean", "datetime", "Hash", "Array"]
Setter = Literal["client", "admin", "server", "fixed"]


@dataclass(frozen=True)
class Attribute:
    """One attribute of a kind of record.

    setter: who gives it its value: `client` whoever may write the record; `admin` administrators only;
        `server` what a request says is passed over (clients send whole records back); `fixed` a request that
        differs is refused.
    stored: it is a column of the record's table (else it is worked out for the answer).
    default: its value in a new record, as JSON.
    listed: a list shows it without being asked to.
    """

    name: str
    type: AttributeType
    setter: Setter = "client"
    default: Any = None
    stored: bool = True
    listed: bool = True


def _server(name: str, kind: AttributeType, *, stored: bool = True) -> Attribute:
    return Attribute(name, kind, "server", stored=stored)


_COMMON = (
    _server("etag", "string", stored=False),
    Attribute("uuid", "string", "admin"),
    Attribute("owner_uuid", "string"),
    _server("created_at", "datetime"),
    _server("modified_at", "datetime"),
    _server("modified_by_user_uuid", "string"),
)
_TRASH = (
    Attribute("trash_at", "datetime"),
    Attribute("delete_at", "datetime"),
    _server("is_trashed", "boolean", stored=False),
)
_ACCESS = (_server("can_write", "boolean", stored=False), _server("can_manage", "boolean", stored=False))

COLLECTION = (
    *_COMMON,
    Attribute("name", "string"),
    Attribute("description", "string"),
    Attribute("properties", "Hash", default={}),
    Attribute("portable_data_hash", "string"),
    Attribute("manifest_text", "text", stored=False, listed=False),
    Attribute("unsigned_manifest_text", "text", "server", stored=False, listed=False),
    Attribute("replication_desired", "integer"),
    _server("replication_confirmed", "integer"),
    _server("replication_confirmed_at", "datetime"),
    Attribute("storage_classes_desired", "Array"),
    Attribute("storage_classes_confirmed", "Array", "server", []),
    _server("storage_classes_confirmed_at", "datetime"),
    *_TRASH,
    Attribute("current_version_uuid", "string", "fixed"),
    Attribute("version", "integer", "fixed", 1),
    Attribute("preserve_version", "boolean", default=False),
    Attribute("file_count", "integer", "fixed", 0),
    Attribute("file_size_total", "integer", "fixed", 0),
)
GROUP = (
    *_COMMON,
    Attribute("name", "string"),
    Attribute("description", "string"),
    Attribute("group_class", "string"),
    Attribute("properties", "Hash", default={}),
    *_TRASH,
    _server("frozen_by_uuid", "string"),
    *_ACCESS,
)
LINK = (
    *_COMMON,
    Attribute("link_class", "string"),
    Attribute("name", "string"),
    Attribute("tail_uuid", "string"),
    Attribute("head_uuid", "string"),
    Attribute("properties", "Hash", default={}),
    _server("head_kind", "string", stored=False),
    _server("tail_kind", "string", stored=False),
)
USER = (
    *_COMMON,
    Attribute("email", "string"),
    Attribute("username", "string", "admin"),
    Attribute("first_name", "string"),
    Attribute("last_name", "string"),
    _server("full_name", "string", stored=False),
    Attribute("identity_url", "string", "admin"),
    Attribute("is_active", "boolean", "admin", False),
    Attribute("is_admin", "boolean", "admin", False),
    _server("is_invited", "boolean", stored=False),
    Attribute("prefs", "Hash", default={}),
    *_ACCESS,
)
TOKEN = (
    *_COMMON,
    Attribute("user_uuid", "string", "server"),
    Attribute("api_token", "string", "server", stored=False),
    Attribute("scopes", "Array", default=["all"]),
    Attribute("expires_at", "datetime"),
    _server("created_by_ip_address", "string"),
    _server("last_used_by_ip_address", "string"),
    _server("last_used_at", "datetime"),
)
LOG = (
    _server("id", "integer"),
    *_COMMON,
    Attribute("event_type", "string"),
    Attribute("event_at", "datetime"),
    Attribute("object_uuid", "string"),
    _server("object_owner_uuid", "string"),
    _server("object_kind", "string"),
    Attribute("summary", "text"),
    Attribute("properties", "Hash", default={}),
)
KEEP_SERVICE = (
    *_COMMON,
    Attribute("service_host", "string"),
    Attribute("service_port", "integer"),
    Attribute("service_ssl_flag", "boolean", default=False),
    Attribute("service_type", "string", default="disk"),
    Attribute("read_only", "boolean", default=False),
)


def _described(text: str) -> tuple[Attribute, ...]:
    """Attributes of a kind that is only ever listed, from `name:type` words."""
    words = (word.partition(":") for word in text.split())
    return _COMMON + tuple(Attribute(name, kind or "string") for name, _, kind in words)  # type: ignore[arg-type]


CONTAINER_REQUEST = _described(
    "name description properties:Hash state requesting_container_uuid container_uuid"
    " container_count_max:integer mounts:Hash runtime_constraints:Hash container_image environment:Hash cwd"
    " command:Array output_path priority:integer expires_at:datetime filters:text container_count:integer"
    " use_existing:boolean scheduling_parameters:Hash output_uuid log_uuid output_name output_ttl:integer"
    " output_storage_classes:Array output_properties:Hash cumulative_cost:float output_glob:Array"
    " service:boolean published_ports:Hash"
)
CONTAINER = _described(
    "state started_at:datetime finished_at:datetime log environment:Hash cwd command:Array output_path"
    " mounts:Hash runtime_constraints:Hash output container_image progress:float priority:integer"
    " exit_code:integer auth_uuid locked_by_uuid scheduling_parameters:Hash runtime_status:Hash"
    " runtime_user_uuid runtime_auth_scopes:Array lock_count:integer gateway_address"
    " interactive_session_started:boolean output_storage_classes:Array output_properties:Hash cost:float"
    " subrequests_cost:float output_glob:Array service:boolean published_ports:Hash"
)
WORKFLOW = _described("name description definition:text collection_uuid")
AUTHORIZED_KEY = _described("name key_type authorized_user_uuid public_key:text expires_at:datetime")
CREDENTIAL = _described("name description credential_class scopes:Array external_id expires_at:datetime")
VIRTUAL_MACHINE = _described("hostname")
USER_AGREEMENT = COLLECTION
