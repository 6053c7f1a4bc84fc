"""Real mounts that can be changed, for tests of writing; a later mount looks at what was left on them."""

import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from drivers import MountDriver
from mounting import drop_kernel_caches, mounted
from servers import LocalServer
from worlds import Maker, environment
from writing_bench import Bench, Target, Tree, compare, record_of, sdk_reads, shown

SCALE_VARIABLE = "ARVADOS_FUSE_WRITING_SCALE"
"""Names how many times larger the sizes and numbers of the tests of writing are; see docs/writeback.md."""
TIMEOUT = 240.0


def scale() -> int:
    """1 unless told."""
    return int(os.environ.get(SCALE_VARIABLE, "1"))


def forget(_: Bench) -> None:
    """The kernel asks for everything again."""
    drop_kernel_caches()


@contextmanager
def writing_target(server: LocalServer, base: Path, *options: str) -> Iterator[Target]:
    """A mount of a user of its own; what its benches are said to hold is looked at after a remount."""
    user = Maker(server, server.new_user(f"writer{secrets.token_hex(4)}")[1])
    variables = environment(server, user.token)
    expected: dict[str, Tree] = {}

    def later(bench: Bench, tree: Tree) -> None:
        expected[bench.uuid] = tree

    with mounted(base, variables, "--read-write", *options) as mount:
        yield Target(user, MountDriver(mount.root), forget, lambda: None, later, nullcontext)
    with mounted(base, variables, "--by-id", "--disk-cache-dir", str(base / "another cache")) as mount:
        for uuid, tree in expected.items():
            compare(shown(MountDriver(mount.root), uuid), tree, f"{uuid} on a new mount")


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a program; what it said. Fails unless it ends well."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def on_disk(top: Path) -> dict[str, bytes | None]:
    """A directory as `shown` gives a tree."""
    found: dict[str, bytes | None] = {}
    for path in top.rglob("*"):
        found[str(path.relative_to(top))] = None if path.is_dir() else path.read_bytes()
    return found


def same_on_server(bench: Bench, tree: Tree) -> None:
    """Save, and let the SDK read it."""
    compare(sdk_reads(bench.user, str(bench.save()["manifest_text"])), tree, "the SDK")
    assert record_of(bench.user, bench.uuid)["portable_data_hash"] == bench.save()["portable_data_hash"]


def missing(programs: Sequence[str]) -> list[str]:
    """Those that are not installed."""
    paths = os.environ.get("PATH", "").split(":")
    return [name for name in programs if not any(os.access(f"{path}/{name}", os.X_OK) for path in paths)]
