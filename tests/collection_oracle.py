"""The SDK's collection as an oracle, without a server: its Keep is a dictionary."""

import hashlib
from typing import Any

import arvados.arvfile
import arvados.collection


class DictKeep:
    """What the SDK's block manager calls of a Keep client."""

    num_prefetch_threads = 0

    def __init__(self, blocks: dict[str, bytes] | None = None) -> None:
        self.blocks = {} if blocks is None else blocks

    def put(self, data: bytes, **_: Any) -> str:
        block = bytes(data)
        locator = f"{hashlib.md5(block).hexdigest()}+{len(block)}"
        self.blocks[locator] = block
        return locator

    def get(self, locator: str, **_: Any) -> bytes:
        return self.blocks["+".join(locator.split("+")[:2])]

    get_from_cache = get

    def block_prefetch(self, *_: Any, **__: Any) -> None:
        """Nothing to be gained."""


class NoApi:
    """No server is asked for anything."""

    _rootDesc: dict[str, Any] = {"defaultCollectionReplication": 1, "uuidPrefix": "zzzzz"}  # noqa: RUF012


def sdk_collection(text: str = "", keep: DictKeep | None = None) -> Any:
    """The SDK's collection of a manifest."""
    return arvados.collection.Collection(
        text or None, api_client=NoApi(), keep_client=keep or DictKeep(), apiconfig={"none": "set"}
    )


def sdk_sizes(collection: Any) -> dict[str, int | None]:
    """{path: size, or None for a directory}"""
    found: dict[str, int | None] = {}
    pending = [("", collection)]
    while pending:
        prefix, directory = pending.pop()
        for name, entry in directory.items():
            if isinstance(entry, arvados.arvfile.ArvadosFile):
                found[prefix + name] = entry.size()
            else:
                found[prefix + name] = None
                pending.append((prefix + name + "/", entry))
    return found


def sdk_tree(collection: Any) -> dict[str, bytes | None]:
    """{path: content, or None for a directory}"""
    return {
        path: None if size is None else collection.find(path).readfrom(0, size, 0, exact=True)
        for path, size in sdk_sizes(collection).items()
    }
