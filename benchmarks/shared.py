"""What the measurements share with the tests: the embedded server, stock arv-mount, proxies for faults.

All live in `tests/`. Used by all measurements of mounts, and by the soak run.
"""

import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent
FAULT_PROXY = PROJECT / "tests/faults/proxy.py"
"""Runs as a program of its own: a slow line in front of a Keep service."""

# Tests find their helpers by bare name; so do measurements, which run from the same tree.
sys.path.append(str(PROJECT / "tests"))

from faults.gate import PASS, Ask, Deed, Gate  # noqa: E402
from faults.jumping_clock import JumpingClock  # noqa: E402
from faults.proxy import Fault, FaultProxy  # noqa: E402
from servers import (  # noqa: E402
    STOCK_MOUNT,
    LocalServer,
    StockClients,
    StockMissing,
    stock_clients,
    wait_for,
)

__all__ = [
    "FAULT_PROXY",
    "PASS",
    "PROJECT",
    "STOCK_MOUNT",
    "Ask",
    "Deed",
    "Fault",
    "FaultProxy",
    "Gate",
    "JumpingClock",
    "LocalServer",
    "StockClients",
    "StockMissing",
    "stock_clients",
    "wait_for",
]
