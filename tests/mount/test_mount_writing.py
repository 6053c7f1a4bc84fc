"""The suite of changes through the kernel; at the end everything is looked at with another mount."""

from collections.abc import Iterator, Mapping

import pytest
from mounting import needs_fuse
from servers import LocalServer
from writing_bench import Bench, Target
from writing_mounts import writing_target
from writing_suite import MakeBench, WritingSuite


@pytest.fixture(scope="module")
def target(local_server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One mount of a user of its own, for all tests here."""
    with writing_target(local_server, tmp_path_factory.mktemp("writing")) as target:
        yield target


@needs_fuse
class TestMounted(WritingSuite):
    """Through a real mount."""

    @pytest.fixture
    def make_bench(self, target: Target) -> MakeBench:
        def make(files: Mapping[str, bytes] | None = None) -> Bench:
            return Bench(target, files)

        return make
