"""The clock of the machine is set while a mount runs: nothing is lost, nor asked for again and again."""

import os
from pathlib import Path

import pytest
from faults.jumping_clock import JumpingClock
from mounting import mounted, needs_fuse
from servers import LocalServer
from worlds import Maker, environment

pytestmark = needs_fuse

HOUR = 3600
MONTH = 30 * 24 * HOUR
"""Longer than a signature lives: all look expired to whoever is so far ahead."""
JUMPS = (MONTH, -40 * HOUR, 10 * HOUR, MONTH)
BLOCKS, SIZE = 40, 3000


@pytest.fixture
def clock(tmp_path: Path) -> JumpingClock:
    made = JumpingClock(tmp_path)
    made.make()
    if not made.can_jump:
        pytest.skip("no C compiler")
    return made


def test_signatures_that_only_look_expired_are_not_renewed(
    fresh_server: LocalServer, tmp_path: Path, clock: JumpingClock
) -> None:
    """Renewed once after each jump at most, not for each read and each save."""
    maker = Maker(fresh_server, fresh_server.settings.token)
    blocks = [bytes([number]) * SIZE for number in range(BLOCKS)]
    text = f". {' '.join(maker.block(data) for data in blocks)} 0:{BLOCKS * SIZE}:file\n"
    uuid = maker.make("collections", name="signed", manifest_text=text)["uuid"]
    about = {**environment(fresh_server, maker.token), **clock.environment}
    log = fresh_server.data_dir / "server.log"
    options = ("--collection", uuid, "--read-write", "--ram-cache", "--file-cache", "1")
    with mounted(tmp_path, about, *options) as mount, open(mount.root / "file", "r+b", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert file.read(SIZE) == blocks[0]
        before = log.read_text()
        for number, ahead in enumerate(JUMPS):
            clock.set(ahead)
            for at, block in enumerate(blocks):
                assert os.pread(file.fileno(), SIZE, at * SIZE) == block
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            blocks[0] = b"%d" % number + blocks[0][1:]
            os.pwrite(file.fileno(), blocks[0], 0)
            os.fsync(file.fileno())
        asked = log.read_text()[len(before) :]
        assert asked.count("GET /arvados/v1/collections/") <= 4 * len(JUMPS)
        assert asked.count("PUT /arvados/v1/collections/") == len(JUMPS)
    with mounted(tmp_path, environment(fresh_server, maker.token), "--collection", uuid) as mount:
        assert (mount.root / "file").read_bytes() == b"".join(blocks)
