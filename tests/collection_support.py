"""A block store in memory, and a tree as a plain dictionary."""

import hashlib
from collections.abc import Sequence
from threading import Lock

from arvados_fuse.collection import Collection, Directory

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

    def put(self, data: bytes | memoryview, *, storage_classes: Sequence[str] = ()) -> str:
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
