"""The programs that write to a mount while it is measured; see `benchmarks.load`, which runs them."""

import io
import os
import random
import tarfile
from typing import Any

from benchmarks.content import PIECE, piece
from benchmarks.run_clock import Run, Wrong

Figures = dict[str, Any]

PAGE = 4096


def write_small(pid: int, path: str, root: str, count: int) -> Figures:
    """Files of 4 KiB, written and closed one after another. `saved`: seconds until all is on the server."""
    os.mkdir(path)
    content = random.Random(11)
    run = Run(pid)
    for number in range(count):
        with open(f"{path}/f{number:05d}", "wb") as file:
            file.write(content.randbytes(PAGE))
        run.at(number + 1)
    return _saved(run, count, root)


def untar(pid: int, path: str, root: str, count: int) -> Figures:
    """A tar of many small files in directories, unpacked as `tar` does it: each with its times."""
    content, packed = random.Random(12), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for number in range(count):
            entry = tarfile.TarInfo(f"d{number // 50:03d}/f{number:05d}")
            data = content.randbytes(content.randrange(8192))
            entry.size, entry.mtime = len(data), 1_600_000_000 + number
            tar.addfile(entry, io.BytesIO(data))
    packed.seek(0)
    os.mkdir(path)
    run = Run(pid)
    with tarfile.open(fileobj=packed) as tar:
        for number, entry in enumerate(tar):
            tar.extract(entry, path, filter="data")
            run.at(number + 1)
    return _saved(run, count, root)


def write_large(pid: int, path: str, root: str, size: int) -> Figures:
    """One file from end to end in pieces of 1 MiB; closed."""
    data = bytearray(piece())
    run, done = Run(pid), 0
    with open(path, "wb", buffering=0) as file:
        while done < size:
            data[:8] = done.to_bytes(8, "little")
            file.write(data)
            done += PIECE
            run.at(done)
    return _saved(run, done, root)


def overwrite(pid: int, path: str, root: str, count: int) -> Figures:
    """Pages anywhere in a file that is there, then fsync; read back."""
    places = random.Random(13)
    descriptor = os.open(path, os.O_RDWR)
    size = os.fstat(descriptor).st_size
    offsets = [PAGE * places.randrange(size // PAGE) for _ in range(count)]
    run = Run(pid)
    for number, offset in enumerate(offsets):
        os.pwrite(descriptor, number.to_bytes(4, "little") * (PAGE // 4), offset)
        run.at(number + 1)
    os.fsync(descriptor)
    figures = run.done(count)
    last = {offset: number for number, offset in enumerate(offsets)}
    for offset, number in list(last.items())[:200]:
        if os.pread(descriptor, PAGE, offset) != number.to_bytes(4, "little") * (PAGE // 4):
            raise Wrong(f"{path} at {offset}: other bytes than written")
    os.close(descriptor)
    return figures


def _saved(run: Run, count: int, root: str) -> Figures:
    """Seconds until all files are closed, and until the saved state of the collection can be read; CPU until
    then, because saving is part of what writing costs."""
    closed = run.done(count)
    with open(f"{root}/.arvados#collection", "rb") as record:
        record.read()
    saved = run.done(count)
    return {**closed, "saved": saved["seconds"], "cpu": saved["cpu"]}
