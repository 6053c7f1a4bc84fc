"""The names of one directory that come from the API server: listed whole, or one by one.

Used by `ListedDirectory` nodes; kept by key, so that two places showing one project share it. A name is
resolved without listing the whole; misses are remembered as long as hits. Any thread may call; loads run on
the pool.
"""

import time
from collections.abc import Mapping
from typing import Any, Protocol

from arvados_fuse.api import Change
from arvados_fuse.tree.attributes import FOREVER, Missing
from arvados_fuse.tree.cell import Cell
from arvados_fuse.tree.context import Context
from arvados_fuse.tree.nodes import DirectoryNode, Found, Node

SINGLES_BEFORE_ALL = 16
"""Names asked for one by one within the refresh time before the whole is listed: it is cheaper then."""
SINGLES_KEPT = 1000
"""Names remembered one by one."""
LISTING_SIZE = 2000
"""Bytes that a listing holds besides its entries, roughly."""
ENTRY_SIZE = 700
"""Bytes that one entry holds, roughly: its record as a dictionary of short strings, and its name."""


class Entry(Protocol):
    """What a listing has under a name: makes the node for it."""

    @property
    def is_directory(self) -> bool: ...

    def node(self, context: Context, parent: DirectoryNode) -> Node:
        """A new node showing this; only constructs."""


class Source(Protocol):
    """Where a listing comes from. All methods may ask the API server; none is called under a lock."""

    @property
    def subject(self) -> str:
        """What this is, for messages."""

    @property
    def hidden(self) -> frozenset[str]:
        """Names that `find` knows and `all` leaves out."""

    @property
    def owner(self) -> str:
        """Uuid of the user or project that owns all this; "" where many may."""

    @property
    def changes_with(self) -> frozenset[str]:
        """Kinds (`arvados#link`, ...) of which any event may change what is here, whoever owns the object."""

    def all(self) -> Mapping[str, Any]:
        """Every entry by its name."""

    def find(self, name: str) -> Any:
        """The entry for one name, or None."""

    def possible(self, name: str) -> bool:
        """False for a name that can't ever exist here; asks nobody."""

    def record(self) -> Mapping[str, Any]:
        """The API's record of the object that has the names; empty where there is none."""


class Listing:
    """What is known of a source's names. Constructing asks nothing."""

    def __init__(self, context: Context, source: Source) -> None:
        self._context = context
        self._source = source
        self._all: Cell[Mapping[str, Any]] = self._cell(source.all, source.subject)
        self._singles: dict[str, Cell[Any]] = {}
        self._record: Cell[Mapping[str, Any]] | None = None
        self._window_ends = float("-inf")
        self._new_singles = 0

    def find(self, name: str) -> Found:
        """Raises Missing, and what the API answers."""
        source = self._source
        if not source.possible(name):
            raise Missing(name, timeout=FOREVER)
        known = None if name in source.hidden else self._all.fresh()
        if known is not None:
            entry, timeout = known[0].get(name), known[1]
        else:
            entry, timeout = self._ask(name)
        self._context.cache.touch(self)
        if entry is None:
            raise Missing(name, timeout=timeout)
        return entry, timeout

    def _ask(self, name: str) -> tuple[Any, float]:
        """The same where the whole is not fresh, or does not have the name: None for a name that is not
        there."""
        deadline = self._context.deadline
        if name not in self._source.hidden and name not in self._singles and self._many_singles():
            entries, timeout = self._all.look(deadline)
            return entries.get(name), timeout
        return self._single(name).look(deadline)

    def all(self) -> Mapping[str, Any]:
        """Every entry by its name."""
        entries = self._all.get(self._context.deadline)
        self._context.cache.resize(self)
        return entries

    def record(self) -> Mapping[str, Any]:
        """The API's record of the object that has the names; empty where there is none."""
        if self._record is None:
            self._record = self._cell(self._source.record, self._source.subject)
        return self._record.get(self._context.deadline)

    @property
    def changes_with(self) -> frozenset[str]:
        """See Source."""
        return self._source.changes_with

    def changed(self, change: Change) -> None:
        """Something happened somewhere."""
        if change.kind in self._source.changes_with:
            self.expire()

    def expire(self) -> None:
        """Something in it may have changed."""
        self._all.expire()
        self._singles = {}
        if self._record is not None:
            self._record.expire()

    def footprint(self) -> int:
        """See Holder."""
        if not self._all.filled and not self._singles:
            return 0
        return LISTING_SIZE + ENTRY_SIZE * (len(self._all.peek() or ()) + len(self._singles))

    def shrink(self) -> bool:
        """See Holder."""
        self._all.clear()
        self._singles = {}
        return False

    def _cell(self, load: Any, subject: str) -> Cell[Any]:
        return Cell(load, self._context.policy_for(self._source.owner), self._context.pool, subject)

    def _single(self, name: str) -> Cell[Any]:
        singles = self._singles
        cell = singles.get(name)
        if cell is None:
            self._new_singles += 1
            if len(singles) >= SINGLES_KEPT:
                singles = self._singles = dict(list(singles.items())[SINGLES_KEPT // 2 :])
            cell = self._cell(lambda: self._source.find(name), f"{name!r} in {self._source.subject}")
            known = self._all.peek()
            if known is not None:  # old, but better than nothing when the server can't be reached
                cell.put(known.get(name))
            # Two threads may both have come here: one cell wins.
            cell = singles.setdefault(name, cell)
        return cell

    def _many_singles(self) -> bool:
        """Whether so many names were asked for lately that the whole listing is the better question."""
        now = time.monotonic()
        if now > self._window_ends:
            self._window_ends = now + self._context.policy.max_age
            self._new_singles = 0
        return self._new_singles >= SINGLES_BEFORE_ALL
