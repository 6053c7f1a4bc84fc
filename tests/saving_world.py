"""What the tests of write-back need: changes made by hand, and collections as the server has them."""

import queue
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servers import LocalServer
from worlds import environment

from arvados_fuse.api import ApiClient, ApiSettings
from arvados_fuse.collection import Collection, File
from arvados_fuse.collection.paths import PathApi
from arvados_fuse.collection.segments import Segment
from arvados_fuse.keep import BlockCache, RamStore, Timeouts
from arvados_fuse.writeback import (
    DIRECTORY,
    Limits,
    Owner,
    PathChange,
    Saved,
    State,
    WriteBack,
)

BRISK = Limits(quiet=0.1, longest=0.5, first_pause=0.1, longest_pause=0.5, longest_outage_pause=0.5)
"""The same rules in less time."""

Tree = dict[str, bytes | None]
"""Paths and what is in the files; None for an empty directory."""


class Site:
    """Our own clients of one server, as one user."""

    def __init__(
        self, server: LocalServer, token: str, *, retries: int = 2, deadline: float = 10.0, **settings: Any
    ) -> None:
        self.server = server
        self.token = token
        loaded = ApiSettings.load(environment(server, token))
        self.api = ApiClient.connect(
            ApiSettings(**{**vars(loaded), "deadline": deadline, **settings}), retries=retries
        )
        self.blocks = BlockCache(
            self.api,
            RamStore(),
            ca_file=str(server.settings.ca_file),
            retries=retries,
            timeouts=Timeouts(connect=2.0, progress=2.0, overall=8.0),
        )
        self.blocks.start()
        self.owner = Owner(self.api.host, str(self.api.current_user()["uuid"]))

    def close(self) -> None:
        """End all connections."""
        self.blocks.close()
        self.api.close()

    def collection(self, files: Mapping[str, bytes] | None = None, **fields: Any) -> str:
        """A new collection; its uuid."""
        made = Collection.from_manifest("", blocks=self.blocks)
        for path, data in (files or {}).items():
            with made.open(path, "wb") as file:
                file.write(data)
        record = self.api.create_collection(
            {"name": None, "manifest_text": made.manifest_text(), **fields}, ensure_unique_name=True
        )
        return str(record["uuid"])

    def tree(self, uuid: str) -> Tree:
        """What the server has, read anew, with times in conflict names left out."""
        return tree_of(Collection.from_record(self.api.get_collection(uuid), blocks=self.blocks))

    def state(self, uuid: str, path: str) -> State:
        """What the server has at a path."""
        at = Collection.from_record(self.api.get_collection(uuid), blocks=self.blocks).find(path)
        return at.content().snapshot()[0] if isinstance(at, File) else None

    def updates(self, uuid: str) -> int:
        """How often the server changed a collection, as its log says."""
        filters = [["object_uuid", "=", uuid], ["event_type", "=", "update"]]
        return len(self.api.logs_after(0, filters=filters))

    def blocks_of(self, uuid: str) -> set[str]:
        """The blocks of a collection."""
        text = str(self.api.get_collection(uuid)["manifest_text"])
        return set(re.findall(r" ([0-9a-f]{32}\+[0-9]+)", text))


def tree_of(found: Any) -> Tree:
    """All files and empty directories of a collection."""
    result: Tree = {}
    pending = [("", found)]
    while pending:
        path, directory = pending.pop()
        for name, item in directory.items():
            way = re.sub(r"~\d{8}-\d{6}~conflict~", "~conflict~", f"{path}{name}")
            if isinstance(item, PathApi):
                if len(item):
                    pending.append((f"{way}/", item))
                else:
                    result[way] = None
            else:
                result[way] = bytes(item.read(0, item.size()))
    return result


class Mount:
    """A write-back as a mount has it, driven by hand."""

    def __init__(self, site: Site, directory: Path, *, start: bool = True, **options: Any) -> None:
        self.site = site
        self.saved: queue.SimpleQueue[Saved] = queue.SimpleQueue()
        self.writeback = WriteBack.open(
            directory,
            **{
                "owner": site.owner,
                "records": site.api,
                "blocks": site.blocks,
                "saved": self.saved,
                "limits": BRISK,
                **options,
            },
        )
        if start:
            self.writeback.start()

    def spooled(self, data: bytes) -> State:
        """A file's state with unsaved bytes."""
        if not data:
            return ()
        spool = self.writeback.new_spool()
        return (Segment(spool, spool.append(data), len(data)),)

    def state(self, data: bytes | None) -> State:
        """Of `Tree`."""
        return DIRECTORY if data is None else self.spooled(data)

    def write(self, uuid: str, path: str, data: bytes, before: State = None) -> None:
        """A file is written and closed."""
        self.writeback.record(uuid, [PathChange(path, before, self.spooled(data))])

    def write_all(self, uuid: str, files: Mapping[str, bytes]) -> None:
        """The same for new files, one by one."""
        for path, data in files.items():
            self.write(uuid, path, data)

    def save(self, uuid: str | None = None, deadline: float = 30.0) -> None:
        """As fsync does."""
        self.writeback.save(uuid, deadline=deadline)

    def close(self, timeout: float = 20.0) -> Any:
        """As unmount does."""
        return self.writeback.close(timeout=timeout)
