"""`--collection` of content that only Keep knows: its manifest is a block."""

import json
import re
import time
from pathlib import Path

import pytest
from drivers import TreeDriver, read, refused
from worlds import Maker, session

from arvados_fuse.errors import ArvadosFuseError, SetupError


def test_names_sizes_and_what_is_cached(mine: Maker, tmp_path: Path) -> None:
    """Contents of its blocks are signed for nobody: what is in the cache can be read."""
    cached, other = b"content of a cached block", b"content of another block"
    known = mine.collection("c", {"cached": cached})
    with session(mine.server, mine.token, tmp_path, mode="by_id") as built:
        assert read(TreeDriver(built.filesystem), f"{known['uuid']}/cached") == cached
    text = "".join(
        f"{stream} {re.sub(r'[+]A[^ ]*', '', mine.block(data))} 0:{len(data)}:{name}\n"
        for stream, name, data in ((".", "cached", cached), ("./d", "other", other))
    )
    locator = mine.block(text.encode())
    pdh = "+".join(locator.split("+")[:2])
    with session(mine.server, mine.token, tmp_path, mode="collection", target=locator) as built:
        root = TreeDriver(built.filesystem)
        assert sorted(root.names("")) == ["cached", "d"]
        assert root.stat("d/other").size == len(other)
        assert read(root, "cached") == cached
        with refused(13):
            read(root, "d/other")
        record = json.loads(read(root, ".arvados#collection"))
        assert record == {"manifest_text": text, "portable_data_hash": pdh}
        with root.at("d") as found:
            assert root.fs.listxattr(found.ino) == [b"user.arvados.portable_data_hash"]
            assert root.fs.getxattr(found.ino, b"user.arvados.portable_data_hash").decode() == pdh


def test_what_nobody_knows_ends_soon(mine: Maker, tmp_path: Path) -> None:
    begun = time.monotonic()
    for target in ("0" * 32 + "+77", mine.block(b"a block")[:34] + "+A" + "0" * 40 + "@ffffffff"):
        with (
            pytest.raises(SetupError, match="was not found") as caught,
            session(mine.server, mine.token, tmp_path, mode="collection", target=target),
        ):
            pass
        assert "+A" not in str(caught.value)
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    "data", [b"no manifest", b"\xff\xfe\n", b". d41d8cd98f00b204e9800998ecf8427e+0 0:5:f\n"]
)
def test_a_block_that_is_no_manifest(mine: Maker, tmp_path: Path, data: bytes) -> None:
    with (
        pytest.raises((ArvadosFuseError, OSError)),
        session(mine.server, mine.token, tmp_path, mode="collection", target=mine.block(data)) as built,
    ):
        TreeDriver(built.filesystem).names("")


def test_what_the_api_knows_comes_from_there(mine: Maker, tmp_path: Path) -> None:
    pdh = mine.collection("c", {"f": b"1"})["portable_data_hash"]
    with session(mine.server, mine.token, tmp_path, mode="collection", target=pdh) as built:
        assert read(TreeDriver(built.filesystem), "f") == b"1"
