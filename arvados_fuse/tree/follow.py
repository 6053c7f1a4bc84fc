"""From news of the cluster to what is asked for again: by us, and by the kernel.

Made by `cli/build.py` with a queue of news to read and one of `Invalidation`s to write. Nothing is fetched
here: what may have changed is marked, and asked for when somebody looks. One thread; it never waits for a
server.

The kernel is told about what it may remember for long. Missing names it may remember for a moment (`BRIEF`),
so that it asks by itself; and directories, where it could only be told to drop their names: that would take
the ground from under programs that work in them (`Context.expires_names`).
"""

import logging
import queue
import threading
import time
from typing import NamedTuple, cast

from arvados_fuse.api import Change, Lost, News, Status
from arvados_fuse.tree.attributes import Invalidation
from arvados_fuse.tree.context import Context
from arvados_fuse.tree.inodes import ROOT, Inodes
from arvados_fuse.tree.nodes import DirectoryNode
from arvados_fuse.tree.projects import project_key
from arvados_fuse.tree.rights import RightsChanged

logger = logging.getLogger("arvados.arvados_fuse")

LONG = 60.0
"""Seconds for which what was learned of our own things is good while events arrive. Not longer: there is no
event when a date of trashing has come. (Others' things: `Context.policy_for`.)"""
BRIEF = 0.3
"""Seconds for which the kernel remembers what it is not told about while events arrive: a change elsewhere
shows within a second."""
AGAIN_AFTER = 0.3
"""Seconds after which the kernel is told once more: answers that were on their way to it when it was told
first have come by then. Changes of one collection in that time are told together."""
GRACE = 3.0
"""Seconds without events before the kernel has to forget what it remembers for long: most breaks are shorter,
and are made good."""
NAMED = frozenset({"arvados#collection", "arvados#group"})
"""Kinds of what has a name in the tree that the kernel may remember for long."""
PERMISSIONS = frozenset({"can_read", "can_write", "can_manage", "can_login"})
"""Names of links that give permissions. (Events do not tell the class of a link.)"""


class Told(NamedTuple):
    """What the kernel is told about: the directories that show `uuid`; or what is inside them; or, with
    `called`, only what has that name there or was kept apart from it."""

    uuid: str
    inside: bool = False
    called: str | None = None


class ChangedHere(NamedTuple):
    """A collection shows something else now, of which no event tells: it is shown in several places and was
    changed through one of them, or shows only now what others had changed."""

    key: str


class Follower:
    """Reads `news`, marks what may have changed, writes `invalidations`. Constructing does nothing.

    refresh_time: seconds for which what was learned is good when no events arrive.
    """

    def __init__(
        self,
        context: Context,
        inodes: Inodes,
        news: "queue.SimpleQueue[News]",
        invalidations: "queue.SimpleQueue[Invalidation]",
        *,
        refresh_time: float,
    ) -> None:
        self._context = context
        self._inodes = inodes
        self._news = cast("queue.SimpleQueue[News | ChangedHere | RightsChanged]", news)
        context.changed_here = self._note_change
        context.theirs_shown = lambda key: self._news.put(ChangedHere(key))
        self._invalidations = invalidations
        self._refresh_time = refresh_time
        # When to tell the kernel once more; and what has changed again since it was told.
        self._again: dict[Told, float] = {}
        self._more: set[Told] = set()
        self._all_again: float | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="follow", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Safe to call twice."""
        self._stopping.set()
        self._news.put(Lost(float("-inf"), "the mount ends"))  # wakes it
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._step()
            except Exception:
                logger.exception("News could not be followed")
                self._context.policy.expire_all(time.monotonic())
                # The kernel is told, too; not at once, lest it breaks again and again.
                self._all_again = time.monotonic() + GRACE

    def _step(self) -> None:
        """Wait for the next thing to do, and do it."""
        due = [*self._again.values(), *([] if self._all_again is None else [self._all_again])]
        wait = max(0.0, min(due) - time.monotonic()) if due else None
        try:
            news = self._news.get(timeout=wait)
        except queue.Empty:
            self._repeat()
            return
        if not self._stopping.is_set():
            begun = time.perf_counter_ns()
            self.take(news)
            self._repeat()
            counters = self._context.blocks.counters
            counters.add("events")
            counters.add("events.ns", time.perf_counter_ns() - begun)

    def _note_change(self, key: str) -> None:
        """Any thread: the kernel knows of what went through it, but not that it shows elsewhere too."""
        if self._inodes.is_in_two_places(key):
            self._news.put(ChangedHere(key))

    def take(self, news: "News | ChangedHere | RightsChanged") -> None:
        """Mark what `news` is about. (The thread calls this.)"""
        if isinstance(news, Change):
            self._changed(news)
        elif isinstance(news, ChangedHere):
            self._tell_kernel(Told(news.key, inside=True))
        elif isinstance(news, RightsChanged):
            if news.everything:
                self._expire_all(news.before)
            else:
                self._context.doubt_names(news.before)
        elif isinstance(news, Lost):
            logger.debug("Everything is asked for again: %s", news.reason)
            self._expire_all(news.before)
        else:
            self._became(news)

    def _changed(self, change: Change) -> None:
        context = self._context
        if change.moves:
            context.note_moved(change.uuid)
        for watcher in context.watchers():
            watcher.changed(change)
        # Its owners list it; and if it is a group, it lists what it owns.
        for owner in (*change.owners, change.uuid):
            listing = context.known_listing(project_key(owner))
            if listing is not None:
                listing.expire()
        if change.kind == "arvados#collection":
            self._collection_changed(change)
        elif change.kind == "arvados#group" and change.moves:
            # What it owns goes with it, and so may permissions.
            self._expire_all(time.monotonic())
        elif change.kind == "arvados#link" and PERMISSIONS & {change.old_name, change.new_name}:
            self._expire_all(time.monotonic())

        if change.kind in NAMED and context.expires_names:
            self._names_changed(change)

    def _collection_changed(self, change: Change) -> None:
        state = self._context.known_collection(change.uuid)
        if state is None:
            return
        state.expire()
        if change.moves or not state.shows(change.new_portable_data_hash):
            self._tell_kernel(Told(change.uuid, inside=True))

    def _names_changed(self, change: Change) -> None:
        """What the object is called and what `stat` tells of it; and names that others had because of it."""
        self._tell_kernel(Told(change.uuid))
        shown = self._context.names.shown
        names = {shown(name) for name in (change.old_name, change.new_name) if name is not None}
        if not names:
            self._tell_kernel_all()
        for owner in change.owners:
            for name in names:
                self._tell_kernel(Told(owner, called=name))

    def _expire_all(self, before: float) -> None:
        self._context.policy.expire_all(before)
        self._tell_kernel_all()

    def _became(self, status: Status) -> None:
        policy = self._context.policy
        self._context.looks.on = status.state == "connected"
        logger.debug("Events: %s%s", status.state, f" ({status.reason})" if status.reason else "")
        if status.state == "disconnected":
            policy.max_age, policy.brief = self._refresh_time, float("inf")
            self._all_again = time.monotonic() + GRACE
            return
        self._all_again = None
        # Records of the log, for which we ask then, do not tell of permissions that were taken away.
        polling = status.state == "polling"
        policy.max_age, policy.brief = (
            self._refresh_time if polling else max(self._refresh_time, LONG),
            BRIEF,
        )

    # The kernel

    def _tell_kernel(self, what: Told) -> None:
        """Now, and once more later; but if it was told a moment ago, not now and twice more later."""
        if what in self._again:
            self._more.add(what)
        else:
            self._again[what] = time.monotonic() + AGAIN_AFTER
            self._put(what)

    def _tell_kernel_all(self) -> None:
        for uuid in self._inodes.shown():
            self._tell_kernel(Told(uuid))
            self._tell_kernel(Told(uuid, inside=True))

    def _repeat(self) -> None:
        """Tell the kernel what is due to be told once more."""
        now = time.monotonic()
        for what in [what for what, due in self._again.items() if due <= now]:
            del self._again[what]
            if what in self._more:
                self._more.remove(what)
                self._again[what] = now + AGAIN_AFTER
            self._put(what)
        if self._all_again is not None and self._all_again <= now:
            self._all_again = None
            self._tell_kernel_all()

    def _put(self, what: Told) -> None:
        inodes = self._inodes
        if what.called is not None:
            nodes = inodes.lasting_called(what.uuid, what.called)
        else:
            nodes = inodes.lasting_inside(what.uuid) if what.inside else inodes.lasting_tops(what.uuid)
        for node in nodes:
            parent = node.parent
            raw = self._context.names.encode(node.name)
            if parent is not None and raw is not None:
                self._invalidations.put(Invalidation(parent.ino, raw))
            # For those who have it open or work in it, and never use the name. Not for the root: the kernel
            # leaves aside an answer that this crosses with, and with the first one all permissions.
            if isinstance(node, DirectoryNode) and node.ino != ROOT:
                self._invalidations.put(Invalidation(node.ino, attributes_only=True))
