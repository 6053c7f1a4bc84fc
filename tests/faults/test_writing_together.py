"""Several writers of one collection at the same time: two mounts, a mount and the API, the same paths."""

import os
import re
import secrets
from pathlib import Path

import pytest
from faults.gate import Deed, Gates
from faults.writing_world import Worker, WritingWorld, write, writing
from mounting import needs_fuse
from servers import wait_for

__all__ = ["writing"]
pytestmark = needs_fuse

THREADS = 8
CONFLICT = re.compile(r"~\d{8}-\d{6}~conflict~")


def contents(writing: WritingWorld, uuid: str) -> dict[str, list[bytes]]:
    """What the server has under each name and its conflict names."""
    found: dict[str, list[bytes]] = {}
    for path, data in sorted(writing.exact_tree(uuid).items()):
        found.setdefault(CONFLICT.sub("", path), []).append(data)
    return found


def test_two_mounts_write_different_files(writing: WritingWorld) -> None:
    """8 threads on each, in one directory and in directories of their own, with renames."""
    uuid = writing.site.collection({"shared/old": b"old"})
    wanted: dict[str, bytes | None] = {"shared/old": b"old"}
    with writing.mount(cache="one") as one, writing.mount(cache="two") as two:

        def work(root: Path, name: str) -> None:
            mine = root / f"d{name}"
            mine.mkdir()
            for number in range(6):
                data = f"{name} {number} ".encode() * 100
                write(root / f"shared/{name}-{number}", data, sync=number == 3)
                write(mine / f"{number}.part", data)
                (mine / f"{number}.part").rename(mine / f"{number}")
                wanted[f"shared/{name}-{number}"] = wanted[f"d{name}/{number}"] = data

        workers = [
            Worker(lambda root=mount.root / uuid, name=f"{side}{at}": work(root, name))  # type: ignore[misc]
            for side, mount in (("a", one), ("b", two))
            for at in range(THREADS)
        ]
        for worker in workers:
            worker.result(120)
        writing.wait_saved(uuid, wanted)
        wait_for(
            lambda: all(len(list((m.root / uuid / "shared").iterdir())) == 97 for m in (one, two)),
            "both mounts show the files of both",
        )
    assert writing.tree(uuid) == wanted


def test_the_api_changes_what_a_mount_writes_into(writing: WritingWorld) -> None:
    """58 files by `replace_files`, while a mount writes 200 and changes others."""
    old = {f"api/f{number}": b"old %d" % number for number in range(58)}
    kept = {f"kept/f{number}": b"kept %d" % number for number in range(20)}
    uuid = writing.site.collection({**old, **kept})
    new = writing.site.collection({f"f{number}": b"new %d" % number for number in range(58)})
    pdh = writing.site.api.get_collection(new)["portable_data_hash"]
    wanted: dict[str, bytes | None] = {}
    with writing.mount() as mount:
        top = mount.root / uuid
        assert (top / "api/f0").read_bytes() == b"old 0"

        def others() -> None:
            for number in range(58):
                changes = {f"/api/f{number}": f"{pdh}/f{number}" if number % 3 else ""}
                writing.site.api.update_collection(uuid, {}, replace_files=changes)

        other = Worker(others)
        (top / "mine").mkdir()
        for number in range(200):
            data = secrets.token_bytes(1000)
            write(top / f"mine/f{number}", data, sync=number % 40 == 39)
            wanted[f"mine/f{number}"] = data
        for number in range(20):
            write(top / f"kept/f{number}", b"mine")
            wanted[f"kept/f{number}"] = b"mine"
        other.result()
        wanted.update({f"api/f{number}": b"new %d" % number for number in range(58) if number % 3})
        writing.wait_saved(uuid, wanted)
        names = {f"f{number}" for number in range(58) if number % 3}
        wait_for(lambda: {path.name for path in (top / "api").iterdir()} == names, "the mount shows it")
        assert (top / "api/f1").read_bytes() == b"new 1"


NAMES = ("f0", "f1", "f2", "sub/f3")


def rewrite(root: Path, side: str) -> dict[str, bytes]:
    """Write each file several times; gives the last versions."""
    last = {}
    for name in NAMES:
        (root / name).parent.mkdir(exist_ok=True)
        for number in range(4):
            last[name] = f"{side} {name} {number}".encode()
            write(root / name, last[name])
    return last


@pytest.mark.parametrize("at_once", [False, True], ids=["in turn", "at once"])
def test_two_mounts_write_the_same_files(writing: WritingWorld, at_once: bool) -> None:
    """The last version of each is there, under its name or a conflict name: whoever writes has not seen the
    other's."""
    uuid = writing.site.collection({"f0": b"old", "f1": b"old"})
    gates = Gates(writing.server)
    try:
        hold = lambda ask: Deed(hold=ask.method == "PUT")  # noqa: E731
        gates.keep_rule(hold)
        with (
            writing.mount(cache="one") as one,
            writing.mount(cache="two", environment=gates.environment(writing.token)) as two,
        ):
            if at_once:
                writing.gates.keep_rule(hold)
            last = [rewrite(one.root / uuid, "one"), rewrite(two.root / uuid, "two")]
            if at_once:
                wait_for(lambda: any(gate.held for gate in writing.gates.keep), "the first is saving")
            else:
                descriptor = os.open(one.root / uuid, os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)
            wait_for(lambda: any(gate.held for gate in gates.keep), "the second is saving")
            gates.clear()
            writing.gates.clear()
    finally:
        gates.stop()
    found = contents(writing, uuid)
    assert set(found) == set(NAMES)
    for name in NAMES:
        assert set(found[name]) >= {side[name] for side in last}, name
        assert len(found[name]) == 2


def test_somebody_saves_between_look_and_update(writing: WritingWorld) -> None:
    """The last chance to lose a version: it was not there when we looked, and is when we write."""
    uuid = writing.site.collection({"other": b"other", "known": b"old"})
    with writing.mount() as mount:
        top = mount.root / uuid
        assert (top / "other").read_bytes() == b"other"
        writing.gates.api.rule = lambda ask: Deed(hold=True) if ask.changes(uuid) else Deed()
        write(top / "known", b"ours")
        write(top / "new", b"ours")
        writing.gates.api.wait_held()
        theirs = writing.site.collection({"f": b"theirs"})
        pdh = writing.site.api.get_collection(theirs)["portable_data_hash"]
        changes = {"/known": f"{pdh}/f", "/new": f"{pdh}/f", "/third": f"{pdh}/f"}
        writing.site.api.update_collection(uuid, {}, replace_files=changes)
        writing.gates.api.clear()
    found = contents(writing, uuid)
    assert found == {
        "other": [b"other"],
        "known": [b"ours", b"theirs"],
        "new": [b"ours", b"theirs"],
        "third": [b"theirs"],
    }
