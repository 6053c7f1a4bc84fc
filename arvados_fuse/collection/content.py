"""The bytes of one file that was opened: its segments, reading and changing them.

Used by `File`, `Base` and directories. A content is the file itself: every `File` of it shares it, and it
outlives renames and unlinking.

Threads: any. The lock guards the segments; a read takes its list of segments under it and fetches without it.
The first change of a linked content is announced to its directory before, with the locks in their order (see
`tree`).
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, Protocol

from arvados_fuse.collection.failures import BadArgument, FileTooLarge, ReadFailed
from arvados_fuse.collection.manifest import ManifestIndex, stripped
from arvados_fuse.collection.moves import Moves, pack, split, store_block
from arvados_fuse.collection.segments import BLOCK_SIZE, ZERO_BLOCK, Segment, Segments
from arvados_fuse.collection.spool import Spool
from arvados_fuse.collection.stores import BlockReader
from arvados_fuse.collection.tree import InTree
from arvados_fuse.errors import ArvadosFuseError

SPARSE_MAX = 1 << 46
"""Largest size in bytes that truncating or writing may give a file: at 64 MiB of zeros for each token
of the manifest, more would make a manifest of gigabytes."""

_UNSAVED_MAX = 4 * BLOCK_SIZE
"""Unsaved bytes of one file in a spool of ours, beyond which failing to store a block fails the write."""


class Holder(InTree, Protocol):
    """A directory, as far as the files in it know it."""

    def stream_name(self) -> str:
        """Its path as the name of a manifest stream."""

    def announce(self, content: "Content") -> None:
        """A content that lies in it is about to be changed for the first time."""

    def notify(self, event: str, collection: Any, name: str, item: Any) -> None:
        """Tell its subscribers of a change."""


class Content:
    """Segments of a file.

    parent, name: where the file is, or was last when not `linked`; guarded by the tree's lock.
    changed: whether it differs from what the manifest of its directory says; set before the first change.
    version: counts changes.
    """

    __slots__ = (
        "__weakref__",
        "_generation",
        "_index",
        "_large",
        "_lock",
        "_look_again",
        "_segments",
        "_spool",
        "changed",
        "linked",
        "name",
        "parent",
        "version",
    )

    def __init__(
        self,
        parent: Holder,
        name: str,
        segments: Segments,
        *,
        index: ManifestIndex | None = None,
        generation: int = 0,
        changed: bool = False,
    ) -> None:
        """index, generation: where the signatures come from, and which they were."""
        self.parent = parent
        self.name = name
        self.linked = True
        self.changed = changed
        self.version = 0
        self._segments = segments
        self._index = index
        self._generation = generation
        self._lock = Lock()
        self._spool: Spool | None = None
        self._look_again = BLOCK_SIZE
        self._large = False

    @property
    def size(self) -> int:
        """Bytes."""
        return self._segments.size

    # Reading.

    def read(self, offset: int, size: int, blocks: BlockReader | None = None) -> bytes | memoryview:
        """The bytes from `offset`, at most `size`, less only at the end of the file; from `blocks` if
        given."""
        if offset < 0 or size < 0:
            raise BadArgument(f"can't read {size} bytes at {offset}")
        index = self._index
        if index is not None and self._generation != index.generation:
            self._resign(index)
        with self._lock:
            parts = self._segments.locate(offset, size)
        if blocks is None:
            blocks = self.parent.tree.block_store()
        if len(parts) == 1:
            return fetch(blocks, parts[0])
        return b"".join([fetch(blocks, part) for part in parts])

    def in_one_block(self, offset: int, size: int) -> tuple[str, int, int] | None:
        """Where these bytes, at most to the end of the file, lie together in Keep: locator, offset, size.

        None when they do not; what then has to be done is up to `read`.
        """
        index = self._index
        if index is not None and self._generation != index.generation:
            self._resign(index)
        with self._lock:
            return self._segments.in_one_block(offset, size)

    def snapshot(self) -> tuple[tuple[Segment, ...], int]:
        """The segments, with the newest signatures, and the version that they are."""
        index = self._index
        if index is not None and self._generation != index.generation:
            self._resign(index)
        with self._lock:
            return self._segments.items(), self.version

    def _resign(self, index: ManifestIndex) -> None:
        """Use the signatures that the index has now."""
        generation = index.generation
        self.sign(index)
        with self._lock:
            self._generation = generation

    def sign(self, index: ManifestIndex) -> None:
        """Use the signatures that a manifest has for our blocks, as far as it has them."""
        with self._lock:
            self._segments = Segments(
                Segment(index.signed(source), offset, size)
                if isinstance(source, str)
                else Segment(source, offset, size)
                for source, offset, size in self._segments
            )

    # Changing.

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Hold the lock for a change that the directory knows of."""
        while True:
            self._lock.acquire()
            if self.changed or not self.linked:
                break
            self._lock.release()
            self.parent.announce(self)
        try:
            yield
            self.version += 1
            if self.linked:
                self.parent.tree.count_change()
        finally:
            self._lock.release()

    def mark_changed(self) -> None:
        """Called by the directory, with the tree's lock, once it holds on to this content."""
        with self._lock:
            self.changed = True

    def detach(self) -> None:
        """Called by the directory, with the tree's lock: the file was unlinked."""
        with self._lock:
            self.linked = False

    def attach(self, parent: Holder, name: str) -> None:
        """Called by the directory, with the tree's lock: the file is here now, and so differs from the
        manifest."""
        with self._lock:
            self.parent, self.name, self.linked, self.changed = parent, name, True, True

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        """Put bytes at `offset`; a gap before them becomes zeros. Gives their number.

        Raises FileTooLarge; an ArvadosFuseError when a full block can't be stored and too much waits already.
        """
        view = memoryview(data).cast("B")
        if offset < 0:
            raise BadArgument(f"can't write at {offset}")
        if not view:
            return 0
        if offset + len(view) > SPARSE_MAX:
            raise FileTooLarge(f"a file of {offset + len(view)} bytes is beyond {SPARSE_MAX}")
        with self._change():
            self._put(offset, view)
        self._relieve()
        return len(view)

    def append(self, data: bytes | bytearray | memoryview) -> int:
        """Put bytes at the end, wherever that is by now. Gives the offset behind them."""
        view = memoryview(data).cast("B")
        with self._change():
            end = self._segments.size
            if end + len(view) > SPARSE_MAX:
                raise FileTooLarge(f"a file of {end + len(view)} bytes is beyond {SPARSE_MAX}")
            if view:
                self._put(end, view)
        self._relieve()
        return end + len(view)

    def _put(self, offset: int, view: memoryview) -> None:
        """Append to the spool, and to the next one where it is full; all or nothing."""
        spool, fresh = self._spool, list[Segment]()
        while view:
            if spool is None:
                spool = self.parent.tree.new_spool(large=self._large)
            elif not spool.room():
                here = [*self._segments, *fresh]
                spool = spool.successor(sum(segment.size for segment in here if segment.is_unsaved))
            part = view[: spool.room()]
            fresh.append(Segment(spool, spool.append(part), len(part)))
            view = view[len(part) :]
        self._segments.extend(offset)
        for segment in fresh:
            self._segments.replace(offset, segment)
            offset += segment.size
        if spool is not self._spool:
            self._large = self._large or self._spool is not None
            self._spool, self._look_again = spool, BLOCK_SIZE

    def truncate(self, size: int) -> None:
        """Cut the file, or make it longer with zeros, which take no space."""
        if size < 0:
            raise BadArgument(f"can't truncate to {size} bytes")
        if size > max(SPARSE_MAX, self.size):
            raise FileTooLarge(f"a file of {size} bytes is beyond {SPARSE_MAX}")
        if size == self.size:
            return
        with self._change():
            self._segments.cut(size)
            self._segments.extend(size)
            if not size:
                self._drop_spool()

    def replace(self, segments: Iterable[Segment]) -> None:
        """Be something else from now on, for every holder of the file."""
        fresh = Segments(segments)
        with self._change():
            self._segments = fresh
            self._drop_spool()

    def clone(self, parent: Holder, name: str) -> "Content":
        """A copy without copying data: unsaved bytes are shared too."""
        segments, _ = self.snapshot()
        return Content(
            parent, name, Segments(segments), index=self._index, generation=self._generation, changed=True
        )

    # Unsaved bytes.

    def unsaved(self) -> int:
        """Bytes that are in no block yet."""
        with self._lock:
            return sum(segment.size for segment in self._segments if segment.is_unsaved)

    def store(self) -> None:
        """Store unsaved bytes, in blocks of this file alone. Raises what the block store raises."""
        segments = [segment for segment in self.snapshot()[0] if segment.is_unsaved]
        if not segments:
            return
        tree = self.parent.tree
        moves = Moves()
        try:
            pack(tree.need_block_store(), [segments], moves, tree.storage_classes)
        finally:
            self.settle(moves)

    def settle(self, moves: Moves) -> None:
        """Point to the blocks where unsaved bytes are now. Changes no byte and no version."""
        with self._lock:
            if any(segment.is_unsaved for segment in self._segments):
                self._segments = Segments(moves.translate(self._segments))
                if not any(segment.is_unsaved for segment in self._segments):
                    # Not `_drop_spool`: of a large file more is to come.
                    self._spool = None
                    self._look_again = BLOCK_SIZE

    def begin_spool(self) -> None:
        """Put what is written from now on into a new spool, so that the one before can go once it is
        stored."""
        with self._lock:
            self._drop_spool()

    def _drop_spool(self) -> None:
        self._spool = None
        self._look_again = BLOCK_SIZE
        self._large = False

    def settle_into(self, segments: Segments, index: ManifestIndex, generation: int, version: int) -> bool:
        """Called with the tree's lock: a saved manifest has this content as it was at `version`.

        Gives False, and changes nothing, when the content changed since.
        """
        with self._lock:
            if self.version != version:
                return False
            self._segments, self._index, self._generation = segments, index, generation
            self._drop_spool()
            self.changed = False
            return True

    def _relieve(self) -> None:
        """When a block's worth was appended to the spool: store full blocks, and leave garbage behind."""
        spool = self._spool
        if spool is None or spool.size() < self._look_again:
            return
        with self._lock:
            if self._spool is not spool or spool.size() < self._look_again:
                return
            # Nobody else tries meanwhile. The bytes stay where they are, so the upload needs no lock.
            self._look_again = sys.maxsize
            live = [segment for segment in self._segments if segment.is_unsaved]
        tree = self.parent.tree
        moves = Moves()
        waiting = sum(segment.size for segment in live)
        try:
            blocks = tree.block_store() if tree.upload_early else None
            while blocks is not None and waiting >= BLOCK_SIZE:
                block, live = split(live, BLOCK_SIZE)
                store_block(blocks, block, moves, tree.storage_classes)
                waiting -= BLOCK_SIZE
        except ArvadosFuseError:
            # The bytes are safe in the spool; whoever saves will try again and be told.
            if waiting >= _UNSAVED_MAX:
                raise
        finally:
            self._leave_garbage(spool, moves)

    def _leave_garbage(self, spool: Spool, moves: Moves) -> None:
        with self._lock:
            segments = Segments(moves.translate(self._segments))
            if self._spool is spool:
                live = [segment for segment in segments if segment.is_unsaved]
                if 2 * sum(segment.size for segment in live) < spool.size():
                    self._spool = self.parent.tree.new_spool(large=self._large)
                    copied = Moves()
                    copied.copy(live, self._spool)
                    segments = Segments(copied.translate(segments))
                self._look_again = self._spool.size() + BLOCK_SIZE
            self._segments = segments

    def check(self) -> None:
        """Assert the invariants (for tests)."""
        with self._lock:
            self._segments.check()
            for segment in self._segments:
                if segment.is_unsaved:
                    assert not isinstance(segment.source, str)
                    assert self.changed or not self.linked


def fetch(blocks: BlockReader | None, part: Segment) -> bytes | memoryview:
    """The bytes of one segment. Raises ReadFailed when the block is not as long as its locator says."""
    source, offset, size = part
    if not isinstance(source, str):
        return source.read(offset, size)
    if source.startswith(ZERO_BLOCK):
        # Sparse files are made of this block; no need to fetch 64 MiB of zeros.
        return bytes(size)
    if blocks is None:
        raise ReadFailed("no block store to read from", subject=stripped(source))
    data = blocks.read(source, offset, size)
    if len(data) != size:
        raise ReadFailed(
            f"block gave {len(data)} bytes where {size} at {offset} were expected", subject=stripped(source)
        )
    return data
