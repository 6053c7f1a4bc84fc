"""What /proc tells about a process from outside (proc(5)). Raises OSError when it is gone."""

import time
from pathlib import Path

_SCHEDULED = 2
"""With the complement of a process number above it: that process's clock (clock_getcpuclockid(3))."""


def cpu_seconds(pid: int) -> float:
    """CPU time of all its threads, user and system, to the nanosecond (/proc has it in hundredths)."""
    return time.clock_gettime(~pid << 3 | _SCHEDULED)


def memory(pid: int) -> dict[str, int]:
    """Bytes: `peak` resident so far, `resident` now, `own` now (without files mapped)."""
    names = {"VmHWM": "peak", "VmRSS": "resident", "RssAnon": "own"}
    found: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in names:
            found[names[name]] = int(value.split()[0]) * 1024
    return found
