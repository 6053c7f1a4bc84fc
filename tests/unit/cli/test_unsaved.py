"""What is told of a mount that is asked to save, without one."""

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
