"""`BlockCache`: the blocks of Keep, read through a cache on disk or in memory, and written.

Used by the collection and write-back floors through their small protocols, and by the tree for read handles.
Threads: every method may be called from any thread.
"""

import hashlib
import http.client
import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from arvados_fuse.errors import BlockNotFound, InvalidArgument, SignatureRefused, Unreachable
from arvados_fuse.keep.connections import ConnectionPool
from arvados_fuse.keep.locator import Locator
from arvados_fuse.keep.services import ServiceDirectory, ServiceTable, reading_order, writing_order
from arvados_fuse.reporting.counters import Counters

logger = logging.getLogger("arvados.keep")


class DiskStore:
    """Blocks as files in the layout that Arvados tools share; `limit` in bytes, 0 = automatic."""

    def __init__(self, directory: Path, limit: int = 0) -> None:
        self.directory = directory
        self.limit = limit

    def get(self, md5: str) -> bytes | None:
        """The block's bytes, None when not held."""
        try:
            return (self.directory / md5[:3] / f"{md5}.keepcacheblock").read_bytes()
        except OSError:
            return None

    def put(self, md5: str, data: bytes) -> None:
        """Hold a block."""
        folder = self.directory / md5[:3]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = folder / f"tmp{os.getpid()}{threading.get_ident()}.keepcacheblock"
        descriptor = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
        temporary.rename(folder / f"{md5}.keepcacheblock")


class RamStore:
    """Blocks in memory; `limit` in bytes, 0 = 256 MiB."""

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit or 256 * 1024 * 1024
        self._blocks: dict[str, bytes] = {}

    def get(self, md5: str) -> bytes | None:
        """The block's bytes, None when not held."""
        return self._blocks.get(md5)

    def put(self, md5: str, data: bytes) -> None:
        """Hold a block."""
        while self._blocks and sum(map(len, self._blocks.values())) + len(data) > self.limit:
            self._blocks.pop(next(iter(self._blocks)))
        self._blocks[md5] = data


class BlockCache:
    """Reads and writes blocks. `start` before the first read, `close` at the end."""

    def __init__(
        self,
        directory: ServiceDirectory,
        store: DiskStore | RamStore,
        *,
        counters: Counters | None = None,
        insecure: bool = False,
        ca_file: str | None = None,
        retries: int = 10,
        replicas: int = 1,
    ) -> None:
        self._services = ServiceTable(directory)
        self._store = store
        self._pool = ConnectionPool(insecure=insecure, ca_file=ca_file)
        self._lock = threading.Lock()
        self._recent: tuple[str, bytes] = ("", b"")
        self._retries = retries
        self._replicas = replicas
        self.counters = counters or Counters()

    def start(self) -> None:
        """Start the threads; after the fork, before the first read."""

    def close(self) -> None:
        """End all threads and connections; waiting readers get Unreachable."""
        self._pool.close()

    def read(self, locator: str, offset: int, size: int) -> bytes | memoryview:
        """Exactly `size` bytes of the block from `offset`.

        Raises BlockNotFound, BlockCorrupt, SignatureRefused, Unreachable, LocatorError, and InvalidArgument
        for a range outside the block.
        """
        parsed = Locator.parse(locator)
        if offset < 0 or size < 0 or offset + size > parsed.size:
            raise InvalidArgument(
                f"block {parsed.stripped} has no bytes {offset}+{size}", subject=parsed.stripped
            )
        with self._lock:
            md5, data = self._recent
            if md5 != parsed.md5:
                found = self._store.get(parsed.md5)
                if found is None:
                    found = self._fetch(parsed, locator)
                    self._store.put(parsed.md5, found)
                data = found
                self._recent = (parsed.md5, data)
        return data[offset : offset + size]

    def put(self, data: bytes | memoryview, *, storage_classes: Sequence[str] = ()) -> str:
        """Store a block of at most 64 MiB; returns its signed locator. Raises Unreachable, AccessDenied."""
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        headers = {
            "Authorization": f"Bearer {self._services.token()}",
            "X-Keep-Desired-Replicas": str(self._replicas),
        }
        if storage_classes:
            headers["X-Keep-Storage-Classes"] = ", ".join(storage_classes)
        for service in writing_order(md5, self._services.services()):
            try:
                with self._pool.request(
                    service, "PUT", md5, headers, connect_timeout=2, progress_timeout=60, body=data
                ) as answer:
                    text = answer.text()
                    if answer.status == 200:
                        return text
            except (OSError, http.client.HTTPException) as error:
                logger.debug("PUT %s to %s: %s", md5, service.address, error)
        raise Unreachable(f"Keep write error: block {md5}+{len(data)}", subject=f"{md5}+{len(data)}")

    def _fetch(self, locator: Locator, text: str) -> bytes:
        headers = {"Authorization": f"Bearer {self._services.token()}"}
        refused = missing = 0
        order = reading_order(locator, self._services.services())
        for service in order:
            try:
                with self._pool.request(
                    service, "GET", text, headers, connect_timeout=2, progress_timeout=60
                ) as answer:
                    if answer.status == 200:
                        data = bytearray(locator.size)
                        at = 0
                        while at < locator.size and (count := answer.readinto(memoryview(data)[at:])):
                            at += count
                        if hashlib.md5(data, usedforsecurity=False).hexdigest() == locator.md5:
                            return bytes(data)
                    answer.text()
                    refused += answer.status in (401, 403)
                    missing += answer.status == 404
            except (OSError, http.client.HTTPException) as error:
                logger.debug("GET %s from %s: %s", locator.stripped, service.address, error)
        if refused:
            raise SignatureRefused(f"block {locator.stripped}: signature refused", subject=locator.stripped)
        if missing == len(order):
            raise BlockNotFound(f"Block not found error: {locator.stripped}", subject=locator.stripped)
        raise Unreachable(f"block {locator.stripped}: no Keep service gave it", subject=locator.stripped)
