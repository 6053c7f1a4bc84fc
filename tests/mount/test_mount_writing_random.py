"""One file of a real mount: writes, reads, truncations, memory maps, in random order and through several
descriptors, each compared with a bytearray. (What fsx does.)"""

import contextlib
import mmap
import os
import random
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounting import drop_kernel_caches, mounted, needs_fuse
from servers import LocalServer
from worlds import Maker, environment
from writing_bench import record_of, sdk_reads
from writing_mounts import scale

pytestmark = needs_fuse

OPERATIONS = 2000
"""With a scale of 50 it is 100,000."""
LARGEST = 600_000
PAGE = mmap.PAGESIZE


class Exerciser:
    """Does one thing after another to the file and the model. seed: repeats the same things."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.chance = random.Random(seed)
        self.model = bytearray()
        self.done: list[str] = []
        self.files = [os.open(path, os.O_RDWR | os.O_CREAT), os.open(path, os.O_RDWR)]

    def close(self) -> None:
        for file in self.files:
            os.close(file)
        self.files = []

    def file(self) -> int:
        return self.chance.choice(self.files)

    def range(self, end: int) -> tuple[int, int]:
        """Offset and size within a file of `end` bytes; pages' borders are likely."""
        offset = self.chance.randrange(end + 1)
        if self.chance.random() < 0.3:
            offset = offset // PAGE * PAGE
        size = self.chance.choice([1, 7, 100, PAGE, 10_000, 131_072, 200_000])
        return offset, max(0, min(self.chance.randrange(size + 1), end - offset))

    def note(self, text: str) -> None:
        self.done.append(text)
        del self.done[:-30]

    def put(self, offset: int, data: bytes) -> None:
        self.model.extend(bytes(max(0, offset - len(self.model))))
        self.model[offset : offset + len(data)] = data

    # What can be done

    def write(self) -> None:
        offset, size = self.range(LARGEST)
        data = bytes([self.chance.randrange(1, 256)]) * size
        self.note(f"write {offset} {size}")
        assert os.pwrite(self.file(), data, offset) == size
        if size:
            self.put(offset, data)

    def append(self) -> None:
        _, size = self.range(LARGEST)
        if len(self.model) + size > LARGEST:
            return
        self.note(f"append {size}")
        data = bytes([self.chance.randrange(1, 256)]) * size
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, data)
        finally:
            os.close(file)
        self.put(len(self.model), data)

    def read(self) -> None:
        offset, size = self.range(LARGEST)
        self.note(f"read {offset} {size}")
        assert os.pread(self.file(), size, offset) == self.model[offset : offset + size]

    def truncate(self) -> None:
        size = (
            self.chance.randrange(LARGEST) if self.chance.random() < 0.5 else self.range(len(self.model))[0]
        )
        self.note(f"truncate {size}")
        if self.chance.random() < 0.5:
            os.ftruncate(self.file(), size)
        else:
            os.truncate(self.path, size)
        del self.model[size:]
        self.model.extend(bytes(size - len(self.model)))

    def map(self, access: int) -> tuple[mmap.mmap, int, int, int] | None:
        offset, size = self.range(len(self.model))
        if not size:
            return None
        start = offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        view = mmap.mmap(self.file(), offset + size - start, access=access, offset=start)
        return view, offset - start, offset, size

    def map_write(self) -> None:
        found = self.map(mmap.ACCESS_WRITE)
        if found is not None:
            view, at, offset, size = found
            self.note(f"map and write {offset} {size}")
            data = bytes([self.chance.randrange(1, 256)]) * size
            view[at : at + size] = data
            if self.chance.random() < 0.3:
                view.flush()
            view.close()
            self.put(offset, data)

    def map_read(self) -> None:
        found = self.map(mmap.ACCESS_READ)
        if found is not None:
            view, at, offset, size = found
            self.note(f"map and read {offset} {size}")
            assert view[at : at + size] == self.model[offset : offset + size]
            view.close()

    def sync(self) -> None:
        self.note("fsync")
        os.fsync(self.file())

    def reopen(self) -> None:
        self.note("close and open")
        self.close()
        if self.chance.random() < 0.3:
            drop_kernel_caches()
        self.files = [os.open(self.path, os.O_RDWR) for _ in range(2)]

    def rename(self) -> None:
        """Away and into another directory, while it is open."""
        self.note("rename")
        target = self.path.parent / f"r{len(self.done)}{self.chance.randrange(1 << 30)}"
        if self.chance.random() < 0.5:
            target.write_bytes(b"in the way")
        os.rename(self.path, target)
        self.path = target

    def look(self) -> None:
        self.note("look")
        assert os.stat(self.path).st_size == os.fstat(self.file()).st_size == len(self.model)

    def step(self) -> None:
        acts = [self.write, self.read, self.map_write, self.map_read, self.truncate]
        rare = [self.append, self.sync, self.reopen, self.rename, self.look]
        self.chance.choice(acts if self.chance.random() < 0.9 else rare)()

    def check(self) -> None:
        assert self.path.read_bytes() == self.model


@pytest.fixture
def user(local_server: LocalServer) -> Maker:
    return Maker(local_server, local_server.new_user(f"random{secrets.token_hex(4)}")[1])


@contextlib.contextmanager
def explained(exerciser: Exerciser, seed: int) -> Iterator[None]:
    """Say with a failure what was done before."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"seed {seed}, after {exerciser.done}") from error


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1, secrets.randbelow(1 << 32)], ids=["the same", "another"])
def test_random_changes_of_one_file(user: Maker, tmp_path: Path, seed: int) -> None:
    uuid = str(user.collection("random", {"file": b""})["uuid"])
    with mounted(tmp_path, environment(user.server, user.token), "--read-write") as mount:
        exerciser = Exerciser(mount.root / "by_id" / uuid / "file", seed)
        with explained(exerciser, seed):
            for number in range(OPERATIONS * scale() // 2):
                exerciser.step()
                if number % 500 == 0:
                    exerciser.check()
            exerciser.check()
            drop_kernel_caches()
            exerciser.check()
        exerciser.close()
        name = exerciser.path.name
    manifest = str(record_of(user, uuid)["manifest_text"])
    assert sdk_reads(user, manifest) == {name: bytes(exerciser.model)}
    with mounted(tmp_path, environment(user.server, user.token), "--by-id") as mount:
        assert (mount.root / uuid / name).read_bytes() == exerciser.model
