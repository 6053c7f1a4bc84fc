"""Collections saved to and merged with a real server: through our clients and through the SDK's."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from collection_support import tree
from servers import PROJECT, LocalServer

from arvados_fuse.collection import Collection, CollectionReader, portable_data_hash
from arvados_fuse.errors import ArvadosFuseError


@pytest.fixture
def environment(
    local_server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Mapping[str, str]:
    settings = local_server.settings.environment()
    for name in [name for name in os.environ if name.startswith("ARVADOS_")]:
        monkeypatch.delenv(name)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return settings


class Opened:
    """Collections that are closed at the end of the test."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.settings = settings
        self._all: list[Collection] = []

    def __call__(self, locator: str | None = None) -> Collection:
        made = Collection(locator, apiconfig=self.settings)
        self._all.append(made)
        return made

    def close(self) -> None:
        for each in self._all:
            each.stop_threads()


@pytest.fixture
def opened(environment: Mapping[str, str]) -> Iterator[Opened]:
    made = Opened(environment)
    yield made
    made.close()


def test_a_collection_goes_to_the_server_and_back(opened: Opened) -> None:
    c = opened()
    for number in range(20):
        with c.open(f"d/f{number}", "wb") as f:
            f.write(b"%d" % number * number)
    c.mkdirs("empty")
    text = c.save_new("saved", ensure_unique_name=True)
    uuid = c.manifest_locator()
    assert uuid is not None
    assert "+A" in text
    expected = tree(c)
    again = opened(uuid)
    assert tree(again) == expected
    response = again.api_response()
    assert response is not None
    assert response["portable_data_hash"] == again.portable_data_hash() == portable_data_hash(text)
    by_hash = opened(again.portable_data_hash())
    assert tree(by_hash) == expected


PROGRAM = """
import sys
import arvados
import arvados.collection
from arvados_fuse.collection import Collection

uuid, api = sys.argv[1], arvados.api("v1")
oracle = arvados.collection.CollectionReader(uuid, api_client=api)
for c in (Collection(uuid, api_client=api), Collection(uuid, api, api.keep)):
    assert c.manifest_text(strip=True, normalize=True) == oracle.manifest_text(strip=True, normalize=True)
    with c.open("d/f7", "rb") as ours, oracle.open("d/f7", "rb") as theirs:
        assert ours.read() == theirs.read() == b"7777777"
    with c.open("n", "w") as f:
        f.write("new")
    c.save(properties={"by": "a script"})
    c.remove("n")
    c.save()
    assert Collection(uuid, api_client=api).get_properties() == {"by": "a script"}
    with c.open("n", "w") as f:
        f.write("new")
    assert c.commit() == []
again = arvados.collection.Collection(uuid, api_client=api)
assert again.open("n").read() == "new"
again.remove("n")
again.save()
c.update()
assert not c.exists("n")
assert c.committed()
print("done")
"""


def test_with_the_clients_of_the_sdk(opened: Opened, environment: Mapping[str, str]) -> None:
    """In a process of its own: the SDK's clients leave connections behind."""
    c = opened()
    with c.open("d/f7", "wb") as f:
        f.write(b"7777777")
    c.save_new("saved", ensure_unique_name=True)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(c.manifest_locator())],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_commits_of_many_writers_do_not_undo_each_other(opened: Opened) -> None:
    first = opened()
    with first.open("shared", "w") as f:
        f.write("start")
    first.save_new("many", ensure_unique_name=True)
    uuid = first.manifest_locator()
    assert uuid is not None
    writers = [opened(uuid) for _ in range(4)]
    failures: list[BaseException] = []

    def work(number: int, c: Collection) -> None:
        try:
            for turn in range(5):
                with c.open(f"d{number}/f{turn}", "wb") as f:
                    f.write(b"%d %d" % (number, turn))
                c.commit()
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures
    final = tree(opened(uuid))
    for number in range(4):
        for turn in range(5):
            assert final[f"d{number}/f{turn}"] == b"%d %d" % (number, turn)
    assert not [path for path in final if "conflict" in path]
    for c in writers:
        c.update()
        assert tree(c) == final
        assert c.committed()


def test_the_same_path_changed_on_both_sides_keeps_both(opened: Opened) -> None:
    mine = opened()
    for name in ("a", "b", "gone"):
        with mine.open(name, "w") as f:
            f.write("start")
    mine.save_new("conflict", ensure_unique_name=True)
    uuid = mine.manifest_locator()
    theirs = opened(uuid)
    with theirs.open("a", "w") as f:
        f.write("theirs")
    theirs.remove("gone")
    theirs.rename("b", "sub")
    theirs.commit()
    with mine.open("a", "w") as f:
        f.write("mine")
    (conflict,) = mine.commit()
    expected = {"a": b"mine", "sub": b"start", conflict: b"theirs"}
    assert tree(mine) == expected
    assert tree(opened(uuid)) == expected
    assert mine.committed()
    assert mine.portable_data_hash() == opened(uuid).portable_data_hash()


def test_what_the_server_refuses_stays_here(opened: Opened) -> None:
    c = opened()
    with c.open("a", "w") as f:
        f.write("1")
    with pytest.raises(ArvadosFuseError):
        c.save_new("x", owner_uuid="zzzzz-j7d0g-notthere0000000")
    assert not c.committed()
    c.save_new("x", ensure_unique_name=True)
    assert c.committed()
    with pytest.raises(OSError, match="read only"):
        CollectionReader(c.manifest_text(), apiconfig=opened.settings).save_new()
