"""Where unsaved bytes are by now: what the spools themselves remember, as `Moves`.

Used by `pending`, `uploads` and `relief`. Pure functions; spools have their own locks.
"""

from collections.abc import Iterable

from arvados_fuse.collection.moves import Moves
from arvados_fuse.collection.segments import Segment
from arvados_fuse.writeback.spool import DiskSpool


def known_moves(segments: Iterable[Segment]) -> Moves:
    """For the unsaved ones among `segments`: the blocks that their bytes are in."""
    spans: dict[DiskSpool, tuple[int, int]] = {}
    for source, offset, size in segments:
        if isinstance(source, DiskSpool):
            start, stop = spans.get(source, (offset, offset))
            spans[source] = min(start, offset), max(stop, offset + size)
    moves = Moves()
    for spool, (start, stop) in spans.items():
        moves.add_all(spool, spool.stored(start, stop - start))
    return moves
