"""Holding the working copies of collections for a change, without waiting for a server under their locks.

Used by `CollectionState`, and by directories for what goes from one collection to another. Threads: any.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arvados_fuse.tree.collection_state import CollectionState
    from arvados_fuse.tree.working import Working


@contextmanager
def edit_both(one: "CollectionState", other: "CollectionState") -> "Iterator[tuple[Working, Working]]":
    """Hold the locks of both working copies, made if need be; may wait for the server before that."""
    while True:
        working, second = one.begin(), other.begin()
        # Of two collections the lower key first, whoever renames from which into which.
        low, high = sorted((working, second), key=lambda each: each.state.key)
        with low.lock, high.lock:
            # Each may have come to its end meanwhile; then both are looked at anew, with no lock held.
            if one.working is working and other.working is second:
                yield working, second
                return
