"""`by_id`: every collection and project by its uuid or portable data hash, there once somebody asks for it.

Used by the layout. A first look asks the API server; where the answer takes long the name is given out
provisionally and the waiting happens inside it, because the kernel lets one lookup at a time into a
directory.
"""

import re
import threading
import time
from collections.abc import Mapping
from typing import Any

from arvados_fuse.api import Change
from arvados_fuse.errors import NotFoundError
from arvados_fuse.tree.attributes import DIRECTORY_MODE, FOREVER, Attributes, Missing
from arvados_fuse.tree.cell import Cell
from arvados_fuse.tree.collection_nodes import CollectionRef
from arvados_fuse.tree.collection_state import PDH, CollectionState
from arvados_fuse.tree.context import Context
from arvados_fuse.tree.listed import GROUP_CLASSES
from arvados_fuse.tree.listing import Entry
from arvados_fuse.tree.nodes import DirectoryNode, Found, Node, Snapshot, Text
from arvados_fuse.tree.projects import project_ref
from arvados_fuse.tree.version import Record

COLLECTION_UUID = re.compile(r"[0-9a-z]{5}-4zz18-[0-9a-z]{15}")
GROUP_UUID = re.compile(r"[0-9a-z]{5}-j7d0g-[0-9a-z]{15}")
PROVISIONAL_AFTER = 1.0
"""Seconds that a first look waits in the directory before the name is given out without knowing that it is
right."""
KEPT = 10_000
"""Names that were found or not found which are remembered."""


class MagicSource:
    """What was looked up so far; shared by all `by_id` directories of a mount."""

    def __init__(self, context: Context, *, hashes_only: bool = False) -> None:
        self._context = context
        self._hashes_only = hashes_only
        self._lock = threading.Lock()
        self._found: dict[str, Entry] = {}
        self._misses: dict[str, float] = {}
        self._groups: dict[str, Cell[Record]] = {}
        self._changed_at = float("-inf")
        context.watch(self)

    def find(self, name: str) -> Found:
        """Raises Missing, and what the API answers."""
        is_collection = PDH.fullmatch(name) or (not self._hashes_only and COLLECTION_UUID.fullmatch(name))
        is_group = not self._hashes_only and GROUP_UUID.fullmatch(name)
        if not is_collection and not is_group:
            raise Missing(name, timeout=FOREVER)
        asked = time.monotonic()
        # A permission may be given, of which no event tells.
        until = self._context.policy_for("").until(self._misses.get(name, float("-inf"))) - asked
        if until > 0:
            raise Missing(name, timeout=until)
        try:
            found = self._collection(name) if is_collection else self._group(name)
        except NotFoundError:
            self._forget(name, asked)
            raise Missing(name, timeout=self._context.policy_for("").max_age) from None
        entry, timeout = found
        if timeout:
            self._remember(name, entry)
        return found

    def changed(self, change: Change) -> None:
        """See Watcher: what was not found may be there now, what was found may be gone or different."""
        with self._lock:
            self._changed_at = time.monotonic()
            self._misses.pop(change.uuid, None)
            self._misses.pop(change.new_portable_data_hash or "", None)
            if change.is_gone:
                self._found.pop(change.uuid, None)
            group = self._groups.get(change.uuid)
        if group is not None:
            group.expire()

    def entries(self) -> dict[str, Entry]:
        """What was found so far."""
        with self._lock:
            return dict(self._found)

    def _collection(self, name: str) -> Found:
        context, at = self._context, time.monotonic()
        state = context.collection(name, lambda: CollectionState(context, name))
        known = state.wait_loaded(PROVISIONAL_AFTER)
        context.cache.touch(state)  # holds the state until the node does
        return CollectionRef(name, {}, at), state.timeout() if known else 0.0

    def _group(self, uuid: str) -> Found:
        context = self._context
        with self._lock:
            if len(self._groups) >= KEPT:
                self._groups.clear()
            cell = self._groups.get(uuid)
            if cell is None:
                cell = self._groups[uuid] = Cell(
                    lambda: context.api.get_group(uuid),
                    context.policy_for(uuid),
                    context.pool,
                    f"group {uuid}",
                )
        if not cell.filled and not cell.start().wait_done(PROVISIONAL_AFTER):
            return project_ref(context, uuid, {}), 0.0
        group = cell.get(context.deadline)
        if group.get("group_class") not in GROUP_CLASSES:
            raise NotFoundError(f"group {uuid} is not a project", subject=uuid)
        return project_ref(context, uuid, group), cell.remaining()

    def _remember(self, name: str, entry: Entry) -> None:
        with self._lock:
            self._misses.pop(name, None)
            if name not in self._found and len(self._found) >= KEPT:
                del self._found[next(iter(self._found))]
            self._found[name] = entry

    def _forget(self, name: str, asked: float) -> None:
        with self._lock:
            self._found.pop(name, None)
            if len(self._misses) >= KEPT:
                self._misses.clear()
            if asked > self._changed_at:  # else it may have come to be between the answer and now
                self._misses[name] = asked


class MagicRef:
    """A `by_id` directory as its parent knows it. fixed: entries that are always there (README)."""

    __slots__ = ("fixed", "source")

    is_directory = True

    def __init__(self, source: MagicSource, fixed: Mapping[str, Entry]) -> None:
        self.source = source
        self.fixed = fixed

    def node(self, context: Context, _parent: DirectoryNode | None) -> DirectoryNode:
        """A directory for it."""
        return MagicDirectory(context, self)


class MagicDirectory(DirectoryNode):
    """Shows a magic source."""

    __slots__ = ("_ref",)

    gathers = True

    def __init__(self, context: Context, ref: MagicRef) -> None:
        super().__init__(context)
        self._ref = ref

    def attributes(self, timeout: float | None = None) -> Attributes:
        context = self.context
        return Attributes(self.ino, DIRECTORY_MODE, 0, context.started_ns, context.uid, context.gid, FOREVER)

    def rebind(self, content: Any) -> bool:
        return content is self._ref

    def find(self, name: str) -> Found:
        entry = self._ref.fixed.get(name)
        return (entry, FOREVER) if entry is not None else self._ref.source.find(name)

    def make(self, name: str, content: Entry) -> Node:
        return content.node(self.context, self)

    def snapshot(self) -> Snapshot:
        entries = sorted({**self._ref.source.entries(), **self._ref.fixed}.items())
        return Snapshot(self, entries, lambda entry: entry.is_directory)


def readme(context: Context, *, hashes_only: bool) -> Text:
    """The README of a `by_id` (or `by_pdh`) directory."""
    takes = "its portable data hash" if hashes_only else "its portable data hash or its uuid"
    projects = "" if hashes_only else "Projects can be opened by their uuid in the same way.\n"
    text = (
        f"This directory opens Arvados collections on {context.api.host} by name.\n\n"
        f"Look up a collection here by {takes}, and it appears.\n"
        f"{projects}Only what was looked up is listed.\n"
    )
    return Text(text.encode(), context.started_ns)
