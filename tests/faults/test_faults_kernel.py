"""Wrong bytes that the kernel remembers: they go once the block proves damaged."""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults.conftest import ProxiedKeep
from faults.proxy import Fault
from mounting import Mounted, mounted, needs_fuse
from servers import wait_for
from worlds import Maker, environment

from arvados_fuse.keep.disk_files import block_path

pytestmark = needs_fuse

PAGE = 4096


@pytest.fixture
def data() -> bytes:
    """A block that no other test has."""
    return secrets.token_bytes(3 * 1024 * 1024)


@pytest.fixture
def mount(keep: ProxiedKeep, data: bytes, tmp_path: Path) -> Iterator[tuple[Mounted, Path]]:
    """A mount whose way to Keep is through the proxies, and a file of one block on it."""
    maker = Maker(keep.server, keep.server.settings.token)
    pdh = maker.collection(secrets.token_hex(8), {"file": data})["portable_data_hash"]
    urls = " ".join(f"http://127.0.0.1:{proxy.port}/" for proxy in keep.proxies.values())
    told = {**environment(keep.server, maker.token), "ARVADOS_KEEP_SERVICES": urls}
    with mounted(tmp_path, told, "--by-pdh") as mount:
        yield mount, mount.root / pdh / "file"


def read_at(path: Path, offset: int, size: int) -> bytes:
    """A read by a program of its own: a new descriptor."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # so that nothing else is remembered
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


def gives(path: Path, offset: int, right: bytes) -> Callable[[], bool]:
    """A condition: programs get these bytes. (One that had wrong ones may be told so by an error first.)"""

    def look() -> bool:
        try:
            return read_at(path, offset, len(right)) == right
        except OSError:
            return False

    return look


def test_pages_from_before_the_check_go_when_it_fails(
    keep: ProxiedKeep, mount: tuple[Mounted, Path], data: bytes
) -> None:
    _, path = mount
    for proxy in keep.proxies.values():
        proxy.set(Fault(wrong_at=100, rate=4e6), times=1)
    with open(path, "rb") as held:  # keeps the inode, and what the kernel remembers of it
        os.posix_fadvise(held.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(held.fileno(), PAGE, 0) != data[:PAGE], "no wrong byte got through: nothing to show"
        wait_for(gives(path, 0, data[:PAGE]), "the kernel forgot the wrong page")
    assert path.read_bytes() == data


def test_pages_from_a_cache_file_that_rotted_go_when_it_is_found_out(
    mount: tuple[Mounted, Path], data: bytes, tmp_path: Path
) -> None:
    _, path = mount
    at = 1024 * 1024
    assert read_at(path, 0, PAGE) == data[:PAGE]
    cached = Path(block_path(tmp_path / "cache", hashlib.md5(data).hexdigest()))
    wait_for(cached.exists, "the block is in the cache")
    before = cached.stat()
    with open(path, "rb"):
        with open(cached, "r+b") as file:
            file.seek(at + 7)
            file.write(bytes([data[at + 7] ^ 1]))
        os.utime(cached, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a disk rots: no time changes
        assert read_at(path, at, PAGE) != data[at : at + PAGE], "the damage was not read: nothing to show"
        os.utime(cached)  # and now a reason to look at the file again
        assert read_at(path, 2 * at, PAGE) == data[2 * at : 2 * at + PAGE]
        wait_for(gives(path, at, data[at : at + PAGE]), "the kernel forgot the wrong page")
    assert path.read_bytes() == data
