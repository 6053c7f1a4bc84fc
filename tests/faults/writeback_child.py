"""A process with a write-back that the tests kill; started by `test_writeback_kill`.

    writeback_child.py DIRECTORY UUID STAGE COUNT
records COUNT files in the collection UUID, tells each on its standard output once it is recorded, and saves.
At STAGE it kills itself as `kill -9` does: `put` (a block is stored, nobody knows yet), `before` and `after`
(the update is sent, or was done and nobody knows yet), `never`. With COUNT 0 it adopts what is there instead.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from arvados_fuse.api import ApiClient, ApiSettings
from arvados_fuse.collection.segments import Segment
from arvados_fuse.keep import BlockCache, RamStore
from arvados_fuse.writeback import Limits, Owner, PathChange, WriteBack


def content(number: int) -> bytes:
    """What is in the file of a number."""
    return b"file %d\n" % number * (number % 50)


def die() -> None:
    """End as if killed from outside."""
    os.kill(os.getpid(), signal.SIGKILL)


class Records:
    """The API client, and a place to die."""

    def __init__(self, api: ApiClient, stage: str) -> None:
        self._api = api
        self._stage = stage

    def get_collection(self, uuid: str, *, select: Sequence[str] | None = None) -> dict[str, Any]:
        return self._api.get_collection(uuid, select=select)

    def create_collection(
        self, body: Mapping[str, Any], *, ensure_unique_name: bool = False
    ) -> dict[str, Any]:
        return self._api.create_collection(body, ensure_unique_name=ensure_unique_name)

    def update_collection(self, uuid: str, body: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        if self._stage == "before":
            die()
        answer = self._api.update_collection(uuid, body, **more)
        if self._stage == "after":
            die()
        return answer


class Blocks:
    """The block cache, and a place to die."""

    def __init__(self, cache: BlockCache, stage: str) -> None:
        self._cache = cache
        self._stage = stage

    def read(self, locator: str, offset: int, size: int) -> bytes | memoryview:
        return self._cache.read(locator, offset, size)

    def put(
        self, data: bytes | memoryview, *, storage_classes: Sequence[str] = (), file: str | None = None
    ) -> str:
        locator = self._cache.put(data, storage_classes=storage_classes, file=file)
        if self._stage == "put":
            die()
        return locator


def main() -> None:
    """See the module."""
    directory, uuid, stage, count = sys.argv[1:]
    settings = ApiSettings.load(os.environ)
    api = ApiClient.connect(settings, retries=1)
    cache = BlockCache(api, RamStore(), ca_file=settings.ca_file)
    cache.start()
    writeback = WriteBack.open(
        Path(directory),
        owner=Owner(api.host, str(api.current_user()["uuid"])),
        records=Records(api, stage),
        blocks=Blocks(cache, stage),
        saved=SimpleQueue(),
        limits=Limits(quiet=0.05, longest=0.2),
    )
    writeback.start()
    if count == "0":
        writeback.adopt()
    for number in range(int(count)):
        state: tuple[Segment, ...] = ()
        if data := content(number):
            spool = writeback.new_spool()
            state = (Segment(spool, spool.append(data), len(data)),)
        writeback.record(uuid, [PathChange(f"d{number % 3}/f{number}", None, state)])
        print(number, flush=True)
    writeback.save(None, deadline=60)
    print("saved", flush=True)
    writeback.close(timeout=10)
    cache.close()
    api.close()


if __name__ == "__main__":
    main()
