"""A commit that knows only the changed paths comes to the same tree as one that knows the collection."""

from typing import Any

from collection_support import Blocks, tree
from hypothesis import given, settings
from hypothesis import strategies as st

from arvados_fuse.collection import Collection
from arvados_fuse.collection.commit import CommitRequest, commit_request
from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.manifest.changes import Finder
from arvados_fuse.collection.manifest.tokens import strip_hints
from arvados_fuse.local.records import replacing
from arvados_fuse.local.records.content import Content
from arvados_fuse.writeback.partial import manifest_of, state_at
from arvados_fuse.writeback.states import State
from arvados_fuse.writeback.whole import with_changes

NOW = 1700000000.0
Tree = dict[str, bytes | None]
"""Paths of files and of empty directories."""


@st.composite
def trees(draw: Any) -> Tree:
    """A small tree: few names and contents, so that sides meet."""
    made: Tree = {}
    for path in draw(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=3), max_size=6)):
        way = "/".join(path)
        above = {"/".join(path[:count]) for count in range(1, len(path))}
        if any(made.get(one, None) is not None for one in above) or any(
            one == way or one.startswith(way + "/") for one in made
        ):
            continue
        for one in above:
            made.pop(one, None)
        made[way] = draw(st.sampled_from([None, b"", b"1", b"2", b"3"]))
    return made


def manifest(content: Tree, blocks: Blocks) -> ManifestIndex:
    made = Collection.from_manifest("", blocks=blocks)
    for path, data in content.items():
        if data is None:
            made.mkdirs(path)
        else:
            with made.open(path, "wb") as file:
                file.write(data)
    return ManifestIndex(made.manifest_text())


def partial_request(base: ManifestIndex, ours: ManifestIndex, theirs: ManifestIndex) -> CommitRequest:
    """What write-back asks for: it has a row for each path that differs."""
    one, other = Finder(base), Finder(ours)
    before: dict[str, State] = {}
    after: dict[str, State] = {}
    for path in {*leaves(base), *leaves(ours)}:
        old, new = state_at(one, path), state_at(other, path)
        if old != new:
            before[path], after[path] = old, new
    return commit_request(
        ManifestIndex(manifest_of(before)), ManifestIndex(manifest_of(after)), theirs, now=NOW
    )


def leaves(index: ManifestIndex) -> list[str]:
    finder = Finder(index)
    top = [path.replace("\0", "/") for path in {key.split("\0")[0] for key in index.keys} if path]
    found = [path for path in top if finder.file(path) is None and not finder.has_entries(path)]
    for path in top:
        found += finder.below(path)
    root = Collection.from_manifest(index.data.decode())
    return found + [name for name in root.listdir() if finder.file(name) is not None]


def after_request(theirs: ManifestIndex, request: CommitRequest, blocks: Blocks) -> tuple[Tree, Tree]:
    """What the embedded server makes of it, and what we make of it for a server that can't."""
    targets = replacing.check_files(request.replace_files, with_manifest=bool(request.manifest_text))
    content = loaded(theirs.data.decode())
    sources = {"current": loaded(theirs.data.decode()), "manifest_text": loaded(request.manifest_text)}
    replacing.replace_files(content, targets, lambda name: sources[name])
    return seen(content.text(), blocks), seen(with_changes(theirs, request).decode(), blocks)


def loaded(text: str) -> Content:
    return Content.load(strip_hints(text.encode()).decode())


def files(made: Tree) -> Tree:
    return {path: data for path, data in made.items() if data is not None}


def seen(text: str, blocks: Blocks) -> Tree:
    return tree(Collection.from_manifest(text, blocks=blocks))


@settings(max_examples=250, deadline=None)
@given(base=trees(), ours=trees(), theirs=trees())
def test_partial_and_whole_come_to_the_same(base: Tree, ours: Tree, theirs: Tree) -> None:
    blocks = Blocks()
    sides = manifest(base, blocks), manifest(ours, blocks), manifest(theirs, blocks)
    whole, small = commit_request(*sides, now=NOW), partial_request(*sides)
    # Of a directory that both sides emptied, each its part, who knows all may leave it where who knows only
    # the changed paths takes it away; the files are what counts.
    mine, complete = after_request(sides[2], small, blocks), after_request(sides[2], whole, blocks)
    assert [files(one) for one in mine] == [files(one) for one in complete]


@settings(max_examples=100, deadline=None)
@given(base=trees(), ours=trees())
def test_without_others_the_server_has_what_we_have(base: Tree, ours: Tree) -> None:
    blocks = Blocks()
    one, other = manifest(base, blocks), manifest(ours, blocks)
    request = partial_request(one, other, one)
    assert request.conflicts == []
    by_server, by_us = after_request(one, request, blocks)
    wanted = seen(other.data.decode(), blocks)
    assert by_server == wanted
    assert by_us == wanted
