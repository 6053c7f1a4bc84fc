"""Changes in process beside the suite: tmp collections, renames by reference, a collection in two places."""

import errno
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from counting import changing, request_counter, stored_blocks
from drivers import TreeDriver, read, refused, write
from worlds import Maker, session
from writing_bench import compare, record_of, sdk_reads, shown

from arvados_fuse.cli.build import MountSession
from arvados_fuse.errors import InvalidArgument
from arvados_fuse.options import CustomMount

NEW = os.O_CREAT | os.O_RDWR
FILES: dict[str, bytes | None] = {
    "f": b"first",
    "d/g": bytes(range(256)) * 1000,
    "d/empty": b"",
    "hollow": None,
    "d/with space": b"space",
}
TMP_FIELDS = ["manifest_text", "portable_data_hash", "storage_classes_desired", "uuid"]

Open = Callable[..., tuple[TreeDriver, MountSession]]


@pytest.fixture
def open_tree(mine: Maker, tmp_path: Path) -> Iterator[Open]:
    """Trees of one user that can be changed."""
    with ExitStack() as stack:

        def make(**options: Any) -> tuple[TreeDriver, MountSession]:
            built = stack.enter_context(
                session(mine.server, mine.token, tmp_path, **{"mode": "all", "read_write": True, **options})
            )
            return TreeDriver(built.filesystem), built

        yield make


def fill(driver: TreeDriver, top: str) -> None:
    """Put FILES below `top`."""
    for path, data in sorted(FILES.items()):
        for count in range(1, path.count("/") + 1):
            above = f"{top}/{'/'.join(path.split('/')[:count])}"
            if above.rpartition("/")[2] not in driver.names(above.rpartition("/")[0]):
                driver.mkdir(above)
        if data is None:
            driver.mkdir(f"{top}/{path}")
        else:
            write(driver, f"{top}/{path}", data)


def record_at(driver: TreeDriver, top: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(read(driver, f"{top}/.arvados#collection"))
    return found


# Tmp collections


def custom(*places: tuple[str, str]) -> dict[str, Any]:
    return {"mode": "custom", "custom": [CustomMount(kind, name) for kind, name in places]}  # type: ignore[arg-type]


def test_a_tmp_collection_is_nowhere_but_its_manifest_can_be_used(open_tree: Open, mine: Maker) -> None:
    driver, _ = open_tree(**custom(("tmp", "tmp0"), ("tmp", "tmp1"), ("by_pdh", "by_id")))
    asked = request_counter(mine.server)
    empty = record_at(driver, "tmp0")
    assert sorted(empty) == TMP_FIELDS
    assert (empty["uuid"], empty["manifest_text"]) == (None, "")
    assert empty["portable_data_hash"] == "d41d8cd98f00b204e9800998ecf8427e+0"
    fill(driver, "tmp0")
    told = record_at(driver, "tmp0")
    assert sorted(told) == TMP_FIELDS
    assert changing(asked()) == []
    compare(sdk_reads(mine, told["manifest_text"]), FILES, "the SDK")
    compare(shown(driver, "tmp0"), FILES, "shown")
    assert driver.names("tmp1") == []
    made = mine.make("collections", name="output", manifest_text=told["manifest_text"])
    assert made["portable_data_hash"] == told["portable_data_hash"]
    compare(shown(driver, f"by_id/{told['portable_data_hash']}"), FILES, "by its hash, at once")


def test_a_tmp_collection_goes_on_after_its_record_was_read(open_tree: Open, mine: Maker) -> None:
    driver, built = open_tree(**custom(("tmp", "tmp0")))
    handle = driver.open_file("tmp0/open", NEW)
    handle.write(0, b"1")
    first = record_at(driver, "tmp0")
    assert sdk_reads(mine, first["manifest_text"]) == {"open": b"1"}
    handle.write(1, b"2")
    assert sdk_reads(mine, record_at(driver, "tmp0")["manifest_text"]) == {"open": b"12"}
    handle.fsync()
    handle.close()
    driver.rename("tmp0/open", "tmp0/moved")
    driver.mkdir("tmp0/d")
    write(driver, "tmp0/d/x", b"x")
    driver.unlink("tmp0/d/x")
    told = record_at(driver, "tmp0")
    compare(sdk_reads(mine, told["manifest_text"]), {"moved": b"12", "d": None}, "the SDK")
    driver.unlink("tmp0/moved")
    driver.rmdir("tmp0/d")
    assert record_at(driver, "tmp0")["manifest_text"] == ""
    built.filesystem.check()


def test_two_mounts_have_tmp_collections_of_their_own(open_tree: Open) -> None:
    one, _ = open_tree(**custom(("tmp", "tmp0")))
    write(one, "tmp0/f", b"f")
    two, _ = open_tree(**custom(("tmp", "tmp0")))
    assert two.names("tmp0") == []


def test_what_can_not_be_done_to_tmp_collections(open_tree: Open) -> None:
    driver, _ = open_tree(**custom(("tmp", "tmp0"), ("tmp", "tmp1"), ("home", "home")))
    acts: list[Callable[[], None]] = [
        lambda: driver.rmdir("tmp0"),
        lambda: driver.rename("tmp0", "tmp2"),
        lambda: driver.rename("tmp0", "home/tmp"),
        lambda: driver.mkdir("tmp2"),
        lambda: driver.unlink("tmp0/.arvados#collection"),
    ]
    for act in acts:
        with refused(errno.EPERM):
            act()


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b"])
def test_what_is_no_name_reaches_no_server(open_tree: Open, mine: Maker, name: bytes) -> None:
    mine.collection("here", {"file": b"bytes"})
    driver, built = open_tree(**custom(("home", "home")))
    requests, tree = request_counter(mine.server), built.filesystem
    for top, old in (("home", b"here"), ("home/here", b"file")):
        with driver.at(top) as parent:
            acts: list[Callable[[], object]] = [
                partial(tree.make_directory, parent.ino, name),
                partial(tree.create_file, parent.ino, name),
                partial(tree.rename, parent.ino, old, parent.ino, name),
            ]
            for act in acts:
                with pytest.raises(InvalidArgument, match="not a name"):
                    act()
    assert changing(requests()) == []


def test_storage_classes_of_new_collections(open_tree: Open, mine: Maker) -> None:
    driver, _ = open_tree(**custom(("tmp", "tmp0"), ("home", "home")), storage_classes=["default"])
    assert record_at(driver, "tmp0")["storage_classes_desired"] == ["default"]
    driver.mkdir("home/made")
    assert record_at(driver, "home/made")["storage_classes_desired"] == ["default"]


# Renames


def test_what_is_renamed_to_another_collection_is_not_moved(open_tree: Open, mine: Maker) -> None:
    data = {f"d/f{number}": secrets.token_bytes(10_000) for number in range(20)}
    one, two = mine.collection("one", data)["uuid"], mine.collection("two", {})["uuid"]
    driver, built = open_tree()
    driver.names(f"by_id/{one}/d")
    before, counters = stored_blocks(mine.server), built.filesystem.context.blocks.counters
    assert before
    received = counters.get("net.received_bytes")
    driver.rename(f"by_id/{one}/d", f"by_id/{two}/moved")
    record_at(driver, f"by_id/{one}")
    told = record_at(driver, f"by_id/{two}")
    assert stored_blocks(mine.server) == before
    assert counters.get("net.received_bytes") == received
    moved = {path.replace("d/", "moved/"): content for path, content in data.items()}
    compare(sdk_reads(mine, told["manifest_text"]), moved, "moved")
    assert record_of(mine, one)["manifest_text"] == ""


def test_full_blocks_are_written_to_the_local_disk_once(open_tree: Open, mine: Maker) -> None:
    """What a large file waited in is its block in the cache; only the first block, which begins among small
    files, and the last are copied."""
    uuid = mine.collection("large", {})["uuid"]
    driver, built = open_tree(mode="by_id")
    counters = built.filesystem.context.blocks.counters
    piece, size = secrets.token_bytes(1 << 20), 200 << 20
    file = driver.open_file(f"{uuid}/large", NEW)
    for at in range(0, size, len(piece)):
        file.write(at, at.to_bytes(8, "big") + piece[8:])
    file.fsync()
    assert counters.get("cache.linked") == 2
    asked = counters.get("keep.requests")
    for at in range(0, size, 40 << 20):
        assert bytes(file.read(at, len(piece))) == at.to_bytes(8, "big") + piece[8:]
    assert counters.get("keep.requests") == asked
    file.close()


def test_between_a_tmp_collection_and_one_that_is_saved(open_tree: Open, mine: Maker) -> None:
    uuid = mine.collection("saved", {"old": b"old"})["uuid"]
    driver, _ = open_tree(**custom(("tmp", "tmp0"), ("by_id", "by_id")))
    fill(driver, "tmp0")
    before = len(stored_blocks(mine.server))
    driver.rename("tmp0/d", f"by_id/{uuid}/d")
    driver.rename("tmp0/f", f"by_id/{uuid}/f")
    driver.rename(f"by_id/{uuid}/old", "tmp0/old")
    expected = {path: data for path, data in FILES.items() if path != "hollow"}
    compare(
        sdk_reads(mine, record_at(driver, f"by_id/{uuid}")["manifest_text"]),
        expected,
        "the one that is saved",
    )
    compare(
        sdk_reads(mine, record_at(driver, "tmp0")["manifest_text"]), {"old": b"old", "hollow": None}, "tmp"
    )
    assert len(stored_blocks(mine.server)) <= before + 1


# One collection in two places


def test_two_places_show_the_same(open_tree: Open, mine: Maker) -> None:
    uuid = mine.collection("both", {"f": b"first", "d/g": b"g"})["uuid"]
    driver, built = open_tree()
    home, by_id = "home/both", f"by_id/{uuid}"
    for here, there in ((home, by_id), (by_id, home)):
        driver.stat(f"{there}/f")
        one, two = driver.open_file(f"{here}/f", os.O_RDWR), driver.open_file(f"{there}/f", os.O_RDWR)
        one.write(0, b"ONE")
        two.write(3, b"TWO")
        one.write(6, b"!")
        assert read(driver, f"{here}/f") == read(driver, f"{there}/f") == b"ONETWO!"
        one.close()
        two.close()
        driver.rename(f"{here}/f", f"{here}/moved")
        driver.rename(f"{there}/d", f"{there}/e")
        assert sorted(driver.names(here)) == sorted(driver.names(there)) == ["e", "moved"]
        assert read(driver, f"{here}/e/g") == b"g"
        write(driver, f"{there}/e/g", b"g")
        driver.rename(f"{there}/moved", f"{there}/f")
        driver.rename(f"{here}/e", f"{here}/d")
        compare(shown(driver, here), {"f": b"ONETWO!", "d/g": b"g"}, here)
        compare(shown(driver, there), {"f": b"ONETWO!", "d/g": b"g"}, there)
        built.filesystem.check()
    compare(
        sdk_reads(mine, record_at(driver, home)["manifest_text"]), {"f": b"ONETWO!", "d/g": b"g"}, "the SDK"
    )


@pytest.mark.parametrize("last", [0, 1])
def test_a_tree_with_files_open_in_two_places_moves_to_another_collection(
    open_tree: Open, mine: Maker, last: int
) -> None:
    uuid, other = mine.collection("both", {"d/f": b"first"})["uuid"], mine.collection("other", {})["uuid"]
    driver, built = open_tree()
    one, two = driver.open_file("home/both/d/f", os.O_RDWR), driver.open_file(f"by_id/{uuid}/d/f", os.O_RDWR)
    one.write(0, b"1")
    two.write(1, b"2")
    driver.rename("home/both/d", f"by_id/{other}/d")
    one.write(2, b"3")
    two.write(3, b"4")
    first_closed, last_closed = (two, one) if last == 0 else (one, two)
    first_closed.close()
    last_closed.write(4, b"5")
    last_closed.fsync()
    assert sdk_reads(mine, str(record_of(mine, other)["manifest_text"]))["d/f"] == b"12345"
    last_closed.write(5, b"6")
    last_closed.close()
    told = record_at(driver, f"by_id/{other}")
    assert sdk_reads(mine, told["manifest_text"])["d/f"] == b"123456"
    assert record_at(driver, f"by_id/{uuid}")["manifest_text"] == ""
    states = [state.working for state in built.filesystem.context.working()]
    assert not any(working.writers for working in states if working is not None)
