"""Block signatures that live for five seconds: a file held open is read for longer, through a real mount."""

import json
import os
import random
import time
from pathlib import Path

from mounting import mounted, needs_fuse
from servers import LocalServer
from worlds import Maker, environment

pytestmark = needs_fuse

LIFETIME = 5
SECONDS = float(os.environ.get("SIGNATURE_SECONDS", "12"))
"""For how long it is read; more than two lives of a signature."""
BLOCKS, SIZE = 200, 50_000


def test_a_file_is_read_for_longer_than_its_signatures_live(
    fresh_server: LocalServer, tmp_path: Path
) -> None:
    """Each block once, in random order, without reading ahead: it is fetched from Keep when it is read."""
    path = fresh_server.data_dir / "site.json"
    settings = json.loads(path.read_text())
    fresh_server.stop()
    path.write_text(json.dumps({**settings, "blob_signature_ttl": LIFETIME}))
    fresh_server.start()
    maker = Maker(fresh_server, fresh_server.settings.token)
    blocks = [bytes([number]) * SIZE for number in range(BLOCKS)]
    begun = time.time()
    locators = " ".join(maker.block(data) for data in blocks)
    if time.time() - begun > LIFETIME / 2:
        locators = " ".join(maker.block(data) for data in blocks)  # they are there, and signed anew
    text = f". {locators} 0:{BLOCKS * SIZE}:file\n"
    uuid = maker.make("collections", name="signed", manifest_text=text)["uuid"]
    options = ("--collection", uuid, "--ram-cache", "--file-cache", "1", "--debug")
    order = list(range(BLOCKS))
    random.Random(1).shuffle(order)
    with mounted(tmp_path, environment(fresh_server, maker.token), *options) as mount:
        descriptor = os.open(mount.root / "file", os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            begun = time.monotonic()
            for done, number in enumerate(order, start=1):
                data = os.pread(descriptor, SIZE, number * SIZE)
                assert data == blocks[number], number
                time.sleep(max(0.0, begun + done * SECONDS / BLOCKS - time.monotonic()))  # a slow reader
        finally:
            os.close(descriptor)
        assert time.monotonic() - begun > 2 * LIFETIME
        log = (fresh_server.data_dir / "server.log").read_text()
        assert log.count("GET /arvados/v1/collections/") > SECONDS / LIFETIME, "signatures were renewed"
