"""How the C library keeps memory that was given back, and what Python's cycle collector looks through.

Used by `main.py`. glibc learns from the first large buffer that is freed to take such
buffers from heaps, one for each thread, which then stay as large as they once were; a process that moves
blocks of up to 64 MiB through many threads grows by hundreds of MiB so. mallopt(3) explains the numbers.
"""

import ctypes
import gc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
LARGE = 2 << 20
"""Bytes from which on a buffer is a mapping of its own. Fixed: otherwise it grows to 32 MiB."""
ARENAS = 4
"""Heaps for small objects: Python's lock lets one thread allocate at a time anyway."""
NEW_OBJECTS = 10_000
"""Objects made and kept after which the collector looks at what is new: Python's 700 are a few lookups."""

OLDER_AFTER = 2
"""Looks at what is new before one at what is older, and at that before one at the oldest. Python's 10 is for
700 new objects."""


def settle() -> bool:
    """Before the first thread: large buffers shall go back to the system at once. Whether the C library
    understood (others than glibc have no such habit)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = ((_M_MMAP_THRESHOLD, LARGE), (_M_TRIM_THRESHOLD, LARGE), (_M_ARENA_MAX, ARENAS))
    return all(mallopt(option, value) == 1 for option, value in wanted)


def keep_loaded() -> None:
    """Once all is set up: what is there now stays to the end, and Python's collector leaves it alone.

    A mount that stands has 60,000 objects, nearly all of them of the libraries. Where some thousand nodes are
    made at once, as for `ls -l` of a large project, looking through those again and again took half the time.
    But a tree that was replaced is one great cycle, and must not wait until there are a million objects more.
    """
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, OLDER_AFTER, OLDER_AFTER)
