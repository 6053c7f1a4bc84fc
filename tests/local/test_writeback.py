"""Changes recorded by hand, saved to a real server: what arrives there, how often it is asked, what is kept."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from saving_world import Mount, Site, Tree
from servers import LocalServer

from arvados_fuse.writeback import DIRECTORY, PathChange


@pytest.fixture
def site(local_server: LocalServer) -> Iterator[Site]:
    made = Site(local_server, local_server.new_user(f"user{secrets.token_hex(4)}")[1])
    yield made
    made.close()


def test_many_small_files_go_in_few_updates_and_blocks(site: Site, tmp_path: Path) -> None:
    uuid = site.collection()
    files = {f"d{n % 7}/f{n}": b"%d " % n * 500 for n in range(1000)}
    mount = Mount(site, tmp_path / "writeback")
    mount.write_all(uuid, files)
    mount.save(uuid)
    assert site.tree(uuid) == files
    assert site.updates(uuid) <= 10
    assert len(site.blocks_of(uuid)) <= 3
    assert mount.close().is_clean()
    assert list((tmp_path / "writeback").iterdir()) == [tmp_path / "writeback" / ".lock"]
