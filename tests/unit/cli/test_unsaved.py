"""What is told of a mount that is asked to save, without one."""

import errno
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arvados_fuse.cli import live, unsaved
from arvados_fuse.fuse.unmount import MountPoint


def test_what_the_journal_has_no_room_for_is_not_taken_for_saved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(*_: Any, **__: Any) -> Iterator[dict[str, Any]]:
        yield {"files": 0, "bytes": 0, "error": "c: what was changed last is in no journal: no space"}

    monkeypatch.setattr(unsaved, "mounts_at", lambda *_, **__: [MountPoint("/mnt", "fuse", "", 1)])
    monkeypatch.setattr(live, "ask", ask)
    assert not unsaved.save_first(Path("/mnt"), patience=1.0)
    told = "arv-mount: not everything at /mnt is saved: c: what was changed last is in no journal: no space\n"
    assert capsys.readouterr().err == told


class Terminal(io.StringIO):
    """One that somebody watches, until it is closed."""

    gone = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.gone:
            raise OSError(errno.EIO, "Input/output error")
        return super().write(text)


def watch(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(unsaved, "QUIET", 0.0)
    return terminal


def test_how_saving_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watch(monkeypatch)
    line = unsaved.ProgressLine()
    line.show(2, 3_000_000)
    assert "saving: 2 changed paths, 3.0 MB to go" in terminal.getvalue()
    line.show(1, 1_000_000)
    assert "saving: 1 changed path, 1.0 MB to go, " in terminal.getvalue()
    line.end()
    assert terminal.getvalue().endswith("\n")


def test_saving_goes_on_when_the_terminal_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watch(monkeypatch)
    line = unsaved.ProgressLine()
    line.show(2, 2000)
    told = terminal.getvalue()
    assert "saving: 2 changed paths" in told
    terminal.gone = True
    line.show(1, 1000)
    line.end()
    assert terminal.getvalue() == told
