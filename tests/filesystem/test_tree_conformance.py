"""The conformance suite on the kernel-free file system."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from conformance import At, ReadOnlySuite
from drivers import Driver, TreeDriver
from worlds import World, session

from arvados_fuse.options import CustomMount


class TestInProcess(ReadOnlySuite):
    """Through `FileSystem`."""

    @pytest.fixture
    def at(self, world: World, tmp_path: Path) -> Iterator[At]:
        with ExitStack() as stack:
            made: dict[tuple[str, str], Driver] = {}

            def at(mode: str, target: str = "", places: Sequence[tuple[str, str]] = ()) -> Driver:
                if (mode, target) not in made:
                    custom = [CustomMount(kind, name) for kind, name in places]  # type: ignore[arg-type]
                    built = stack.enter_context(
                        session(world.server, world.token, tmp_path, mode=mode, target=target, custom=custom)
                    )
                    made[mode, target] = TreeDriver(built.filesystem)
                return made[mode, target]

            yield at
