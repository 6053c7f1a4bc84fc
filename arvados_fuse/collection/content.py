"""The bytes of one file that was opened: segments, and how to read them.

Used by `File`. A content outlives renames and unlinking of its file.

Threads: `_lock` guards the segments; a read takes its list of segments under the lock and fetches without it.
"""

from threading import Lock

from arvados_fuse.collection.failures import BadArgument, ReadFailed
from arvados_fuse.collection.manifest import ManifestIndex, stripped
from arvados_fuse.collection.segments import Segment, Segments
from arvados_fuse.collection.stores import BlockStore


class Content:
    """Segments of a file and the index that their signatures come from."""

    __slots__ = ("_generation", "_index", "_lock", "_segments")

    def __init__(self, segments: Segments, index: ManifestIndex | None = None, generation: int = 0) -> None:
        """generation: that of `index` when the segments were taken from it."""
        self._segments = segments
        self._index = index
        self._generation = generation
        self._lock = Lock()

    @property
    def size(self) -> int:
        """Bytes."""
        return self._segments.size

    def read(self, blocks: BlockStore | None, offset: int, size: int) -> bytes | memoryview:
        """The bytes from `offset`, at most `size`, less only at the end of the file."""
        if offset < 0 or size < 0:
            raise BadArgument(f"can't read {size} bytes at {offset}")
        if self._index is not None and self._generation != self._index.generation:
            self._resign()
        with self._lock:
            parts = self._segments.locate(offset, size)
        if len(parts) == 1:
            return _fetch(blocks, parts[0])
        return b"".join([_fetch(blocks, part) for part in parts])

    def same_as(self, other: "Content") -> bool:
        """Whether both are the same ranges of the same blocks; signatures do not matter."""
        return self is other or self._ranges() == other._ranges()

    def _ranges(self) -> list[tuple[object, int, int]]:
        with self._lock:
            items = self._segments.items()
        return [
            (stripped(source) if isinstance(source, str) else id(source), offset, size)
            for source, offset, size in items
        ]

    def _resign(self) -> None:
        """Use the signatures that the index has now."""
        index = self._index
        assert index is not None
        generation = index.generation
        with self._lock:
            self._segments = Segments(
                segment._replace(source=index.signed(segment.source))
                if isinstance(segment.source, str)
                else segment
                for segment in self._segments
            )
            self._generation = generation


def _fetch(blocks: BlockStore | None, part: Segment) -> bytes | memoryview:
    if not isinstance(part.source, str):
        return part.source.read(part.offset, part.size)
    if blocks is None:
        raise ReadFailed("no block store to read from", subject=stripped(part.source))
    data = blocks.read(part.source, part.offset, part.size)
    if len(data) != part.size:
        raise ReadFailed(
            f"block gave {len(data)} bytes where {part.size} at {part.offset} were expected",
            subject=stripped(part.source),
        )
    return data
