"""The public methods, as a program written for the SDK uses them."""

import bz2
import errno
import gzip
import io
from typing import Any

import pytest
from collection_oracle import DictKeep, sdk_collection
from collection_support import BAR, EMPTY, FOO, SIGNED, Blocks, Records, tree

import arvados_fuse
from arvados_fuse.collection import Collection, CollectionReader, Directory, File
from arvados_fuse.errors import ArvadosFuseError, ManifestError

TEXT = f". {FOO} {BAR} 0:6:a 0:3:b\n./d {BAR} 0:3:c\n./d/e {EMPTY} 0:0:\\056\n"


def start(text: str = TEXT) -> Collection:
    return Collection(text, keep_client=Blocks())


SDK_KEEP = DictKeep({FOO: b"foo", BAR: b"bar"})


def sdk_start() -> Any:
    return sdk_collection(TEXT, SDK_KEEP)


@pytest.mark.parametrize("make", [start, sdk_start])
class TestBoth:
    """Each of these runs on the SDK's class too."""

    def test_looking(self, make: Any) -> None:
        c = make()
        assert sorted(c) == sorted(c.keys()) == ["a", "b", "d"]
        assert "a" in c
        assert "d" in c
        assert "d/c" not in c
        assert len(c) == 3
        assert c["a"].size() == 6
        assert sorted(name for name, _ in c.items()) == ["a", "b", "d"]
        assert len(c.values()) == 3
        with pytest.raises(KeyError):
            c["x"]
        assert c.find(".") is c
        assert c.find("x") is None
        assert c.find("x/y/z") is None
        assert c.find("d/c").size() == c.find("./d/c").size() == 3
        assert c.find("d/").stream_name() == "./d"
        assert c.exists("d/e")
        assert not c.exists("d/f")
        assert c["d"].root_collection() is c
        assert (c["d"].name, c["a"].name) == ("d", "a")
        assert c["d"]["c"].parent.stream_name() == "./d"
        assert (c.stream_name(), c["d"].stream_name()) == (".", "./d")

    def test_errors_have_the_numbers_of_the_system(self, make: Any) -> None:
        c = make()
        for number, work in [
            (errno.ENOTDIR, lambda: c.find("a/x")),
            (errno.ENOTDIR, lambda: c.find("/a")),
            (errno.ENOENT, lambda: c.open("x")),
            (errno.EISDIR, lambda: c.open("d")),
            (errno.EISDIR, lambda: c.open("d", "w")),
            (errno.EEXIST, lambda: c.mkdirs("d/e")),
            (errno.ENOENT, lambda: c.remove("x")),
            (errno.ENOTEMPTY, lambda: c.remove("d")),
            (errno.EEXIST, lambda: c.copy("a", "b")),
            (errno.EEXIST, lambda: c.rename("a", "b")),
            (errno.ENOENT, lambda: c.rename("x", "y")),
            (errno.ENOENT, lambda: c.rename("a", "no/a")),
            (errno.ENOTDIR, lambda: c.find_or_create("a/x", "file")),
        ]:
            with pytest.raises(OSError) as caught:  # noqa: PT011
                work()  # type: ignore[no-untyped-call]
            assert caught.value.errno == number

    def test_changing_names(self, make: Any) -> None:
        c = make()
        c.mkdirs("x/y")
        c.copy("a", "x/y/")
        c.rename("b", "x")
        c.rename("d", "x/moved")
        c.remove("x/moved/e")
        c.copy("a", "x/b", overwrite=True)
        del c["a"]
        assert c.manifest_text(normalize=True, strip=True) == (
            f"./x {FOO} {BAR} 0:6:b\n./x/moved {BAR} 0:3:c\n./x/y {FOO} {BAR} 0:6:a\n"
        )
        assert c.modified()
        assert not c.committed()

    def test_writing(self, make: Any) -> None:
        c = make()
        with c.open("n/m", "wb") as f:
            assert f.write(b"0123456789") == 10
            assert (f.tell(), f.mode, f.name, f.closed) == (10, "wb", "m", False)
            assert (f.readable(), f.writable(), f.seekable()) == (True, True, True)
        assert f.closed
        with pytest.raises(ValueError, match="closed"):
            f.read()
        with c.open("n/m", "ab") as f:
            f.write(b"abc")
            assert f.tell() == 13
        with c.open("n/m", "rb+") as f:
            assert f.seek(-3, 2) == 10
            assert f.read() == b"abc"
            f.seek(2)
            f.write(b"__")
            f.writelines([b"!", b"?"])
            f.seek(0)
            assert f.read(8) == b"01__!?67"
            assert f.readfrom(10, 100) == b"abc"
            assert f.read(0) == b""
            f.seek(6)
            f.truncate()
            assert f.size() == 6
            with pytest.raises(OSError):  # noqa: PT011
                f.seek(-1)
        with c.open("n/m", "w") as f:
            f.write("h\u00e9llo\nw\u00f6rld\n")
        with c.open("n/m", encoding="utf-8") as f:
            assert list(f) == ["h\u00e9llo\n", "w\u00f6rld\n"]
        with c.open("n/m", "a+") as f:
            f.write("more\n")
            f.seek(0)
            assert f.read() == "h\u00e9llo\nw\u00f6rld\nmore\n"
        assert c.find("n/m").readfrom(0, 5, 0) == "h\u00e9ll".encode()

    def test_lines_of_a_binary_file_are_text(self, make: Any) -> None:
        c = make()
        with c.open("t", "wb") as f:
            f.write(b"one\ntwo\r\n\nlast")
        f = c.open("t", "rb")
        assert not hasattr(f, "fileno")
        assert f.readline() == "one\n"
        assert f.readline(2) == "tw"
        assert f.readline() == "o\r\n"
        assert list(f) == ["\n", "last"]
        assert f.readline() == ""
        f.seek(0)
        assert f.readlines() == ["one\n", "two\r\n", "\n", "last"]
        f.seek(0)
        assert b"".join(f.readall(3)) == b"one\ntwo\r\n\nlast"
        buffer = bytearray(4)
        f.seek(1)
        assert f.readinto(buffer) == 4
        assert buffer == b"ne\nt"
        assert bytes(f.readfrom(0, 3, return_memoryview=True)) == b"one"

    def test_files_have_the_methods_of_arvados_files(self, make: Any) -> None:
        c = make()
        f = c.find("a")
        assert f.readfrom(2, 10, 0, exact=True) == b"obar"
        assert isinstance(f.readfrom(2, 2, 0, return_memoryview=True), memoryview)
        assert f.writeto(6, b"xyz", 0) == 3
        assert f.writeto(6, b"", 0) is None
        assert (f.size(), f.writable()) == (9, True)
        f.flush()
        f.truncate(7)
        assert f.readfrom(0, 100, 0, exact=True) == b"foobarx"
        assert [(s.range_start, s.range_size, s.segment_offset) for s in f.segments()] == [
            (0, 3, 0),
            (3, 3, 0),
            (6, 1, 0),
        ]
        assert not f.has_remote_blocks()
        assert f.manifest_text().startswith(f". {FOO} {BAR}")
        g = c.find("b")
        g.replace_contents(f)
        assert g.readfrom(0, 100, 0, exact=True) == b"foobarx"
        assert f == g
        assert f != c.find("d/c")
        assert f.closed()
        assert not f.permission_expired()

    def test_news(self, make: Any) -> None:
        c = make()
        heard: list[Any] = []
        c.subscribe(lambda event, where, name, item: heard.append((event, where.stream_name(), name)))
        c.find_or_create("n/m", "file")
        c.remove("b")
        c.copy("a", "d/a")
        c.rename("a", "z")
        with c.open("z", "rb+") as f:
            f.write(b"!")
        assert [each for each in heard if each[0] != "mod"] == [
            ("add", ".", "n"),
            ("add", "./n", "m"),
            ("del", ".", "b"),
            ("add", "./d", "a"),
            ("del", ".", "a"),
            ("add", ".", "z"),
            ("write", ".", "z"),
        ]
        c.unsubscribe()
        c.remove("z")
        assert heard[-1][0] != "del"

    def test_differences(self, make: Any) -> None:
        c, other = make(), make()
        other.remove("b")
        other.copy("d/c", "d/n")
        with other.open("a", "wb") as f:
            f.write(b"new")
        changes = c.diff(other)
        assert sorted(change[:2] for change in changes) == [
            ("add", "./d/n"),
            ("del", "./b"),
            ("mod", "./a"),
            ("tok", "./d/c"),
        ]
        with c.open("a", "wb") as f:
            f.write(b"mine")
        c.apply(changes)
        conflict = next(name for name in c if name.startswith("a~"))
        assert conflict.endswith("~conflict~")
        assert len(conflict) == len("a~YYYYMMDD-HHMMSS~conflict~")
        with c.open(conflict, "rb") as f:
            assert f.read() == b"new"
        assert sorted(c) == ["a", conflict, "d"]
        assert sorted(c["d"]) == ["c", "e", "n"]

    def test_between_collections(self, make: Any) -> None:
        c, other = make(), make()
        c.copy("d", "from", source_collection=other)
        c.copy(other.find("a"), "x/y")
        c.rename("b", "moved", source_collection=other)
        assert c.find("from/c").readfrom(0, 9, 0) == b"bar"
        assert c.find("x/y").size() == 6
        assert c.find("moved").size() == 3
        assert sorted(other) == ["a", "d"]
        assert c != other

    def test_a_new_collection(self, make: Any) -> None:
        c = type(make())(
            **({"keep_client": Blocks()} if isinstance(make(), Collection) else {"apiconfig": {"x": "y"}})
        )
        assert (c.manifest_locator(), c.api_response(), c.get_properties(), c.get_trash_at()) == (
            None,
            None,
            {},
            None,
        )
        assert len(c) == 0
        assert c.modified()
        assert c.storage_classes_desired() == []


def test_a_clone_is_a_collection_of_its_own() -> None:
    c = start()
    with c.open("n", "wb") as f:
        f.write(b"unsaved")
    clone = c.clone()
    assert clone == c
    assert clone.manifest_locator() is None
    clone.remove("a")
    with clone.open("n", "ab") as f:
        f.write(b"!")
    assert tree(c)["n"] == b"unsaved"
    assert tree(clone)["n"] == b"unsaved!"
    assert c.exists("a")
    with pytest.raises(OSError, match="read"):
        c.clone(readonly=True).remove("a")


def test_what_the_sdk_does_not_have() -> None:
    c = start()
    assert c.listdir() == ["a", "b", "d"]
    assert c.listdir("d") == ["c", "e"]
    assert list(c.walk()) == [(".", ["d"], ["a", "b"]), ("./d", ["e"], ["c"]), ("./d/e", [], [])]
    pruned = []
    for path, directories, _ in c.walk():
        pruned.append(path)
        directories[:] = []
    assert pruned == ["."]
    assert arvados_fuse.Collection is Collection
    with c.open("a", "r+b") as f:
        assert f.read() == b"foobar"
    with pytest.raises(ValueError, match="Invalid mode"):
        c.open("a", "x")


def test_every_error_is_of_both_families() -> None:
    c = start()
    kinds: list[tuple[type[Exception], ...]] = [(FileNotFoundError,), (ArvadosFuseError,)]
    for kind in kinds:
        with pytest.raises(kind):
            c.open("x")
    for path in ("..", "d/../x", "x\0y", "d/.", "\udc80"):
        with pytest.raises((ValueError, OSError)):
            c.find_or_create(path, "file")
    with pytest.raises(ValueError, match="into itself"):
        c.rename("d", "d/e/x")
    assert tree(c)["d/e"] is None


def test_a_reader_refuses_every_change() -> None:
    c = CollectionReader(TEXT, keep_client=Blocks())
    file = c.find("a")
    assert isinstance(file, File)
    for work in (
        lambda: c.open("a", "r+"),
        lambda: c.open("n", "w"),
        lambda: c.mkdirs("n"),
        lambda: c.remove("a"),
        lambda: c.rename("a", "n"),
        lambda: c.copy("a", "n"),
        lambda: c.save(),
        lambda: c.save_new(),
        lambda: file.write(0, b"x"),
        lambda: file.truncate(0),
        lambda: c.root.unlink("a"),
        lambda: c.apply([]),
        lambda: start().rename("a", "n", source_collection=c),
    ):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            work()
        assert caught.value.errno == errno.EROFS
    assert c.manifest_text() == TEXT
    with c.open("a") as text:
        assert text.read() == "foobar"


def test_bytes_that_the_sdk_loses() -> None:
    """SDK 3.2.1: of 1, 2, then 5 bytes at offset 0 before a flush nothing can be read back."""
    c = Collection(keep_client=Blocks())
    f = c.open("f", "wb")
    for data in (b"1", b"22", b"55555"):
        f.seek(0)
        f.write(data)
    f.seek(0)
    assert f.read() == b"55555"
    f.seek(2)
    f.write(b"!")
    f.close()
    assert tree(c) == {"f": b"55!55"}
    c.manifest_text()
    assert tree(c) == {"f": b"55!55"}


def test_garbage_is_not_uploaded_and_small_files_share_blocks() -> None:
    blocks = Blocks()
    c = Collection(keep_client=blocks)
    for number in range(100):
        with c.open(f"f{number:03}", "wb") as f:
            for turn in range(10):
                f.seek(0)
                f.write(b"%03d%d" % (number, turn))
    c.manifest_text()
    assert len(blocks.stored) == 1
    assert blocks.stored[0] == b"".join(b"%03d9" % number for number in range(100))
    c.manifest_text()
    c.flush()
    assert len(blocks.stored) == 1, "nothing is stored twice"


def test_sparse_files_share_one_padding_block_with_the_sdk() -> None:
    blocks = Blocks()
    c = Collection(keep_client=blocks)
    oracle = sdk_collection("", DictKeep())
    for each in (c, oracle):
        for name in ("a", "b"):
            with each.open(name, "wb") as f:
                f.truncate(2**26 + 5)
                f.truncate(2**27 + 100)
                f.seek(2**26 + 2)
                f.write(b"x")
            if each is c:
                c.flush()
    assert c.manifest_text(strip=True) == oracle.manifest_text(strip=True)
    assert blocks.stored == [b"x", b"x"], "zeros are not stored, beyond the shared block"
    file = c.find("a")
    assert isinstance(file, File)
    assert bytes(file.read(2**26, 6)) == b"\0\0x\0\0\0"
    with pytest.raises(OSError, match="beyond") as caught:
        file.truncate(2**60)
    assert caught.value.errno == errno.EFBIG
    assert file.size() == 2**27 + 100


def test_saving_and_updating() -> None:
    records, blocks = Records(), Blocks()
    c = Collection(None, records, blocks, storage_classes_desired=["fast"])
    with c.open("a", "w") as f:
        f.write("mine")
    with pytest.raises(AssertionError, match="save_new"):
        c.save()
    c.save_new("name", owner_uuid="zzzzz-tpzed-000000000000000", properties={"p": 1}, ensure_unique_name=True)
    uuid = c.manifest_locator()
    assert uuid is not None
    kind, body = records.requests[-1]
    assert kind == "create"
    assert (body["name"], body["properties"], body["storage_classes_desired"]) == ("name", {"p": 1}, ["fast"])
    assert c.committed()
    assert not c.modified()
    assert c.get_properties() == {"p": 1}
    api_response = c.api_response()
    assert api_response is not None
    assert api_response["manifest_text"] == c.manifest_text() == records.get_collection(uuid)["manifest_text"]
    assert c.portable_data_hash() == api_response["portable_data_hash"]
    c.save()
    assert records.requests[-1] == ("update", {"storage_classes_desired": ["fast"]}), "as the SDK does"
    c.save(properties={"q": 2})
    assert records.requests[-1] == ("update", {"properties": {"q": 2}, "storage_classes_desired": ["fast"]})

    other = Collection(uuid, records, blocks)
    with other.open("b", "w") as f:
        f.write("theirs")
    with other.open("a", "w") as f:
        f.write("theirs too")
    other.save()
    held = c.find("a")
    assert isinstance(held, File)
    with c.open("a", "w") as f:
        f.write("mine again")
    with Collection(uuid, records, blocks) as third, third.open("c", "w") as f:
        f.write("third")
    c.save()
    expected = {"a": b"mine again", "b": b"theirs", "c": b"third"}
    saved = tree(Collection(uuid, records, blocks))
    conflict = next(name for name in saved if "~conflict~" in name)
    assert saved == {**expected, conflict: b"theirs too"} == tree(c)
    assert bytes(held.read(0, 99)) == b"mine again"
    other.update()
    assert tree(other) == saved
    assert other.committed()
    assert other.manifest_text() == records.get_collection(uuid)["manifest_text"]


def test_a_failed_save_keeps_what_was_stored_and_can_be_tried_again() -> None:
    records, blocks = Records(), Blocks()
    c = Collection(None, records, blocks)
    for number in range(3):
        with c.open(f"f{number}", "wb") as f:
            f.write(b"x" * number)
    good = blocks.put

    def refuse(*_: Any, **__: Any) -> str:
        raise ArvadosFuseError("Keep write error")

    blocks.put = refuse  # type: ignore[method-assign]
    with pytest.raises(ArvadosFuseError, match="Keep write error"):
        c.save_new()
    assert tree(c) == {"f0": b"", "f1": b"x", "f2": b"xx"}
    blocks.put = good  # type: ignore[method-assign]
    c.save_new()
    assert tree(c) == {"f0": b"", "f1": b"x", "f2": b"xx"}
    assert c.committed()


def test_a_file_stays_the_same_through_everything() -> None:
    records, blocks = Records(), Blocks()
    c = Collection(None, records, blocks)
    c.copy("d", "d", source_collection=start())
    c.save_new()
    directory = c.find("d")
    assert isinstance(directory, Directory)
    listed = dict(directory.entries())["c"]
    unopened = directory.get("c")
    assert isinstance(listed, File)
    assert isinstance(unopened, File)
    c.rename("d/c", "elsewhere")
    assert (listed.name, unopened.parent) == ("elsewhere", c.root)
    listed.write(3, b"!")
    assert bytes(unopened.read(0, 9)) == b"bar!"
    c.save()
    listed.write(4, b"?")
    c.save()
    c.drop_parsed()
    assert tree(c)["elsewhere"] == bytes(unopened.read(0, 9)) == b"bar!?"
    c.remove("elsewhere")
    assert not unopened.is_linked()
    listed.write(0, b"B")
    assert bytes(unopened.read(0, 9)) == b"Bar!?"
    c.save()
    assert "elsewhere" not in tree(c)


def test_a_text_that_is_not_a_manifest() -> None:
    with pytest.raises(ValueError, match="not a manifest"):
        Collection("nonsense")
    with pytest.raises(ManifestError):
        Collection("./../x nonsense\n")
    with pytest.raises(ValueError, match="list"):
        Collection(storage_classes_desired="fast")  # type: ignore[arg-type]


def test_lines_that_did_not_change_go_out_as_they_came() -> None:
    odd = f"./z {FOO} {FOO} 3:3:b 00:0:a\n./a {BAR}{SIGNED} 1:1:x 0:1:x\n"
    c = Collection(odd + f"./m {FOO} 0:3:f\n", keep_client=Blocks())
    c.remove("m/f")
    assert c.manifest_text() == (
        f"./a {BAR}{SIGNED} 1:1:x 0:1:x\n./m {EMPTY} 0:0:\\056\n./z {FOO} {FOO} 3:3:b 00:0:a\n"
    )
    c.rename("z", "a/z")
    assert f"./a/z {FOO} {FOO} 3:3:b 00:0:a\n" in c.manifest_text()


def test_remote_blocks_are_copied_before_saving() -> None:
    class Keep(Blocks):
        def refresh_signature(self, locator: str) -> str:
            return FOO + SIGNED

    records = Records()
    c = Collection(f". {FOO}+Rzzzzz-{'1' * 40}@77777777 0:3:a\n", records, Keep())
    assert c.has_remote_blocks()
    c.save_new()
    assert "+R" not in records.requests[-1][1]["manifest_text"]


def test_compressed_files() -> None:
    c = start()
    plain = b"some text " * 1000
    for name, packed in {"x.gz": gzip.compress(plain), "x.bz2": bz2.compress(plain), "x": plain}.items():
        with c.open(name, "wb") as f:
            f.write(packed)
        with c.open(name, "rb") as f:
            assert b"".join(f.readall_decompressed(100)) == plain
            assert f.decompressed_name() == "x"


def test_what_is_said_to_be_saved() -> None:
    c = start()
    c.remove("a")
    directory = c.find("d")
    assert isinstance(directory, Directory)
    directory.set_committed()
    assert c.committed()
    c.set_committed(False)
    assert c.modified()
    c.add(directory.clone(c, "new"), "copied")
    assert tree(c)["copied/c"] == b"bar"


def test_a_file_that_is_in_no_collection_any_more_changes_none() -> None:
    c = start()
    file = c.find("a")
    assert isinstance(file, File)
    c.remove("a")
    c.set_committed()
    file.write(0, b"x")
    assert bytes(file.read(0, 9)) == b"xoobar"
    assert c.committed()


def test_text_files_are_python_s() -> None:
    c = start()
    with c.open("a") as f:
        assert isinstance(f, io.TextIOWrapper)
        assert f.read(3) == "foo"
