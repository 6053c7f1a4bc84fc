"""The memory limit of a container, in trees of files as the kernel shows them."""

from pathlib import Path

import pytest

from arvados_fuse.cli import memory
from arvados_fuse.options import MountOptions

MiB = 1 << 20
V1 = "35 31 0:32 {shown} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
V2 = "36 31 0:33 {shown} /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
OTHER = "37 31 0:34 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n"
NO_LIMIT = "9223372036854771712"


class Tree:
    """A process's view of its cgroups, below a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc").mkdir()

    def process(self, cgroup: str, mountinfo: str) -> None:
        (self.root / "proc/cgroup").write_text(cgroup)
        (self.root / "proc/mountinfo").write_text(mountinfo)

    def file(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"{text}\n")

    def limit(self) -> int | None:
        return memory.limit(self.root / "proc", self.root)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_version_1(tree: Tree) -> None:
    tree.process("5:pids:/x\n4:memory:/docker/abc\n0::/\n", OTHER + V1.format(shown="/"))
    tree.file("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", str(512 * MiB))
    tree.file("sys/fs/cgroup/memory/docker/memory.limit_in_bytes", NO_LIMIT)
    tree.file("sys/fs/cgroup/memory/memory.limit_in_bytes", NO_LIMIT)
    assert tree.limit() == 512 * MiB


def test_version_1_seen_from_inside_the_container(tree: Tree) -> None:
    tree.process("4:memory:/docker/abc\n", V1.format(shown="/docker/abc"))
    tree.file("sys/fs/cgroup/memory/memory.limit_in_bytes", str(300 * MiB))
    assert tree.limit() == 300 * MiB


def test_version_2(tree: Tree) -> None:
    tree.process("0::/user.slice/app.service\n", V2.format(shown="/"))
    tree.file("sys/fs/cgroup/user.slice/app.service/memory.max", str(256 * MiB))
    assert tree.limit() == 256 * MiB


def test_a_limit_further_up_holds_too(tree: Tree) -> None:
    tree.process("0::/a/b/c\n", V2.format(shown="/"))
    tree.file("sys/fs/cgroup/a/b/c/memory.max", "max")
    tree.file("sys/fs/cgroup/a/b/memory.max", str(1024 * MiB))
    tree.file("sys/fs/cgroup/a/memory.max", str(700 * MiB))
    assert tree.limit() == 700 * MiB


def test_version_2_in_a_namespace(tree: Tree) -> None:
    tree.process("0::/\n", V2.format(shown="/"))
    tree.file("sys/fs/cgroup/memory.max", str(128 * MiB))
    assert tree.limit() == 128 * MiB
    tree.process("0::/../other\n", V2.format(shown="/../.."))
    assert tree.limit() == 128 * MiB


def test_both_versions_at_once(tree: Tree) -> None:
    tree.process("4:memory:/one\n0::/two\n", V1.format(shown="/") + V2.format(shown="/"))
    tree.file("sys/fs/cgroup/memory/one/memory.limit_in_bytes", str(400 * MiB))
    tree.file("sys/fs/cgroup/two/memory.max", str(200 * MiB))
    assert tree.limit() == 200 * MiB


@pytest.mark.parametrize("text", ["max", NO_LIMIT, "", "nonsense", "-1"])
def test_no_limit(tree: Tree, text: str) -> None:
    tree.process("0::/a\n", V2.format(shown="/"))
    tree.file("sys/fs/cgroup/a/memory.max", text)
    assert tree.limit() is None


def test_nothing_to_be_seen(tree: Tree) -> None:
    assert tree.limit() is None
    tree.process("0::/a\n", "")
    assert tree.limit() is None


def test_on_this_machine() -> None:
    found = memory.limit()
    assert found is None or found > 0


def test_default_sizes_are_made_to_fit() -> None:
    plain = MountOptions(mount_dir=Path("/m"))
    assert memory.fitted(plain, None) is plain
    small = memory.fitted(plain, 512 * MiB)
    assert (small.directory_cache, small.file_cache, small.spill_cache) == (64 * MiB, 0, 128 * MiB)
    ram = memory.fitted(MountOptions(mount_dir=Path("/m"), ram_cache=True), 512 * MiB)
    assert ram.file_cache == 128 * MiB
    large = memory.fitted(MountOptions(mount_dir=Path("/m"), ram_cache=True), 64 << 30)
    assert (large.directory_cache, large.file_cache) == (128 * MiB, 256 * MiB)


def test_sizes_that_were_asked_for_stay() -> None:
    asked = MountOptions(
        mount_dir=Path("/m"),
        ram_cache=True,
        file_cache=1 << 30,
        directory_cache=1 << 29,
        directory_cache_given=True,
    )
    fitted = memory.fitted(asked, 512 * MiB)
    assert (fitted.file_cache, fitted.directory_cache) == (1 << 30, 1 << 29)
