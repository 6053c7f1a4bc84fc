"""Fixtures that every rung may use: running servers and the stock clients."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from servers import LocalServer, StockClients, StockMissing, stock_clients

# No test depends on how fast the machine is; all else is as hypothesis has it, also where CI is set.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# In the background of a shell or under nohup these are ignored, and would be in what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def local_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """An embedded Arvados with two Keep services, one for the whole run: don't stop it, don't fill it."""
    server = LocalServer(tmp_path_factory.mktemp("local") / "data", "--keep-services", "2")
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def fresh_server(tmp_path: Path) -> Iterator[LocalServer]:
    """An embedded Arvados of the test's own, with two Keep services; it may be killed and restarted."""
    server = LocalServer(tmp_path / "arvados", "--keep-services", "2")
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def stock() -> StockClients:
    """The stock clients from PyPI; the test is skipped where they can't be had."""
    try:
        return stock_clients()
    except StockMissing as error:
        pytest.skip(str(error))
