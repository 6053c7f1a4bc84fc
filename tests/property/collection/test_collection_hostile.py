"""Manifests that are broken by accident or on purpose: an error or the right tree, soon, and in little
memory."""

import random
import time
import tracemalloc
from collections.abc import Callable

import pytest
from collection_support import BAR, EMPTY, FOO, Blocks, tree
from hypothesis import given, note
from hypothesis import strategies as st

from arvados_fuse.collection import Collection, Directory, File
from arvados_fuse.errors import ManifestError

LEGAL = (
    f". {FOO} {BAR} 0:6:a 0:3:b\\040c 6:0:d\n"
    f"./d/e {BAR}+A{'0' * 40}@77777777 0:3:c 1:1:x:y\n"
    f"./d\\134 {EMPTY} 0:0:\\056\n"
    f". {FOO} 0:1:z/y 1:2:z/y\n"
)
PIECES = [
    *(
        " ",
        "\n",
        "\t",
        "\r",
        "\0",
        "/",
        "//",
        ".",
        "..",
        "/../",
        "/./",
        ":",
        "::",
        "\\",
        "\\000",
        "\\057",
        "\\056",
    ),
    *(
        "\\777",
        "\\40",
        "+",
        "-",
        "0",
        "9" * 30,
        "0:0:",
        "0:3:a",
        FOO,
        BAR,
        "\u00a0",
        "\u2028",
        "\x7f",
        "\ud800",
    ),
    *("é", "\u0663", "a", "./"),
]


def mutate(text: str, chance: random.Random) -> str:
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text) + 1)
        kind = chance.randrange(4)
        if kind == 0:
            text = text[:at] + chance.choice(PIECES) + text[at:]
        elif kind == 1:
            text = text[:at] + text[at + chance.randint(1, 5) :]
        elif kind == 2:
            text = text[:at] + chance.choice(PIECES) + text[at + 1 :]
        else:
            other = chance.randrange(len(text) + 1)
            text = text[: max(at, other)] + text[min(at, other) :]
    return text


def read_all(text: str) -> dict[str, bytes | None]:
    """The tree, or a ManifestError; and what must hold of any tree."""
    collection = Collection.from_manifest(text, blocks=Blocks())
    found = tree(collection)
    collection.root.check()
    for path in found:
        for part in path.split("/"):
            assert part not in ("", ".", "..")
            assert "\0" not in part
            part.encode()
    again = Collection.from_manifest(collection.manifest_text(normalize=True), blocks=Blocks())
    assert tree(again) == found
    return found


def outcome(text: str) -> ManifestError | None:
    """The error, if there is one; a block that the test does not have is none of ours."""
    try:
        read_all(text)
    except ManifestError as error:
        return error
    except KeyError:
        return None
    return None


@given(st.integers(0, 2**64))
def test_mutated_manifests(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(20):
        text = mutate(LEGAL, chance)
        note(ascii(text))
        error = outcome(text)
        if error is not None:
            assert error.line > 0
            assert str(error).startswith(f"manifest line {error.line}:")
            assert len(str(error)) < 400


@given(st.text(alphabet=". /:\\0123abc+\n\t\x00é\u2028", max_size=60))
def test_any_text(text: str) -> None:
    error = outcome(text)
    assert error is None or error.line > 0


LARGE: dict[str, Callable[[int], str]] = {
    "components in a stream name": lambda n: f"./{'a/' * 5 * n}a {FOO} 0:3:f\n",
    "components in a token": lambda n: f". {FOO} 0:3:{'a/' * 5 * n}f\n",
    "a long name": lambda n: f". {FOO} 0:3:{'a' * 5 * n}\n",
    "escapes": lambda n: f". {FOO} 0:3:{chr(92) + '141' * 5 * n}\n",
    "digits": lambda n: f". {FOO} {'1' * 5 * n}:3:a\n",
    "tokens of one path": lambda n: f". {FOO}{' 0:3:a' * n}\n",
    "tokens out of order": lambda n: f". {FOO} " + " ".join(f"0:3:{at}" for at in reversed(range(n))) + "\n",
    "streams of one name": lambda n: f". {FOO} 0:3:a\n" * (n // 4),
    "streams out of order": lambda n: "".join(f"./{at} {FOO} 0:3:a\n" for at in reversed(range(n // 4))),
    "blocks": lambda n: f". {' '.join([FOO] * n)} 0:{3 * n}:a\n",
    "empty blocks": lambda n: f". {' '.join([EMPTY] * n)} {FOO} 0:3:a\n",
    "directories in tokens": lambda n: f". {FOO} " + " ".join(f"0:3:d{at}/f" for at in range(n // 4)) + "\n",
    "long paths in tokens": lambda n: (
        f"./{'/'.join(['d' * 200] * 300)} {FOO} " + " ".join(f"0:1:{at}/f" for at in range(n // 10)) + "\n"
    ),
    "deep": lambda n: f"./{'/'.join(['d'] * 900)} {FOO} 0:3:f\n",
    "deep and many": lambda n: "".join(
        f"./{at}/{'/'.join(['d'] * 900)} {FOO} 0:3:f\n" for at in range(n // 10_000)
    ),
    "prefixes": lambda n: "".join(f"./{'/'.join(['d'] * at)} {FOO} 0:3:f\n" for at in range(1, 900)),
    "spaces": lambda n: f". {FOO} 0:3:a{' ' * 5 * n}\n",
    "colons": lambda n: f". {FOO} 0:3:{':' * 5 * n}\n",
    "newlines": lambda n: "\n" * 5 * n,
    "a huge file": lambda n: f". {FOO[:33]}9223372036854775000 0:9223372036854775000:a\n",
    "pieces beyond the largest file": lambda n: (
        f". {FOO[:33]}9223372036854775000{' 0:9223372036854775000:a' * 3}\n"
    ),
}


def walk_all(text: str) -> ManifestError | None:
    try:
        collection = Collection.from_manifest(text, blocks=Blocks())
        pending = [collection.root]
        while pending:
            for _, entry in pending.pop().entries():
                if isinstance(entry, Directory):
                    pending.append(entry)
                else:
                    entry.size()
        collection.manifest_text(normalize=True)
    except ManifestError as error:
        return error
    return None


@pytest.mark.parametrize("kind", LARGE)
def test_large_hostile_manifests_end_soon(kind: str) -> None:
    text = LARGE[kind](200_000)
    start = time.process_time()
    error = walk_all(text)
    # Measured on a slow machine: at most 7 seconds (50,000 lines out of order).
    assert time.process_time() - start < 40
    assert error is None or len(str(error)) < 400


@pytest.mark.parametrize("kind", LARGE)
def test_large_hostile_manifests_take_little_memory(kind: str) -> None:
    text = LARGE[kind](20_000)
    tracemalloc.start()
    try:
        walk_all(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Directories take most: there can be one for every two bytes of a path, about a kilobyte each.
    assert peak < 3_000_000 + 1000 * len(text)


def test_a_block_that_is_not_as_long_as_its_locator_says() -> None:
    blocks = Blocks()
    blocks.data["+".join([FOO[:32], "9"])] = b"foo"
    short = type("Short", (Blocks,), {"read": lambda self, *_: b"foo"})()
    collection = Collection.from_manifest(f". {FOO[:33]}9 0:9:a\n", blocks=short)
    file = collection.find("a")
    assert isinstance(file, File)
    assert file.size() == 9
    with pytest.raises(OSError, match="3 bytes where 9"):
        file.read(0, 9)
    assert bytes(file.read(0, 3)) == b"foo"


def test_names_are_data_not_paths() -> None:
    collection = Collection(keep_client=Blocks())
    for name in ("..", ".", "", "a/b", "x\0", "\udcff"):
        for work in (collection.root.create, collection.root.make_directory):
            with pytest.raises(ValueError, match="not a name"):
                work(name)
    for name in ("a b", "c:d", "e\\f", "\x01\x7f", "\n", "g\u2028h", "...", "~", "é" * 120):
        collection.root.create(name).write(0, name.encode())
    again = Collection(collection.manifest_text(), keep_client=collection.root.tree.block_store())
    assert tree(again) == tree(collection)
    assert len(again) == 9
