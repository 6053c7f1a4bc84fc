"""Memory that was given back goes back to the system."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading
from arvados_fuse.cli import heap

if sys.argv[1] == "settled":
    assert heap.settle()


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


def work(keep, gate):
    for size in range(1 << 20, 25 << 20, 3 << 20):
        gate.wait()
        buffer = bytearray(size)
        keep.append(bytearray(4000))  # lies behind it in the heap, and keeps that from shrinking
        del buffer


def rounds():
    kept, gate = [], threading.Barrier(8)
    threads = [threading.Thread(target=work, args=(kept, gate)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return kept


before = resident()
kept = rounds()
print(resident() - before)
"""


def grown(how: str) -> int:
    """Bytes that the process is larger after buffers of up to 25 MiB came and went in eight threads."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True, timeout=60
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library keeps nothing")
def test_large_buffers_go_back() -> None:
    assert grown("settled") < 16 << 20 < grown("as it is")


TREES = """
import collections, weakref
from arvados_fuse.cli import heap


class Node:
    def __init__(self, root):
        self.root = root or self
        self.below = []


def tree():
    root = Node(None)
    root.below += [Node(root) for _ in range(200)]
    return root


heap.settle()
heap.keep_loaded()
alive, used, most = weakref.WeakSet(), collections.deque(maxlen=20), 0
for _ in range(2000):
    made = tree()
    alive.add(made)
    used.append(made)
    most = max(most, len(alive))
print(most)
"""


def test_trees_that_were_replaced_go_soon() -> None:
    """Of 2000 trees, 20 of them in use at a time, few are in memory together."""
    done = subprocess.run(
        [sys.executable, "-c", TREES], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) < 250
