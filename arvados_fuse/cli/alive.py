"""What live mounts, and those that are ending, have not saved yet: for who looks for what dead ones left.

Used by `recover.py` and `unsaved.py`. A process holds the lock of its directory for as long as it lives; what
is in there only that process can tell, so it is asked.
"""

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

from arvados_fuse.cli.preflight import shared_cache
from arvados_fuse.cli.showing import changed_paths
from arvados_fuse.errors import ArvadosFuseError
from arvados_fuse.fuse.unmount import fuse_mounts
from arvados_fuse.reporting import asking, sockets

WITHIN = 5.0
"""Seconds that a process has to answer."""


class Alive(NamedTuple):
    """A process that holds a directory of unsaved changes; process: its number, 0 when it can't be seen.

    mount_dir: where it mounted, "" when it did not answer; paths: changed and not saved, None likewise. ends:
    whether its mount is away and it is saving what is left. reason: why it could not save yet, or "".
    """

    process: int
    mount_dir: str = ""
    paths: int | None = None
    ends: bool = False
    reason: str = ""


def alive(directory: Path) -> list[Alive]:
    """The processes that hold a directory below `directory` and may have something unsaved there."""
    from arvados_fuse.writeback.rooms import LOCK, NAME, leftovers  # only now: it loads much

    if not directory.is_dir():
        return []
    dead = set()
    for room in leftovers(directory):
        dead.add(room.path)
        room.release()
    rooms = [path for path in directory.iterdir() if NAME.fullmatch(path.name) and path not in dead]
    held = {f"{room.name}/{LOCK}" for room in rooms}
    holders = _holders(held)
    found = [_asked(process, owner) for process, owner in sorted({*holders.values()})]
    # Who has ended in between, and had nothing left, has taken the directory along.
    if any((directory / name).exists() for name in held - holders.keys()):
        found.append(Alive(0))
    return [one for one in found if one.paths != 0]


def sentence(one: Alive) -> str:
    """What a person wants to know of it."""
    if not one.process:
        return (
            "A process that can't be seen from here, in another container say, has something there that it "
            "may have to save; look again when it has ended."
        )
    if one.paths is None:
        return (
            f"Process {one.process} lives and does not tell what it has to save; "
            "look again when it has ended."
        )
    reason = f" ({one.reason})" if one.reason else ""
    what = changed_paths(one.paths)
    if one.ends:
        return (
            f"Process {one.process} is still saving {what} of the mount that was at {one.mount_dir}{reason}; "
            "what it can't save is there for --recover when it has ended."
        )
    return f"The mount at {one.mount_dir} (process {one.process}) has {what} to save{reason}."


def recover_command(room: Path) -> str:
    """The command that tells what lies in `room`, and saves it."""
    cache = room.parent
    if cache == shared_cache(os.environ):
        return "arv-mount --recover"
    return f"arv-mount --recover --disk-cache-dir {shlex.quote(str(cache))}"


def _holders(locks: Set[str]) -> dict[str, tuple[int, int]]:
    """The processes that have these lock files open, each given as directory and name, and their users.

    Who made a directory stands in its name, but another one may have taken it over. Only links are read: to
    look at what others have open could hang.
    """
    found = {}
    for opened in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # somebody else's, or gone
            lock = "/".join(os.readlink(opened).rsplit("/", 2)[-2:])
            if lock in locks:
                process = opened.parents[1]
                found[lock] = int(process.name), process.stat().st_uid
    return found


def _asked(process: int, owner: int) -> Alive:
    for asked, ends in _sockets(process, owner):
        with contextlib.suppress(ArvadosFuseError):
            (status,) = asking.ask_at(asked, owner, "status", deadline=WITHIN)
            if status["mount"]["process"] == process:
                return _told(status, ends)
    return Alive(process)


def _sockets(process: int, owner: int) -> Iterator[tuple[Path, bool]]:
    """Where it may listen, and whether as one whose mount is away."""
    ending = [(sockets.ending_path(directory, process), True) for directory in sockets.directories(owner)]
    yield from ending
    mounted = {str(mount.minor) for mount in fuse_mounts()}
    for directory in sockets.directories(owner):
        with contextlib.suppress(OSError):
            for path in sorted(directory.glob("[0-9]*.sock")):
                yield path, path.stem not in mounted
    yield from ending  # it may have moved there meanwhile


def _told(status: Mapping[str, Any], ends: bool) -> Alive:
    mount, unsaved = status["mount"], status["unsaved"]
    paths, reasons = None, set()
    if isinstance(unsaved, dict) and "files" in unsaved:
        paths = int(unsaved["files"])
        reasons = {str(one["error"]) for one in unsaved["collections"] if one["error"]}
    return Alive(int(mount["process"]), str(mount["path"]), paths, ends, "; ".join(sorted(reasons)))
