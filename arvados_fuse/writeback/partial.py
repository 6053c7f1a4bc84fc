"""Small manifests of only the paths that matter, and what a whole manifest has at a path.

Used by the committer: what is compared and sent is as large as the change, not as the collection. Pure
functions.
"""

from collections.abc import Mapping

from arvados_fuse.collection.manifest.changes import Finder
from arvados_fuse.collection.manifest.lines import Range, directory_line, empty_line, located
from arvados_fuse.collection.manifest.listing import Listing
from arvados_fuse.collection.segments import ZERO_BLOCK
from arvados_fuse.writeback.states import DIRECTORY, State


def manifest_of(states: Mapping[str, State], zero_block: str = ZERO_BLOCK) -> str:
    """The manifest of a collection that has these states and nothing else; all bytes are in blocks.

    An empty directory that holds something after all is there through what it holds.
    """
    files: dict[str, dict[str, list[Range] | None]] = {}
    held: set[str] = set()
    for path, state in states.items():
        if state is None:
            continue
        parent, _, name = path.rpartition("/")
        if isinstance(state, tuple):
            files.setdefault(parent, {})[name] = list(located(state, zero_block))
        while parent and parent not in held:
            held.add(parent)
            parent = parent.rpartition("/")[0]
    lines = [
        directory_line(f"./{parent}" if parent else ".", None, Listing.empty(), inside, strip=False)
        for parent, inside in files.items()
    ]
    lines += [
        empty_line(f"./{path}") for path, state in states.items() if state is DIRECTORY and path not in held
    ]
    return b"".join(lines).decode()


def state_at(finder: Finder, path: str) -> State:
    """What a manifest has at a path. Raises ManifestError when the directory's lines are not legal."""
    version = finder.file(path)
    if version is not None:
        return version.segments().items()
    if finder.has_directory(path) and not finder.has_entries(path):
        return DIRECTORY
    return None


def of_one_moment(states: Mapping[str, State], now: Finder) -> dict[str, State]:
    """States that were learned at different moments, without those that can't have been at one.

    Where a file is at a path and something below it, what the server does not have now goes: it is not what
    is there, so nothing can be taken for it. The file stays if it is both. Raises as `state_at`.
    """
    found = dict(states)
    for path in states:
        above = path.rpartition("/")[0]
        while above and found[path] is not None:
            if isinstance(found.get(above), tuple):
                is_file_now = isinstance(state_at(now, above), tuple)
                found[path if is_file_now else above] = None
            above = above.rpartition("/")[0]
    return found
