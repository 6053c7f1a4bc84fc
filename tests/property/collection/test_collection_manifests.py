"""Random manifests: the tree, the content and the normalized text are right.

The tree and the content are held against a plain reading of the format, the texts against the SDK 3.2.1,
except where
that is wrong: it takes Unicode white space for a separator, and it loses data around blocks of zero length.
"""

import hashlib
import random
from dataclasses import dataclass
from unittest import mock

from collection_oracle import DictKeep, sdk_collection, sdk_sizes, sdk_tree
from collection_support import SIGNED, Blocks, tree
from hypothesis import given, note, settings
from hypothesis import strategies as st

from arvados_fuse.collection import Collection, Directory, portable_data_hash
from arvados_fuse.collection.manifest import lines as lines_module

BLOCKS = {
    f"{hashlib.md5(data).hexdigest()}+{len(data)}": data
    for data in (b"", b"a", b"bc", b"def", b"0123456789", bytes(range(100)))
}
EMPTY = "d41d8cd98f00b204e9800998ecf8427e+0"

# Directories and files have different names, so that no path is both.
DIRECTORIES = ["d", "d-", "d.e", "D", "d e", "é", "d\\x", "~", "\U0001f600"]
FILES = ["f", "f.", "f f", "g:1:2", "ü", "h\\1", "\x01", "f\n", "..f", "+A", "0:0:x", "\x7f", "z\U0001f600"]
ODD = ["my\u00a0file", "x\u2028y", "\u3000", "n\u0085l"]
"""White space to Python's regular expressions, and so to the SDK; a name like any other to Arvados."""


@dataclass
class Drawn:
    text: str
    tree: dict[str, bytes | None]


def spelled(name: str, chance: random.Random) -> str:
    """A name as a token: what must be escaped is, anything else in ASCII may be."""
    return "".join(
        f"\\{ord(char):03o}"
        if char in "\\ " or ord(char) <= 0x20 or (ord(char) < 0x7F and chance.random() < 0.1)
        else char
        for char in name
    )


@st.composite
def manifests(draw: st.DrawFn, odd: bool = False, empty_blocks: bool = False, loose: bool = True) -> Drawn:
    files = FILES + (ODD if odd else [])
    found: dict[str, bytes | None] = {}
    lines = []
    chance = random.Random(draw(st.integers(0, 2**32)))
    for _ in range(draw(st.integers(0, 5))):
        stream = draw(st.lists(st.sampled_from(DIRECTORIES), max_size=3))
        locators = [name for name in sorted(BLOCKS) if empty_blocks or name != EMPTY]
        blocks = draw(st.lists(st.sampled_from(locators), min_size=1, max_size=4))
        data = b"".join(BLOCKS[name] for name in blocks)
        tokens = []
        for _ in range(draw(st.integers(1, 5))):
            below = (
                draw(st.lists(st.sampled_from(DIRECTORIES), max_size=2))
                if loose and draw(st.booleans())
                else []
            )
            for depth in range(len(stream) + len(below)):
                found.setdefault("/".join([*stream, *below][: depth + 1]), None)
            if draw(st.integers(0, 9)) == 0 and below + stream:
                tokens.append(
                    "0:0:" + "".join([spelled(part, chance) + "/" for part in below]) + spelled(".", chance)
                )
                continue
            name = draw(st.sampled_from(files))
            position = draw(st.integers(0, len(data)))
            size = draw(st.integers(0, len(data) - position))
            path = "/".join([*stream, *below, name])
            found[path] = (found.get(path) or b"") + data[position : position + size]
            token = "/".join([spelled(part, chance) for part in [*below, name]])
            tokens.append(f"{position}:{size}:{token}")
        hints = draw(st.sampled_from(["", "", SIGNED, "+K@zzzzz", "+Rzzzzz-" + "1" * 40 + "@77777777"]))
        first = "/".join([".", *[spelled(part, chance) for part in stream]])
        lines.append(" ".join([first, *[name + hints for name in blocks], *tokens]) + "\n")
    return Drawn("".join(lines), found)


def ours(text: str) -> Collection:
    blocks = Blocks()
    blocks.data.update(BLOCKS)
    return Collection(text, keep_client=blocks)


@given(manifests(odd=True, empty_blocks=True))
def test_any_legal_manifest_has_the_tree_that_the_format_says(drawn: Drawn) -> None:
    note(drawn.text)
    collection = ours(drawn.text)
    assert tree(collection) == drawn.tree
    collection.root.check()
    collection.baseline.check() if drawn.text else None
    collection.drop_parsed()
    for path, content in drawn.tree.items():
        found = collection.find(path)
        assert isinstance(found, Directory) is (content is None)
    assert collection.manifest_text() == drawn.text
    assert tree(ours(collection.manifest_text(normalize=True))) == drawn.tree


@given(manifests())
def test_sizes_and_texts_are_those_of_the_sdk(drawn: Drawn) -> None:
    note(drawn.text)
    collection, oracle = ours(drawn.text), sdk_collection(drawn.text, DictKeep(dict(BLOCKS)))
    mine = tree(collection)
    assert {path: None if data is None else len(data) for path, data in mine.items()} == sdk_sizes(oracle)
    assert mine == sdk_tree(oracle)
    for least in (1, 100):
        with mock.patch.object(lines_module, "WORTH_IT", least):
            assert collection.manifest_text(normalize=True) == oracle.manifest_text(normalize=True)
    assert collection.manifest_text(strip=True) == oracle.manifest_text(strip=True)
    assert collection.portable_manifest_text() == oracle.portable_manifest_text()
    assert collection.portable_data_hash() == oracle.portable_data_hash()
    normalized = collection.manifest_text(normalize=True)
    assert portable_data_hash(normalized) == portable_data_hash(normalized.replace(SIGNED, ""))
    for name, entry in collection.items():
        if isinstance(entry, Directory):
            assert entry.manifest_text("./x") == oracle[name].manifest_text("./x")


@given(manifests(empty_blocks=True, loose=False))
def test_empty_blocks_do_not_lose_data_as_in_the_sdk(drawn: Drawn) -> None:
    """Where the SDK reads such a manifest rightly our normalized text is the same; it often does not."""
    collection, oracle = ours(drawn.text), sdk_collection(drawn.text, DictKeep(dict(BLOCKS)))
    for least in (1, 100):
        with mock.patch.object(lines_module, "WORTH_IT", least):
            text = collection.manifest_text(normalize=True)
        if sdk_tree(oracle) == drawn.tree:
            assert text == oracle.manifest_text(normalize=True)
        assert tree(ours(text)) == drawn.tree


@given(manifests(odd=True), st.data())
def test_a_change_leaves_the_other_lines_as_they_were(drawn: Drawn, data: st.DataObject) -> None:
    collection = ours(drawn.text)
    files = sorted(path for path, content in drawn.tree.items() if content is not None)
    if not files:
        return
    victim = data.draw(st.sampled_from(files))
    parent = victim.rpartition("/")[0]
    collection.remove(victim)
    expected = {path: content for path, content in drawn.tree.items() if path != victim}
    text = collection.manifest_text()
    assert tree(collection) == expected
    assert tree(ours(text)) == expected
    stream = "./" + parent if parent else "."
    if not collection.baseline.has_loose_lines and "\\" not in drawn.text and text:
        untouched = [line for line in drawn.text.split("\n") if line.split(" ")[0] != stream]
        for line in untouched:
            assert line in text


@settings(max_examples=50)
@given(st.lists(manifests(loose=False), min_size=2, max_size=2))
def test_diff_and_apply_make_one_the_other(drawn: list[Drawn]) -> None:
    """As with the SDK, and with the same list of changes."""
    first, second = (ours(each.text) for each in drawn)
    oracles = [sdk_collection(each.text, DictKeep(dict(BLOCKS))) for each in drawn]
    changes = first.diff(second)
    assert {change[:2] for change in changes} == {change[:2] for change in oracles[0].diff(oracles[1])}
    first.apply(changes)
    # The SDK's changes name no directory that both have, and it is not asked to remove what is in use.
    kept = {path for path, content in drawn[1].tree.items() if content is not None}
    assert {path: data for path, data in tree(first).items() if data is not None} == {
        path: drawn[1].tree[path] for path in kept
    }
    assert not [path for path in tree(first) if "~conflict~" in path]
    assert first.portable_data_hash() == second.portable_data_hash()
    assert first == second


@st.composite
def long_lines(draw: st.DrawFn) -> str:
    """One stream of files that lie one after the other, nearly."""
    chance = random.Random(draw(st.integers(0, 2**32)))
    names = sorted(locator for locator in BLOCKS if locator != EMPTY)
    blocks = [chance.choice(names) for _ in range(chance.randint(1, 4))]
    total = sum(len(BLOCKS[name]) for name in blocks)
    overlaps = chance.choice((0, 0, 0.1))
    tokens, position = [], 0
    for number in range(chance.randint(1, 60)):
        size = chance.randint(0 if chance.random() < 0.02 else 1, 5)
        if position + size > total:
            break
        zeros = "0" if chance.random() < 0.01 else ""
        tokens.append(f"{zeros}{position}:{size}:f{number:03}")
        position += size - (chance.random() < overlaps) * chance.randint(0, size)
    return f". {' '.join(blocks)} {' '.join(tokens or ['0:1:f'])}\n"


@given(long_lines(), st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=4))
def test_tokens_are_used_again_only_where_that_is_right(text: str, changes: list[tuple[int, bool]]) -> None:
    with mock.patch.object(lines_module, "WORTH_IT", 1):
        collection, oracle = ours(text), sdk_collection(text, DictKeep(dict(BLOCKS)))
        assert collection.manifest_text(normalize=True) == oracle.manifest_text(normalize=True)
        for number, rename in changes:
            name = f"f{number:03}"
            if not collection.exists(name):
                continue
            for each in (collection, oracle):
                if rename:
                    each.rename(name, f"{name}x")
                else:
                    each.remove(name)
                    for first in sorted(each)[:1]:
                        each.copy(first, f"{name}y")
            assert collection.manifest_text(normalize=True) == oracle.manifest_text(normalize=True)
            assert collection.manifest_text() == oracle.manifest_text()
