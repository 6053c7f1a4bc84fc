"""How the C library keeps memory that was given back: large buffers go back to the system at once.

Used by `main.py` before the first thread. glibc learns from the first large buffer that is freed to take such
buffers from heaps, one for each thread, which then stay as large as they once were; a process that moves
blocks of up to 64 MiB through many threads grows by hundreds of MiB so. mallopt(3) explains the numbers.
"""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
LARGE = 2 << 20
"""Bytes from which on a buffer is a mapping of its own. Fixed: otherwise it grows to 32 MiB."""
ARENAS = 4
"""Heaps for small objects: Python's lock lets one thread allocate at a time anyway."""


def settle() -> bool:
    """Tell the C library; whether it understood (others than glibc have no such habit)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = ((_M_MMAP_THRESHOLD, LARGE), (_M_TRIM_THRESHOLD, LARGE), (_M_ARENA_MAX, ARENAS))
    return all(mallopt(option, value) == 1 for option, value in wanted)
