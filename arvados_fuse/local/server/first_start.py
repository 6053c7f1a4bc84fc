"""What a start of the server brings into being: cluster id and keys, Keep service records, the first user.

Used by `process` before anything is served. Everything here can be cut off at any point and done again.
"""

import getpass
import re
import secrets
from dataclasses import replace

from arvados_fuse.errors import SetupError
from arvados_fuse.local.datadir import DataDirectory, KeepSettings, ServerSettings
from arvados_fuse.local.records import Records
from arvados_fuse.local.records.apierror import ApiError
from arvados_fuse.local.site import SiteConfig

DEFAULT_KEEP_SERVICES = 2
"""The stock SDK's `KeepClient.put` wants two copies, each from another service, unless told otherwise."""


def load_site(data: DataDirectory, signature_ttl: int | None) -> SiteConfig:
    """Return the cluster's id, keys and limits; made on the first start. Raises SetupError, OSError."""
    if data.site.exists():
        try:
            site = SiteConfig.load(data.site)
        except ValueError as error:
            raise SetupError(f"{data.site} can't be read: {error}") from None
    else:
        site = SiteConfig.new()
    if signature_ttl is not None:
        site = replace(site, blob_signature_ttl=signature_ttl)
    site.save(data.site)
    return site


def load_settings(
    data: DataDirectory, site: SiteConfig, port: int | None, keep_services: int | None
) -> ServerSettings:
    """Return the settings of the last start, with what is asked for now. Raises SetupError."""
    settings = data.load_settings()
    count = keep_services or len(settings.keep) or DEFAULT_KEEP_SERVICES
    if count < len(settings.keep):
        raise SetupError(
            f"{data.path} has {len(settings.keep)} Keep services; "
            f"with {count} some of its blocks could not be read"
        )
    new = tuple(KeepSettings(_keep_uuid(site)) for _ in range(count - len(settings.keep)))
    port = settings.port if port is None else port
    return replace(settings, port=port, keep=settings.keep + new)


def _keep_uuid(site: SiteConfig) -> str:
    alphabet = "0123456789abcdefghijklmnopqrstuvwxyz"
    return f"{site.cluster_id}-bi6l4-" + "".join(secrets.choice(alphabet) for _ in range(15))


def is_valid(records: Records, token: str) -> bool:
    """Return whether a token is good for API calls."""
    try:
        records.authenticate(token)
    except ApiError:
        return False
    return True


def register_keep_services(
    records: Records, site: SiteConfig, address: str, settings: ServerSettings
) -> None:
    """Make the `keep_services` records say what is served now."""
    root = site.system_root_token
    listed = records.call(root, "keep_services", "list", {"limit": 1000})["items"]
    known = {each["uuid"]: each for each in listed}
    for each in settings.keep:
        told = {
            "service_host": address,
            "service_port": each.port,
            "service_ssl_flag": False,
            "service_type": "disk",
            "read_only": each.read_only,
        }
        record = known.get(each.uuid)
        if record is None:
            attributes = {"uuid": each.uuid, **told}
            records.call(root, "keep_services", "create", {"keep_service": attributes})
        elif any(record[name] != value for name, value in told.items()):
            records.call(root, "keep_services", "update", {"uuid": each.uuid, "keep_service": told})


def ensure_user(data: DataDirectory, records: Records, site: SiteConfig) -> None:
    """Make the first user and a token for it, once."""
    token = data.load_user_token()
    if token and is_valid(records, token):
        return
    root = site.system_root_token
    name = _username()
    found = records.call(root, "users", "list", {"filters": [["username", "=", name]], "limit": 1})["items"]
    if found:
        user = found[0]
    else:
        attributes = {
            "username": name,
            "email": f"{name}@localhost",
            "first_name": name.capitalize(),
            "last_name": "Local",
            "is_active": True,
        }
        user = records.call(root, "users", "create", {"user": attributes})
    data.save_user_token(records.create_token(user["uuid"]))


def _username() -> str:
    try:
        login = getpass.getuser()
    except (KeyError, OSError):
        # In containers the user often has a number and no name.
        login = ""
    name = re.sub(r"[^a-z0-9]", "", login.lower()).lstrip("0123456789")
    return name if name not in ("", "root") else "user"
