"""A site with users, for tests of the embedded Arvados's records; the stock SDK as oracle for manifests."""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import arvados.collection
import pytest

from arvados_fuse.local.records import ApiError, Records
from arvados_fuse.local.site import SiteConfig


class Person:
    """Somebody with a token."""

    def __init__(self, records: Records, token: str, uuid: str) -> None:
        self.records = records
        self.token = token
        self.uuid = uuid

    def call(self, resource: str, method: str, **params: Any) -> Any:
        return self.records.call(self.token, resource, method, params)

    def refused(self, status: int, resource: str, method: str, **params: Any) -> str:
        """The words with which a call is refused."""
        with pytest.raises(ApiError) as caught:
            self.call(resource, method, **params)
        assert caught.value.status == status, caught.value.errors
        assert caught.value.errors
        assert all(self.token not in text for text in caught.value.errors)
        return caught.value.errors[0]

    def block(self, data: bytes, expiry: int | None = None) -> str:
        """A locator of `data`, signed for this person."""
        return self.records.signer.sign(bare(data), self.token, expiry)

    def collection(self, name: str | None = None, files: dict[str, bytes] | None = None, **more: Any) -> Any:
        """A new collection with `files` in its root directory."""
        body = {"name": name, "manifest_text": self.manifest(files or {}), **more}
        return self.call("collections", "create", collection=body)

    def manifest(self, files: dict[str, bytes]) -> str:
        """A signed manifest, one block for each file."""
        lines = []
        for path, data in files.items():
            directory, _, name = path.rpartition("/")
            stream = f"./{directory}" if directory else "."
            lines.append(f"{stream} {self.block(data)} 0:{len(data)}:{name}\n")
        return "".join(lines)

    def project(self, name: str, **more: Any) -> Any:
        body = {"name": name, "group_class": "project", **more}
        return self.call("groups", "create", group=body)

    def share(self, name: str, head: str, tail: str) -> Any:
        body = {"link_class": "permission", "name": name, "head_uuid": head, "tail_uuid": tail}
        return self.call("links", "create", link=body)

    def names(self, resource: str, **params: Any) -> list[Any]:
        """The names in a list, in its order."""
        return [item["name"] for item in self.call(resource, "list", **params)["items"]]


class World:
    """The records of a fresh site; `root` is the system user."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        new = SiteConfig.new("ztest")
        self.site = SiteConfig(
            new.cluster_id,
            new.blob_signing_key,
            new.system_root_token,
            **{"preserve_version_if_idle": -1} | settings,
        )
        self.path = directory / "records.sqlite"
        self.records = Records.open(self.path, self.site)
        self.root = Person(self.records, self.site.system_root_token, self.site.system_user_uuid)

    def person(self, name: str, **more: Any) -> Person:
        body = {"email": f"{name}@example.com", "first_name": name.title(), "is_active": True, **more}
        user = self.root.call("users", "create", user=body)
        return Person(self.records, self.records.create_token(user["uuid"]), user["uuid"])

    def close(self) -> None:
        self.records.close()


def bare(data: bytes) -> str:
    """The locator of `data` without hints."""
    return f"{hashlib.md5(data).hexdigest()}+{len(data)}"


def stripped(manifest: str) -> str:
    """A manifest without hints, by simple means."""
    lines = []
    for line in manifest.splitlines(keepends=True):
        words = [word.split("+A")[0] if word[32:33] == "+" else word for word in line.split(" ")]
        lines.append(" ".join(words))
    return "".join(lines)


def sdk_collection(manifest: str) -> Any:
    """The SDK's collection of this manifest. It needs no server: no data is read or written."""
    api = SimpleNamespace(_rootDesc={"defaultCollectionReplication": 1})
    keep = SimpleNamespace(num_prefetch_threads=1)
    return arvados.collection.Collection(manifest, api_client=api, keep_client=keep)
