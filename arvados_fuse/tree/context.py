"""What all nodes of one mount share: the floors below, the rules, and what is kept in memory by key.

Made by `cli/build.py` (or a test); handed to every node. Any thread may call.
"""

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from arvados_fuse.api import ApiClient, Change
from arvados_fuse.keep import BlockCache
from arvados_fuse.tree.attributes import FOREVER
from arvados_fuse.tree.cell import Capped, Policy
from arvados_fuse.tree.filters import ListFilters
from arvados_fuse.tree.inode_cache import InodeCache
from arvados_fuse.tree.looks import Looks
from arvados_fuse.tree.names import Names
from arvados_fuse.tree.pool import Pool
from arvados_fuse.tree.recorder import Recorder
from arvados_fuse.tree.times import Times
from arvados_fuse.tree.weak_table import WeakTable

if TYPE_CHECKING:
    from arvados_fuse.tree.collection_state import CollectionState
    from arvados_fuse.tree.listing import Listing
    from arvados_fuse.tree.working import Working
    from arvados_fuse.writeback import WriteBack

ENDLESS = FOREVER / 2
"""Seconds: what may be remembered longer than this can't change at all."""
DEADLINE_MARGIN = 5.0
"""Seconds more than the API client's own deadline, so that its error, which says more, comes first."""
BRIEF = 0.3
"""Seconds for which the kernel remembers directories and missing names of a mount that can be changed."""
SAVE_DEADLINE = 600.0
"""Seconds that `fsync` and its like wait until all is on the server: a large file may need long."""


class Watcher(Protocol):
    """Something that may be changed by more than the objects it is known by."""

    def changed(self, change: Change) -> None:
        """Something happened somewhere; never waits."""


class Context:
    """Sizes are bytes, times are seconds.

    uid, gid: the owner shown for everything (who mounted). started_ns: the time shown for what has none.
    deadline: the longest that a request of the kernel waits for a load.
    writeback: None on a read-only mount. storage_classes: for new collections. sync_on_close: whether closing
    a file waits until it is saved. save_deadline: the longest that a request waits for that. changed_here: is
    told the key of a collection that was changed through this mount; theirs_shown: of one that shows only now
    what others changed. Neither waits. expires_names: whether the
    kernel can be told to ask again for the name of a directory without taking it from those who work there.
    """

    def __init__(
        self,
        api: ApiClient,
        blocks: BlockCache,
        *,
        names: Names | None = None,
        refresh_time: float = 15.0,
        directory_cache: int = 128 << 20,
        filters: Sequence[Sequence[Any]] = (),
        uid: int = 0,
        gid: int = 0,
        encoding: str = "utf-8",
        writeback: "WriteBack | None" = None,
        storage_classes: Sequence[str] = (),
        sync_on_close: bool = False,
        expires_names: bool = False,
    ) -> None:
        self.api = api
        self.writeback = writeback
        self.recorder = Recorder(writeback.record_all if writeback is not None else lambda _changes: None)
        self.storage_classes = list(storage_classes)
        self.sync_on_close = sync_on_close
        # What is changed here is not told for directories, so there the kernel has to ask.
        self.expires_names = expires_names and writeback is None
        self.save_deadline = SAVE_DEADLINE
        self.changed_here: Callable[[str], None] = lambda _key: None
        self.theirs_shown: Callable[[str], None] = lambda _key: None
        self._working: dict[str, CollectionState] = {}
        self._times: dict[str, Times] = {}
        self.blocks = blocks
        self.names = names or Names(encoding=encoding)
        self.policy = Policy(refresh_time)
        # No event tells that others have taken a permission away, so their things are asked for more often.
        self._others = Capped(self.policy, refresh_time)
        # Which there are of them is a question of its own.
        self._anybodys = Capped(self.policy, refresh_time)
        self.looks = Looks()
        self._ours: set[str] = set()
        self.cache = InodeCache(directory_cache)
        self.filters = ListFilters.parse(filters)
        self.uid = uid
        self.gid = gid
        self.started_ns = time.time_ns()
        self.deadline = api.deadline + DEADLINE_MARGIN
        self.pool = Pool()
        self._lock = threading.Lock()
        self._collections: WeakTable[CollectionState] = WeakTable()
        self._listings: WeakTable[Listing] = WeakTable()
        self._watchers: weakref.WeakSet[Watcher] = weakref.WeakSet()

    def collection(self, key: str, make: "Callable[[], CollectionState]") -> "CollectionState":
        """The one state of the collection `key` (uuid or portable data hash); `make` constructs it when
        needed."""
        with self._lock:
            state = self._collections.get(key)
            if state is None:
                state = make()
                self._collections.put(key, state)
            return state

    def begin_working(
        self, state: "CollectionState", make: "Callable[[], Working | None]"
    ) -> "Working | None":
        """The working copy of `state`, made when there is none; keeps the state as long as it works."""
        with self._lock:
            if state.working is None and make() is not None:
                self._working[state.key] = state
            return state.working

    def end_working(self, state: "CollectionState") -> None:
        """The state has no working copy any more."""
        with self._lock:
            if state.working is None:
                self._working.pop(state.key, None)

    def working(self) -> "list[CollectionState]":
        """The collections that are being changed."""
        with self._lock:
            return list(self._working.values())

    def times(self, key: str, default_ns: int) -> "Times":
        """The times of files in the collection `key`, for the life of the mount."""
        return self._times.setdefault(key, Times(default_ns))

    def known_collection(self, key: str) -> "CollectionState | None":
        """The state of the collection `key` if there is one."""
        return self._collections.get(key)

    def listing(self, key: str, make: "Callable[[], Listing]") -> "Listing":
        """The one listing known as `key`, likewise."""
        with self._lock:
            listing = self._listings.get(key)
            if listing is None:
                listing = make()
                self._listings.put(key, listing)
                if listing.changes_with:
                    self._watchers.add(listing)
            return listing

    def watch(self, watcher: Watcher) -> None:
        """Tell `watcher`, as long as it lives, of every change."""
        with self._lock:
            self._watchers.add(watcher)

    def watchers(self) -> list[Watcher]:
        """Who is to be told of every change."""
        with self._lock:
            return list(self._watchers)

    def note_ours(self, uuid: str) -> None:
        """This is ours (a user, a project with all it owns, a collection): nobody can take it away without an
        event."""
        self._ours.add(uuid)

    def note_moved(self, uuid: str) -> None:
        """Whose this is, and what is below it, has to be found out again."""
        self._ours = {known for known in self._ours - {uuid} if "-tpzed-" in known or "-j7d0g-" not in uuid}

    def is_ours(self, uuid: str) -> bool:
        """Whether that is known of this user or project."""
        return uuid in self._ours

    def policy_for(self, owner_uuid: str) -> Policy:
        """How long what this user or project owns is fresh; "" for what may be anybody's."""
        if owner_uuid in self._ours:
            return self.policy
        return self._others if owner_uuid and "-tpzed-" not in owner_uuid else self._anybodys

    def doubt_names(self, before: float) -> None:
        """Which things of others there are may be other than was learned before this moment
        (time.monotonic())."""
        self._anybodys.expire_all(before)

    def brief(self, timeout: float) -> float:
        """Seconds for which the kernel may remember what it is not told about when it changes, which would be
        good for `timeout` seconds."""
        # What is changed here, too, may show in another place of the tree, which the kernel does not know.
        brief = self.policy.brief if self.writeback is None else min(self.policy.brief, BRIEF)
        return brief if brief < timeout < ENDLESS else timeout

    def known_listing(self, key: str) -> "Listing | None":
        """The listing known as `key` if there is one."""
        return self._listings.get(key)

    def close(self) -> None:
        """Let the threads end."""
        self.pool.close()
