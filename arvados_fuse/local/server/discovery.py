"""The two documents by which clients learn about the cluster: the discovery document and the exported
configuration.

Used by `api`; made once at start. Pure functions. The discovery document has the form of Google's API
discovery (google-api-python-client builds its methods from it) plus the fields that Arvados adds; the
configuration is the part that a cluster shows to everybody at `/arvados/v1/config`.
"""

import json
from typing import Any

from arvados_fuse.local.records.schema import RESOURCES, Method, Parameter, Resource
from arvados_fuse.local.site import SiteConfig
from arvados_fuse.version import __version__

REVISION = "20250402"
"""API revision of Arvados 3.1 and 3.2, the one whose methods `records.schema` lists."""


def discovery_document(site: SiteConfig, host: str) -> dict[str, Any]:
    """Return the document of `/discovery/v1/apis/arvados/v1/rest`; `host` is the API server's `name:port`."""
    root = f"https://{host}/"
    return {
        "kind": "discovery#restDescription",
        "discoveryVersion": "v1",
        "id": "arvados:v1",
        "name": "arvados",
        "version": "v1",
        "revision": REVISION,
        "source_version": f"arvados_fuse-{__version__}",
        "sourceVersion": f"arvados_fuse-{__version__}",
        "packageVersion": __version__,
        "title": "Arvados API",
        "description": "The API of the embedded single-node Arvados of arvados_fuse.",
        "documentationLink": "https://doc.arvados.org/api/index.html",
        "protocol": "rest",
        "rootUrl": root,
        "baseUrl": f"{root}arvados/v1/",
        "basePath": "/arvados/v1/",
        "servicePath": "arvados/v1/",
        "batchPath": "batch",
        "websocketUrl": f"wss://{host}/websocket",
        "uuidPrefix": site.cluster_id,
        "defaultCollectionReplication": site.default_replication,
        "defaultTrashLifetime": site.default_trash_lifetime,
        "blobSignatureTtl": site.blob_signature_ttl,
        "maxRequestSize": site.max_request_size,
        "maxItemsPerResponse": site.max_items_per_page,
        "dockerImageFormats": ["v2"],
        "remoteHosts": {},
        "remoteHostsViaDNS": False,
        "parameters": _common_parameters(),
        "auth": {"oauth2": {"scopes": _scopes(root)}},
        "schemas": {name: schema for each in RESOURCES.values() for name, schema in _schemas(each).items()},
        "resources": {each.name: {"methods": _methods(each)} for each in RESOURCES.values()}
        | _site_resources(),
    }


def exported_config(site: SiteConfig, host: str) -> dict[str, Any]:
    """Return the configuration of `/arvados/v1/config`; durations in the notation of Go (`1209600s`)."""
    return {
        "ClusterID": site.cluster_id,
        "API": {
            "MaxItemsPerResponse": site.max_items_per_page,
            "MaxRequestSize": site.max_request_size,
            "RequestTimeout": "5m0s",
        },
        "Collections": {
            "BlobSigning": True,
            "BlobSigningTTL": f"{site.blob_signature_ttl}s",
            "CollectionVersioning": site.collection_versioning,
            "DefaultReplication": site.default_replication,
            "DefaultTrashLifetime": f"{site.default_trash_lifetime}s",
            "ForwardSlashNameSubstitution": site.forward_slash_substitution,
            "ManagedProperties": {},
            "PreserveVersionIfIdle": f"{site.preserve_version_if_idle:g}s",
        },
        "RemoteClusters": {},
        "Services": {
            "Controller": {"ExternalURL": f"https://{host}/"},
            "Websocket": {"ExternalURL": f"wss://{host}/websocket"},
        },
        "StorageClasses": {
            name: {"Default": default, "Priority": 0} for name, default in site.storage_classes.items()
        },
        "Users": {"AnonymousUserToken": ""},
    }


def _common_parameters() -> dict[str, Any]:
    return {
        "alt": {"type": "string", "default": "json", "enum": ["json"], "location": "query"},
        "fields": {"type": "string", "location": "query"},
        "key": {"type": "string", "location": "query"},
        "oauth_token": {"type": "string", "location": "query"},
    }


def _scopes(root: str) -> dict[str, Any]:
    return {
        f"{root}auth/arvados": {"description": "View and manage objects"},
        f"{root}auth/arvados.readonly": {"description": "View objects"},
    }


def _schemas(resource: Resource) -> dict[str, Any]:
    listing = f"{resource.schema}List"
    return {
        resource.schema: {
            "id": resource.schema,
            "description": resource.schema,
            "type": "object",
            "uuidPrefix": resource.kind,
            "properties": {each.name: {"type": each.type} for each in resource.attributes},
        },
        listing: {
            "id": listing,
            "description": f"A list of {resource.name}",
            "type": "object",
            "properties": {
                "kind": {"type": "string"},
                "etag": {"type": "string"},
                "items": {"type": "array", "items": {"$ref": resource.schema}},
                "items_available": {"type": "integer"},
                "offset": {"type": "integer"},
                "limit": {"type": "integer"},
            },
        },
    }


def _methods(resource: Resource) -> dict[str, Any]:
    return {method.name: _method(resource, method) for method in resource.methods}


def _method(resource: Resource, method: Method) -> dict[str, Any]:
    response = f"{resource.schema}List" if method.name == "list" else resource.schema
    description: dict[str, Any] = {
        "id": f"arvados.{resource.name}.{method.name}",
        "path": method.path,
        "httpMethod": method.verb,
        "description": f"{method.name} {resource.name}",
        "parameters": {each.name: _parameter(each) for each in method.parameters},
        "response": {"$ref": response},
        "scopes": [],
    }
    if method.body:
        description["request"] = {
            "required": True,
            "properties": {resource.singular: {"$ref": resource.schema}},
        }
    return description


def _parameter(parameter: Parameter) -> dict[str, Any]:
    text: dict[str, Any] = {
        # The stock SDK sends the types `array` and `object` as JSON, and knows no `Array` and `Hash`.
        "type": {"Array": "array", "Hash": "object"}.get(parameter.type, parameter.type),
        "required": parameter.required,
        "location": parameter.location,
        "description": "",
    }
    if parameter.default is not None:
        default = parameter.default
        text["default"] = default if isinstance(default, str) else json.dumps(default)
    return text


def _site_resources() -> dict[str, Any]:
    def get(name: str, path: str) -> dict[str, Any]:
        method = {
            "id": f"arvados.{name}.get",
            "path": path,
            "httpMethod": "GET",
            "description": f"The cluster's {path}",
            "parameters": {},
            "parameterOrder": [],
            # Without this key google-api-python-client gives the answer as bytes.
            "response": {},
            "scopes": [],
        }
        return {"methods": {"get": method}}

    return {"configs": get("configs", "config"), "vocabularies": get("vocabularies", "vocabulary")}
