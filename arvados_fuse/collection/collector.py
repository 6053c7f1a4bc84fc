"""When Python's cycle collector runs: not while very many objects are made that will all be kept, and as soon
as much memory may wait for it.

Used where a directory of a million files is listed: the collector would look through the growing heap again
and again and take three quarters of the time (measured: 2.3 s of 2.8). And where trees take the place of
older ones: a tree refers to itself, so only the collector frees it, and that goes by the number of objects,
of which a manifest of 100 MB is one.

Threads: any; what is held off runs again when the last of them is done.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_lock = Lock()
_holders = 0
_was_enabled = False

_loaded = 0

LOADED_LIMIT = 32 << 20
"""Bytes of manifests after which the collector looks for trees that nobody uses: that long they may stay."""
WORTH_IT = 20_000
"""Objects from which on holding it off is worth the trouble."""


@contextmanager
def collector_off(count: int) -> Iterator[None]:
    """Run without the collector if `count` objects are about to be made and they are many."""
    global _holders, _was_enabled
    if count < WORTH_IT:
        yield
        return
    with _lock:
        if not _holders:
            _was_enabled = gc.isenabled()
            gc.disable()
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if not _holders and _was_enabled:
                gc.enable()


def note_loaded(size: int) -> None:
    """A tree was made of a manifest of `size` bytes, perhaps in the place of another."""
    global _loaded
    with _lock:
        _loaded += size
        if _loaded < LOADED_LIMIT:
            return
        _loaded = 0
    gc.collect()
