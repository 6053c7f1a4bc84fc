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
OLDEST_AFTER = 2
"""Looks at objects of some age after which Python's collector looks at the oldest, too; by default 10."""


def settle() -> bool:
    """Before the first thread: large buffers shall go back to the system at once, and nothing be collected
    until `keep_loaded`, for that is a seventh of the time that importing the libraries takes.

    Gives whether the C library understood (others than glibc have no such habit)."""
    gc.disable()
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = ((_M_MMAP_THRESHOLD, LARGE), (_M_TRIM_THRESHOLD, LARGE), (_M_ARENA_MAX, ARENAS))
    return all(mallopt(option, value) == 1 for option, value in wanted)


def keep_loaded() -> None:
    """Once all is set up: what is there now stays to the end, and Python's collector leaves it alone.

    A mount that stands has 60,000 objects, nearly all of them of the libraries: without those a look at all
    costs little, and can be made often. Trees that were replaced wait for it, and with them blocks in memory
    and spools on the disk: collecting less often fills both.
    """
    gc.freeze()
    gc.enable()
    young, older, _ = gc.get_threshold()
    gc.set_threshold(young, older, OLDEST_AFTER)
