"""A collection that was changed here, and is again what the server has."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from drivers import TreeDriver, read
from servers import wait_for
from worlds import Maker, session

from arvados_fuse.api import ApiClient
from arvados_fuse.errors import Unreachable
from arvados_fuse.tree import cell, working
from arvados_fuse.tree.collection_state import CollectionState


class Changed(NamedTuple):
    """A collection with `f` and `g`; `f` was changed here and is saved. mine: its owner."""

    tree: TreeDriver
    state: CollectionState
    mine: Maker
    patch: pytest.MonkeyPatch

    def change_elsewhere(self) -> str:
        """Let `g` be another file, and be told so, as by an event. Gives the new portable data hash."""
        manifest = self.mine.manifest({"f": b"ours", "g": b"theirs"})
        record = self.mine.update("collections", self.state.key, manifest_text=manifest)
        self.state.expire()
        return str(record["portable_data_hash"])

    def come_to_rest(self) -> None:
        """Let the next look be the one at which nothing needs the working copy any more."""
        assert self.state.working is not None
        self.patch.setattr(working, "REST_AFTER", 0.0)
        assert read(self.tree, "f") == b"ours"
        assert self.state.working is None


@pytest.fixture
def changed(mine: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Changed]:
    """It is a working copy."""
    monkeypatch.setattr(working, "REST_AFTER", 1e9)
    uuid = mine.collection("c", {"f": b"old", "g": b"old"})["uuid"]
    options = {"mode": "collection", "target": uuid, "refresh_time": 3600.0}
    with session(mine.server, mine.token, tmp_path, read_write=True, **options) as built:
        tree = TreeDriver(built.filesystem)
        file = tree.open_file("f", os.O_WRONLY | os.O_TRUNC)
        file.write(0, b"ours")
        file.fsync()
        file.close()
        state = built.filesystem.context.known_collection(uuid)
        assert state is not None
        yield Changed(tree, state, mine, monkeypatch)


def test_what_others_changed_is_shown_though_asking_for_it_failed(
    changed: Changed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer from before is no fresher by the working copy's end."""
    asked = threading.Event()

    def fail(*_: Any, **__: Any) -> Any:
        asked.set()
        raise Unreachable("not now")

    monkeypatch.setattr(cell, "PAUSE_AFTER_FAILURE", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(ApiClient, "get_collection", fail)
        changed.change_elsewhere()
        changed.come_to_rest()
        assert asked.wait(30)
        assert read(changed.tree, "g") == b"old"
    wait_for(lambda: read(changed.tree, "g") == b"theirs", "what others changed is shown")


def test_what_others_changed_is_shown_though_it_came_to_rest_while_asking(
    changed: Changed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a file that the kernel knows, and that nobody looked at in that moment."""
    real, gate, asked = ApiClient.get_collection, threading.Event(), threading.Event()

    def slow(client: ApiClient, key: str, **options: Any) -> Any:
        asked.set()
        gate.wait(30)
        return real(client, key, **options)

    monkeypatch.setattr(ApiClient, "get_collection", slow)
    with changed.tree.at("g") as known:
        pdh = changed.change_elsewhere()
        assert read(changed.tree, "f") == b"ours"
        assert asked.wait(30)
        changed.come_to_rest()
        gate.set()
        wait_for(lambda: changed.state.shows(pdh), "the answer came")
        assert read(changed.tree, "g") == b"theirs"
        assert changed.tree.stat("g").ino != known.ino
