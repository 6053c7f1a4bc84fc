"""Each line of the table of merge decisions in docs/collection.md, both ways: into a tree and as a
request."""

from collections.abc import Mapping

import pytest
from collection_support import Blocks, tree

from arvados_fuse.collection import Collection, File
from arvados_fuse.collection.commit import commit_request
from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.merge import merge_into

NOW = 1_700_000_000.0
STAMP = "~20231114-221320~conflict~"

Files = dict[str, bytes | None]


def index_of(files: Mapping[str, bytes | None], blocks: Blocks) -> ManifestIndex:
    collection = Collection(keep_client=blocks)
    for path, data in files.items():
        if data is None:
            collection.find_or_create(path, "collection")
        else:
            with collection.open(path, "wb") as file:
                file.write(data)
            collection.flush()
    return ManifestIndex(collection.manifest_text())


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "result", "request_files"),
    [
        pytest.param(
            {"a": b"1"}, {"a": b"2"}, {"a": b"1"}, {"a": b"2"}, {"/a": "manifest_text/a"}, id="only we"
        ),
        pytest.param({"a": b"1"}, {"a": b"1"}, {"a": b"2"}, {"a": b"2"}, {}, id="only they"),
        pytest.param({"a": b"1"}, {"a": b"1"}, {}, {}, {}, id="they deleted"),
        pytest.param({"a": b"1"}, {}, {"a": b"1"}, {}, {"/a": ""}, id="we deleted"),
        pytest.param({"a": b"1"}, {"a": b"2"}, {"a": b"2"}, {"a": b"2"}, {}, id="both the same"),
        pytest.param(
            {"a": b"1"},
            {"a": b"2"},
            {"a": b"3"},
            {"a": b"2", "a" + STAMP: b"3"},
            {"/a": "manifest_text/a", "/a" + STAMP: "current/a"},
            id="both differently",
        ),
        pytest.param(
            {},
            {"a": b"2"},
            {"a": b"3"},
            {"a": b"2", "a" + STAMP: b"3"},
            {"/a": "manifest_text/a", "/a" + STAMP: "current/a"},
            id="both new",
        ),
        pytest.param(
            {"a": b"1"},
            {},
            {"a": b"3"},
            {"a" + STAMP: b"3"},
            {"/a": "", "/a" + STAMP: "current/a"},
            id="we deleted, they edited",
        ),
        pytest.param(
            {"a": b"1"}, {"a": b"2"}, {}, {"a": b"2"}, {"/a": "manifest_text/a"}, id="we edited, they deleted"
        ),
        pytest.param(
            {"a": b"1"},
            {"b": b"1"},
            {"a": b"3"},
            {"b": b"1", "a" + STAMP: b"3"},
            {"/a": "", "/b": "manifest_text/b", "/a" + STAMP: "current/a"},
            id="we renamed, they edited",
        ),
        pytest.param(
            {"a": b"1"},
            {"a": b"2"},
            {"b": b"1"},
            {"a": b"2", "b": b"1"},
            {"/a": "manifest_text/a"},
            id="we edited, they renamed",
        ),
        pytest.param(
            {},
            {"d": b"2"},
            {"d/x": b"3", "d/y": b"4"},
            {"d": b"2", f"d{STAMP}": None, f"d{STAMP}/x": b"3", f"d{STAMP}/y": b"4"},
            {"/d": "manifest_text/d", f"/d{STAMP}/x": "current/d/x", f"/d{STAMP}/y": "current/d/y"},
            id="our file, their directory",
        ),
        pytest.param(
            {},
            {"d/x": b"2"},
            {"d": b"3"},
            {"d": None, "d/x": b"2", "d" + STAMP: b"3"},
            {"/d": "", "/d/x": "manifest_text/d/x", "/d" + STAMP: "current/d"},
            id="our directory, their file",
        ),
        pytest.param(
            {},
            {"d/x": b"2"},
            {"d/y": b"3"},
            {"d": None, "d/x": b"2", "d/y": b"3"},
            {"/d/x": "manifest_text/d/x"},
            id="both a directory",
        ),
        pytest.param(
            {"d/x": b"1"},
            {},
            {"d/x": b"1", "d/y": b"3"},
            {"d": None, "d/y": b"3"},
            {"/d/x": ""},
            id="we deleted its place",
        ),
        pytest.param(
            {"d/x": b"1", "d/e/y": b"1"}, {}, {"d/x": b"1", "d/e/y": b"1"}, {}, {"/d": ""}, id="all of it"
        ),
        pytest.param(
            {}, {"d": b"2"}, {"d": None}, {"d": b"2"}, {"/d": "manifest_text/d"}, id="their empty directory"
        ),
        pytest.param({}, {"d": None}, {}, {"d": None}, {"/d": "manifest_text/d"}, id="our empty directory"),
        pytest.param(
            {"d/x": b"1"},
            {"d": b"2"},
            {"d/x": b"1"},
            {"d": b"2"},
            {"/d": "manifest_text/d"},
            id="a file for a directory",
        ),
    ],
)
def test_the_table(
    base: Files, ours: Files, theirs: Files, result: Files, request_files: dict[str, str]
) -> None:
    blocks = Blocks()
    indexes = [index_of(side, blocks) for side in (base, ours, theirs)]
    live = Collection(indexes[1].data.decode(), keep_client=blocks)
    merged = merge_into(live.root, indexes[0], indexes[2], now=NOW)
    assert tree(live) == result
    assert merged.conflicts == [path for path in merged.changed if STAMP in path]
    request = commit_request(*indexes, now=NOW)
    assert request.replace_files == request_files
    assert [path for path in request.conflicts if STAMP not in path] == []


def test_a_conflict_name_that_is_taken_moves_on() -> None:
    blocks = Blocks()
    base, ours, theirs = ({"a": data, "a" + STAMP: b"older"} for data in (b"1", b"2", b"3"))
    later = "a~20231114-221321~conflict~"
    indexes = [index_of(side, blocks) for side in (base, ours, theirs)]
    live = Collection(indexes[1].data.decode(), keep_client=blocks)
    assert merge_into(live.root, indexes[0], indexes[2], now=NOW).conflicts == [later]
    assert tree(live) == {"a": b"2", "a" + STAMP: b"older", later: b"3"}
    assert commit_request(*indexes, now=NOW).conflicts == [later]


def test_a_directory_that_was_emptied_here_stays_on_the_server() -> None:
    blocks = Blocks()
    base, ours = index_of({"d/f": b"1"}, blocks), index_of({"d": None}, blocks)
    request = commit_request(base, ours, base)
    assert request.replace_files == {"/d": "manifest_text/d"}
    others = index_of({"d/f": b"1", "d/g": b"2"}, blocks)
    assert commit_request(base, ours, others).replace_files == {"/d/f": ""}


def test_what_a_mount_settles_when_it_commits_is_left_alone() -> None:
    blocks = Blocks()
    base = {"same": b"0", "mine": b"0", "gone": b"0", "open": b"0"}
    collection = Collection(index_of(base, blocks).data.decode(), keep_client=blocks)
    held, mine = collection.find("same"), collection.find("mine")
    assert isinstance(held, File)
    assert isinstance(mine, File)
    mine.write(0, b"1")
    theirs = index_of({"same": b"2", "mine": b"2", "new": b"2"}, blocks)
    merged = merge_into(
        collection.root, index_of(base, blocks), theirs, ours=lambda path: path in ("mine", "open")
    )
    assert merged.conflicts == []
    assert sorted(merged.changed) == ["gone", "new", "same"]
    assert tree(collection) == {"same": b"2", "mine": b"1", "new": b"2", "open": b"0"}
    assert held.read(0, 9) == b"0", "who has it open goes on with what it was"
    assert not held.is_linked()
