"""Reading manifests: trees, sizes, content, and what is refused."""

import gc
import hashlib

import pytest
from collection_support import BAR, EMPTY, FOO, SIGNED, Blocks, tree

from arvados_fuse.collection import Collection, Directory, File, portable_data_hash
from arvados_fuse.errors import ManifestError


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ("", {}),
        (f". {FOO} 0:3:a\n", {"a": b"foo"}),
        (f". {FOO} {BAR} 0:6:a 1:4:b 6:0:c\n", {"a": b"foobar", "b": b"ooba", "c": b""}),
        (f". {FOO}{SIGNED} 0:3:a\n", {"a": b"foo"}),
        (f". {FOO}+Rzzzzz-{'0' * 40}@77777777 0:3:a\n", {"a": b"foo"}),
        (f". {FOO}+K@zzzzz 0:3:a\n", {"a": b"foo"}),
        (f". {FOO} 0:1:b 0:3:a 2:1:b\n", {"a": b"foo", "b": b"fo"}),
        (f". {FOO} 0:3:a\n. {BAR} 0:2:a 2:1:b\n", {"a": b"fooba", "b": b"r"}),
        (f"./b {FOO} 0:3:f\n. {BAR} 0:3:c\n./a {BAR} 0:3:f\n",
         {"a": None, "a/f": b"bar", "b": None, "b/f": b"foo", "c": b"bar"}),
        (f"./e {EMPTY} 0:0:\\056\n", {"e": None}),
        (f"./e {EMPTY} 0:0:.\n", {"e": None}),
        (f". {EMPTY} 0:0:e/.\n", {"e": None}),
        (f". {EMPTY} {FOO} {EMPTY} {BAR} {EMPTY} 0:6:a 3:3:b 3:0:c\n",
         {"a": b"foobar", "b": b"bar", "c": b""}),
        (f". {FOO} 0:3:d/e/f 0:1:g\n", {"d": None, "d/e": None, "d/e/f": b"foo", "g": b"f"}),
        (f". {FOO} 0:3:d/f\n./d {BAR} 0:3:f 0:1:g\n", {"d": None, "d/f": b"foobar", "d/g": b"b"}),
        (f"./d {BAR} 0:3:f\n. {FOO} 0:3:d/f\n", {"d": None, "d/f": b"barfoo"}),
        (f". {FOO} 0:3:a\\040b 0:1:\\141 0:2:a\\057c\n", None),
        (f". {FOO} 0:3:a\\040b 0:1:\\142 0:2:d\\057c\n", {"a b": b"foo", "b": b"f", "d": None, "d/c": b"fo"}),
        (f"./a\\040b {FOO} 0:3:x:y\n", {"a b": None, "a b/x:y": b"foo"}),
        (f". {FOO} 0:3:a\\\\b 0:3:x\\9\n", {"a\\\\b": b"foo", "x\\9": b"foo"}),
        (f". {FOO} 0:3:\\303\\251 0:1:\\351a\n", {"é": b"foo", "éa": b"f"}),
        (f". {FOO} 0:3:\u00e9 0:1:\U0001f600\n", {"é": b"foo", "\U0001f600": b"f"}),
        (f". {FOO} 0:3:my\u00a0file 0:1:x\u2028y 0:1:z\u0085 0:1:\u3000\n",
         {"my\u00a0file": b"foo", "x\u2028y": b"f", "z\u0085": b"f", "\u3000": b"f"}),
        (f"./a-b {FOO} 0:1:f\n./a {FOO} 0:1:f\n./a/b {FOO} 0:1:f\n./a.b {FOO} 0:1:f\n",
         {"a-b": None, "a-b/f": b"f", "a": None, "a/f": b"f", "a/b": None,
          "a/b/f": b"f", "a.b": None, "a.b/f": b"f"}),
        (f". {FOO} 00:0003:a\n", {"a": b"foo"}),
        (f". {FOO} 0:3:{'n' * 1000}\n", {"n" * 1000: b"foo"}),
        (f". {FOO} 0:3:...\n./.../..a {FOO} 0:3:.b\n", None),
        (f"./.../..a {FOO} 0:3:.b\n", {"...": None, ".../..a": None, ".../..a/.b": b"foo"}),
        (f"./\\141 {FOO} 0:1:f\n./a {FOO} 0:1:f\n", {"a": None, "a/f": b"ff"}),
    ],
)  # fmt: skip
def test_legal_manifests_give_the_right_tree(manifest: str, expected: dict[str, bytes | None] | None) -> None:
    collection = Collection.from_manifest(manifest, blocks=Blocks())
    if expected is None:
        with pytest.raises(ManifestError, match="both a file and a directory"):
            collection.root.entries()
        return
    assert tree(collection) == expected
    collection.drop_parsed()
    assert tree(collection) == expected
    collection.baseline.check()
    collection.root.check()


@pytest.mark.parametrize(
    ("manifest", "line"),
    [
        ("x", 1),
        ("\n", 1),
        (" \n", 1),
        (".\n", 1),
        (f". {FOO} 0:3:a", 1),
        (f". {FOO} 0:3:a\n\n. {FOO} 0:3:a\n", 2),
        (f". {FOO} 0:3:a\r\n", 1),
        (f". {FOO} 0:3:a\n./../x {FOO} 0:3:a\n", 2),
        (f". {FOO} 0:3:a\n./x/.. {FOO} 0:3:a\n", 2),
        (f". {FOO} 0:3:a\n/x {FOO} 0:3:a\n", 2),
        (f".. {FOO} 0:3:a\n", 1),
        (f"./ {FOO} 0:3:a\n", 1),
        (f".//x {FOO} 0:3:a\n", 1),
        (f"./x/ {FOO} 0:3:a\n", 1),
        (f"./x/./y {FOO} 0:3:a\n", 1),
        (f"./x\\057\\056\\056/y {FOO} 0:3:a\n", 1),
        (f"./x\\000 {FOO} 0:3:a\n", 1),
        (f"./x\x00 {FOO} 0:3:a\n", 1),
        (f"./x\ty {FOO} 0:3:a\n", 1),
        (f"x {FOO} 0:3:a\n", 1),
        (f".x {FOO} 0:3:a\n", 1),
        ("./x\ud800 acbd18db4cc2f85cedef654fccc4a4d8+3 0:3:a\n", 1),
        (f". {FOO} 0:3:a\n. {FOO} 0:3:\udc80\n", 2),
        (". 0:3:a\n", 1),
        (f". {FOO}\n", 1),
        (f".  {FOO} 0:3:a\n", 1),
        (f". {FOO}  0:3:a\n", 1),
        (f". {FOO} 0:3:a \n", 1),
        (f". {FOO} 0:3:a  0:3:b\n", 1),
        (f". {FOO.upper()} 0:3:a\n", 1),
        (f". {FOO}+ 0:3:a\n", 1),
        (f". {FOO}+a 0:3:a\n", 1),
        (f". {FOO[:20]} 0:3:a\n", 1),
        (f". {FOO} 0:3:a {BAR} 0:3:b\n", 1),
        (f". {FOO} 0:4:a\n", 1),
        (f". {FOO} 4:0:a\n", 1),
        (f". {FOO} -1:2:a\n", 1),
        (f". {FOO} +1:2:a\n", 1),
        (f". {FOO} 1_0:2:a\n", 1),
        (f". {FOO} \u0660:3:a\n", 1),
        (f". {FOO} \u00b2:3:a\n", 1),
        (f". {FOO} :3:a\n", 1),
        (f". {FOO} 0::a\n", 1),
        (f". {FOO} 0:3:\n", 1),
        (f". {FOO} 0:3\n", 1),
        (f". {FOO} 0:1 2:3:4:x\n", 1),
        (f". {FOO} 18446744073709551615:1:a\n", 1),
        (f". {FOO} 9223372036854775807:9223372036854775807:a\n", 1),
        (f". {FOO} {'9' * 100000}:1:a\n", 1),
        (f". {FOO[:33]}{'9' * 100000} 0:1:a\n", 1),
        (f". {FOO[:33]}9223372036854775807 {FOO} 0:1:a\n", 1),
        (f". {FOO} 0:3:..\n", 1),
        (f". {FOO} 0:3:.\n", 1),
        (f". {FOO} 0:3:/a\n", 1),
        (f". {FOO} 0:3:a/\n", 1),
        (f". {FOO} 0:3:a//b\n", 1),
        (f". {FOO} 0:3:a/../b\n", 1),
        (f". {FOO} 0:3:./b\n", 1),
        (f". {FOO} 0:3:a\\057..\\057b\n", 1),
        (f". {FOO} 0:3:a\\000b\n", 1),
        (f". {FOO} 0:3:a\x7f\x01b\n", 1),
        (f". {FOO} 0:3:a\n./a {FOO} 0:3:b\n", 1),
        (f". {FOO} 0:3:a 0:3:a/b\n", 1),
        (f"./b {FOO} 0:3:a\n./b/a/c {FOO} 0:3:b\n", 1),
        (f". {FOO} 0:3:{'a/' * 10**6}a\n", 1),
        (f"./{'a/' * 10**6}a {FOO} 0:3:b\n", 1),
        (f"./{'a' * 10**6} {FOO} 0:3:b\n", 1),
    ],
)  # fmt: skip
def test_illegal_manifests_name_the_line(manifest: str, line: int) -> None:
    with pytest.raises(ManifestError) as caught:
        tree(Collection.from_manifest(manifest, blocks=Blocks()))
    assert caught.value.line == line
    assert f"line {line}:" in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("at", [0, 5000, 10_000])
@pytest.mark.parametrize(
    "token",
    ["", "true:1:a", "null:1:a", "1e0:1:a", "0.0:1:a", "0,1:1:a", "[0:1]:a", '"0:1":a', "-0:1:a", ":1:a",
     "0::a", "0:1:", "0:4:a", "3:1:a", "0:1:..", "0:1:.", "0:1:a/../b", "0:1", "0:1:a\tb", f"{'9' * 30}:1:a"],
)  # fmt: skip
def test_a_bad_token_is_found_anywhere_in_a_long_line(token: str, at: int) -> None:
    tokens = [f"0:3:f{number:05}" for number in range(10_000)]
    tokens.insert(at, token)
    with pytest.raises(ManifestError, match=r"^manifest line 2: ") as caught:
        Collection.from_manifest(f"./a {FOO} 0:3:a\n. {FOO} {' '.join(tokens)}\n").root.names()
    if token:
        assert repr(token) in str(caught.value)


def test_a_long_line_in_any_order_is_read_as_it_stands() -> None:
    sizes = {f"f{number * 7919 % 10_007:05}": number % 4 for number in range(10_000)}
    tokens = " ".join(f"{3 - size}:{size}:{name}" for name, size in sizes.items())
    collection = Collection.from_manifest(f". {FOO} {tokens}\n", blocks=Blocks())
    assert collection.root.names() == sorted(sizes)
    for name, file in collection.items():
        assert isinstance(file, File)
        assert file.size() == sizes[name]
        assert bytes(file.read(0, 3)) == b"foo"[3 - sizes[name] :]


def test_entries_are_a_sequence_and_a_snapshot() -> None:
    collection = Collection.from_manifest(f". {FOO} 0:3:a 0:2:b 0:1:c\n", blocks=Blocks())
    entries = collection.root.entries()
    collection.rename("a", "z")
    collection.remove("b")
    with collection.open("c", "ab") as file:
        file.write(b"more")
    assert [name for name, _ in entries] == ["a", "b", "c"]
    assert [name for name, _ in entries[1:]] == ["b", "c"]
    assert entries[-1][0] == "c"
    with pytest.raises(IndexError):
        entries[3]
    # Each is still the file that had the name, whatever became of that.
    first, second, third = (file for _, file in entries)
    assert isinstance(first, File)
    assert isinstance(second, File)
    assert isinstance(third, File)
    assert (first.name, first.is_linked(), bytes(first.read(0, 9))) == ("z", True, b"foo")
    assert (second.is_linked(), bytes(second.read(0, 9))) == (False, b"fo")
    assert (third.size(), bytes(third.read(0, 9))) == (5, b"fmore")
    assert [name for name, _ in collection.root.entries()] == ["c", "z"]


def test_an_error_text_holds_no_signature() -> None:
    with pytest.raises(ManifestError) as caught:
        Collection.from_manifest(f". {FOO}{SIGNED}+? 0:3:a\n").root.entries()
    assert FOO in str(caught.value)
    assert "@77777777" not in str(caught.value)


def test_a_fault_in_one_directory_leaves_the_others_readable() -> None:
    collection = Collection.from_manifest(
        f". {FOO} 0:3:a\n./bad {FOO} 0:9:a\n./good {FOO} 0:3:a\n", blocks=Blocks()
    )
    assert [name for name, _ in collection.root.entries()] == ["a", "bad", "good"]
    bad, good = collection.root.get("bad"), collection.root.get("good")
    assert isinstance(bad, Directory)
    assert isinstance(good, Directory)
    assert [name for name, _ in good.entries()] == ["a"]
    for _ in range(2):
        with pytest.raises(ManifestError, match="line 2"):
            bad.entries()
        with pytest.raises(ManifestError, match="line 2"):
            bad.get("a")


def test_an_entry_stays_what_it_is_while_it_is_held() -> None:
    blocks = Blocks()
    collection = Collection.from_manifest(f". {FOO} 0:3:a\n./d {FOO} 0:3:a\n", blocks=blocks)
    file, directory = collection.root.get("a"), collection.root.get("d")
    assert isinstance(file, File)
    assert isinstance(directory, Directory)
    inner = directory.get("a")
    assert isinstance(inner, File)
    collection.drop_parsed()
    gc.collect()
    assert collection.root.get("d") is directory
    assert collection.root.get("a") == file
    assert bytes(inner.read(0, 3)) == b"foo"
    assert collection.root.get("a").content() is file.content()  # type: ignore[union-attr]


def test_files_that_were_only_listed_take_no_memory_afterwards() -> None:
    collection = Collection.from_manifest(f". {FOO} {' '.join(f'0:3:f{n}' for n in range(1000))}\n")
    before = collection.approximate_size()
    assert len(collection.root.entries()) == 1000
    collection.drop_parsed()
    assert collection.approximate_size() == before


def test_dropping_gives_the_memory_back() -> None:
    collection = Collection.from_manifest(f". {FOO} 0:3:a\n./d/e {FOO} 0:3:a\n", blocks=Blocks())
    before = collection.approximate_size()
    tree(collection)
    assert collection.approximate_size() > before
    collection.drop_parsed()
    assert collection.approximate_size() == before


def test_a_read_inside_one_block_is_not_copied() -> None:
    blocks = Blocks()
    collection = Collection.from_manifest(f". {FOO} {BAR} 1:4:a\n", blocks=blocks)
    file = collection.root.get("a")
    assert isinstance(file, File)
    assert isinstance(file.read(0, 2), memoryview)
    assert bytes(file.read(0, 100)) == b"ooba"
    assert bytes(file.read(3, 100)) == b"a"
    assert bytes(file.read(4, 100)) == b""
    assert bytes(file.read(2**62, 1)) == b""
    assert blocks.reads == [(FOO, 1, 2), (FOO, 1, 2), (BAR, 0, 2), (BAR, 1, 1)]


def test_new_signatures_keep_tree_and_files() -> None:
    blocks = Blocks()
    old = f"./d {FOO}{SIGNED} 0:3:a\n. {BAR}{SIGNED} 0:3:x/y 0:3:b\n"
    collection = Collection.from_manifest(old, blocks=blocks)
    before = tree(collection)
    entry = collection.root.get("d")
    assert isinstance(entry, Directory)
    file = entry.get("a")
    assert isinstance(file, File)
    assert bytes(file.read(0, 3)) == b"foo"
    new = old.replace("@77777777", "@88888888")
    assert collection.replace_signatures(new)
    blocks.reads.clear()
    assert bytes(file.read(0, 3)) == b"foo"
    assert blocks.reads == [(f"{FOO}+A{'0' * 40}@88888888", 0, 3)]
    assert tree(collection) == before
    assert collection.root.get("d") is entry
    assert not collection.replace_signatures(new.replace("0:3:b", "0:2:b"))
    assert not collection.replace_signatures("nonsense")
    assert not collection.replace_signatures("\ud800")
    assert tree(collection) == before


def test_portable_data_hash_ignores_hints_only() -> None:
    plain = f". {FOO} {BAR} 0:6:a+Ab@c\n"
    assert portable_data_hash(plain) == (hashlib.md5(plain.encode()).hexdigest() + f"+{len(plain)}")
    assert portable_data_hash(f". {FOO}{SIGNED} {BAR}+K@zzzzz 0:6:a+Ab@c\n") == portable_data_hash(plain)
    assert portable_data_hash("") == EMPTY
