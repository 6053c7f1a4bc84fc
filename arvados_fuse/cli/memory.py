"""How much memory the caches may take where this process runs: a container often has less than the machine.

Used by `main.py` before the mount is built. A size that was asked for stays; the defaults are made to fit.
Formats: cgroups(7), and cgroup-v2 and memory in the kernel's documentation (admin-guide).
"""

import dataclasses
import re
from pathlib import Path

from arvados_fuse.options import MountOptions

RAM_CACHE = 256 << 20
"""Bytes of `--ram-cache` where there is no limit; the SDK's default."""
RAM_CACHE_SHARE = 4
DIRECTORY_CACHE_SHARE = 8
"""Parts of the limit: the rest is for buffers, open files, the interpreter, and other processes in there."""
UNLIMITED = 1 << 60
"""A cgroup of version 1 without a limit has a number near 2**63."""


def limit(proc: Path = Path("/proc/self"), root: Path = Path("/")) -> int | None:
    """Bytes that the cgroups of this process allow, the least of all above it; None without a limit.

    proc: the directory of the process; root: where the mount points in its `mountinfo` begin.
    """
    found: list[int] = []
    for mount, inside, version in _hierarchies(proc):
        name = "memory.max" if version == 2 else "memory.limit_in_bytes"
        top = root / mount.relative_to("/")
        directory = top / inside if inside else top
        # A limit on any cgroup above holds for us too.
        while directory == top or top in directory.parents:
            found += _number(directory / name)
            directory = directory.parent
    return min(found, default=None)


def fitted(options: MountOptions, allowed: int | None) -> MountOptions:
    """The options with the default sizes of what is kept in memory made to fit into `allowed` bytes."""
    if allowed is None:
        return options
    if not options.directory_cache_given:
        fits = min(options.directory_cache, allowed // DIRECTORY_CACHE_SHARE)
        options = dataclasses.replace(options, directory_cache=fits)
    if options.ram_cache and not options.file_cache:
        options = dataclasses.replace(options, file_cache=min(RAM_CACHE, allowed // RAM_CACHE_SHARE))
    return dataclasses.replace(options, spill_cache=min(RAM_CACHE, allowed // RAM_CACHE_SHARE))


def _hierarchies(proc: Path) -> list[tuple[Path, str, int]]:
    """Where cgroups that limit memory are mounted, this process's place below, and their version."""
    try:
        ours = (proc / "cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        table = (proc / "mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    places: dict[int, str] = {}
    for line in ours:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            places[2] = path
        elif "memory" in controllers.split(","):
            places[1] = path
    found = []
    for line in table:
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        version = {"cgroup2": 2, "cgroup": 1}.get(kind[0], 0)
        if version in places and (version == 2 or "memory" in kind[-1].split(",")):
            mount, shown = Path(_unescaped(fields[4])), _unescaped(fields[3])
            found.append((mount, _below(places[version], shown), version))
    return found


def _below(path: str, shown: str) -> str:
    """The cgroup `path` as it is below a mount that shows the cgroup `shown`; "" where it can't be seen."""
    path, shown = path.strip("/"), shown.strip("/")
    if path == shown or ".." in path.split("/"):
        return ""
    if not shown:
        return path
    return path.removeprefix(f"{shown}/") if path.startswith(f"{shown}/") else ""


def _number(file: Path) -> list[int]:
    """The limit in a file, nothing where there is none."""
    try:
        text = file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return []
    return [int(text)] if text.isdigit() and int(text) < UNLIMITED else []


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
