"""Whole trees: manifests, hashes, differences. What `Collection` and its directories share beyond single
paths.

Mixed into `Directory` and `Collection`; programs call it, under the names of the SDK's `Collection`.
"""

import time
from collections.abc import Iterator
from typing import Any

from arvados_fuse.collection import manifests
from arvados_fuse.collection.collector import collector_off
from arvados_fuse.collection.edits import DirectoryEdits
from arvados_fuse.collection.file import File
from arvados_fuse.collection.manifest import stripped
from arvados_fuse.collection.manifest.names import conflict_name
from arvados_fuse.collection.paths import ADD, DEL, MOD, TOK, PathApi
from arvados_fuse.collection.plan import make_plan


class TreeApi(PathApi):
    """Manifests and comparisons of a directory and all below."""

    __slots__ = ()

    # Texts.

    def manifest_text(
        self,
        stream_name: str = ".",
        strip: bool = False,
        normalize: bool = True,
        only_committed: bool = False,
    ) -> str:
        """The manifest of this directory as if it was a collection, always normalized, after storing unsaved
        bytes.

        only_committed: leave unsaved bytes out instead. strip: leave no hints but sizes.
        """
        return manifests.manifest_text(
            self.here(), stream_name, strip=strip, normalize=True, only_committed=only_committed
        )

    def portable_manifest_text(self, stream_name: str = ".") -> str:
        """The normalized manifest without hints; unsaved bytes stand in it under the hashes they will
        have."""
        return manifests.portable_manifest(self.here(), stream_name).decode()

    def stripped_manifest(self) -> str:
        """The manifest without hints but sizes."""
        return self.manifest_text(strip=True)

    def portable_data_hash(self) -> str:
        """md5 and length of the normalized manifest without hints."""
        return manifests.normalized_hash(self.here())

    def flush(self) -> None:
        """Store all unsaved bytes in Keep."""
        manifests.store(make_plan(self.here()), self.here())

    # State.

    def committed(self) -> bool:
        """Whether this is what was loaded or last saved."""
        return not self.here().is_touched()

    def modified(self) -> bool:
        """The opposite of `committed`."""
        return not self.committed()

    def set_committed(self, value: bool = True) -> None:
        """Say that the collection is (or is not) what was last saved; nothing is saved by that."""
        self.root_collection().set_committed(value)

    def set_has_remote_blocks(self, val: bool) -> None:
        """Accepted; whether there are remote blocks is always looked up."""

    def has_remote_blocks(self) -> bool:
        """Whether a block has the signature of another cluster (`+R`)."""
        return any(
            "+R" in token
            for token in self.manifest_text(only_committed=True).split(" ")
            if _is_locator(token)
        )

    # Comparing.

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TreeApi):
            return NotImplemented
        pending: list[tuple[Any, Any]] = [(self.here(), other.here())]
        while pending:
            mine, theirs = pending.pop()
            if mine is theirs:
                continue
            if isinstance(mine, File) or isinstance(theirs, File):
                if mine != theirs:
                    return False
                continue
            left, right = mine.entries(), theirs.entries()
            if [name for name, _ in left] != [name for name, _ in right]:
                return False
            pending += [(a, b) for (_, a), (_, b) in zip(left, right, strict=True)]
        return True

    __hash__ = object.__hash__

    def diff(
        self, end_collection: "TreeApi", prefix: str = ".", holding_collection: Any = None
    ) -> list[tuple[Any, ...]]:
        """What has to be done to this to get `end_collection`, for `apply`.

        (ADD or DEL, path, item) and (MOD or TOK, path, item here, item there); TOK is for a file that is the
        same and may only have other signatures. Items are copies.
        """
        here = self.here()
        holder = type(here)(here.tree, None, ".") if holding_collection is None else holding_collection.here()
        changes: list[tuple[Any, ...]] = []
        # Generators on a stack, not calls: a tree may be deeper than Python's.
        levels = [_level(prefix, here, end_collection.here(), holder)]
        while levels:
            found = next(levels[-1], None)
            if found is None:
                levels.pop()
            elif isinstance(found, tuple):
                changes.append(found)
            else:
                levels.append(found)
        return changes

    def apply(self, changes: list[tuple[Any, ...]]) -> None:
        """Make the changes of a `diff`; what was changed here too stays, and theirs goes to a conflict
        name."""
        self.need_writable()
        for kind, path, initial, *more in changes:
            local = self.find(path)
            if kind == DEL:
                if local is not None and local == initial:
                    self.remove(path, recursive=True)
                continue
            final = more[0] if more else initial
            if kind == ADD:
                if local is None:
                    self.copy(final, path)
                    continue
                if local == final:
                    continue
            elif local is not None and local == initial:
                if isinstance(local, File) and isinstance(final, File):
                    local.content().replace(final.content().snapshot()[0])
                    local.parent.notify(kind, local.parent, local.name, (local, local))
                else:
                    self.copy(final, path, overwrite=True)
                continue
            elif kind == TOK:
                continue
            moment = time.time()
            while self.exists(conflict_name(path, moment)):
                moment += 1
            self.copy(final, conflict_name(path, moment))


def _level(path: str, before: DirectoryEdits, after: DirectoryEdits, holder: DirectoryEdits) -> Iterator[Any]:
    """Changes between two directories, and for a pair of subdirectories the iterator of theirs."""
    left, right = before.entries(), after.entries()
    with collector_off(len(left) + len(right)):
        mine, theirs = dict(left), dict(right)
    for name, entry in mine.items():
        if name not in theirs:
            yield DEL, f"{path}/{name}", _copy(entry, holder)
    for name, there in theirs.items():
        here = mine.get(name)
        way = f"{path}/{name}"
        if here is None:
            yield ADD, way, _copy(there, holder)
        elif not isinstance(here, File) and not isinstance(there, File):
            yield _level(way, here, there, holder)
        else:
            kind = TOK if here == there else MOD
            yield kind, way, _copy(here, holder), _copy(there, holder)


def _copy(item: DirectoryEdits | File, holder: DirectoryEdits) -> DirectoryEdits | File:
    if isinstance(item, File):
        return File(None, "", 0, item.content().clone(holder, ""))
    return item.copy_of(holder.tree, holder, "")


def _is_locator(token: str) -> bool:
    return len(token) > 33 and token[32] == "+" and stripped(token)[33:].isdigit()
