"""The end of a mount: each step is taken, whatever became of the one before."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from arvados_fuse.cli.build import MountSession

STEPS = [
    "inside.ending",
    "listener.close",
    "rights.stop",
    "follower.stop",
    "replacer.stop",
    "notifier.stop",
    "session.close",
    "inside.unmounted",
    "inside.close",
    "filesystem.close",
    "blocks.close",
    "api.close",
]


class Part:
    """Notes what is called; the step that is to fail raises."""

    def __init__(self, name: str, taken: list[str], failing: str) -> None:
        self._name, self._taken, self._failing = name, taken, failing
        self.context = SimpleNamespace(writeback=None)

    def __getattr__(self, method: str) -> Callable[..., bool]:
        def call(**_: object) -> bool:
            step = f"{self._name}.{method}"
            self._taken.append(step)
            if step == self._failing:
                raise RuntimeError(step)
            return True

        return call


def session(taken: list[str], failing: str = "") -> MountSession:
    def part(name: str) -> Any:
        return Part(name, taken, failing)

    return MountSession(
        *(part("filesystem"), part("inside"), part("api"), part("blocks"), part("session"), Path("mnt")),
        *(part("notifier"), part("follower"), part("replacer"), part("listener"), part("rights")),
        Path("unsaved"),
    )


def test_a_mount_is_taken_down_in_order() -> None:
    taken: list[str] = []
    assert session(taken).close()
    assert taken == STEPS


@pytest.mark.parametrize("failing", STEPS)
def test_what_fails_keeps_nothing_else_from_being_taken_down(failing: str) -> None:
    taken: list[str] = []
    with pytest.raises(RuntimeError, match=failing):
        session(taken, failing).close()
    assert taken == STEPS
