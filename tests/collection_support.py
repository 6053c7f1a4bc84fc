"""A block store in memory, and a tree as a plain dictionary."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

from arvados_fuse.collection import Collection, Directory, portable_data_hash

FOO = "acbd18db4cc2f85cedef654fccc4a4d8+3"
BAR = "37b51d194a7513e45b56f6524f2d51f2+3"
EMPTY = "d41d8cd98f00b204e9800998ecf8427e+0"
SIGNED = "+A" + "0" * 40 + "@77777777"
ZEROS = bytes(2**26)


class Blocks:
    """Blocks by hash and size. Remembers what was read and stored."""

    def __init__(self) -> None:
        self.data = {FOO: b"foo", BAR: b"bar", EMPTY: b""}
        self.reads: list[tuple[str, int, int]] = []
        self.stored: list[bytes] = []
        self._lock = Lock()

    def read(self, locator: str, offset: int, size: int) -> memoryview:
        self.reads.append((locator, offset, size))
        block = self.data["+".join(locator.split("+")[:2])]
        assert offset >= 0
        assert offset + size <= len(block)
        return memoryview(block)[offset : offset + size]

    def put(
        self, data: bytes | memoryview, *, storage_classes: Sequence[str] = (), file: str | None = None
    ) -> str:
        block = bytes(data)
        assert 0 < len(block) <= 2**26
        if len(block) == len(ZEROS):
            assert block == ZEROS, "no test stores another block of this size"
            return "7f614da9329cd3aebf59b91aadc30bf0+67108864" + SIGNED
        locator = f"{hashlib.md5(block).hexdigest()}+{len(block)}"
        with self._lock:
            self.data[locator] = block
            self.stored.append(block)
        return f"{locator}{SIGNED}"


class Records:
    """Collection records in memory, signed on their way out as an API server does."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, Any]] = []
        self._signature = 0x70000000

    def resign(self) -> None:
        """Answers have other signatures from now on."""
        self._signature += 1

    def _signed(self, record: dict[str, Any]) -> dict[str, Any]:
        signature = f"+A{'0' * 40}@{self._signature:08x}"
        text = re.sub(r"(?<= )([0-9a-f]{32}\+[0-9]+)\S*", rf"\1{signature}", record["manifest_text"])
        return {**record, "manifest_text": text}

    def get_collection(self, uuid_or_pdh: str, *, select: Sequence[str] | None = None) -> dict[str, Any]:
        self.requests.append(("get", uuid_or_pdh))
        return self._signed(self.records[uuid_or_pdh])

    def create_collection(
        self, body: Mapping[str, Any], *, ensure_unique_name: bool = False
    ) -> dict[str, Any]:
        self.requests.append(("create", dict(body)))
        uuid = f"zzzzz-4zz18-{len(self.records):015d}"
        self.records[uuid] = {"uuid": uuid, "name": "", "properties": {}}
        return self._set(uuid, body)

    def update_collection(
        self, uuid: str, body: Mapping[str, Any], *, replace_files: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        assert replace_files is None
        self.requests.append(("update", dict(body)))
        return self._set(uuid, body)

    def _set(self, uuid: str, body: Mapping[str, Any]) -> dict[str, Any]:
        record = self.records[uuid]
        record.update(body)
        record["portable_data_hash"] = portable_data_hash(record["manifest_text"])
        return self._signed(record)


def tree(collection: Collection) -> dict[str, bytes | None]:
    """{path: content, or None for a directory}"""
    found: dict[str, bytes | None] = {}
    pending = [("", collection.root)]
    while pending:
        prefix, directory = pending.pop()
        for name, entry in directory.entries():
            if isinstance(entry, Directory):
                found[prefix + name] = None
                pending.append((prefix + name + "/", entry))
            else:
                content = bytes(entry.read(0, entry.size()))
                assert len(content) == entry.size()
                found[prefix + name] = content
    return found
