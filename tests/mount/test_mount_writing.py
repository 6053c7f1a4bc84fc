"""The suite of changes through the kernel; at the end everything is looked at with another mount."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import nullcontext

import pytest
from drivers import MountDriver
from mounting import drop_kernel_caches, mounted, needs_fuse
from servers import LocalServer
from worlds import Maker, environment
from writing_bench import Bench, Target, Tree, compare, shown
from writing_suite import MakeBench, WritingSuite


def forget(_: Bench) -> None:
    drop_kernel_caches()


@pytest.fixture(scope="module")
def target(local_server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One mount of a user of its own, for all tests here."""
    base = tmp_path_factory.mktemp("writing")
    user = Maker(local_server, local_server.new_user(f"writer{secrets.token_hex(4)}")[1])
    variables = environment(local_server, user.token)
    expected: dict[str, Tree] = {}

    def later(bench: Bench, tree: Tree) -> None:
        expected[bench.uuid] = tree

    with mounted(base, variables, "--read-write") as mount:
        yield Target(
            user,
            MountDriver(mount.root),
            forget,
            lambda: None,
            later,
            nullcontext,
        )
    with mounted(base, variables, "--by-id") as mount:
        for uuid, tree in expected.items():
            compare(shown(MountDriver(mount.root), uuid), tree, f"{uuid} on a new mount")


@needs_fuse
class TestMounted(WritingSuite):
    """Through a real mount."""

    @pytest.fixture
    def make_bench(self, target: Target) -> MakeBench:
        def make(files: Mapping[str, bytes] | None = None) -> Bench:
            return Bench(target, files)

        return make
