"""The request that brings our changes to the server and changes nothing else there.

Used by write-back; the counterpart of `merge`, with the same rules. Pure functions over indexes.

The request's form is `replace_files` of the Arvados API: targets are paths, a source is a path in the
manifest that is sent along, a path in what the server has now (`current`), or "" to delete. No target with a
source may lie above another target.
"""

import time
from typing import NamedTuple

from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.manifest.changes import Change, Data, Finder, Version, compare
from arvados_fuse.collection.manifest.lines import Range, directory_line, empty_line
from arvados_fuse.collection.manifest.listing import Listing
from arvados_fuse.collection.manifest.names import conflict_name


class CommitRequest(NamedTuple):
    """The parts of a collection update.

    replace_files: targets (`/a/b`) and sources; empty when there is nothing to do.
    manifest_text: the new files only; "" when no source needs it.
    conflicts: paths (`a/b`) under which the other side's versions are kept.
    """

    replace_files: dict[str, str]
    manifest_text: str
    conflicts: list[str]


def commit_request(
    base: ManifestIndex, ours: ManifestIndex, theirs: ManifestIndex, *, now: float | None = None
) -> CommitRequest:
    """What to ask of a server that has `theirs`, when we made `ours` out of `base`.

    Raises ManifestError when a line that matters is not legal.
    """
    changes = compare(base, ours)
    commit = _Commit(Finder(base), Finder(ours), Finder(theirs), time.time() if now is None else now)
    commit.others_changed = theirs.data != base.data
    for change in changes.files:
        if change.after is None:
            commit.delete(change)
        else:
            commit.write(change, change.after)
    for path in changes.directories_added:
        if not commit.ours.has_entries(path) and not commit.theirs.has_directory(path):
            commit.make_directory(path)
    for path in sorted(changes.directories_removed, reverse=True):
        commit.remove_directory(path)
    for path in {change.path.rpartition("/")[0] for change in changes.files if change.after is None} - {""}:
        commit.keep_emptied(path)
    return commit.request()


class _Commit:
    def __init__(self, base: Finder, ours: Finder, theirs: Finder, now: float) -> None:
        self.base = base
        self.ours = ours
        self.theirs = theirs
        self.now = now
        self.others_changed = True
        self.targets: dict[str, str] = {}
        self.conflicts: list[str] = []
        self.files: dict[str, dict[str, list[Range] | None]] = {}
        self.empty: list[str] = []

    def _theirs(self, change: Change) -> Version | None:
        return self.theirs.file(change.path) if self.others_changed else change.before

    def delete(self, change: Change) -> None:
        """We have no such file any more."""
        theirs = self._theirs(change)
        if theirs is not None:
            # Where a file of ours took the place of the directory, that one sees to what was in it.
            if _data(theirs) != _data(change.before) and not self._is_below_our_file(change.path):
                self._keep_theirs(change.path)
            self.targets["/" + change.path] = ""

    def _is_below_our_file(self, path: str) -> bool:
        parts = path.split("/")
        return any(self.ours.file("/".join(parts[:count])) for count in range(1, len(parts)))

    def write(self, change: Change, after: Version) -> None:
        """We have a new or changed file."""
        theirs = self._theirs(change)
        if _data(theirs) == _data(after):
            return
        if theirs is not None and _data(theirs) != _data(change.before):
            self._keep_theirs(change.path)
        elif theirs is None and self.others_changed:
            self._keep_what_is_in_the_way(change.path)
        parent, _, name = change.path.rpartition("/")
        self.files.setdefault(parent, {})[name] = after.ranges()
        self.targets["/" + change.path] = "manifest_text/" + change.path

    def make_directory(self, path: str) -> None:
        """We have a new empty directory."""
        self._keep_what_is_in_the_way(path)
        self.empty.append(path)
        self.targets["/" + path] = "manifest_text/" + path

    def remove_directory(self, path: str) -> None:
        """We have no such directory any more: drop it unless they have something in it that stays."""
        if self.targets.get("/" + path) or not self.theirs.has_directory(path):
            return
        if self.base.has_entries(path) and not self.theirs.has_entries(path):
            # They emptied it and left it there.
            return
        if any(self.targets.get("/" + below) != "" for below in self.theirs.below(path)):
            return
        self.targets["/" + path] = ""

    def keep_emptied(self, path: str) -> None:
        """We have this directory still, without the files in it: a manifest has to say so."""
        if not self.ours.has_directory(path) or self.ours.has_entries(path):
            return
        if not self.theirs.has_directory(path) or not self.theirs.has_entries(path):
            # They removed it, or have it as we want it.
            return
        if any(conflict.startswith(path + "/") for conflict in self.conflicts):
            return
        if all(self.targets.get("/" + below) == "" for below in self.theirs.below(path)):
            self.empty.append(path)
            self.targets["/" + path] = "manifest_text/" + path

    def _keep_what_is_in_the_way(self, path: str) -> None:
        """They made a file where we need a directory, or a directory where we have a file."""
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            way = "/".join(parts[:count])
            theirs = self.theirs.file(way)
            if theirs is not None:
                before = self.base.file(way)
                if _data(theirs) != _data(before):
                    self._keep_theirs(way)
                self.targets["/" + way] = ""
                return
        if self.theirs.has_directory(path):
            conflict = ""
            for below in self.theirs.below(path):
                theirs, before = self.theirs.file(below), self.base.file(below)
                if theirs is not None and _data(theirs) != _data(before):
                    conflict = conflict or self._unused(path)
                    self.targets["/" + conflict + below[len(path) :]] = "current/" + below
            if conflict:
                self.conflicts.append(conflict)

    def _keep_theirs(self, path: str) -> None:
        conflict = self._unused(path)
        if "/" + conflict not in self.targets:
            self.targets["/" + conflict] = "current/" + path
            self.conflicts.append(conflict)

    def _unused(self, path: str) -> str:
        moment = self.now
        while True:
            name = conflict_name(path, moment)
            if self.targets.get("/" + name) == "current/" + path:
                return name
            taken = any(side.file(name) or side.has_directory(name) for side in (self.ours, self.theirs))
            if not taken and "/" + name not in self.targets:
                return name
            moment += 1

    def request(self) -> CommitRequest:
        """All of it, without deletions inside of what is replaced or deleted as a whole."""
        targets = {}
        for target, source in sorted(self.targets.items()):
            parts = target.split("/")
            above = ("/".join(parts[:count]) for count in range(2, len(parts)))
            if source or not any(way in self.targets for way in above):
                targets[target] = source
        lines = [
            directory_line(f"./{parent}" if parent else ".", None, Listing.empty(), files, strip=False)
            for parent, files in self.files.items()
        ]
        lines += [empty_line(f"./{path}") for path in self.empty]
        return CommitRequest(targets, b"".join(lines).decode(), self.conflicts)


def _data(version: Version | None) -> Data | None:
    return None if version is None else version.data()
