"""What the measurements share with the tests: the embedded server as a child, and stock arv-mount from PyPI.

Both live in `tests/servers.py`. Used by all measurements of mounts.
"""

import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent
FAULT_PROXY = PROJECT / "tests/faults/proxy.py"
"""Runs as a program of its own: a slow line in front of a Keep service."""

# Tests find their helpers by bare name; so do measurements, which run from the same tree.
sys.path.append(str(PROJECT / "tests"))

from servers import STOCK_MOUNT, LocalServer, StockClients, StockMissing, stock_clients  # noqa: E402

__all__ = [
    "FAULT_PROXY",
    "PROJECT",
    "STOCK_MOUNT",
    "LocalServer",
    "StockClients",
    "StockMissing",
    "stock_clients",
]
