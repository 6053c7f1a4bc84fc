"""Pinned blocks: what eviction never takes, in any process, across restarts; and their manifests.

In the cache directory, out of the way of other tools that share it (they look at `*.keepcacheblock` only):
`pins/blocks/<md5>+<size>` is a hard link to the block's file, so that the bytes stay whoever deletes that
name, and two links tell every process of ours that the block is pinned; an empty file stands for a block that
is not here yet. `pins/collections/<portable data hash>/` has the manifest and what of it is pinned.
Used by `keep.disk_store` and `keep.cache`. Threads and processes: any; changes hold the flock `pins/lock`.
"""

import contextlib
import fcntl
import json
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from arvados_fuse.errors import NoSpaceError
from arvados_fuse.keep.disk_files import block_path, pin_path

FOLDER = "pins"

SHARE = 0.75
"""Part of the cache's limit that pins may take: the rest is for what is read besides."""


class Pin(NamedTuple):
    """One thing that is pinned.

    key: the uuid or portable data hash by which it was found; path: what of the collection, "" for all.
    blocks: `md5+size` of each.
    """

    portable_data_hash: str
    key: str
    path: str
    blocks: Sequence[str]


class Pins:
    """The pins in one cache directory. Nothing is read or made before it is needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._folder = directory / FOLDER
        self._blocks = self._folder / "blocks"
        self._collections = self._folder / "collections"

    # Of whole collections

    def add(self, pin: Pin, manifest: str, most: int) -> None:
        """Pin: those blocks that are here at once, the others when they come. Replaces what was pinned by the
        same key and path. manifest: of the whole collection, without signatures. most: bytes that all pins
        may take.

        Raises NoSpaceError when they would take more, or the directory can't hold pins.
        """
        with self._changing():
            before = [one for one in self.all() if (one.key, one.path) == (pin.key, pin.path)]
            kept = self._wanted(without=before)
            total = sum(map(size_of, kept | set(pin.blocks)))
            if total > most:
                raise NoSpaceError(
                    f"pinning this would fill {total:,} bytes of the cache; pins may take {most:,}: unpin "
                    "something (--unpin), or make the cache larger (--file-cache)",
                    subject=pin.key,
                )
            for one in before:
                self._write(one.portable_data_hash, drop=[one])
            self._write(pin.portable_data_hash, manifest=manifest, add=pin)
            self._blocks.mkdir(mode=0o700, exist_ok=True)
            for block in set(pin.blocks):
                if not os.path.lexists(self._blocks / block):
                    self._place_holder(block)
            self._drop_unwanted()

    def remove(self, key: str, path: str) -> int:
        """Unpin what was pinned by this key at or below this path; how many pins that were.

        Raises NoSpaceError when the directory can't be written.
        """
        if not self._folder.is_dir():
            return 0
        with self._changing():
            gone = [pin for pin in self.all() if pin.key == key and _is_within(pin.path, path)]
            for pin in gone:
                self._write(pin.portable_data_hash, drop=[pin])
            self._drop_unwanted()
        return len(gone)

    def all(self) -> list[Pin]:
        """Everything that is pinned."""
        return [pin for folder in self._listed(self._collections) for pin in self._read(folder)]

    def manifest(self, portable_data_hash: str) -> str | None:
        """The manifest of a collection of which something is pinned."""
        try:
            path = self._collections / portable_data_hash / "manifest"
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None

    def total(self) -> int:
        """Bytes of all pinned blocks, here or not."""
        return sum(map(size_of, self._listed(self._blocks)))

    # Of single blocks

    def adopt(self, md5: str, size: int) -> bool:
        """The block's file is checked and under its name: hold it, if it is pinned. Says whether it is."""
        pin = Path(pin_path(self._directory, md5, size))
        if not os.path.lexists(pin):
            return False
        try:
            with self._changing():
                if os.path.lexists(pin) and not _same(pin, block_path(self._directory, md5)):
                    _link(block_path(self._directory, md5), pin)
        except (OSError, NoSpaceError):
            return False  # it is read all the same; the next pass of the keeper tries again
        return True

    def restore(self, md5: str, size: int) -> bool:
        """Another tool has deleted the block's file: give the pinned bytes their name again. Says whether
        there were any.
        """
        pin = Path(pin_path(self._directory, md5, size))
        try:
            if size == 0 or os.stat(pin, follow_symlinks=False).st_size != size:
                return False
            final = Path(block_path(self._directory, md5))
            final.parent.mkdir(mode=0o700, exist_ok=True)
            if not _same(pin, final):
                _link(pin, final)
        except OSError:
            return False
        return True

    def restore_all(self) -> None:
        """`restore` every block whose file is gone, and `adopt` those that came by other ways."""
        for block in self._listed(self._blocks):
            md5, _, size = block.partition("+")
            with contextlib.suppress(OSError):
                if os.stat(self._blocks / block, follow_symlinks=False).st_nlink < 2:
                    self.restore(md5, int(size))

    def spoil(self, md5: str, size: int) -> None:
        """The block's file is damaged: don't hold on to it, wait for another one."""
        pin = Path(pin_path(self._directory, md5, size))
        if os.path.lexists(pin):
            with contextlib.suppress(OSError, NoSpaceError), self._changing():
                if os.path.lexists(pin):
                    pin.unlink()
                    self._place_holder(pin.name)

    # Inside

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._collections.mkdir(mode=0o700, exist_ok=True)
            lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise NoSpaceError(f"{self._folder} can't be written: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        except OSError as error:
            raise NoSpaceError(f"{self._folder} can't hold pins: {error.strerror}") from error
        finally:
            os.close(lock)

    def _read(self, portable_data_hash: str) -> list[Pin]:
        try:
            text = (self._collections / portable_data_hash / "pinned").read_bytes()
            return [
                Pin(
                    portable_data_hash,
                    str(one["key"]),
                    str(one["path"]),
                    [str(block) for block in one["blocks"]],
                )
                for one in json.loads(text)
            ]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def _write(
        self, portable_data_hash: str, *, manifest: str = "", add: Pin | None = None, drop: Sequence[Pin] = ()
    ) -> None:
        """Change what of a collection is pinned; caller holds the lock."""
        folder = self._collections / portable_data_hash
        gone = {(pin.key, pin.path) for pin in (*drop, *([add] if add else []))}
        left = [one for one in self._read(portable_data_hash) if (one.key, one.path) not in gone]
        if add is not None:
            left.append(add)
            folder.mkdir(mode=0o700, exist_ok=True)
            _replace(folder / "manifest", manifest.encode())
        if left:
            told = [{"key": one.key, "path": one.path, "blocks": list(one.blocks)} for one in left]
            _replace(folder / "pinned", json.dumps(told).encode())
        else:
            shutil.rmtree(folder, ignore_errors=True)

    def _wanted(self, without: Sequence[Pin] = ()) -> set[str]:
        left = [pin for pin in self.all() if pin not in without]
        return {block for pin in left for block in pin.blocks}

    def _drop_unwanted(self) -> None:
        wanted = self._wanted()
        for block in self._listed(self._blocks):
            if block not in wanted:
                (self._blocks / block).unlink(missing_ok=True)

    def _place_holder(self, block: str) -> None:
        os.close(os.open(self._blocks / block, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    @staticmethod
    def _listed(folder: Path) -> list[str]:
        try:
            return [name for name in os.listdir(folder) if not name.startswith(".")]
        except OSError:
            return []


def size_of(block: str) -> int:
    """Bytes of `md5+size`; 0 for any other name."""
    size = block.partition("+")[2]
    return int(size) if size.isascii() and size.isdecimal() else 0


def _is_within(path: str, top: str) -> bool:
    return not top or path == top or path.startswith(f"{top}/")


def _same(one: Path, other: "str | Path") -> bool:
    try:
        return os.path.samestat(os.lstat(one), os.lstat(other))
    except FileNotFoundError:
        return False


def _link(source: "str | Path", target: Path) -> None:
    """Make `target` another name of `source`, whatever had that name. Raises OSError."""
    fresh = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}")
    os.link(source, fresh, follow_symlinks=False)
    os.rename(fresh, target)


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
