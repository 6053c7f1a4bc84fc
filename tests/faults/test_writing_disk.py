"""The local disk for unsaved data is full; and a large file does not need much memory."""

import errno
import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.gate import Deed
from faults.writing_world import WritingWorld, attempt, write, writing
from mounting import needs_fuse
from servers import wait_for

__all__ = ["writing"]
pytestmark = needs_fuse

SIZE = int(os.environ.get("ARVADOS_FUSE_LARGE", str(256 << 20)))
"""Bytes of the large file."""
MEMORY = 250_000_000
DISK = 24 << 20


@pytest.fixture
def small_disk(writing: WritingWorld) -> Iterator[Path]:
    """A cache directory with little room."""
    path = writing.base / "small"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can't be mounted here")
    yield path
    writing.close()
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_the_disk_is_full(writing: WritingWorld, small_disk: Path) -> None:
    """The writer learns it; what was recorded is saved; it goes on when there is room."""
    uuid = writing.site.collection({"old": b"old" * 1000})
    with writing.mount("--file-cache", "4000000", cache=small_disk) as mount:
        top = mount.root / uuid
        assert (top / "old").read_bytes() == b"old" * 1000
        # Nothing leaves: so all that is written stays on the disk.
        writing.gates.keep_rule(lambda ask: Deed(hold=ask.method == "PUT"))
        wanted: dict[str, bytes | None] = {"old": b"old" * 1000}
        failed = 0
        for number in range(40):
            data = os.urandom(1 << 20)
            code = attempt(lambda data=data, number=number: write(top / f"f{number}", data))  # type: ignore[misc]
            if code:
                failed += 1
                assert code == errno.ENOSPC
            else:
                wanted[f"f{number}"] = data
        assert failed > 5
        assert len(wanted) > 5
        for name, known in wanted.items():
            assert (top / name).read_bytes() == known
        writing.gates.clear()
        wait_for(lambda: attempt(lambda: write(top / "after", b"after" * 1000, sync=True)) == 0, "room again")
        for number in range(40):
            data = os.urandom(1 << 20)
            write(top / f"g{number}", data, sync=number % 5 == 4)
            wanted[f"g{number}"] = data
    tree = writing.tree(uuid)
    assert tree.pop("after") == b"after" * 1000
    # Of a file that could not be written whole there is what was written, or nothing; as on any full disk.
    partial = {name: data for name, data in tree.items() if name not in wanted}
    assert all(name.startswith("f") and len(data or b"") < 1 << 20 for name, data in partial.items())
    assert {name: data for name, data in tree.items() if name in wanted} == wanted


def test_a_full_disk_and_a_crash(writing: WritingWorld, small_disk: Path) -> None:
    """What was closed before is recovered, though there is no room to speak of."""
    uuid = writing.site.collection({"old": b"old"})
    mount = writing.begin("--file-cache", "1000000", cache=small_disk)
    top = mount.root / uuid
    writing.gates.keep_rule(lambda ask: Deed(hold=ask.method == "PUT"))
    wanted: dict[str, bytes | None] = {"old": b"old"}
    for number in range(60):
        data = os.urandom(512 << 10)
        if not attempt(lambda data=data, number=number: write(top / f"f{number}", data)):  # type: ignore[misc]
            wanted[f"f{number}"] = data
    assert 5 < len(wanted) < 60
    mount.kill()
    for gate in writing.gates.all:
        gate.drop()
    with writing.mount("--file-cache", "1000000", cache=small_disk):
        wait_for(lambda: wanted.items() <= writing.tree(uuid).items(), "all is recovered")


def test_names_change_while_others_have_filled_the_disk(writing: WritingWorld, small_disk: Path) -> None:
    """There is room set aside to write that down; it survives a crash. It is set aside again later."""
    uuid = writing.site.collection({f"f{number}": b"%d" % number for number in range(20)})
    mount = writing.begin("--file-cache", "1000000", cache=small_disk)
    top = mount.root / uuid
    writing.gates.api.rule = lambda ask: Deed(hold=ask.changes(uuid))
    write(top / "first", b"first")
    assert len(list(small_disk.glob("*/*/reserve"))) == 1
    ballast = small_disk / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            while not attempt(lambda size=size: file.write(bytes(size))):  # type: ignore[misc]
                pass
    for number in range(10):
        (top / f"f{number}").rename(top / f"g{number}")
        (top / f"f{number + 10}").unlink()
    assert list(small_disk.glob("*/*/reserve")) == []
    mount.kill()
    ballast.unlink()
    writing.gates.api.drop()
    with writing.mount("--file-cache", "1000000", cache=small_disk) as again:
        wanted = {f"g{number}": b"%d" % number for number in range(10)} | {"first": b"first"}
        writing.wait_saved(uuid, wanted, 20)
        write(again.root / uuid / "first", b"second", sync=True)
        assert len(list(small_disk.glob("*/*/reserve"))) == 1
    assert list(small_disk.glob("*/*/reserve")) == []


def test_a_large_file_needs_little_memory(writing: WritingWorld) -> None:
    uuid = writing.site.collection({})
    environment = {**writing.server.settings.environment(), "ARVADOS_API_TOKEN": writing.token}
    piece = os.urandom(1 << 20)
    with writing.mount(environment=environment) as mount:
        wait_for(lambda: os.listdir(mount.root / uuid) == [], "the collection is there")
        begun = time.monotonic()
        digest = hashlib.md5()
        with open(mount.root / uuid / "large", "wb", buffering=0) as file:
            for number in range(SIZE >> 20):
                data = number.to_bytes(8, "big") + piece[8:]
                file.write(data)
                digest.update(data)
            os.fsync(file.fileno())
        elapsed = time.monotonic() - begun
        memory = mount.kernel_number("VmHWM")
        print(f"{SIZE >> 20} MiB in {elapsed:.1f} s: {SIZE / elapsed / 1e6:.0f} MB/s, {memory / 1e6:.0f} MB")
        assert memory < MEMORY
        found = hashlib.md5()
        with open(mount.root / uuid / "large", "rb") as file:
            while data := file.read(1 << 20):
                found.update(data)
        assert found.digest() == digest.digest()
        assert mount.kernel_number("VmHWM") < MEMORY
    assert len(writing.site.blocks_of(uuid)) <= -(-SIZE // (64 << 20))
