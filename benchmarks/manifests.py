"""Manifests of any size for measurements: the same text for the same arguments."""

import hashlib
import random
from pathlib import Path
from typing import Literal

BLOCK = 67108864
"""Bytes in a full block, the most that Keep stores in one."""

Layout = Literal["deep", "flat"]
FILES_PER_DIRECTORY = 100
"""In the deep layout; the flat one has every file in the root."""


def write_manifest(target: Path, files: int, layout: Layout) -> int:
    """Write a normalized manifest of `files` small files to `target`; its size in bytes.

    deep: directories of 100 files, three levels down. flat: one directory.
    File sizes run from 0 to 64 KiB; blocks are filled one after another, as arv-put does.
    """
    numbers = random.Random(files)
    per_stream = files if layout == "flat" else FILES_PER_DIRECTORY
    with target.open("w", encoding="utf-8") as out:
        for stream in range((files + per_stream - 1) // per_stream):
            name = (
                "."
                if layout == "flat"
                else f"./lane{stream // 100 % 10:d}/batch{stream // 1000:04d}/s{stream:06d}"
            )
            sizes = [numbers.randrange(65536) for _ in range(min(per_stream, files - stream * per_stream))]
            blocks = [min(BLOCK, sum(sizes) - start) for start in range(0, max(sum(sizes), 1), BLOCK)]
            locators = [_locator(f"{files} {stream} {number}", size) for number, size in enumerate(blocks)]
            tokens, position = [], 0
            for number, size in enumerate(sizes):
                tokens.append(f"{position}:{size}:read{number:07d}.fastq.gz")
                position += size
            out.write(" ".join([name, *locators, *tokens]) + "\n")
    return target.stat().st_size


def _locator(seed: str, size: int) -> str:
    md5 = hashlib.md5(seed.encode()).hexdigest()
    signature = hashlib.sha1(seed.encode()).hexdigest()
    return f"{md5}+{size}+A{signature}@7fffffff"
