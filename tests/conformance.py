"""What a read-only mount promises, as tests over a `Driver`: collected for every target that subclasses it.

A target gives the fixture `at`: a function from a mode of the command line (`all`, `home`, `by_id`, ...) and
its target to a driver.
"""

import errno
import json
import os
import stat
from collections.abc import Callable
from datetime import datetime

import pytest
from drivers import CHANGES, Driver, exists, read, refused, walk
from worlds import PLAIN, World

At = Callable[..., Driver]

EXECUTABLE_FILE = stat.S_IFREG | 0o555
SPECIAL_FILE = stat.S_IFREG | 0o444
DIRECTORY = stat.S_IFDIR | 0o555


def check_plain(driver: Driver, path: str) -> None:
    """The collection `plain` is at `path`, complete and nothing else."""
    found = dict(walk(driver, path))
    files = {below.removeprefix(f"{path}/"): told for below, told in found.items() if not told.is_dir}
    assert sorted(files) == sorted(PLAIN)
    for name, data in PLAIN.items():
        assert files[name].size == len(data), name
        assert read(driver, f"{path}/{name}") == data, name


class ReadOnlySuite:
    """Every line of the layout that a read-only mount has."""

    # The tree of the default mode

    def test_root_of_the_default_layout(self, at: At) -> None:
        root = at("all")
        assert sorted(root.names("")) == ["README", "by_id", "by_tag", "home", "shared"]
        assert root.stat("").is_dir
        assert not exists(root, "nothing")

    def test_readme_names_host_and_user(self, at: At, world: World) -> None:
        text = read(at("all"), "README").decode()
        assert world.server.settings.host in text
        assert "@localhost" in text
        assert text.endswith("\n")

    def test_home_lists_projects_and_collections(self, at: At) -> None:
        expected = ["blocks", "filtered", "loops", "odd names", "plain", "project"]
        assert sorted(at("all").names("home")) == expected
        assert sorted(at("home").names("")) == expected

    def test_collection_is_complete(self, at: At) -> None:
        check_plain(at("all"), "home/plain")

    def test_projects_nest(self, at: At) -> None:
        root = at("all")
        assert sorted(root.names("home/project")) == ["inner", "sub"]
        assert read(root, "home/project/inner/in.txt") == b"in\n"
        assert read(root, "home/project/sub/innermost/a") == b"a"

    def test_a_name_resolves_without_listing(self, at: At) -> None:
        root = at("home")
        assert read(root, "project/sub/innermost/a") == b"a"
        assert not exists(root, "project/nothing")
        assert not exists(root, "project/nothing")

    def test_filter_group_shows_what_it_finds(self, at: At) -> None:
        root = at("home")
        assert sorted(root.names("filtered")) == ["inner", "sub"]
        assert read(root, "filtered/inner/in.txt") == b"in\n"

    def test_filter_group_that_contains_itself(self, at: At) -> None:
        root = at("home")
        assert root.names("loops") == ["loop"]
        assert root.names("loops/loop") == ["loop"]
        assert root.names("loops/loop/loop") == []
        assert not exists(root, "loops/loop/loop/loop")

    def test_shared_shows_others_projects_by_owner(self, at: At, world: World) -> None:
        root = at("all")
        owners = [name for name in root.names("shared") if name.startswith("Bob B")]
        assert len(owners) == 1
        owner = f"shared/{owners[0]}"
        assert root.names(owner) == ["shared project"]
        assert read(root, f"{owner}/shared project/gift/gift.txt") == b"for you\n"
        assert sorted(at("shared").names("")) == sorted(root.names("shared"))

    def test_tags_show_collections_and_projects(self, at: At, world: World) -> None:
        root = at("all")
        tag = world.ids["tag"]
        assert tag in root.names("by_tag")
        assert sorted(root.names(f"by_tag/{tag}")) == sorted([world.ids["plain"], world.ids["project"]])
        assert read(root, f"by_tag/{tag}/{world.ids['plain']}/README.txt") == b"hello\n"
        assert sorted(root.names(f"by_tag/{tag}/{world.ids['project']}")) == ["inner", "sub"]
        assert not exists(root, f"by_tag/{tag}/{world.ids['blocks']}")
        assert not exists(root, "by_tag/no such tag")

    # Names

    def test_odd_names(self, at: At, world: World) -> None:
        root = at("project", world.ids["odd"])
        ending = world.ids["odd a/b"][-15:]
        twin = world.ids["odd twin"][-15:]
        expected = {
            "a_b": "a_b",  # the exact name wins
            f"a_b~{ending}": "a/b",
            "__": "..",
            "_": ".",
            f"twin~{twin}": "twin",
        }
        assert sorted(root.names("")) == sorted([*expected, "twin"])
        for name, content in expected.items():
            assert read(root, f"{name}/name") == content.encode(), name
        assert root.names("twin") == []

    def test_odd_names_resolve_one_by_one(self, at: At, world: World) -> None:
        root = at("project", world.ids["odd"])
        ending = world.ids["odd a/b"][-15:]
        for name, content in {"a_b": "a_b", f"a_b~{ending}": "a/b", "__": "..", "_": "."}.items():
            assert read(root, f"{name}/name") == content.encode(), name
        assert not exists(root, "a_c")
        assert not exists(root, "twin~000000000000000")

    # Ids

    def test_ids_appear_once_looked_up(self, at: At, world: World) -> None:
        root = at("by_id")
        assert sorted(root.names("")) == ["README", "by_id"]
        uuid, pdh = world.ids["plain"], world.ids["plain_pdh"]
        assert read(root, f"{uuid}/README.txt") == b"hello\n"
        assert read(root, f"{pdh}/README.txt") == b"hello\n"
        assert read(root, f"{world.ids['project']}/inner/in.txt") == b"in\n"
        assert sorted(root.names(world.ids["filter"])) == ["inner", "sub"]
        seen = ["README", "by_id", uuid, pdh, world.ids["project"], world.ids["filter"]]
        assert sorted(root.names("")) == sorted(seen)
        assert sorted(root.names("by_id")) == sorted(set(seen) - {"by_id"})

    def test_ids_inside_ids(self, at: At, world: World) -> None:
        root = at("by_id")
        assert "portable data hash" in read(root, "README").decode()
        assert read(root, "by_id/README") == read(root, "README")
        assert read(root, f"by_id/{world.ids['plain']}/README.txt") == b"hello\n"
        assert not exists(root, "by_id/by_id")
        assert read(at("all"), f"by_id/{world.ids['plain']}/README.txt") == b"hello\n"

    @pytest.mark.parametrize(
        "name",
        [
            "nothing",
            "zzzzz-4zz18-000000000000000",
            "zzzzz-j7d0g-000000000000000",
            "00000000000000000000000000000000+0",
            "d41d8cd98f00b204e9800998ecf8427e",
            "zzzzz-tpzed-000000000000000",
        ],
    )
    def test_unknown_ids(self, at: At, name: str) -> None:
        root = at("by_id")
        assert not exists(root, name)
        assert not exists(root, name)
        assert sorted(root.names("")) == ["README", "by_id"]

    def test_other_peoples_ids(self, at: At, world: World) -> None:
        root = at("by_id")
        for name in ("private", "private_pdh", "secret"):
            assert not exists(root, world.ids[name]), name

    def test_by_pdh_takes_hashes_only(self, at: At, world: World) -> None:
        root = at("by_pdh")
        check_plain(root, world.ids["plain_pdh"])
        assert not exists(root, world.ids["plain"])
        assert not exists(root, world.ids["project"])

    # Single objects and custom layouts

    @pytest.mark.parametrize("target", ["plain", "plain_pdh"])
    def test_one_collection(self, at: At, world: World, target: str) -> None:
        root = at("collection", world.ids[target])
        assert sorted(root.names("")) == ["README.txt", "data", "empty", "names"]
        assert read(root, "data/with space.txt") == b"space\n"

    def test_one_project(self, at: At, world: World) -> None:
        root = at("project", world.ids["project"])
        assert sorted(root.names("")) == ["inner", "sub"]
        assert read(root, "inner/in.txt") == b"in\n"

    def test_custom_layout(self, at: At, world: World) -> None:
        places = [("home", "h"), ("by_id", "ids"), ("by_pdh", "hashes"), ("shared", "s"), ("by_tag", "t")]
        root = at("custom", places=places)
        assert sorted(root.names("")) == ["h", "hashes", "ids", "s", "t"]
        assert read(root, "h/plain/README.txt") == b"hello\n"
        assert read(root, f"ids/{world.ids['plain']}/README.txt") == b"hello\n"
        assert read(root, f"hashes/{world.ids['plain_pdh']}/README.txt") == b"hello\n"

    # Content

    def test_ranges_across_blocks(self, at: At, world: World) -> None:
        root = at("home")
        assert sorted(root.names("blocks")) == ["hollow", "spanning"]
        assert root.names("blocks/hollow") == []
        whole = world.spanning
        assert read(root, "blocks/spanning/file") == whole
        opened = root.open("blocks/spanning/file")
        try:
            for offset, size in [(0, 1), (99_999, 2), (100_000, 100_001), (199_999, 3), (349_990, 100)]:
                assert opened.read(offset, size) == whole[offset : offset + size], (offset, size)
            assert opened.read(len(whole), 10) == b""
            assert opened.read(len(whole) + 1_000_000, 10) == b""
        finally:
            opened.close()

    def test_same_content_by_name_uuid_and_hash(self, at: At, world: World) -> None:
        root = at("all")
        for path in ("home/blocks", f"by_id/{world.ids['blocks']}", f"by_id/{world.ids['blocks_pdh']}"):
            assert read(root, f"{path}/spanning/file") == world.spanning

    # Attributes

    def test_attributes(self, at: At, world: World) -> None:
        root = at("all")
        for path, told in walk(root, "home"):
            assert told.mode == (DIRECTORY if told.is_dir else EXECUTABLE_FILE), path
            assert told.nlink == 1, path
            assert told.uid == os.getuid(), path
        assert root.stat("README").mode == SPECIAL_FILE
        assert root.stat("by_id/README").mode == SPECIAL_FILE
        assert root.stat("home/plain/.arvados#collection").mode == SPECIAL_FILE

    def test_times_are_those_of_the_collection(self, at: At, world: World) -> None:
        root = at("all")
        record = json.loads(read(root, "home/plain/.arvados#collection"))
        answer = world.server.call("GET", f"collections/{world.ids['plain']}", token=world.token).body
        assert record["modified_at"] == answer["modified_at"]
        told = root.stat("home/plain/README.txt").mtime_ns
        assert abs(told / 1e9 - _seconds(answer["modified_at"])) < 0.001
        assert root.stat("home/plain/data").mtime_ns == told
        assert root.stat("home/plain").mtime_ns == told

    def test_inode_numbers_are_stable_and_unique(self, at: At) -> None:
        root = at("home")
        first = {path: told.ino for path, told in walk(root, "plain")}
        again = {path: told.ino for path, told in walk(root, "plain")}
        assert first == again
        assert len(set(first.values())) == len(first)

    def test_free_space_is_plausible(self, at: At) -> None:
        assert at("home").free_bytes() > 1 << 30

    # Special files

    def test_collection_record(self, at: At, world: World) -> None:
        root = at("all")
        assert ".arvados#collection" not in root.names("home/plain")
        text = read(root, "home/plain/.arvados#collection").decode()
        record = json.loads(text)
        assert text == json.dumps(record, indent=4, sort_keys=True) + "\n"
        assert record["uuid"] == world.ids["plain"]
        assert record["portable_data_hash"] == world.ids["plain_pdh"]
        assert "+A" in record["manifest_text"]
        assert not exists(root, "home/plain/data/.arvados#collection")

    def test_collection_record_by_hash(self, at: At, world: World) -> None:
        record = json.loads(read(at("all"), f"by_id/{world.ids['plain_pdh']}/.arvados#collection"))
        assert record["portable_data_hash"] == world.ids["plain_pdh"]
        assert "manifest_text" in record
        assert record.get("uuid") is None

    def test_project_record(self, at: At, world: World) -> None:
        root = at("all")
        assert ".arvados#project" not in root.names("home")
        assert ".arvados#project" not in root.names("home/project")
        record = json.loads(read(root, "home/project/.arvados#project"))
        assert record["uuid"] == world.ids["project"]
        assert json.loads(read(root, "home/.arvados#project"))["uuid"] == world.user

    # Refusals

    @pytest.mark.parametrize("kind", CHANGES)
    def test_nothing_can_be_changed(self, at: At, kind: str) -> None:
        root = at("all")
        path = {"rmdir": "home/plain/data"}.get(kind, "home/plain/README.txt")
        for target in (path, "home/plain/.arvados#collection") if kind == "truncate" else (path,):
            with refused(errno.EROFS):
                root.change(kind, target)
        check_plain(root, "home/plain")

    def test_wrong_kinds(self, at: At) -> None:
        root = at("home")
        with pytest.raises(NotADirectoryError):
            root.stat("plain/README.txt/below")
        with pytest.raises(NotADirectoryError):
            root.names("plain/README.txt")

    def test_names_that_are_too_long(self, at: At) -> None:
        root = at("home")
        with refused(errno.ENAMETOOLONG):
            root.stat("plain/" + "y" * 1500)

    def test_names_that_are_not_utf8(self, at: At) -> None:
        assert not exists(at("home"), "plain/\udcff\udcfe")


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp[:26] + "+00:00").timestamp()
