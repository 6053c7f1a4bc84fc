"""The conformance suite through the kernel."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest
from conformance import At, ReadOnlySuite
from drivers import Driver, MountDriver
from mounting import mounted, needs_fuse
from worlds import World, environment


@pytest.fixture(scope="module")
def mounts(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[At]:
    """Mounts by their options; made when first asked for, all taken down at the end."""
    base = tmp_path_factory.mktemp("mounts")
    variables = environment(world.server, world.token)
    with ExitStack() as stack:
        made: dict[tuple[str, ...], Driver] = {}

        def at(
            mode: str, target: str = "", places: Sequence[tuple[str, str]] = (), serial: int = 0
        ) -> Driver:
            options = [f"--{mode.replace('_', '-')}", *([target] if target else [])]
            for kind, name in places:
                options += [f"--mount-{kind.replace('_', '-')}", name]
            key = (*options, str(serial))
            if key not in made:
                made[key] = MountDriver(stack.enter_context(mounted(base, variables, *options)).root)
            return made[key]

        yield at


@needs_fuse
class TestMounted(ReadOnlySuite):
    """Through a real mount. `by_id` starts anew for every test, the others are shared by all."""

    @pytest.fixture
    def at(self, mounts: At, request: pytest.FixtureRequest) -> At:
        serial = id(request.node)
        return lambda mode, *rest, **options: mounts(
            mode, *rest, **options, serial=serial if mode == "by_id" else 0
        )
