"""The settings of one embedded Arvados: its cluster id, its secrets, its limits.

`SiteConfig` is read by `records/` and by the server; the server's set-up makes one with `SiteConfig.new`, and
keeps it as JSON (0600) in the data directory with `save` and `load`. A frozen value; any thread.
"""

import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

_CLUSTER_ID = re.compile(r"[a-z0-9]{5}")
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class SiteConfig:
    """Sizes are bytes, times are seconds. Raises ValueError when a value can't be right."""

    cluster_id: str
    blob_signing_key: str = field(repr=False)
    system_root_token: str = field(repr=False)
    """Accepted as a token of the system user, who may do everything."""

    blob_signature_ttl: int = 14 * 24 * 3600
    """Two weeks, as Arvados has it by default."""
    max_items_per_page: int = 1000
    max_request_size: int = 128 * 1024 * 1024
    default_replication: int = 1
    storage_classes: Mapping[str, bool] = field(default_factory=lambda: {"default": True})
    """Name of a storage class to whether new collections get it when they name none."""
    forward_slash_substitution: str = "/"
    """What `Collections.ForwardSlashNameSubstitution` says; with "" names that hold a `/` are refused."""
    default_trash_lifetime: int = 14 * 24 * 3600
    """Time from the trash to the end."""
    collection_versioning: bool = True
    preserve_version_if_idle: float = 10.0
    """A change keeps the past version when the last change is this long ago; negative: only when asked to."""

    def __post_init__(self) -> None:
        if not _CLUSTER_ID.fullmatch(self.cluster_id):
            raise ValueError(f"a cluster id is five of [a-z0-9], not {self.cluster_id!r}")
        if len(self.blob_signing_key) < 32 or len(self.system_root_token) < 32:
            raise ValueError("the signing key and the root token need at least 32 characters")
        if self.blob_signature_ttl <= 0 or self.max_items_per_page <= 0 or self.default_replication <= 0:
            raise ValueError("the signature lifetime, the page limit and the replication must be positive")
        if not self.default_storage_classes:
            raise ValueError("at least one storage class must be a default")

    @classmethod
    def new(cls, cluster_id: str | None = None) -> "SiteConfig":
        """A site with fresh secrets; without `cluster_id` a random one that starts with `z`."""
        return cls(
            cluster_id=cluster_id or "z" + "".join(secrets.choice(_ALPHABET) for _ in range(4)),
            blob_signing_key=secrets.token_hex(32),
            system_root_token=secrets.token_hex(32),
        )

    @classmethod
    def load(cls, path: Path) -> "SiteConfig":
        """Read what `save` wrote. Raises OSError, or ValueError when the file is not a site's settings."""
        stored = json.loads(path.read_text(encoding="utf-8"))
        known = {item.name for item in fields(cls)}
        if not isinstance(stored, dict) or not stored.keys() <= known:
            raise ValueError(f"{path} does not hold the settings of a site")
        try:
            return cls(**stored)
        except TypeError as error:
            raise ValueError(f"{path} does not hold the settings of a site: {error}") from error

    def save(self, path: Path) -> None:
        """Write to `path` with mode 0600, whole or not at all. Raises OSError."""
        values = asdict(self) | {"storage_classes": dict(self.storage_classes)}
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as stream:
            json.dump(values, stream, indent=2, sort_keys=True)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)

    @property
    def default_storage_classes(self) -> list[str]:
        """Names of the storage classes of a collection that names none."""
        return sorted(name for name, default in self.storage_classes.items() if default)

    @property
    def system_user_uuid(self) -> str:
        return f"{self.cluster_id}-tpzed-000000000000000"

    @property
    def anonymous_user_uuid(self) -> str:
        return f"{self.cluster_id}-tpzed-anonymouspublic"

    @property
    def system_group_uuid(self) -> str:
        return f"{self.cluster_id}-j7d0g-000000000000000"

    @property
    def all_users_group_uuid(self) -> str:
        return f"{self.cluster_id}-j7d0g-fffffffffffffff"

    @property
    def anonymous_group_uuid(self) -> str:
        return f"{self.cluster_id}-j7d0g-anonymouspublic"
