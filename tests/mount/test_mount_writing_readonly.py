"""A read-only mount changes nothing: every call that would is refused, and no request that would is made."""

import errno
import mmap
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from counting import changing, request_counter, stored_blocks
from drivers import refused
from mounting import drop_kernel_caches, mounted, needs_fuse
from servers import LocalServer
from worlds import Maker, environment

pytestmark = needs_fuse

FILES = {"f": b"first", "d/g": b"g" * 5000, "d/e/h": b""}
OPTIONS = {"by default": [], "asked for": ["--read-write", "--read-only"], "older name": ["--read-only"]}

Act = Callable[[], object]


def with_file(path: Path, act: Callable[[int], object]) -> Act:
    """`act` on a descriptor that reads."""

    def run() -> object:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return act(descriptor)
        finally:
            os.close(descriptor)

    return run


def opening(path: Path, flags: int) -> Act:
    return lambda: os.close(os.open(path, flags, 0o644))


def changes(path: Path) -> Iterator[tuple[str, Act]]:
    """Every system call that changes an existing file or directory, or what is beside or in it."""
    is_directory = path.is_dir()
    if not is_directory:
        for name in ("O_WRONLY", "O_RDWR", "O_TRUNC", "O_APPEND"):
            flags = getattr(os, name) | (os.O_WRONLY if name == "O_APPEND" else 0)
            yield name, opening(path, flags)
        yield "O_CREAT", opening(path, os.O_RDWR | os.O_CREAT)
        for size in (0, 1, 10_000):
            yield "truncate", lambda size=size: os.truncate(path, size)  # type: ignore[misc]
        yield "unlink", lambda: os.unlink(path)
    else:
        yield "rmdir", lambda: os.rmdir(path)
        yield from new_ones(path)
    yield "rename", lambda: os.rename(path, f"{path}.new")
    yield "replace", lambda: os.replace(path, path.parent / "other")
    yield "link", lambda: os.link(path, f"{path}.new")
    yield "chmod", lambda: os.chmod(path, 0o777)
    yield "fchmod", with_file(path, lambda file: os.fchmod(file, 0o777))
    yield "chown", lambda: os.chown(path, 1, 1)
    yield "fchown", with_file(path, lambda file: os.fchown(file, 1, 1))
    yield "utime", lambda: os.utime(path, (0, 0))
    yield "utime now", lambda: os.utime(path)
    yield "futimens", with_file(path, lambda file: os.utime(file, (0, 0)))
    yield "setxattr", lambda: os.setxattr(path, "user.test", b"value")
    yield "removexattr", lambda: os.removexattr(path, "user.arvados.uuid")


def new_ones(directory: Path) -> Iterator[tuple[str, Act]]:
    new = directory / "new"
    yield "create", opening(new, os.O_CREAT | os.O_WRONLY)
    yield "create, exclusively", opening(new, os.O_CREAT | os.O_EXCL | os.O_RDWR)
    yield "create, to read", opening(new, os.O_CREAT | os.O_RDONLY)
    yield "mkdir", lambda: os.mkdir(new)
    yield "mknod", lambda: os.mknod(new, stat.S_IFREG | 0o644)
    yield "mkfifo", lambda: os.mkfifo(new)
    yield "symlink", lambda: os.symlink("target", new)
    yield "O_TMPFILE", opening(directory, os.O_TMPFILE | os.O_RDWR)


@pytest.fixture
def user(local_server: LocalServer) -> Maker:
    return Maker(local_server, local_server.new_user(f"reader{secrets.token_hex(4)}")[1])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_nothing_is_changed(user: Maker, tmp_path: Path, options: list[str]) -> None:
    project = user.project("p")
    uuid = str(user.collection("c", FILES, owner_uuid=project)["uuid"])
    trashed = str(user.collection("gone", FILES, owner_uuid=project)["uuid"])
    assert user.server.call("DELETE", f"collections/{trashed}", token=user.token).status == 200
    before, blocks = (
        user.server.call("GET", f"collections/{uuid}", token=user.token).body,
        stored_blocks(user.server),
    )
    asked = request_counter(user.server)
    with mounted(tmp_path, environment(user.server, user.token), *options) as mount:
        top = mount.root / "by_id" / uuid
        places = [
            *(top / path for path in ("", "f", "d", "d/g", "d/e/h", ".arvados#collection")),
            *(mount.root / path for path in ("README", "home", "home/p", "by_id", "by_id/README", "by_tag")),
            *(mount.root / path for path in ("shared", "home/p/.arvados#project", "home/p/.trash")),
            mount.root / "by_id" / before["portable_data_hash"] / "f",
        ]
        acts = [(path, name, act) for path in places for name, act in changes(path)]
        acts += [(mount.root, name, act) for name, act in new_ones(mount.root)]
        for path, name, act in acts:
            try:
                with refused(errno.EROFS):
                    act()
            except AssertionError as error:
                raise AssertionError(f"{name} {path}: {error}") from error
        with refused(errno.EROFS):
            os.rename(mount.root / "home/p/.trash/gone", mount.root / "home/p/back")
        with pytest.raises(PermissionError), open(top / "f", "rb") as file:
            mmap.mmap(file.fileno(), 5, access=mmap.ACCESS_WRITE)
        for path, data in FILES.items():
            assert (top / path).read_bytes() == data
            with_file(top / path, os.fsync)()
        with_file(top, os.fsync)()
        for path in (top / ".arvados#collection", mount.root / "home/p/.arvados#project"):
            assert path.read_bytes()
        drop_kernel_caches()
        assert (top / "f").read_bytes() == FILES["f"]
        with open(top / "d/g", "rb") as left_open:
            left_open.read(10)
    assert changing(asked()) == []
    after = user.server.call("GET", f"collections/{uuid}", token=user.token).body
    assert {key: after[key] for key in ("modified_at", "version", "portable_data_hash")} == {
        key: before[key] for key in ("modified_at", "version", "portable_data_hash")
    }
    assert stored_blocks(user.server) == blocks
    assert not list((tmp_path / "cache").rglob("journal*")), "a mount that only reads has no journal"
