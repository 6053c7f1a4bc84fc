"""Merging random changes of two sides: nothing is lost, nothing is undone, nothing else appears."""

import hashlib
from typing import TypeAlias

from collection_support import Blocks, tree
from hypothesis import given, note
from hypothesis import strategies as st

from arvados_fuse.collection import Collection
from arvados_fuse.collection.commit import commit_request
from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.manifest.changes import compare
from arvados_fuse.collection.merge import merge_into

Tree: TypeAlias = dict[str, bytes | None]
"""{path: content, or None for a directory}; every directory on the way is there."""

NOW = 1_700_000_000.0
STAMP = "~20231114-221320~conflict~"
NAMES = ["a", "b", "c d"]
CONTENTS = [b"", b"1", b"22", b"333"]

paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
steps = st.tuples(
    st.sampled_from(["write", "write", "remove", "mkdir", "move"]), paths, paths, st.sampled_from(CONTENTS)
)


def below(found: Tree, path: str) -> list[str]:
    return [each for each in found if each == path or each.startswith(path + "/")]


def change(found: Tree, step: tuple[str, str, str, bytes]) -> None:
    """One edit of a model tree; one that is not possible does nothing."""
    kind, path, other, data = step
    if kind == "remove":
        for each in below(found, path):
            del found[each]
        return
    if kind == "move":
        if (
            path not in found
            or other in found
            or (other + "/").startswith(path + "/")
            or not make_way(found, other)
        ):
            return
        for each in below(found, path):
            found[other + each[len(path) :]] = found.pop(each)
        return
    if not make_way(found, path) or (path in found and found[path] is None):
        return
    if kind == "mkdir":
        if path not in found:
            found[path] = None
    else:
        found[path] = data


def make_way(found: Tree, path: str) -> bool:
    parts = path.split("/")[:-1]
    ways = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    if any(found.get(way, None) is not None for way in ways):
        return False
    for way in ways:
        found.setdefault(way, None)
    return True


def collection_of(found: Tree, blocks: Blocks) -> Collection:
    collection = Collection(keep_client=blocks)
    for path, data in sorted(found.items()):
        if data is None:
            collection.find_or_create(path, "collection")
        else:
            with collection.open(path, "wb") as file:
                file.write(data)
            # A block for each file: the same bytes in other blocks count as a change, for nobody reads them.
            collection.flush()
    return collection


@st.composite
def sides(draw: st.DrawFn) -> tuple[Tree, Tree, Tree]:
    base: Tree = {}
    for step in draw(st.lists(steps, max_size=8)):
        change(base, step)
    ours, theirs = dict(base), dict(base)
    for side in (ours, theirs):
        for step in draw(st.lists(steps, max_size=5)):
            change(side, step)
    return base, ours, theirs


def files(found: Tree) -> dict[str, bytes]:
    return {path: data for path, data in found.items() if data is not None}


def check_merged(base: Tree, ours: Tree, theirs: Tree, result: Tree) -> None:
    """The rules, said once more: independent of how they are done."""
    explained = set()
    for path in {*files(base), *files(ours), *files(theirs)}:
        was, mine, other = (files(side).get(path) for side in (base, ours, theirs))
        kept = result.get(path)
        if mine != was:
            assert kept == mine, f"{path}: ours is {mine!r}"
            explained.add(path)
        if other in (was, mine) and mine == was:
            assert kept == was, f"{path}: nobody changed {was!r}"
            explained.add(path)
        if other not in (was, mine):
            in_our_way = mine != was or path in ours or any(way in files(ours) for way in ways(path))
            if mine == was and not in_our_way:
                assert kept == other, f"{path}: only they changed it to {other!r}"
                explained.add(path)
            elif other is not None:
                places = [
                    place for place in result if without_stamp(place) == path and result[place] == other
                ]
                assert places, f"{path}: theirs, {other!r}, is lost"
                explained.update(places)
            elif mine == was:
                assert kept is None, f"{path}: they removed it"
    assert set(files(result)) <= explained


def ways(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def without_stamp(path: str) -> str:
    return path.replace(STAMP, "")


def serve(current: Tree, replace_files: dict[str, str], sent: Tree) -> Tree:
    """What an Arvados API server makes of a `replace_files` request, with its rules."""
    sourced = [target for target, source in replace_files.items() if source]
    for target in replace_files:
        assert target.startswith("/")
        assert not any(target.startswith(each + "/") for each in sourced), "an ancestor of another target"
    result = dict(current)
    for target in replace_files:
        for each in below(result, target[1:]):
            del result[each]
    for target, source in replace_files.items():
        if not source:
            continue
        kind, _, path = source.partition("/")
        place = {"current": current, "manifest_text": sent}[kind]
        assert path in place, f"no such source {source}"
        assert make_way(result, target[1:]), f"{target} is below a file"
        for each in below(place, path):
            result[target[1:] + each[len(path) :]] = place[each]
    return result


@given(sides())
def test_a_merge_loses_nothing(drawn: tuple[Tree, Tree, Tree]) -> None:
    base, ours, theirs = drawn
    note(f"{base=} {ours=} {theirs=}")
    blocks = Blocks()
    texts = [collection_of(side, blocks).manifest_text() for side in drawn]
    live = Collection(texts[1], keep_client=blocks)
    merged = merge_into(live.root, ManifestIndex(texts[0]), ManifestIndex(texts[2]), now=NOW)
    result = tree(live)
    check_merged(base, ours, theirs, result)
    live.root.check()
    assert {path for path in merged.changed if path in files(result)} == {
        path for path in files(result) if ours.get(path) != result[path]
    }
    assert all(path in result for path in merged.conflicts)
    assert tree(Collection(live.manifest_text(), keep_client=blocks)) == result


@given(sides())
def test_a_commit_loses_nothing(drawn: tuple[Tree, Tree, Tree]) -> None:
    base, ours, theirs = drawn
    note(f"{base=} {ours=} {theirs=}")
    blocks = Blocks()
    indexes = [ManifestIndex(collection_of(side, blocks).manifest_text()) for side in drawn]
    request = commit_request(*indexes, now=NOW)
    note(f"{request=}")
    assert bool(request.manifest_text) == any(
        source.startswith("manifest_text/") for source in request.replace_files.values()
    )
    sent = tree(Collection(request.manifest_text, keep_client=blocks))
    result = serve(theirs, request.replace_files, sent)
    check_merged(base, ours, theirs, result)
    again = Collection(indexes[1].data.decode(), keep_client=blocks)
    merge_into(again.root, indexes[0], indexes[2], now=NOW)
    assert files(tree(again)) == files(result), "merging and committing come to the same"
    if theirs == base:
        assert {path for path in result if path not in ours} == set()
        assert files(result) == files(ours)
        changed = {
            path for path in {*files(base), *files(ours)} if files(base).get(path) != files(ours).get(path)
        }
        touched = {target[1:] for target in request.replace_files}
        assert all(any(path == each or path.startswith(each + "/") for each in touched) for path in changed)
    if ours == base:
        assert request.replace_files == {}


@given(sides())
def test_compare_finds_exactly_what_differs(drawn: tuple[Tree, Tree, Tree]) -> None:
    blocks = Blocks()
    before, after = (ManifestIndex(collection_of(side, blocks).manifest_text()) for side in drawn[:2])
    changes = compare(before, after)
    old, new = files(drawn[0]), files(drawn[1])
    assert [change.path for change in changes.files] == sorted(
        path for path in {*old, *new} if old.get(path) != new.get(path)
    )
    directories = [{path for path, data in side.items() if data is None} for side in drawn[:2]]
    assert set(changes.directories_removed) == directories[0] - directories[1]
    assert set(changes.directories_added) == directories[1] - directories[0]


def test_one_line_hash_is_not_needed_to_tell_lines_apart() -> None:
    first = f". {hashlib.md5(b'1').hexdigest()}+1+A{'1' * 40}@77777777 0:1:a\n"
    second = first.replace("@77777777", "@88888888")
    changes = compare(ManifestIndex(first), ManifestIndex(second))
    assert not changes.files
