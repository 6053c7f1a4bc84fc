"""Where unsaved bytes are by now: what the spools themselves remember, as `Moves`.

Used by `pending`, `uploads` and `relief`. Pure functions; spools have their own locks.
"""

from collections.abc import Iterable

from arvados_fuse.collection.moves import Moves
from arvados_fuse.collection.segments import Segment
from arvados_fuse.writeback.spool import DiskSpool


def known_moves(segments: Iterable[Segment]) -> Moves:
    """For the unsaved ones among `segments`: the blocks that their bytes are in."""
    moves = Moves()
    added: set[tuple[int, int]] = set()
    for segment in segments:
        spool = segment.source
        if not isinstance(spool, DiskSpool):
            continue
        for offset, where in spool.stored(segment.offset, segment.size):
            if (id(spool), offset) not in added:
                added.add((id(spool), offset))
                moves.add(Segment(spool, offset, where.size), where)
    return moves
