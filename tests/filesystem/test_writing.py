"""The suite of changes on the kernel-free file system."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from drivers import TreeDriver
from servers import LocalServer
from worlds import Maker, session
from writing_bench import Bench, Target, Tree, compare, shown
from writing_suite import MakeBench, WritingSuite

from arvados_fuse.cli.build import MountSession
from arvados_fuse.tree import working


def forget(built: MountSession, bench: Bench) -> None:
    """What memory pressure does to a collection that is kept because it may be wanted again."""
    state = built.filesystem.context.known_collection(bench.uuid)
    while state is not None and state.shrink():
        pass


@contextmanager
def resting() -> Iterator[None]:
    """Nothing that is saved and that nobody writes is kept as a working copy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(working, "REST_AFTER", 0.0)
        yield


@pytest.fixture(scope="module")
def target(local_server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One tree of a user of its own, for all tests here."""
    base = tmp_path_factory.mktemp("writing")
    user = Maker(local_server, local_server.new_user(f"writer{secrets.token_hex(4)}")[1])

    def anew(bench: Bench, tree: Tree) -> None:
        with session(local_server, user.token, base, mode="collection", target=bench.uuid) as other:
            compare(shown(TreeDriver(other.filesystem), ""), tree, "a new mount")

    with session(local_server, user.token, base, mode="all", read_write=True) as built:
        yield Target(
            user,
            TreeDriver(built.filesystem),
            lambda bench: forget(built, bench),
            built.filesystem.check,
            anew,
            resting,
        )


class TestInProcess(WritingSuite):
    """Through `WritableFileSystem`."""

    @pytest.fixture
    def make_bench(self, target: Target) -> MakeBench:
        def make(files: Mapping[str, bytes] | None = None) -> Bench:
            return Bench(target, files)

        return make
