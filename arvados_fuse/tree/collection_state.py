"""One collection as the mount knows it: its record, its current content, when to look again.

Used by the nodes that show it (several places in the tree can show one collection). Any thread may call;
loads run on the pool, once for all who wait, and no lock is held meanwhile.
"""

import json
import re
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from threading import Lock
from typing import Any

from arvados_fuse.collection import Collection, portable_data_hash
from arvados_fuse.collection.collector import note_loaded
from arvados_fuse.errors import BadAnswer, Unreachable
from arvados_fuse.tree import xattrs
from arvados_fuse.tree.attributes import SIZE_MAX, nanoseconds
from arvados_fuse.tree.cell import ALWAYS, Cell, Policy
from arvados_fuse.tree.context import Context
from arvados_fuse.tree.editing import edit_both
from arvados_fuse.tree.times import Times
from arvados_fuse.tree.version import (
    CONTENT,
    REFRESHED,
    Origin,
    Record,
    Version,
    manifest_of,
    pinned_record,
)
from arvados_fuse.tree.working import LEFTOVERS_PATIENCE, Working, save_leftovers
from arvados_fuse.writeback import State

PDH = re.compile(r"[0-9a-f]{32}\+[0-9]+")
REFRESH_TRIES = 5
"""How often a record is asked for at once that commits of ours overtake; later looks try again."""
RECORD_SIZE = 2000
"""Bytes that a state without content holds, roughly."""

_making = Lock()
"""Held while a state gets a cell."""


class CollectionState:
    """The collection under `key`: a uuid, or a portable data hash (whose content never changes).

    origin: how to ask for it, where that is another way; the key is only a name then, and it is never
    changed.

    working: while it is being changed through this mount; guarded by the working copy's own lock.
    times: once it was changed through this mount, the times of what is in it.
    """

    is_saved = True
    """Whether there is a record that changes are saved to."""

    def __init__(
        self,
        context: Context,
        key: str,
        record: Record | None = None,
        at: float = float("-inf"),
        origin: Origin | None = None,
    ) -> None:
        """record: fields that a listing told `at` (time.monotonic())."""
        self.working: Working | None = None
        self.times: Times | None = None
        self.context = context
        self.key = key
        self.read_only = origin is not None
        self._origin = origin
        self.pdh = origin.pdh if origin is not None else key if "+" in key and PDH.fullmatch(key) else ""
        self.forever = bool(self.pdh)
        self.record: Record = record or {}
        self._noted_at = at
        self._mtime_ns: int | None = None
        # Made when first needed: thousands are listed that nobody looks into.
        self._cell: Cell[Version] | None = None
        self._last: weakref.ref[Version] | None = None
        self._details: Cell[Record] | None = None
        self._text: Cell[bytes] | None = None

    @property
    def mtime_ns(self) -> int:
        """When the collection was last modified, ns since 1970; 0 where Arvados does not say (content by
        hash)."""
        if self._mtime_ns is None:
            self._mtime_ns = nanoseconds(self.record.get("modified_at"))
        return self._mtime_ns

    @property
    def size(self) -> int:
        """Bytes of all files together, as the record says; 0 when it does not say what a size can be."""
        size = self.record.get("file_size_total")
        return size if isinstance(size, int) and 0 < size <= SIZE_MAX else 0

    def current(self) -> Version:
        """The content now: loaded when it isn't, asked about when the last answer is old."""
        return self.look()[0]

    def look(self) -> tuple[Version, float]:
        """The content now, and the seconds for which the kernel may rely on names and attributes in it."""
        working = self.working
        if working is not None:
            found = self._look_at(working)
            if found is not None:
                return found
        found = self._content().look(self.context.deadline)
        self.context.cache.touch(self)
        return found

    # Changing

    @property
    def writable(self) -> bool:
        """Whether it may be changed through this mount."""
        return self.context.writeback is not None and not self.forever and not self.read_only

    @contextmanager
    def edit(self) -> Iterator[Working]:
        """Hold the working copy's lock for a change of names, or of who writes."""
        with edit_both(self, self) as (working, _):
            yield working

    def begin(self) -> Working:
        """The working copy, made now if there is none. May wait for the server, so without a lock."""
        working = self.working
        while working is None:
            self._save_leftovers(self.context.deadline)
            working = self.context.begin_working(self, partial(self._begin, self.current()))
        return working

    def save(self) -> None:
        """Bring everything that was changed to the server, unclosed files as they are now; wait for it."""
        working = self.working
        if working is not None:
            working.flush_all()
        self.save_closed()

    def save_closed(self) -> None:
        """Bring everything that was recorded to the server; wait for it. Raises what keeps it from there."""
        writeback = self.context.writeback
        if writeback is not None and self.writable and self.is_saved:
            writeback.save(self.key, deadline=self.context.save_deadline)

    def _save_leftovers(self, seconds: float) -> None:
        """What a dead mount left behind goes before what is new. Raises Unreachable after so long."""
        if self.working is None and self.writable and self.is_saved:
            save_leftovers(self.context.writeback, self.key, seconds)

    def raise_refusal(self) -> None:
        """Raise the error that keeps changes from the server, if the server has refused some."""
        writeback = self.context.writeback
        if writeback is not None and self.is_saved:
            writeback.raise_refusal(self.key)

    def saved(self, record: Record, committed: Mapping[str, State]) -> None:
        """The server answered a commit of these paths with this record, perhaps a while ago."""
        working = self.working
        if working is not None:
            working.saved(record, committed)
        self._update(record)
        if not self.shows(record.get("portable_data_hash")):
            self._content().expire()

    def _begin(self, shown: Version) -> Working | None:
        """A working copy of what is shown now; the caller sees to it that there is only one."""
        current = self._known()
        if current is None and (self._last is None or self._last() is not shown):
            return None  # given back to memory just now, and loaded anew since
        if self.times is None:
            self.times = self.context.times(self.key, self.mtime_ns)
        self.working = Working(self, current or shown, self.times)
        return self.working

    def _look_at(self, working: Working) -> tuple[Version, float] | None:
        """The working copy, never waiting for a server; None when it came to its end just now."""
        cell = self._content()
        if not cell.is_fresh():
            cell.start()
        working.catch_up()
        if working.is_at_rest():
            with working.lock:
                if self.working is working and working.is_at_rest():
                    self._rest(working)
                    return None
        return working.version, self.timeout()

    def _rest(self, working: Working) -> None:
        """Show again what the server has; the caller holds the working copy's lock."""
        self.working = None
        record = working.answer
        if record is not None:
            # Not fresher by that: somebody may have changed it since, and we were told and could not ask yet.
            self._content().replace(self._version(record))
        self.context.end_working(self)

    def wait_loaded(self, seconds: float) -> bool:
        """Wait at most so long for a first answer; False when there is none yet. Raises what the load raises,
        but what is being changed stays where it is, also when the server shows it to us no more."""
        working = self.working
        if working is not None and self._look_at(working) is not None:
            return True
        cell = self._content()
        if cell.filled:
            cell.get(self.context.deadline)
            return True
        attempt = cell.start()
        if not attempt.wait_done(seconds):
            return False
        attempt.wait(0.0, self.key)
        return True

    def timeout(self) -> float:
        """Seconds for which the kernel may rely on names and attributes."""
        cell = self._cell
        if cell is not None and cell.filled:
            return cell.remaining()
        return max(0.0, self.context.policy.until(self._noted_at) - time.monotonic())

    def note(self, record: Record, at: float) -> None:
        """A listing told these fields `at` (time.monotonic()): perhaps that the content is another now."""
        version = self._known()
        told = record.get("portable_data_hash")
        if version is not None and not self.forever and told is not None:
            if told == version.pdh:
                self._content().touch(at)
            else:
                self._content().expire()
        self._update(record)
        self._noted_at = max(self._noted_at, at)

    def details(self) -> Record:
        """The small fields of the record, as fresh as what is shown. May ask the server."""
        return self._details_cell().get(self.context.deadline)

    def expire(self) -> None:
        """Something happened to it: ask when it is next looked at."""
        if not self.forever:
            for cell in (self._cell, self._details):
                if cell is not None:
                    cell.expire()
            self._noted_at = float("-inf")

    def shows(self, portable_data_hash: str | None) -> bool:
        """Whether this is the content loaded last, if that is still in memory."""
        version = self._known()
        return version is not None and version.pdh == portable_data_hash

    def record_text(self) -> bytes:
        """The API's record as it is now, as `.arvados#collection` shows it: JSON, indent 4, sorted keys,
        newline.

        Asked for at every look: it is what programs use to learn the saved state, and it carries the
        manifest.
        """
        text = self._text or self._make("_text", self._load_text, "record of")
        return text.get_newest(self.context.deadline)

    def fetch_content(self, pdh: str) -> Record:
        """The manifest of content that was shown here, signed anew."""
        if self.read_only:
            return self.fetch_now()
        return self.context.api.get_collection(pdh, select=CONTENT)

    def fetch_now(self) -> Record:
        """The manifest of what is there now."""
        return self._ask(CONTENT)

    def footprint(self) -> int:
        """See Holder."""
        version = self._known()
        return RECORD_SIZE + version.collection.approximate_size() if version is not None else 0

    def shrink(self) -> bool:
        """See Holder: first what was parsed, then everything. Files in use keep what they need."""
        version = self._known() if self.working is None else self.working.version
        if version is None:
            return False
        before = version.collection.approximate_size()
        version.collection.drop_parsed()
        if version.collection.approximate_size() < before:
            return True
        if self.working is None:
            self._content().clear()
        return False

    def _load(self) -> Version:
        working = self.working
        if working is not None:
            return self._refresh(working)
        last = self._last() if self._last is not None else None
        if last is not None:
            if self.forever:
                return last
            news = self._ask(REFRESHED)
            if news.get("portable_data_hash") == last.pdh:
                self._update(news)
                return last
        else:
            with suppress(Unreachable):
                self._save_leftovers(LEFTOVERS_PATIENCE)
        begun = time.monotonic()
        pinned = pinned_record(self.context.blocks, self.key) if self.pdh == self.key else None
        record = pinned or self._ask(None)
        version = self._version(record)
        details = self._details_cell()
        details.put({name: record.get(name) for name in xattrs.COLLECTION_FIELDS})
        details.touch(begun)
        return version

    def _refresh(self, working: Working) -> Version:
        """Bring what others changed into the working copy."""
        for _ in range(REFRESH_TRIES):
            taken = working.taken
            news = self._ask(REFRESHED)
            if news.get("portable_data_hash") != working.version.pdh:
                news = self._ask(None)
                manifest_of(news, self.key)
                if not working.take(news, as_of=taken):
                    continue  # a commit was answered meanwhile, and this may be from before it
            self._update(news)
            return working.version
        self._content().expire()
        return working.version

    def _version(self, record: Record) -> Version:
        """The content that a record with a manifest has."""
        manifest = manifest_of(record, self.key)
        pdh = str(record.get("portable_data_hash") or "")
        if self.forever and portable_data_hash(manifest) != self.pdh:
            raise BadAnswer(f"the API server gave other content under {self.pdh}", subject=self.key)
        writeback = self.context.writeback
        collection = Collection.from_record(
            record,
            blocks=self.context.blocks,
            records=self.context.api,
            subject=self.key,
            new_spool=writeback.new_spool if writeback is not None else None,
        )
        note_loaded(len(manifest))
        version = Version(self, collection, pdh, manifest)
        self._update(record)
        self._last = weakref.ref(version)
        return version

    def _known(self) -> Version | None:
        """The content loaded last, fresh or not, if it is still in memory."""
        cell = self._cell
        return None if cell is None else cell.peek()

    def _content(self) -> Cell[Version]:
        return self._cell or self._make("_cell", self._load, "collection")

    def _details_cell(self) -> Cell[Record]:
        return self._details or self._make(
            "_details", partial(self._ask, xattrs.COLLECTION_FIELDS), "record of"
        )

    def _make(self, slot: str, load: Callable[[], Any], what: str) -> Cell[Any]:
        """The cell in an attribute: the same for all, if several want to make it at once."""
        with _making:
            cell: Cell[Any] | None = getattr(self, slot)
            if cell is None:
                cell = Cell(load, self._policy(), self.context.pool, f"{what} {self.key}")
                setattr(self, slot, cell)
        return cell

    def _ask(self, select: Sequence[str] | None) -> Record:
        """The fields named, or all, from where it comes from."""
        if self._origin is not None:
            return self._origin.fetch(select)
        return self.context.api.get_collection(self.key, select=select)

    def _update(self, record: Record) -> None:
        """New fields; readers of the record see the old one or the new one, never half of each."""
        merged = {**self.record, **record}
        merged.pop("manifest_text", None)  # large, and the collection has it
        self.record = merged
        self._mtime_ns = None
        if "owner_uuid" in record and not self.forever:
            with _making:  # one that is being made may be told the old one
                for cell in (self._cell, self._details):
                    if cell is not None:
                        cell.obey(self._policy())

    def _policy(self) -> Policy:
        return ALWAYS if self.forever else self.context.policy_for(str(self.record.get("owner_uuid")))

    def _load_text(self) -> bytes:
        self.save()
        begun = time.monotonic()
        record = self._ask(None)
        self.note(record, begun)
        return (json.dumps(record, indent=4, sort_keys=True) + "\n").encode("ascii")
