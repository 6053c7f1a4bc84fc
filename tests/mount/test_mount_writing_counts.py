"""What writing costs the server: updates, blocks and bytes, counted there."""

import os
import random
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from counting import Requests, changing, request_counter, stored_blocks
from mounting import Mounted, mounted, needs_fuse
from servers import LocalServer
from worlds import Maker, environment
from writing_bench import record_of
from writing_mounts import scale

pytestmark = needs_fuse

MIB = 1 << 20
BLOCK = 64 * MIB
SILENT_SINCE = (5, 12)
"""The kernel that first leaves it to a file system to take rights from files that are written."""


def kernel_release() -> tuple[int, int]:
    """Major and minor number."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int(re.split(r"\D", minor)[0])


class Counted(NamedTuple):
    """A mount, and what its server was asked."""

    user: Maker
    mount: Mounted
    requests: Requests

    @property
    def root(self) -> Path:
        """Where the mount is."""
        return self.mount.root

    def collection(self) -> tuple[str, Path]:
        """A new one: uuid, and where it is."""
        uuid = str(self.user.collection(secrets.token_hex(8), {})["uuid"])
        top = self.root / "by_id" / uuid
        top.stat()
        self.requests()
        return uuid, top

    def updates(self) -> list[str]:
        """Changing requests since the last call."""
        return changing(self.requests())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server of this module's own: everything it stores is counted."""
    server = LocalServer(tmp_path_factory.mktemp("counts") / "arvados", "--keep-services", "1")
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def counted(server: LocalServer, tmp_path: Path) -> Iterator[Counted]:
    user = Maker(server, server.new_user(f"user{secrets.token_hex(4)}")[1])
    with mounted(tmp_path, environment(server, user.token), "--read-write") as mount:
        yield Counted(user, mount, request_counter(server))


def new_blocks(server: LocalServer, before: dict[str, int]) -> list[int]:
    """Sizes of the blocks that were stored since, the largest first."""
    return sorted((size for md5, size in stored_blocks(server).items() if md5 not in before), reverse=True)


def fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def test_a_thousand_small_files(counted: Counted, server: LocalServer) -> None:
    uuid, top = counted.collection()
    before = stored_blocks(server)
    for number in range(1000 * scale()):
        (top / f"f{number}").write_bytes(secrets.token_bytes(4096))
    fsync(top)
    updates = [line for line in counted.updates() if uuid in line]
    blocks = new_blocks(server, before)
    assert 1 <= len(updates) <= 10 * scale(), updates
    assert len(blocks) <= 3 * scale(), blocks
    assert sum(blocks) == 4096 * 1000 * scale()
    assert record_of(counted.user, uuid)["file_count"] == 1000 * scale()


def test_a_large_file_gives_full_blocks(counted: Counted, server: LocalServer) -> None:
    """256 MiB, 1 GiB with a scale of 4."""
    uuid, top = counted.collection()
    before = stored_blocks(server)
    number = 4 * scale()
    piece = secrets.token_bytes(MIB)
    with open(top / "large", "wb", buffering=0) as file:
        for at in range(number * 64):
            file.write(at.to_bytes(8, "big") + piece[8:])
    fsync(top / "large")
    assert new_blocks(server, before) == [BLOCK] * number
    assert len([line for line in counted.updates() if uuid in line]) <= 2 * scale()
    assert (
        len(re.findall(r" [0-9a-f]{32}\+67108864", record_of(counted.user, uuid)["manifest_text"])) == number
    )


def test_random_overwrites(counted: Counted, server: LocalServer) -> None:
    """2,000 pieces of 4 KiB in a file of 256 MiB (of 64 MiB unless scaled), then fsync."""
    uuid, top = counted.collection()
    size, chance = min(4, scale()) * BLOCK, random.Random(1)
    with open(top / "f", "wb") as file:
        for at in range(0, size, 4 * MIB):
            file.write(at.to_bytes(8, "big") * (MIB // 2))
    fsync(top / "f")
    before = stored_blocks(server)
    wanted: dict[int, bytes] = {}
    with open(top / "f", "r+b", buffering=0) as file:
        for number in range(2000):
            at = chance.randrange(size // 4096) * 4096
            wanted[at] = number.to_bytes(4, "big") * 1024
            os.pwrite(file.fileno(), wanted[at], at)
        os.fsync(file.fileno())
    stored = sum(new_blocks(server, before))
    assert stored <= 2 * 2000 * 4096 + BLOCK, stored
    assert stored <= 2 * 2000 * 4096, f"{stored} bytes: nothing but what was changed is stored"
    with open(top / "f", "rb", buffering=0) as file:
        for at in chance.sample(sorted(wanted), 200):
            assert os.pread(file.fileno(), 4096, at) == wanted[at]
    assert record_of(counted.user, uuid)["file_size_total"] == size


def test_rewriting_a_file_stores_its_last_state(counted: Counted, server: LocalServer) -> None:
    uuid, top = counted.collection()
    before = stored_blocks(server)
    with open(top / "open", "wb", buffering=0) as file:
        for number in range(100):
            os.pwrite(file.fileno(), bytes([number]) * 100_000, 0)
            (top / "closed").write_bytes(bytes([number + 100]) * 100_000)
    fsync(top)
    updates = [line for line in counted.updates() if uuid in line]
    assert sum(new_blocks(server, before)) <= 2 * 100_000 * len(updates)
    assert len(updates) <= 5, updates
    assert (top / "closed").read_bytes() == bytes([199]) * 100_000


def test_what_is_written_and_removed_is_never_sent(counted: Counted, server: LocalServer) -> None:
    uuid, top = counted.collection()
    before = stored_blocks(server)
    for number in range(20):
        (top / f"f{number}").write_bytes(secrets.token_bytes(10_000))
        (top / f"f{number}").unlink()
    fsync(top)
    updates = [line for line in counted.updates() if uuid in line]
    assert len(updates) <= 1, updates
    assert sum(new_blocks(server, before)) <= 10_000 * 20 * len(updates)
    assert record_of(counted.user, uuid)["file_count"] == 0


def test_looking_changes_nothing(counted: Counted) -> None:
    _, top = counted.collection()
    with open(top / "f", "wb") as file:
        file.write(b"data")
    fsync(top)
    counted.requests()
    (top / "f").read_bytes()
    (top / ".arvados#collection").read_text()
    with open(top / "f", "r+b"):
        pass
    os.chmod(top / "f", 0o600)
    os.utime(top / "f", (1, 1))
    os.truncate(top / "f", 4)
    os.rename(top / "f", top / "f")
    fsync(top)
    assert counted.updates() == []


@pytest.mark.skipif(
    kernel_release() < SILENT_SINCE, reason="this kernel asks for security.capability before every write"
)
def test_a_write_is_one_request_of_the_kernel(counted: Counted) -> None:
    """And attributes can be read all the same."""
    uuid, top = counted.collection()
    with open(top / "f", "wb", buffering=0) as file:
        file.write(b"first")
        before = counted.mount.asked()
        for number in range(200):
            file.write(b"%d" % number)
        asked = counted.mount.asked() - before
        assert (asked["write"], asked["getxattr"]) == (200, 0)
        assert os.getxattr(top / "f", "user.arvados.uuid") == uuid.encode()
    assert top.joinpath("f").read_bytes() == b"first" + b"".join(b"%d" % n for n in range(200))
