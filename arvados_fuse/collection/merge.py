"""Bringing what others changed into a tree that was changed here, path by path.

Used by `Collection.update`. See `commit` for the other direction.

The rules (also in docs/collection.md): what one side changed is taken. Where both changed one path
differently ours keeps the name and theirs becomes `name~YYYYMMDD-HHMMSS~conflict~` (UTC). Deleting is a
change: what they edited and we deleted comes back under the conflict name; what we edited and they deleted
stays. Directories merge by their files.

Threads: each path is changed atomically, the merge as a whole is not; files may be written meanwhile.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from arvados_fuse.collection.content import Content
from arvados_fuse.collection.directory import Directory
from arvados_fuse.collection.file import File
from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.manifest.changes import Change, Data, Finder, Version, compare, data_of
from arvados_fuse.collection.manifest.names import conflict_name
from arvados_fuse.collection.paths import COLLECTION


class Merged(NamedTuple):
    """What a merge changed in a tree: paths (`a/b`), and the conflict paths among them."""

    changed: list[str]
    conflicts: list[str]


def merge_into(
    root: Directory,
    base: ManifestIndex,
    theirs: ManifestIndex,
    *,
    now: float | None = None,
    ours: Callable[[str], bool] | None = None,
    left: Callable[[str], None] | None = None,
) -> Merged:
    """Bring the changes from `base` to `theirs` into `root`, which was `base` once and was changed since.

    Open files see the new content of their path when ours was not changed. Raises ManifestError when a line
    of `theirs` that differs is not legal; nothing was merged then.

    ours: for a mount, which settles conflicts when it commits. Tells of a path whether it is to be left as it
    is here; no conflict names are made, and files that are open keep the content that they have. left: is
    told of each path that they changed and that is left as it is here, for whatever reason.
    """
    changes = compare(base, theirs)
    merge = _Merge(root, time.time() if now is None else now, ours, left)
    for change in changes.files:
        if change.after is None and merge.may_remove(change):
            merge.remove(change.path)
    for path in sorted(changes.directories_removed, reverse=True):
        found = merge.at(path)
        if isinstance(found, Directory) and found.is_empty() and not merge.is_ours(path):
            merge.remove(path)
    for change in changes.files:
        if change.after is not None:
            merge.take(change, change.after)
    finder = Finder(theirs)
    for path in changes.directories_added:
        if not finder.has_entries(path) and not merge.is_ours(path):
            merge.make_directory(path)
    return Merged(merge.changed, merge.conflicts)


class _Merge:
    """One merge. `renamed`: the conflict paths that were given so far, for whole directories too."""

    def __init__(
        self,
        root: Directory,
        now: float,
        ours: Callable[[str], bool] | None,
        left: Callable[[str], None] | None,
    ) -> None:
        self.root = root
        self.now = now
        self.ours = ours
        self.left = left or (lambda _path: None)
        self.changed: list[str] = []
        self.conflicts: list[str] = []
        self.renamed: dict[str, str] = {}

    def is_ours(self, path: str) -> bool:
        """Whether what is at a path is to be left as it is here; then that is told."""
        is_ours = self.ours is not None and self.ours(path)
        if is_ours:
            self.left(path)
        return is_ours

    def at(self, path: str) -> File | Directory | None:
        """What is at a path; None also when the way goes through a file."""
        found: File | Directory | None = self.root
        for part in path.split("/"):
            if not isinstance(found, Directory):
                return None
            found = found.get(part)
        return found

    def may_remove(self, change: Change) -> bool:
        """Whether a file that they deleted is here what it was for them."""
        if self.is_ours(change.path):
            return False
        here = _data(self.at(change.path))
        if here == _data(change.before):
            return True
        if here is not None:
            self.left(change.path)
        return False

    def remove(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        directory = self.root.find(parent) if parent else self.root
        assert isinstance(directory, Directory)
        directory.unlink(name)
        self.changed.append(path)

    def take(self, change: Change, after: Version) -> None:
        """Let their file be at its path, or under a conflict name."""
        if self.ours is not None:
            self._take_apart(change, after)
            return
        local = self.at(change.path)
        mine = _data(local)
        if mine == _data(after):
            return
        target = self._around_files(change.path)
        if mine == _data(change.before):
            if isinstance(local, File):
                local.content().replace(after.segments())
                self.changed.append(change.path)
                return
        elif target == change.path:
            target = self._conflict(change.path)
        parent, _, name = target.rpartition("/")
        directory = self.root.find_or_create(parent, COLLECTION) if parent else self.root
        assert isinstance(directory, Directory)
        directory.put(name, Content(directory, name, after.segments(), changed=True))
        self._note(change.path, target)

    def _take_apart(self, change: Change, after: Version) -> None:
        """Let their file be at its path, another file than the one that was there; or leave it for later."""
        path = change.path
        if self.is_ours(path):
            return
        mine = _data(self.at(path))
        if mine == _data(after):
            return
        if mine != _data(change.before) or self._behind_file(path):
            self.left(path)
            return
        parent, _, name = path.rpartition("/")
        directory = self.root.find_or_create(parent, COLLECTION) if parent else self.root
        assert isinstance(directory, Directory)
        directory.put(name, Content(directory, name, after.segments(), changed=True), overwrite=True)
        self.changed.append(path)

    def _behind_file(self, path: str) -> bool:
        """Whether one of our files stands where `path` needs a directory."""
        parts = path.split("/")
        return any(isinstance(self.at("/".join(parts[:count])), File) for count in range(1, len(parts)))

    def make_directory(self, path: str) -> None:
        """Let there be a directory at a path, unless a file of ours is in the way: nothing is lost then."""
        found = self.at(path)
        if self._behind_file(path) or isinstance(found, File):
            self.left(path)
        elif found is None:
            self.root.find_or_create(path, COLLECTION)
            self.changed.append(path)

    def _note(self, path: str, target: str) -> None:
        self.changed.append(target)
        if target != path:
            self.conflicts.append(target)

    def _around_files(self, path: str) -> str:
        """`path`; where one of our files stands where it needs a directory, with a conflict name there."""
        parts = path.split("/")
        for count in range(1, len(parts)):
            way = "/".join(parts[:count])
            found = self.at(way)
            if found is None:
                break
            if isinstance(found, File):
                return "/".join([self._conflict(way), *parts[count:]])
        return path

    def _conflict(self, path: str) -> str:
        """The conflict path for `path` in this merge: free before, a second later for each that is taken."""
        if path not in self.renamed:
            moment = self.now
            while self.at(conflict_name(path, moment)) is not None:
                moment += 1
            self.renamed[path] = conflict_name(path, moment)
        return self.renamed[path]


def _data(found: "File | Directory | Version | None") -> "Data | Directory | None":
    """What makes two sides of a path equal."""
    if isinstance(found, Version):
        return found.data()
    if isinstance(found, File):
        return data_of(found.content().snapshot()[0])
    return found
