"""Who may cut short what is being saved at the end of a mount."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from arvados_fuse.cli.saving import DRAIN, drain

STATUS = SimpleNamespace(files=1, bytes=1, collections=[], is_clean=lambda: False)


class Interrupted:
    """Write-back that gets Ctrl-C twice while it saves."""

    def __init__(self) -> None:
        self.timeouts: list[float] = []

    def status(self) -> Any:
        return STATUS

    def close(self, *, timeout: float, progress: Callable[[Any], None] | None = None) -> Any:
        self.timeouts.append(timeout)
        if progress is not None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            progress(STATUS)
        return STATUS


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["heeded", "ignored"])
def ignored(request: pytest.FixtureRequest) -> Iterator[bool]:
    before = signal.signal(signal.SIGINT, request.param)
    try:
        yield request.param is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_the_caller_ignores_cuts_no_saving_short(ignored: bool, tmp_path: Path) -> None:
    writeback: Any = Interrupted()
    context: Any = SimpleNamespace(working=list)
    assert not drain(writeback, context, tmp_path)
    assert writeback.timeouts == ([DRAIN] if ignored else [DRAIN, 0.0])
