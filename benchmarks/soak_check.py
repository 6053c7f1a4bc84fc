"""The end of the soak run: everything is verified through a fresh mount, and through the API.

Used by `soak`. One thread.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from arvados_fuse.api import ApiClient, ApiSettings
from arvados_fuse.collection import Collection, Directory
from arvados_fuse.keep import BlockCache, RamStore
from benchmarks.soak_content import State, Wrong, described, told
from benchmarks.soak_peers import read_ledger
from benchmarks.soak_world import World

UNEXPECTED = ("Traceback", "Unhandled exception", "CRITICAL")
"""What must not be in the log of a mount or of the server."""

Found = Iterator[tuple[str, bytes]]


class Verified(NamedTuple):
    """What was compared."""

    files: int
    bytes: int


def expected_files(ended: Mapping[str, Any], known: str, files: Mapping[str, State]) -> dict[str, State]:
    """What the programs and the driver say is there, by uuid and path."""
    result = {f"{known}/{name}": state for name, state in files.items()}
    for directory, inside in ended["expected"].items():
        result |= {f"{directory}/{name}": State(*state) for name, state in inside.items()}
    return result


def compare(found: Found, expected: Mapping[str, State], ledger: str, last: int, scratch: Path) -> Verified:
    """ledger: path of the database's directory; last: number of its last transaction. Raises Wrong."""
    missing = dict(expected)
    size = 0
    has_ledger = False
    for path, data in found:
        size += len(data)
        if path == f"{ledger}/ledger.db":
            copy = scratch / "ledger.db"
            copy.write_bytes(data)
            has_ledger = True
            if read_ledger(copy) != last:
                raise Wrong(
                    f"the database ends with transaction {read_ledger(copy)}, and {last} was committed"
                )
            continue
        state = missing.pop(path, None)
        if state is None:
            raise Wrong(f"{path} is there, and nobody made it: {described(data)}")
        if not state.holds(data):
            raise Wrong(f"{path} is {described(data)}, and must be {told(state)}")
    if missing:
        raise Wrong(f"{len(missing)} files are missing: {', '.join(sorted(missing)[:5])}")
    if last and not has_ledger:
        raise Wrong("the database is missing")
    return Verified(len(expected) + has_ledger, size)


def on_mount(root: Path, uuids: Sequence[str]) -> Found:
    """All files, read through a mount."""
    for uuid in uuids:
        for directory, _, names in os.walk(root / uuid, onerror=_raise):
            for name in names:
                path = Path(directory, name)
                yield str(path.relative_to(root)), path.read_bytes()


def _raise(error: OSError) -> None:
    raise error


def on_server(world: World, uuids: Sequence[str]) -> Found:
    """All files, read from the records and blocks that the server has."""
    settings = ApiSettings.load(world.environment)
    api = ApiClient.connect(settings, retries=2)
    blocks = BlockCache(api, RamStore(), ca_file=settings.ca_file)
    blocks.start()
    try:
        for uuid in uuids:
            pending = [(uuid, Collection.from_record(api.get_collection(uuid), blocks=blocks).root)]
            while pending:
                path, directory = pending.pop()
                for name, entry in directory.entries():
                    if isinstance(entry, Directory):
                        pending.append((f"{path}/{name}", entry))
                    else:
                        yield f"{path}/{name}", bytes(entry.read(0, entry.size()))
    finally:
        blocks.close()
        api.close()


def look_into_logs(world: World, problem: Callable[[str], None]) -> int:
    """Report tracebacks and tokens in any log; how many mounts' logs there were."""
    logs = [life.log for life in world.lives]
    secrets = [token.rsplit("/", 1)[1] for token in world.tokens]
    for log in [*logs, *world.server.data_dir.glob("server.log*"), world.server.data_dir / "server.out"]:
        text = log.read_text(errors="replace") if log.is_file() else ""
        for word in UNEXPECTED:
            if word in text:
                at = text.index(word)
                problem(f"{log.name}: {text[max(0, at - 300) : at + 1500]}")
        if any(secret in text for secret in secrets):
            problem(f"{log.name} holds a token")
    return len(logs)
