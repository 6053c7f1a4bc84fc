"""A collection that is being changed through this mount: its tree, who writes in it, what to save.

Made by `CollectionState.edit` at the first change; given up when everything is saved, nobody writes and it
was quiet for a moment: then the collection is again what the server says. In between `version.collection` is
changed in place, and what others do is merged into it.

Threads: any. `lock` guards names, writers and the order in which changes are recorded; it is held across the
journal's transaction and never across a request. It comes before the locks of the collection.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from arvados_fuse.collection import Directory, File
from arvados_fuse.collection.content import Content, Holder
from arvados_fuse.errors import IsADirectory, NotADirectory, NotFoundError, StaleFile
from arvados_fuse.tree.attributes import nanoseconds
from arvados_fuse.tree.heard import Heard
from arvados_fuse.tree.left_alone import LeftAlone
from arvados_fuse.tree.times import Times
from arvados_fuse.tree.writer import Writer
from arvados_fuse.writeback import DIRECTORY, PathChange, State
from arvados_fuse.writeback.states import same

if TYPE_CHECKING:
    from arvados_fuse.tree.collection_state import CollectionState
    from arvados_fuse.tree.version import Version
    from arvados_fuse.writeback import WriteBack

REST_AFTER = 2.0
"""Seconds without a change, and with all saved, after which the collection is taken from the server again."""
LEFTOVERS_PATIENCE = 5.0
"""Seconds that a first look waits until what a dead mount left is saved; then it shows what is there."""


class Working:
    """See the module."""

    def __init__(self, state: "CollectionState", version: "Version", times: Times) -> None:
        self.state = state
        self.version = version
        self.collection = version.collection
        self.times = times
        self.lock = threading.RLock()
        self.writers: dict[Content, Writer] = {}
        self.answer: Mapping[str, Any] | None = None
        """The record in the server's last answer, with its manifest."""
        self.taken = 0
        """How many records were taken."""
        self._heard = Heard(self.collection)
        self._changed_at = time.monotonic()
        self._recorder = state.context.recorder
        self._left = LeftAlone(self._heard.at)

    # What the server has

    def server_has(self, path: str) -> State:
        """What it had at `path` when ours came from there, for a save to compare with."""
        return self._left.before(path)

    def is_ours(self, path: str) -> bool:
        """Whether what is at `path` is ours: unsaved, or being written."""
        writeback = self.state.context.writeback
        # What a dead mount left is unsaved, too, but not what is shown here.
        if writeback is not None and writeback.is_recorded(self.state.key, path):
            return True
        return self._is_at_hand(path)

    def _is_at_hand(self, path: str) -> bool:
        """Whether it is ours though the journal has nothing of it."""
        if self._recorder.waits(self.state.key, path):
            return True
        return any(content.linked and path_of(content) == path for content in self.writers)

    def take(self, record: Mapping[str, Any], as_of: int | None = None) -> bool:
        """The server has this record now: after a commit of ours, or because others changed it.

        as_of: what `taken` was when the record was asked for. If another one came since, this one may be the
        older: it is not used, and the answer is False.
        """
        with self.lock:
            if as_of is not None and as_of != self.taken:
                return False
            self.taken += 1
            changed = self.collection.take_record(record, ours=self.is_ours, left=self._left.note)
            self.answer = record
            self.version.pdh = str(record.get("portable_data_hash") or "")
            self._heard.forget()
            self._took(changed)
            self._took(self._left.take(self.collection.root, self.is_ours))
            return True

    def _took(self, changed: Iterable[str]) -> None:
        """Others changed these paths: they have the time of the last answer."""
        for path in changed:
            self.times.set(path, nanoseconds((self.answer or {}).get("modified_at")))

    def saved(self, record: Mapping[str, Any], committed: Mapping[str, State]) -> None:
        """The server answered a commit of these paths with this record: ours comes from what it has there
        now. What a dead mount had left is among them as what others changed."""
        with self.lock:
            later: dict[str, State] = {}
            # If a record that was taken already has all this, the answer may be older than that one.
            writeback = self.state.context.writeback
            mine = {} if writeback is None else writeback.made_here(self.state.key, committed)
            if not self._heard.has(committed):
                self.take(record)
                later = self._heard.overtaken(mine)
            self._left.saved(mine, later)
            for content, writer in self.writers.items():
                if content.linked and (path := path_of(content)) in mine:
                    writer.before = mine[path]
            if later:
                self._show_theirs(self._is_newer_than(later))

    def _is_newer_than(self, saved: Mapping[str, State]) -> Callable[[str], bool]:
        """What tells whether something is ours of a path beyond what was saved of it."""
        writeback = self.state.context.writeback
        recorded = {} if writeback is None else writeback.recorded(self.state.key)

        def is_newer(path: str) -> bool:
            if path not in saved:
                return self.is_ours(path)
            return self._is_at_hand(path) or not same(recorded.get(path, saved[path]), saved[path])

        return is_newer

    def _show_theirs(self, is_ours: Callable[[str], bool]) -> None:
        """Let there be theirs where nothing came of ours, or where theirs came after it."""
        if changed := self._left.take(self.collection.root, is_ours):
            self._took(changed)
            self.state.context.theirs_shown(self.state.key)

    # Recording changes

    def record(self, changes: Iterable[PathChange]) -> None:
        """Write down for the committer, and for whoever comes after a crash, what is different now.

        Raises NoSpaceError, SaveFailed; then it is written down with what comes next.
        """
        self._record({self: list(changes)})

    def _record(self, changes: Mapping["Working", Sequence[PathChange]]) -> None:
        for working in changes:
            working._changed_at = time.monotonic()
        self._recorder.record({one.state.key: here for one, here in changes.items() if one.state.is_saved})
        for working in changes:
            working.state.context.changed_here(working.state.key)

    def _record_late(self) -> None:
        """Write down what the journal had no room for; raises if it still has none."""
        self._recorder.record({self.state.key: ()})

    def catch_up(self) -> None:
        """The same, now and then and raising nothing."""
        if self._recorder.is_behind(self.state.key):
            with self.lock:
                self._recorder.try_again(self.state.key)

    def added(self, path: str) -> list[PathChange]:
        """An empty directory was made at `path`."""
        return [PathChange(path, self.server_has(path), DIRECTORY), *self.filled(path)]

    def removed(self, path: str, content: Content | None = None) -> PathChange:
        """Nothing is at `path` any more, or a directory that holds something. content: what was there."""
        writer = self.writers.get(content) if content is not None else None
        return PathChange(path, self.server_has(path) if writer is None else writer.before, None)

    def filled(self, path: str) -> list[PathChange]:
        """Something is at `path`, so the directory around it is not an empty one."""
        parent = path.rpartition("/")[0]
        return [self.removed(parent)] if parent else []

    def emptied(self, directory: Directory) -> list[PathChange]:
        """Something was removed from `directory`: if it was the last, the manifest must name it."""
        if directory.parent is None or not directory.linked or not directory.is_empty():
            return []
        path = path_of(directory)
        return [PathChange(path, self.server_has(path), DIRECTORY)]

    def content_at(self, path: str, content: Content) -> PathChange:
        """The file at `path` is this, as it is now."""
        segments, version = content.snapshot()
        writer = self.writers.get(content)
        if writer is not None:
            writer.recorded = version
        before = self.server_has(path) if writer is None else writer.before
        return PathChange(path, before, segments, content)

    def moved_to(self, path: str, content: Content) -> PathChange:
        """The file came to lie at `path`."""
        writer = self.writers.get(content)
        if writer is not None:
            writer.before = self.server_has(path)
        return self.content_at(path, content)

    def tree_at(self, path: str, directory: Directory) -> Iterator[PathChange]:
        """Everything below `path`, where `directory` has just come to lie."""
        pending = [(path, directory)]
        while pending:
            way, here = pending.pop()
            entries = here.entries()
            if not entries:
                yield PathChange(way, self.server_has(way), DIRECTORY)
            elif way == path:
                yield self.removed(way)  # it may have taken the place of an empty directory
            for name, entry in entries:
                below = f"{way}/{name}"
                if isinstance(entry, File):
                    yield self.moved_to(below, entry.content())
                else:
                    pending.append((below, entry))

    def gone_from(self, path: str, directory: Directory) -> list[PathChange]:
        """Everything below `path`, from where `directory` is about to be taken away."""
        gone = []
        pending = [(path, directory)]
        while pending:
            way, here = pending.pop()
            # Also where it holds something: the server may have it empty, if all in it is new and still open.
            gone.append(self.removed(way))
            for name, entry in here.entries():
                if isinstance(entry, File):
                    gone.append(self.removed(f"{way}/{name}", entry.content()))
                else:
                    pending.append((f"{way}/{name}", entry))
        return gone

    # Names; the caller holds the lock

    def create(self, directory: Directory, name: str) -> File:
        """A new empty file, recorded when it is closed. Raises ExistsError."""
        file = directory.create(name)
        self._touch(directory, name)
        return file

    def make_directory(self, directory: Directory, name: str) -> Directory:
        """A new empty directory. Raises ExistsError."""
        made = directory.make_directory(name)
        self.record(self.added(path_of(made)))
        self._touch(directory, name)
        return made

    def unlink(self, directory: Directory, name: str) -> None:
        """Remove a file; who has it open goes on with it. Raises NotFoundError, IsADirectory."""
        entry = directory.get(name)
        if isinstance(entry, Directory):
            raise IsADirectory(f"{name!r} is a directory", subject=name)
        path = _join(directory, name)
        gone = self.removed(path, None if entry is None else entry.content())
        directory.unlink(name)
        self.record([gone, *self.emptied(directory)])
        self._removed(directory, path)

    def remove_directory(self, directory: Directory, name: str) -> None:
        """Remove an empty directory. Raises NotFoundError, NotADirectory, NotEmptyError."""
        if isinstance(directory.get(name), File):
            raise NotADirectory(f"{name!r} is a file", subject=name)
        path = _join(directory, name)
        directory.unlink(name)
        self.record([self.removed(path), *self.emptied(directory)])
        self._removed(directory, path)

    def rename(
        self, directory: Directory, name: str, target: "Working", into: Directory, new_name: str
    ) -> None:
        """Move an entry, also into another collection, by reference. Both locks are held by the caller.

        Raises what POSIX has for it. Recorded at once in both, so that no crash loses or doubles anything.
        """
        entry = directory.get(name)
        old, new = _join(directory, name), _join(into, new_name)
        if entry is None:
            raise NotFoundError(f"no such entry: {name!r}", subject=name)
        if self is target and old == new:
            return
        is_directory = isinstance(entry, Directory)
        if isinstance(entry, Directory):
            gone = self.gone_from(old, entry)
        else:
            gone = [self.removed(old, entry.content())]
        directory.move(name, into, new_name)
        if self is not target:
            self._hand_over(entry, target)
        here = (
            list(target.tree_at(new, entry))
            if isinstance(entry, Directory)
            else [target.moved_to(new, entry.content())]
        )
        here += target.filled(new)
        gone += self.emptied(directory)
        self._record({self: [*here, *gone]} if self is target else {target: here, self: gone})
        self.times.move(old, target.times, new, is_directory=is_directory)
        now = time.time_ns()
        self.times.set(path_of(directory), now)
        target.times.set(path_of(into), now)

    def _hand_over(self, entry: Directory | File, target: "Working") -> None:
        """Who writes in what was moved to another collection writes there from now on."""
        pending = [entry]
        while pending:
            here = pending.pop()
            if isinstance(here, Directory):
                pending += [child for _, child in here.entries()]
            elif here.content() in self.writers:
                writer = target.writers[here.content()] = self.writers.pop(here.content())
                writer.working = target

    def _touch(self, directory: Directory, name: str) -> None:
        now = time.time_ns()
        self._changed_at = time.monotonic()
        self.times.set(_join(directory, name), now)
        self.times.set(path_of(directory), now)

    def _removed(self, directory: Directory, path: str) -> None:
        self.times.drop(path)
        self.times.set(path_of(directory), time.time_ns())

    # Files being written

    def open_writer(self, content: Content, *, new: bool = False) -> Writer:
        """One more handle may write this content. new: it was made just now, and is to be recorded even if
        nothing is written. Raises StaleFile when it lies in another collection by now."""
        with self.lock:
            if content.linked and content.parent.tree is not self.collection.root.tree:
                raise StaleFile(f"{content.name!r} was moved elsewhere", subject=self.state.key)
            writer = self.writers.get(content)
            if writer is None:
                before = self.server_has(path_of(content)) if content.linked else None
                writer = Writer(self, before, -1 if new else content.version)
                if new:
                    writer.mtime_ns = time.time_ns()
                self.writers[content] = writer
            writer.opens += 1
            return writer

    def close_writer(self, content: Content, writer: Writer) -> None:
        """A handle that could write is gone."""
        with self.lock:
            self._changed_at = time.monotonic()
            writer.opens -= 1
            if not writer.opens:
                if content.linked and writer.mtime_ns is not None:
                    self.times.set(path_of(content), writer.mtime_ns)
                self.writers.pop(content, None)
                # So that a file that is only looked at does not hold a spool that others share.
                content.begin_spool()
                self._show_theirs(self.is_ours)

    def flush(self, content: Content) -> None:
        """Record the content if it differs from what the journal has."""
        with self.lock:
            writer = self.writers.get(content)
            if writer is None or not content.linked or content.version == writer.recorded:
                self._record_late()
                return
            path = path_of(content)
            self.record([self.content_at(path, content), *self.filled(path)])

    def flush_all(self) -> None:
        """Record every file that is open for writing as it is now."""
        with self.lock:
            for content in list(self.writers):
                self.flush(content)
            self._record_late()

    # The end

    def is_at_rest(self) -> bool:
        """Whether nothing needs this any more."""
        if self.writers or self._recorder.is_behind(self.state.key) or not self.state.is_saved:
            return False
        if time.monotonic() - self._changed_at < REST_AFTER:
            return False
        writeback = self.state.context.writeback
        return writeback is None or not writeback.is_pending(self.state.key)


def save_leftovers(writeback: "WriteBack | None", key: str, seconds: float) -> None:
    """Wait until what a dead mount changed in a collection is saved, unless the server refuses it.

    For collections that nobody changes here. seconds: at most; raises Unreachable then.
    """
    if writeback is not None and writeback.pending(key):
        writeback.save(key, deadline=seconds)


def path_of(what: Content | Holder) -> str:
    """Where a file or directory is in its collection: `a/b`, "" for the root."""
    if isinstance(what, Content):
        return _join(what.parent, what.name)
    return what.stream_name()[2:]


def _join(directory: Holder, name: str) -> str:
    above = path_of(directory)
    return f"{above}/{name}" if above else name
