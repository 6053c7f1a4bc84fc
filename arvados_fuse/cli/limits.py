"""The limit on open files (RLIMIT_NOFILE): raised to what a mount needs, never lowered.

Used by `main.py` in the process that serves the mount; the command of `--exec` keeps the caller's limit.
"""

import logging
import resource

logger = logging.getLogger("arvados.arv-mount")

BLOCK = 1 << 26
"""Bytes of a full Keep block."""
BASE = 10240
"""Open files for connections, spool files and the cache at its automatic size."""


def raise_open_files(file_cache: int) -> int:
    """Raise the soft limit so that `file_cache` bytes of blocks can be open at once; gives the new limit."""
    wanted = BASE + 2 * (file_cache // BLOCK)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed < wanted:
        logger.warning(
            "the limit on open files stays at %d where %d would serve the cache better", allowed, wanted
        )
    if allowed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(allowed, soft)
