"""The blocks of one Keep service, as files `<first 3 hex>/<md5>` below a directory.

Used by `keep_http`. A block appears under its name only when it is whole, checked and on disk; a writer that
is cut off leaves a file in `tmp/` that the next start removes. Every method blocks on the disk, so the server
calls them in worker threads; any number of threads may use one `BlockDirectory`.
"""

import contextlib
import hashlib
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from arvados_fuse.local.files import sync_directory

BLOCK_SIZE_LIMIT = 67108864
"""Largest block that Keep takes, bytes (64 MiB)."""

CHECK_CHUNK = 1 << 20
"""Bytes hashed at a time: large enough that hashlib lets other threads run."""

REMEMBERED_CHECKS = 100_000
"""Blocks whose check is remembered; about 20 MB of memory and 6 TB of full blocks."""


class DiskFull(Exception):
    """Less than the reserve is free where the blocks live."""


class Mismatch(Exception):
    """The bytes do not have the md5 they were announced with."""


class Identity(NamedTuple):
    """What changes when a block file is replaced or written to."""

    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Identity":
        """Return the identity in a stat result."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class CheckedBlocks:
    """Which block files had the right md5 when last read, as long as their identity stays the same.

    Hashing costs as much as sending, so a block is hashed when it is written or first read and then only when
    its file changed. Rot that leaves the file's times alone is not seen until the next start; clients check
    every block themselves.
    """

    def __init__(self, limit: int = REMEMBERED_CHECKS) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Identity] = OrderedDict()

    def add(self, md5: str, identity: Identity) -> None:
        """Remember that this very file had the right md5."""
        with self._lock:
            self._known[md5] = identity
            self._known.move_to_end(md5)
            while len(self._known) > self._limit:
                self._known.popitem(last=False)

    def has(self, md5: str, identity: Identity) -> bool:
        """Return whether this very file is known to be right."""
        with self._lock:
            return self._known.get(md5) == identity


class BlockDirectory:
    """The block files of one service. `reserve`: free bytes that are left to the rest of the disk."""

    def __init__(self, path: Path, *, reserve: int) -> None:
        self.path = path
        self.checked = CheckedBlocks()
        self._reserve = reserve
        self._temporary = path / "tmp"

    def prepare(self) -> None:
        """Make the directory and remove what interrupted writers left. Raises OSError."""
        self._temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._temporary.iterdir():
            left.unlink()

    def block_path(self, md5: str) -> Path:
        """Return where the block is, or would be; `md5` must be 32 hexadecimal digits."""
        return self.path / md5[:3] / md5

    def open(self, md5: str) -> int | None:
        """Return a descriptor open for reading, which the caller closes; None when the block is not here."""
        try:
            return os.open(self.block_path(md5), os.O_RDONLY)
        except FileNotFoundError:
            return None

    def free(self) -> int:
        """Return the bytes that may still be written before the service is full; never below 0."""
        status = os.statvfs(self.path)
        return max(0, status.f_bavail * status.f_frsize - self._reserve)

    def writer(self, expected_size: int) -> "BlockWriter":
        """Return a writer for one new block of about `expected_size` bytes. Raises DiskFull, OSError."""
        if self.free() < expected_size:
            raise DiskFull
        return BlockWriter(self, self._temporary)


class BlockWriter:
    """One block on its way in: `write` its bytes in order, then `commit`, or `discard`. One thread a time."""

    def __init__(self, directory: BlockDirectory, temporary: Path) -> None:
        self.size = 0
        self._directory = directory
        self._hash = hashlib.md5(usedforsecurity=False)
        self._path = temporary / os.urandom(16).hex()
        self._descriptor = -1

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes and hash them. Raises OSError (a full disk, for one)."""
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._hash.update(data)
        self.size += len(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def commit(self, md5: str) -> None:
        """Give the block its name once it is on disk. It replaces an older file of that name: that heals rot.

        Raises Mismatch (and then the block is not kept), OSError.
        """
        if self._hash.hexdigest() != md5:
            raise Mismatch
        if self._descriptor < 0:
            self.write(b"")
        os.fsync(self._descriptor)
        target = self._directory.block_path(md5)
        with contextlib.suppress(FileExistsError):
            target.parent.mkdir(mode=0o700)
            sync_directory(self._directory.path)
        os.rename(self._path, target)
        # After the rename, because a rename counts as a change of the file.
        self._directory.checked.add(md5, Identity.of(os.fstat(self._descriptor)))
        self._close()
        sync_directory(target.parent)

    def discard(self) -> None:
        """Forget what was written; harmless after `commit`."""
        if self._descriptor >= 0:
            self._close()
            self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
