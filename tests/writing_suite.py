"""What a mount that can be changed promises, as tests over a `WritingDriver`: collected for every target that
subclasses it.

A target gives the fixture `make_bench`: a function from what a collection has at first to a `Bench`.
"""

import errno
import json
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress

import pytest
from drivers import WrittenFile, exists, read, refused, walk, write
from writing_bench import Bench, compare, sdk_reads, shown

MakeBench = Callable[..., Bench]

NEW = os.O_CREAT | os.O_RDWR
FIRST: dict[str, bytes] = {
    "a": b"a" * 1000,
    "b": b"b" * 2000,
    "d/one": b"1" * 100,
    "d/two": b"2" * 200,
    "d/e/deep": b"deep",
    "other/x": b"x",
}
"""What a collection has that tests begin with."""
ODD_NAMES = [
    "new\nline",
    "back\\slash",
    "back\\040slash",
    " leading and trailing ",
    "-rf",
    "--",
    "...",
    "~",
    "*?[x]",
    "a:b",
    "0:0:x",
    "'\"$(x)`",
    "tab\tand\x01control\x7f",
    "\u00e9",
    "e\u0301",
    "\U0001f600",
    "x" * 255,
    "\u4e2d" * 85,
    ".arvados#project",
    "name~20260101-000000~conflict~",
]
NOT_FOR_THE_SDK = ["\u00a0no-break", "\u3000ideographic\u2003em\u2028line", "\x85", "\x1c"]
"""White space, which Arvados keeps in names, and the SDK can't read."""


def opened(bench: Bench, path: str, flags: int = os.O_RDWR) -> WrittenFile:
    return bench.driver.open_file(bench / path, flags)


def without(tree: Mapping[str, bytes], *paths: str) -> dict[str, bytes | None]:
    return {path: data for path, data in tree.items() if path not in paths}


class WritingSuite:
    """Every operation and errno."""

    # Files

    def test_create_write_and_read(self, make_bench: MakeBench) -> None:
        bench = make_bench()
        bench.write("f", b"hello")
        bench.driver.mkdir(bench / "d")
        bench.write("d/g", b"world")
        bench.write("d/empty", b"")
        bench.expect({"f": b"hello", "d/g": b"world", "d/empty": b""})

    def test_files_beside_others(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        bench.write("d/three", b"3")
        bench.write("c", b"c")
        bench.expect({**FIRST, "d/three": b"3", "c": b"c"})

    def test_mknod(self, make_bench: MakeBench) -> None:
        bench = make_bench()
        bench.driver.mknod(bench / "f")
        assert bench.driver.stat(bench / "f").size == 0
        with refused(errno.EEXIST):
            bench.driver.mknod(bench / "f")
        for kind in (stat.S_IFIFO, stat.S_IFSOCK):
            with refused(errno.ENOTSUP):
                bench.driver.mknod(bench / "g", kind)
        bench.expect({"f": b""})

    def test_overwriting_parts(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        model = bytearray(FIRST["b"])
        file = opened(bench, "b")
        for offset, data in ((0, b"start"), (1990, b"beyond the end"), (500, b"x" * 300), (499, b"yy")):
            assert file.write(offset, data) == len(data)
            model[offset : offset + len(data)] = data
            assert file.read(0, 10_000) == model
        file.close()
        bench.expect({**FIRST, "b": bytes(model)})

    def test_reading_what_another_handle_wrote(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        reader, one, two = opened(bench, "a", os.O_RDONLY), opened(bench, "a"), opened(bench, "a")
        one.write(0, b"one")
        two.write(3, b"two")
        assert reader.read(0, 8) == b"onetwoaa"
        one.close()
        two.write(998, b"longer")
        assert reader.read(996, 100) == b"aalonger"
        assert reader.size() == 1004
        two.close()
        reader.close()
        bench.expect({**FIRST, "a": b"onetwo" + b"a" * 992 + b"longer"})

    def test_handles_read_only_and_write_only(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        reader = opened(bench, "a", os.O_RDONLY)
        with pytest.raises(OSError):  # noqa: PT011 - EBADF from the kernel, EPERM without one
            reader.write(0, b"x")
        reader.close()
        bench.expect(FIRST)

    def test_exclusive(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        with refused(errno.EEXIST):
            opened(bench, "a", NEW | os.O_EXCL)
        with refused(errno.EEXIST):
            opened(bench, "d", NEW | os.O_EXCL)
        opened(bench, "new", NEW | os.O_EXCL).close()
        with refused(errno.EEXIST):
            opened(bench, "new", NEW | os.O_EXCL)
        bench.expect({**FIRST, "new": b""})

    def test_creating_what_is_there_keeps_it(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        file = opened(bench, "a", NEW)
        file.write(0, b"A")
        file.close()
        bench.expect({**FIRST, "a": b"A" + b"a" * 999})

    def test_truncating_when_opened(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        opened(bench, "a", os.O_WRONLY | os.O_TRUNC).close()
        file = opened(bench, "b", os.O_RDWR | os.O_TRUNC)
        assert file.size() == 0
        file.write(10, b"x")
        file.close()
        bench.expect({**FIRST, "a": b"", "b": bytes(10) + b"x"})

    def test_appending(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        one = opened(bench, "d/one", os.O_WRONLY | os.O_APPEND)
        two = opened(bench, "d/one", os.O_WRONLY | os.O_APPEND)
        for file, data in ((one, b"A"), (two, b"BB"), (one, b"CCC"), (two, b"DDDD")):
            file.append(data)
        one.close()
        two.close()
        bench.expect({**FIRST, "d/one": b"1" * 100 + b"ABBCCCDDDD"})

    def test_truncate(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        bench.driver.truncate(bench / "a", 10)
        bench.driver.truncate(bench / "b", 3000)
        bench.driver.truncate(bench / "d/one", 0)
        bench.driver.truncate(bench / "d/two", 200)
        with refused(errno.EISDIR):
            bench.driver.truncate(bench / "d", 0)
        with refused(errno.ENOENT):
            bench.driver.truncate(bench / "nothing", 0)
        bench.expect({**FIRST, "a": b"a" * 10, "b": b"b" * 2000 + bytes(1000), "d/one": b""})

    def test_truncate_and_write_in_turns(self, make_bench: MakeBench) -> None:
        """What was cut off must not come back when the file grows again."""
        bench = make_bench({"f": b"f" * 10_000})
        file = opened(bench, "f")
        file.truncate(100)
        file.truncate(5000)
        assert file.read(0, 10_000) == b"f" * 100 + bytes(4900)
        file.write(8000, b"end")
        assert file.read(4999, 3002) == bytes(3001) + b"e"
        file.truncate(8001)
        bench.driver.truncate(bench / "f", 8002)
        file.close()
        bench.expect({"f": b"f" * 100 + bytes(7900) + b"e" + bytes(1)})

    def test_truncating_an_open_file_by_its_name(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        file = opened(bench, "a")
        file.write(0, b"A" * 1000)
        bench.driver.truncate(bench / "a", 5)
        assert file.size() == 5
        assert file.read(0, 10) == b"AAAAA"
        file.write(7, b"z")
        assert bench.read("a") == b"AAAAA\0\0z"
        file.close()
        bench.expect({**FIRST, "a": b"AAAAA\0\0z"})

    def test_sparse_files_store_no_zeros(self, make_bench: MakeBench) -> None:
        bench = make_bench()
        file = opened(bench, "sparse", NEW)
        file.write(300 << 20, b"end")
        file.close()
        opened(bench, "only zeros", NEW).close()
        bench.driver.truncate(bench / "only zeros", 1 << 40)
        assert bench.driver.stat(bench / "sparse").size == (300 << 20) + 3
        manifest = str(bench.save()["manifest_text"])
        assert manifest.count("7f614da9329cd3aebf59b91aadc30bf0+67108864") >= 1
        assert bench.driver.stat(bench / "only zeros").size == 1 << 40
        file = opened(bench, "sparse", os.O_RDONLY)
        assert file.read((300 << 20) - 5, 100) == bytes(5) + b"end"
        assert file.read(1 << 20, 10) == bytes(10)
        file.close()

    def test_files_beyond_what_can_be_kept(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        with refused(errno.EFBIG):
            bench.driver.truncate(bench / "a", 1 << 60)
        file = opened(bench, "a")
        with refused(errno.EFBIG):
            file.write(1 << 60, b"x")
        file.close()
        bench.expect(FIRST)

    def test_a_file_in_many_pieces(self, make_bench: MakeBench) -> None:
        bench = make_bench()
        data = secrets.token_bytes(3_000_000)
        file = opened(bench, "f", NEW)
        for offset in reversed(range(0, len(data), 65_537)):
            file.write(offset, data[offset : offset + 65_537])
        file.close()
        bench.expect({"f": data})

    def test_fsync_brings_it_to_the_server(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        file = opened(bench, "new", NEW)
        file.write(0, b"first")
        file.fsync()
        bench.expect_saved({**FIRST, "new": b"first"})
        file.write(0, b"second")
        file.fsync()
        bench.expect_saved({**FIRST, "new": b"second"})
        file.close()
        bench.driver.unlink(bench / "a")
        bench.driver.fsync_directory(bench / "d")
        bench.expect_saved({**without(FIRST, "a"), "new": b"second"})
        bench.expect({**without(FIRST, "a"), "new": b"second"})

    def test_fsync_through_a_handle_that_only_reads(self, make_bench: MakeBench) -> None:
        """As `sync FILE` does it."""
        bench = make_bench(FIRST)
        bench.write("closed", b"closed")
        writer = opened(bench, "a")
        writer.write(0, b"open")
        for name in ("closed", "a", "b"):
            reader = opened(bench, name, os.O_RDONLY)
            reader.fsync()
            reader.close()
        bench.expect_saved({**FIRST, "a": b"open" + b"a" * 996, "closed": b"closed"})
        writer.close()
        bench.expect({**FIRST, "a": b"open" + b"a" * 996, "closed": b"closed"})

    def test_a_file_without_a_name_says_so(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        removed, replaced, stays = opened(bench, "a"), opened(bench, "b"), opened(bench, "new", NEW)
        assert [file.links() for file in (removed, replaced, stays)] == [1, 1, 1]
        bench.driver.unlink(bench / "a")
        bench.driver.rename(bench / "new", bench / "b")
        assert [file.links() for file in (removed, replaced, stays)] == [0, 0, 1]
        for file in (removed, replaced, stays):
            file.close()
        bench.expect({**without(FIRST, "a"), "b": b""})

    def test_fsync_of_an_unlinked_file(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        file = opened(bench, "a")
        bench.driver.unlink(bench / "a")
        file.write(0, b"x")
        file.fsync()
        file.close()
        bench.expect(without(FIRST, "a"))

    def test_the_record_has_what_is_still_open(self, make_bench: MakeBench) -> None:
        bench = make_bench()
        file = opened(bench, "f", NEW)
        file.write(0, b"open")
        record = bench.save()
        assert sdk_reads(bench.user, record["manifest_text"]) == {"f": b"open"}
        bench.expect_saved({"f": b"open"})
        file.write(4, b" and more")
        file.close()
        bench.expect({"f": b"open and more"})

    def test_unlinking_an_open_file(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        old, new = opened(bench, "a"), opened(bench, "new", NEW)
        new.write(0, b"unnamed")
        for name in ("a", "new"):
            bench.driver.unlink(bench / name)
            assert not exists(bench.driver, bench / name)
        assert old.read(0, 2000) == FIRST["a"]
        old.write(1000, b"more")
        old.truncate(1002)
        assert old.read(998, 10) == b"aamo"
        assert new.read(0, 10) == b"unnamed"
        assert (old.size(), new.size()) == (1002, 7)
        bench.write("a", b"another")
        assert old.read(998, 10) == b"aamo"
        old.close()
        new.close()
        bench.expect({**FIRST, "a": b"another"})

    def test_unlinking_the_only_file_leaves_the_directory(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        bench.driver.unlink(bench / "other/x")
        bench.driver.unlink(bench / "d/e/deep")
        assert bench.driver.names(bench / "other") == []
        bench.expect({**without(FIRST, "other/x", "d/e/deep"), "other": None, "d/e": None})

    def test_unlink_and_make_again(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        bench.driver.unlink(bench / "a")
        bench.driver.unlink(bench / "other/x")
        bench.driver.mkdir(bench / "a")
        bench.write("a/x", b"in a")
        bench.write("other/x", b"")
        assert bench.driver.stat(bench / "a").is_dir
        bench.expect({**without(FIRST, "a"), "a/x": b"in a", "other/x": b""})

    def test_a_directory_becomes_a_file(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        bench.driver.unlink(bench / "other/x")
        bench.driver.rmdir(bench / "other")
        bench.write("other", b"a file now")
        bench.expect({**without(FIRST, "other/x"), "other": b"a file now"})

    def test_wrong_kinds(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        driver = bench.driver
        with refused(errno.EISDIR):
            driver.unlink(bench / "d")
        with refused(errno.ENOTDIR):
            driver.rmdir(bench / "a")
        with refused(errno.EISDIR):
            opened(bench, "d", os.O_WRONLY)
        with refused(errno.EISDIR):
            opened(bench, "d", NEW)
        with refused(errno.ENOTDIR):
            opened(bench, "a/below", NEW)
        with refused(errno.ENOTDIR):
            driver.mkdir(bench / "a/below")
        with refused(errno.ENOTDIR):
            driver.rename(bench / "b", bench / "a/below")
        with refused(errno.ENOTDIR):
            driver.unlink(bench / "a/below")
        for act in (driver.unlink, driver.rmdir):
            with refused(errno.ENOENT):
                act(bench / "nothing")
        with refused(errno.ENOENT):
            opened(bench, "nothing/f", NEW)
        with refused(errno.ENOENT):
            opened(bench, "nothing")
        bench.expect(FIRST)

    # Directories

    def test_directories(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        bench.driver.mkdir(bench / "new")
        bench.driver.mkdir(bench / "new/inner")
        bench.driver.mkdir(bench / "d/f")
        for name in ("new", "a", "d"):
            with refused(errno.EEXIST):
                bench.driver.mkdir(bench / name)
        for name in ("new", "d", "d/e"):
            with refused(errno.ENOTEMPTY):
                bench.driver.rmdir(bench / name)
        bench.driver.rmdir(bench / "d/f")
        bench.expect({**FIRST, "new/inner": None})

    def test_an_empty_directory_comes_and_goes(self, make_bench: MakeBench) -> None:
        bench = make_bench()
        bench.driver.mkdir(bench / "d")
        bench.expect({"d": None})
        bench.write("d/f", b"f")
        bench.expect({"d/f": b"f"})
        bench.driver.unlink(bench / "d/f")
        bench.expect({"d": None})
        bench.driver.rmdir(bench / "d")
        bench.expect({})

    def test_a_whole_tree_is_removed(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        for path, told in reversed(list(walk(bench.driver, bench / ""))):
            (bench.driver.rmdir if told.is_dir else bench.driver.unlink)(path)
        assert bench.driver.names(bench / "") == []
        bench.expect({})

    def test_a_removed_working_directory(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        bench.driver.mkdir(bench / "cwd")
        entered = bench.driver.enter(bench / "cwd")
        entered.make("f")
        assert entered.names() == ["f"]
        entered.make("g")
        assert sorted(entered.names()) == ["f", "g"]
        bench.driver.unlink(bench / "cwd/f")
        bench.driver.unlink(bench / "cwd/g")
        bench.driver.rmdir(bench / "cwd")
        with suppress(FileNotFoundError):  # the kernel says so, the C library then says nothing
            assert entered.names() == []
        with refused(errno.ENOENT):
            entered.make("g")
        bench.write("cwd", b"a file")
        with refused(errno.ENOENT):
            entered.make("g")
        entered.leave()
        bench.expect({**FIRST, "cwd": b"a file"})

    def test_a_working_directory_that_moves(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        entered = bench.driver.enter(bench / "d/e")
        bench.driver.rename(bench / "d", bench / "moved")
        entered.make("new")
        assert sorted(entered.names()) == ["deep", "new"]
        entered.leave()
        bench.expect(
            {
                **without(FIRST, "d/one", "d/two", "d/e/deep"),
                "moved/one": FIRST["d/one"],
                "moved/two": FIRST["d/two"],
                "moved/e/deep": b"deep",
                "moved/e/new": b"",
            }
        )

    # Renames

    def test_rename_a_file(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        bench.driver.rename(bench / "a", bench / "renamed")
        bench.driver.rename(bench / "d/e/deep", bench / "shallow")
        bench.write("new", b"new")
        bench.driver.rename(bench / "new", bench / "d/newer")
        expected = without(FIRST, "a", "d/e/deep")
        bench.expect({**expected, "renamed": FIRST["a"], "shallow": b"deep", "d/newer": b"new", "d/e": None})

    def test_rename_over_a_file(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        bench.driver.rename(bench / "a", bench / "b")
        bench.write("new", b"new")
        bench.driver.rename(bench / "new", bench / "d/one")
        bench.expect({**without(FIRST, "a"), "b": FIRST["a"], "d/one": b"new"})

    def test_rename_over_a_file_that_was_looked_at(self, make_bench: MakeBench) -> None:
        """As `sed -i` and editors do it, again and again."""
        bench = make_bench(FIRST)
        for number in range(5):
            bench.write("tmp", b"edited %d" % number)
            bench.driver.rename(bench / "tmp", bench / "a")
            assert bench.read("a") == b"edited %d" % number
            assert bench.driver.stat(bench / "a").size == len(b"edited 0")
        bench.expect({**FIRST, "a": b"edited 4"})

    def test_rename_over_an_open_file(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        file = opened(bench, "a")
        file.write(0, b"A")
        bench.write("new", b"new")
        bench.driver.rename(bench / "new", bench / "a")
        assert file.read(0, 3) == b"Aaa"
        file.write(0, b"written too late")
        assert bench.read("a") == b"new"
        file.close()
        bench.expect({**FIRST, "a": b"new"})

    def test_rename_an_open_file(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        file, new = opened(bench, "a"), opened(bench, "new", NEW)
        new.write(0, b"12345")
        bench.driver.rename(bench / "a", bench / "d/moved")
        bench.driver.rename(bench / "new", bench / "newer")
        file.write(0, b"after")
        new.write(5, b"678")
        assert bench.read("d/moved")[:6] == b"aftera"
        bench.write("a", b"another")
        file.write(5, b"!")
        new.close()
        file.close()
        bench.expect({**FIRST, "a": b"another", "d/moved": b"after!" + b"a" * 994, "newer": b"12345678"})

    def test_rename_a_file_away_and_back(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        bench.driver.rename(bench / "a", bench / "away")
        bench.driver.rename(bench / "away", bench / "a")
        bench.driver.rename(bench / "d", bench / "away")
        bench.driver.rename(bench / "away", bench / "d")
        bench.expect(FIRST)

    def test_swap_by_three_renames(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        for old, new in (("a", "t"), ("b", "a"), ("t", "b"), ("d", "t"), ("other", "d"), ("t", "other")):
            bench.driver.rename(bench / old, bench / new)
        bench.expect(
            {
                "a": FIRST["b"],
                "b": FIRST["a"],
                "d/x": b"x",
                "other/one": FIRST["d/one"],
                "other/two": FIRST["d/two"],
                "other/e/deep": b"deep",
            }
        )

    def test_rename_to_itself(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        for name in ("a", "d", "d/e"):
            bench.driver.rename(bench / name, bench / name)
        bench.expect(FIRST)

    def test_rename_a_directory_onto_an_empty_one(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        bench.driver.mkdir(bench / "empty")
        bench.driver.rename(bench / "d", bench / "empty")
        bench.driver.mkdir(bench / "second")
        bench.driver.unlink(bench / "other/x")
        bench.driver.rename(bench / "second", bench / "other")
        expected = without(FIRST, "d/one", "d/two", "d/e/deep", "other/x")
        bench.expect(
            {
                **expected,
                "empty/one": FIRST["d/one"],
                "empty/two": FIRST["d/two"],
                "empty/e/deep": b"deep",
                "other": None,
            }
        )

    def test_renames_that_can_not_be(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        bench.driver.mkdir(bench / "empty")
        for old, new, number in (
            ("d", "d/e/into itself", errno.EINVAL),
            ("d", "d/itself", errno.EINVAL),
            ("d", "other", errno.ENOTEMPTY),
            ("empty", "d", errno.ENOTEMPTY),
            ("a", "d", errno.EISDIR),
            ("a", "empty", errno.EISDIR),
            ("d", "a", errno.ENOTDIR),
            ("empty", "a", errno.ENOTDIR),
            ("nothing", "something", errno.ENOENT),
            ("nothing", "a", errno.ENOENT),
            ("a", "no directory/a", errno.ENOENT),
        ):
            with refused(number):
                bench.driver.rename(bench / old, bench / new)
        bench.expect({**FIRST, "empty": None})

    def test_rename_over_an_ancestor(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        with refused(errno.ENOTEMPTY):
            bench.driver.rename(bench / "d/e", bench / "d")
        bench.expect(FIRST)

    def test_rename_a_new_tree(self, make_bench: MakeBench) -> None:
        """As `git clone` and `pip` do it: a tree is made beside and put in its place."""
        bench = make_bench()
        bench.driver.mkdir(bench / "tmp")
        bench.driver.mkdir(bench / "tmp/in")
        bench.driver.mkdir(bench / "tmp/hollow")
        for number in range(20):
            bench.write(f"tmp/in/f{number}", b"%d" % number)
        bench.driver.rename(bench / "tmp", bench / "final")
        bench.expect({**{f"final/in/f{n}": b"%d" % n for n in range(20)}, "final/hollow": None})

    @pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
    def test_rename_an_empty_tree_with_new_files_that_are_open(
        self, make_bench: MakeBench, elsewhere: bool
    ) -> None:
        bench = make_bench()
        target = make_bench() if elsewhere else bench
        bench.driver.mkdir(bench / "d")
        bench.driver.mkdir(bench / "d/e")
        bench.save()
        file = opened(bench, "d/e/new", NEW)
        bench.driver.rename(bench / "d", target / "moved")
        file.write(0, b"new")
        file.close()
        if elsewhere:
            bench.expect({})
        target.expect({"moved/e/new": b"new"})

    def test_rename_a_saved_tree_and_write_in_it(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        file = opened(bench, "d/one")
        file.write(0, b"before")
        bench.save()
        bench.driver.rename(bench / "d", bench / "moved")
        file.write(0, b"afterwards")
        bench.write("moved/e/deep", b"changed")
        file.close()
        bench.expect(
            {
                "a": FIRST["a"],
                "b": FIRST["b"],
                "other/x": b"x",
                "moved/one": b"afterwards" + b"1" * 90,
                "moved/two": FIRST["d/two"],
                "moved/e/deep": b"changed",
            }
        )

    # Between collections

    def test_rename_to_another_collection(self, make_bench: MakeBench) -> None:
        one, two = make_bench(FIRST), make_bench({"here": b"here", "d/x": b"other"})
        one.write("unsaved", b"unsaved")
        one.driver.rename(one / "a", two / "a")
        one.driver.rename(one / "unsaved", two / "d/unsaved")
        one.driver.rename(one / "b", two / "here")
        one.driver.rename(one / "d", two / "tree")
        one.expect({"other/x": b"x"})
        two.expect(
            {
                "a": FIRST["a"],
                "here": FIRST["b"],
                "d/x": b"other",
                "d/unsaved": b"unsaved",
                "tree/one": FIRST["d/one"],
                "tree/two": FIRST["d/two"],
                "tree/e/deep": b"deep",
            }
        )

    def test_rename_open_files_to_another_collection(self, make_bench: MakeBench) -> None:
        one, two = make_bench(FIRST), make_bench()
        file, deep = opened(one, "a"), opened(one, "d/e/deep")
        reader = opened(one, "d/two", os.O_RDONLY)
        file.write(0, b"before")
        one.driver.rename(one / "a", two / "a")
        one.driver.rename(one / "d", two / "d")
        file.write(6, b" after")
        deep.write(4, b"er")
        assert reader.read(0, 500) == FIRST["d/two"]
        file.fsync()
        assert sdk_reads(two.user, two.save()["manifest_text"])["a"] == b"before after" + b"a" * 988
        for handle in (file, deep, reader):
            handle.close()
        one.expect(without(FIRST, "a", "d/one", "d/two", "d/e/deep"))
        two.expect(
            {
                "a": b"before after" + b"a" * 988,
                "d/one": FIRST["d/one"],
                "d/two": FIRST["d/two"],
                "d/e/deep": b"deeper",
            }
        )

    def test_renames_between_collections_that_can_not_be(self, make_bench: MakeBench) -> None:
        one, two = make_bench(FIRST), make_bench(FIRST)
        for old, new, number in (
            ("d", "other", errno.ENOTEMPTY),
            ("a", "d", errno.EISDIR),
            ("d", "a", errno.ENOTDIR),
            ("nothing", "b", errno.ENOENT),
        ):
            with refused(number):
                one.driver.rename(one / old, two / new)
        one.expect(FIRST)
        two.expect(FIRST)

    # Names

    @pytest.mark.parametrize("names", [ODD_NAMES, NOT_FOR_THE_SDK], ids=["odd", "white space"])
    def test_odd_names(self, make_bench: MakeBench, names: list[str]) -> None:
        bench, sdk = make_bench(), names is ODD_NAMES
        expected: dict[str, bytes | None] = {}
        for number, name in enumerate(names):
            bench.write(name, b"%d" % number)
            expected[name] = b"%d" % number
        for name in names[:8]:
            bench.driver.mkdir(bench / f"{name}.d")
            bench.driver.mkdir(bench / f"{name}.d/{name}")
            bench.write(f"{name}.d/{name}/{name}", name.encode())
            expected[f"{name}.d/{name}/{name}"] = name.encode()
        bench.expect(expected, sdk=sdk)
        for name in names:
            bench.driver.rename(bench / name, bench / f"{name[:80]}2")
            expected[f"{name[:80]}2"] = expected.pop(name)
        bench.expect(expected, sdk=sdk)

    def test_names_that_are_too_long(self, make_bench: MakeBench) -> None:
        bench = make_bench({"f": b"f"})
        for name in ("x" * 256, "\u4e2d" * 86, "x" * 1024, "x" * 4000):
            with refused(errno.ENAMETOOLONG):
                opened(bench, name, NEW)
            with refused(errno.ENAMETOOLONG):
                bench.driver.mkdir(bench / name)
            with refused(errno.ENAMETOOLONG):
                bench.driver.mknod(bench / name)
            with refused(errno.ENAMETOOLONG):
                bench.driver.rename(bench / "f", bench / name)
        bench.expect({"f": b"f"})

    def test_names_that_are_not_utf8(self, make_bench: MakeBench) -> None:
        bench = make_bench({"f": b"f"})
        for name in (b"\xff\xfe", b"caf\xe9", b"\xed\xa0\x80", b"\xc0\xaf"):
            bad = os.fsdecode(name)
            with refused(errno.EILSEQ):
                opened(bench, bad, NEW)
            with refused(errno.EILSEQ):
                bench.driver.mkdir(bench / bad)
            with refused(errno.EILSEQ):
                bench.driver.mknod(bench / bad)
            with refused(errno.EILSEQ):
                bench.driver.rename(bench / "f", bench / bad)
            with refused(errno.ENOENT):
                opened(bench, bad, os.O_RDONLY)
        bench.expect({"f": b"f"})

    # Attributes

    def test_attributes(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        told = bench.driver.stat(bench / "a")
        assert (stat.S_IFMT(told.mode), stat.S_IMODE(told.mode)) == (stat.S_IFREG, 0o777)
        assert (told.nlink, told.uid) == (1, os.getuid())
        told = bench.driver.stat(bench / "d")
        assert (stat.S_IFMT(told.mode), stat.S_IMODE(told.mode)) == (stat.S_IFDIR, 0o777)
        told = bench.driver.stat(bench / ".arvados#collection")
        assert stat.S_IMODE(told.mode) == 0o444
        assert bench.driver.free_bytes() > 1 << 30

    def test_modes_and_owners_are_accepted_and_not_kept(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        bench.write("new", b"new")
        for name in ("a", "d", "new", ""):
            before = bench.driver.stat(bench / name).mode
            bench.driver.chmod(bench / name, 0o600)
            bench.driver.chown(bench / name, os.getuid(), os.getgid())
            assert bench.driver.stat(bench / name).mode == before
        bench.expect({**FIRST, "new": b"new"})

    def test_times_are_kept(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        moments = {"a": 1_000_000_000_123_456_789, "d": 1_100_000_000_000_000_000, "d/new": 1}
        bench.write("d/new", b"new")
        for name, moment in moments.items():
            bench.driver.utime(bench / name, moment)

        def times() -> dict[str, int]:
            return {name: bench.driver.stat(bench / name).mtime_ns for name in moments}

        assert times() == moments
        bench.target.forget(bench)
        assert times() == moments
        bench.save()
        assert times() == moments
        with bench.target.resting():
            assert times() == moments
        bench.driver.rename(bench / "a", bench / "moved")
        bench.driver.rename(bench / "d/new", bench / "new")
        assert bench.driver.stat(bench / "moved").mtime_ns == moments["a"]
        assert bench.driver.stat(bench / "new").mtime_ns == 1

    def test_time_set_while_it_is_open(self, make_bench: MakeBench) -> None:
        """As `cp -p` and `tar` do it."""
        bench = make_bench()
        file = opened(bench, "f", NEW)
        file.write(0, b"data")
        bench.driver.utime(bench / "f", 1_234_567_890_000_000_000)
        file.close()
        assert bench.driver.stat(bench / "f").mtime_ns == 1_234_567_890_000_000_000
        bench.save()
        assert bench.driver.stat(bench / "f").mtime_ns == 1_234_567_890_000_000_000

    def test_times_of_what_nobody_touched_stay(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        before = {path: told.mtime_ns for path, told in walk(bench.driver, bench / "")}
        bench.write("d/new", b"new")
        bench.write("a", b"changed")
        after = {path: told.mtime_ns for path, told in walk(bench.driver, bench / "")}
        bench.save()
        saved = {path: told.mtime_ns for path, told in walk(bench.driver, bench / "")}
        with bench.target.resting():
            rested = {path: told.mtime_ns for path, told in walk(bench.driver, bench / "")}
        assert after == saved == rested
        changed = {path for path in before if before[path] != after[path]}
        assert changed == {bench / "a", bench / "d"}
        assert after[bench / "a"] > before[bench / "a"]
        assert after[bench / "d/new"] >= after[bench / "d"]

    # What can't be

    def test_what_arvados_has_not(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        with refused(errno.ENOSYS):
            bench.driver.symlink("a", bench / "symlink")
        with pytest.raises(OSError) as caught:  # noqa: PT011 - Linux 6.17 made EPERM of ENOSYS
            bench.driver.link(bench / "a", bench / "link")
        assert caught.value.errno in (errno.ENOSYS, errno.EPERM)
        bench.expect(FIRST)

    def test_the_record_can_not_be_changed(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        record = ".arvados#collection"
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
            with refused(errno.EPERM):
                opened(bench, record, flags)
        with refused(errno.EPERM):
            bench.driver.truncate(bench / record, 0)
        with refused(errno.EPERM):
            bench.driver.unlink(bench / record)
        for old, new in ((record, "f"), ("a", record)):
            with refused(errno.EPERM):
                bench.driver.rename(bench / old, bench / new)
        with refused(errno.EPERM):
            bench.driver.rename(bench / "a", make_bench() / record)
        bench.expect(FIRST)

    def test_what_is_shown_by_hash_can_not_be_changed(self, make_bench: MakeBench) -> None:
        bench = make_bench(FIRST)
        by_hash = f"by_id/{bench.save()['portable_data_hash']}"
        if not exists(bench.driver, by_hash):
            pytest.skip("this tree shows nothing by hash")
        driver = bench.driver
        for act in (
            lambda: driver.open_file(f"{by_hash}/a", os.O_RDWR),
            lambda: driver.open_file(f"{by_hash}/new", NEW),
            lambda: driver.truncate(f"{by_hash}/a", 0),
            lambda: driver.unlink(f"{by_hash}/a"),
            lambda: driver.mkdir(f"{by_hash}/new"),
            lambda: driver.rmdir(f"{by_hash}/d/e"),
            lambda: driver.rename(f"{by_hash}/a", f"{by_hash}/new"),
            lambda: driver.rename(f"{by_hash}/a", bench / "new"),
            lambda: driver.rename(bench / "a", f"{by_hash}/new"),
        ):
            with refused(errno.EPERM):
                act()
        assert stat.S_IMODE(driver.stat(f"{by_hash}/a").mode) == 0o555
        driver.chmod(f"{by_hash}/a", 0o600)
        compare(shown(driver, by_hash), FIRST, "by hash")
        bench.expect(FIRST)

    # Projects

    def test_make_and_remove_collections(self, make_bench: MakeBench) -> None:
        bench = make_bench()
        user, driver = bench.user, bench.driver
        owner, top = bench.project()
        driver.mkdir(f"{top}/made")
        with refused(errno.EEXIST):
            driver.mkdir(f"{top}/made")
        write(driver, f"{top}/made/f", b"f")
        record = json.loads(read(driver, f"{top}/made/.arvados#collection"))
        assert (record["name"], record["owner_uuid"]) == ("made", owner)
        with refused(errno.ENOTEMPTY):
            driver.rmdir(f"{top}/made")
        driver.unlink(f"{top}/made/f")
        driver.rmdir(f"{top}/made")
        assert not exists(driver, f"{top}/made")
        assert driver.names(top) == []
        answer = user.server.call("GET", f"collections/{record['uuid']}?include_trash=true", token=user.token)
        assert answer.body["is_trashed"]
        driver.mkdir(f"{top}/made")
        assert json.loads(read(driver, f"{top}/made/.arvados#collection"))["uuid"] != record["uuid"]
        with refused(errno.EPERM):
            driver.rename(f"{top}/.trash/made", f"{top}/made")
        driver.rename(f"{top}/.trash/made", f"{top}/back")
        assert sorted(driver.names(top)) == ["back", "made"]
        assert json.loads(read(driver, f"{top}/back/.arvados#collection"))["uuid"] == record["uuid"]

    def test_rename_collections(self, make_bench: MakeBench) -> None:
        bench = make_bench()
        driver = bench.driver
        (_, one), (owner, two) = bench.project(), bench.project()
        driver.mkdir(f"{one}/c")
        write(driver, f"{one}/c/f", b"f")
        file = driver.open_file(f"{one}/c/a", NEW)
        file.write(0, b"A")
        driver.rename(f"{one}/c", f"{one}/moved")
        assert driver.names(one) == ["moved"]
        file.write(1, b"B")
        driver.rename(f"{one}/moved", f"{two}/again")
        file.write(2, b"C")
        file.close()
        assert driver.names(one) == []
        assert driver.names(two) == ["again"]
        record = json.loads(read(driver, f"{two}/again/.arvados#collection"))
        assert (record["name"], record["owner_uuid"]) == ("again", owner)
        expected = {"f": b"f", "a": b"ABC"}
        compare(shown(driver, f"{two}/again"), expected, "renamed")
        compare(sdk_reads(bench.user, record["manifest_text"]), expected, "the SDK, after a rename")

    def test_what_can_not_be_done_in_projects(self, make_bench: MakeBench) -> None:
        bench, other = make_bench(FIRST), make_bench()
        driver = bench.driver
        owner, top = bench.project()
        bench.user.project("sub", owner_uuid=owner)
        driver.mkdir(f"{top}/c")
        with refused(errno.ENOTSUP):
            driver.open_file(f"{top}/file", NEW)
        with refused(errno.ENOTSUP):
            driver.mknod(f"{top}/file")
        for act in (
            lambda: driver.rename(bench / "a", f"{top}/a"),
            lambda: driver.rename(bench / "d", f"{top}/d"),
            lambda: driver.rename(f"{top}/c", bench / "c"),
            lambda: driver.rename(f"{top}/c", other / ""),
            lambda: driver.rename(f"{top}/sub", f"{top}/sub2"),
            lambda: driver.rename(bench / "", f"{top}/moved"),
            lambda: driver.rmdir(other / ""),
            lambda: driver.rename(f"{top}/c", f"{top}/sub"),
            lambda: driver.rmdir(f"{top}/sub"),
            lambda: driver.rename(f"{top}/.arvados#project", f"{top}/x"),
            lambda: driver.unlink(f"{top}/.arvados#project"),
            lambda: driver.open_file(f"{top}/.arvados#project", os.O_WRONLY),
            lambda: driver.mkdir("new"),
            lambda: driver.mkdir("by_id/new"),
            lambda: driver.rename("README", "README2"),
            lambda: driver.unlink("README"),
            lambda: driver.rmdir("home"),
            lambda: driver.rename(f"{top}/c", "c"),
            lambda: driver.open_file("README", os.O_WRONLY),
        ):
            with refused(errno.EPERM):
                act()
        with refused(errno.ENOTSUP):
            driver.open_file("by_id/file", NEW)
        with refused(errno.ENOENT):
            driver.rename(f"{top}/nothing", f"{top}/x")
        with refused(errno.ENOENT):
            driver.rmdir(f"{top}/nothing")
        assert sorted(driver.names(top)) == ["c", "sub"]
        bench.expect(FIRST)
