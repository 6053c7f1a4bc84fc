"""Permissions that others give and take: while somebody looks at what they share, the API server is asked.

Made by `cli/build.py` with the queue of news that `Follower` reads. Events do not tell all: those of a
permission go to who may see the link, and who loses it, or has it by a role, may not. One thread, one request
at a time: a server that is slow or down makes the questions rarer, and nobody waits for them.
"""

import logging
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

from arvados_fuse.api import News
from arvados_fuse.errors import ArvadosFuseError
from arvados_fuse.tree.context import Context
from arvados_fuse.tree.listed import GROUP_CLASSES
from arvados_fuse.tree.looks import Noted

Record = dict[str, Any]

logger = logging.getLogger("arvados.arvados_fuse")

EVERY = 0.5
"""Seconds from one question to the next while somebody looks. With what the kernel remembers, what an answer
takes, and the asking anew of what has changed, a change shows within a second."""
QUICK = 0.25
"""Seconds that a server with time to spare may take to answer. A busy one is asked less often, by the square:
after an answer that took a second, four seconds later."""
PAUSE_AFTER_FAILURE = 2.0
"""Seconds without questions after one that failed; doubled each time."""
LONGEST_PAUSE = 15.0
"""Seconds, the most: as long as others' things are taken as known by default (`--refresh-time`)."""
AGAIN = 60.0
"""Seconds after which it is asked once more whether an owner is ours by now."""
REMEMBERED = 10_000
"""Objects of which something is remembered."""


class RightsChanged(NamedTuple):
    """What was learned before `before` (time.monotonic()) may be wrong.

    everything: all; else only which things of others there are.
    """

    before: float
    everything: bool


class RightsWatch:
    """Asks about what `context.looks` has noted, writes to `news`. Constructing does nothing."""

    def __init__(self, context: Context, news: "queue.SimpleQueue[News]") -> None:
        self._context = context
        self._news = cast("queue.SimpleQueue[RightsChanged]", news)
        self._stopping = threading.Event()
        # The thread's own. What is not as it was seen is told once: a past version is not in any list.
        self._told: dict[str, bool] = {}
        # Owners to ask for next; when (time.monotonic()) each was.
        self._owners: set[str] = set()
        self._owners_asked: dict[str, float] = {}
        self._groups: int | None = None
        self._knows_us = False
        self._failure_pause = PAUSE_AFTER_FAILURE

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="rights", daemon=True).start()

    def stop(self) -> None:
        """Let the thread end; does not wait for an answer that it waits for. Safe to call twice."""
        self._stopping.set()
        self._context.looks.wake()

    def _run(self) -> None:
        looks = self._context.looks
        while not self._stopping.is_set():
            looks.wait()
            if self._stopping.is_set():
                return
            try:
                pause = self.ask()
            except Exception:
                logger.exception("Permissions could not be asked for")
                pause = LONGEST_PAUSE
            self._stopping.wait(pause)

    def ask(self) -> float:
        """Ask about what was looked at, tell what has changed. Gives the seconds from now on without another
        question. (The thread calls this.)"""
        noted = self._context.looks.take()
        begun = time.monotonic()
        try:
            if noted.objects:
                self._ask_for(noted, begun)
            if noted.names:
                self._count(begun)
        except ArvadosFuseError as error:
            if self._stopping.is_set():
                return 0.0
            logger.debug("Permissions are not known to be as before: %s", error)
            pause, self._failure_pause = self._failure_pause, min(LONGEST_PAUSE, 2 * self._failure_pause)
            return pause
        self._failure_pause = PAUSE_AFTER_FAILURE
        took = time.monotonic() - begun
        return max(EVERY - took, min(LONGEST_PAUSE, took * took / QUICK))

    def _ask_for(self, noted: Noted, begun: float) -> None:
        context, cluster = self._context, self._context.api.cluster_id
        # In one list there can't be objects of several clusters of a federation.
        objects = {uuid: seen for uuid, seen in noted.objects.items() if uuid.startswith(cluster)}
        for uuid in [*objects]:  # what was looked at while the last question found that it is ours
            if objects[uuid] and uuid not in noted.both and context.is_ours(uuid):
                del objects[uuid]
        owners = {uuid for uuid in self._owners - objects.keys() if uuid.startswith(cluster)}
        self._owners = set()
        if len(self._told) + len(self._owners_asked) > REMEMBERED:
            self._told, self._owners_asked = {}, {}
        if not self._knows_us:
            context.note_ours(str(context.api.current_user().get("uuid")))
            self._knows_us = True
        records = {str(record.get("uuid")): record for record in self._readable([*objects, *owners])}
        gone, come = 0, 0
        for uuid, seen in objects.items():
            there = uuid in records
            if there == seen or uuid in noted.both:
                self._told.pop(uuid, None)
            if there != seen and self._told.get(uuid) is not there:
                self._told[uuid] = there
                gone, come = gone + seen, come + there
        if gone or come:
            logger.debug("%d objects can't be seen any more, %d can now", gone, come)
            self._news.put(RightsChanged(begun, everything=bool(gone)))
        for record in records.values():
            self._learn_owner(record)

    def _readable(self, uuids: Sequence[str]) -> Iterator[Record]:
        """Those that we may read; a request for each kind."""
        api = self._context.api
        groups = [uuid for uuid in uuids if "-j7d0g-" in uuid]
        others = [uuid for uuid in uuids if "-j7d0g-" not in uuid]
        if groups:
            yield from api.list_groups([["uuid", "in", groups]], select=["uuid", "owner_uuid", "group_class"])
        if others:
            yield from api.list_collections([["uuid", "in", others]], select=["uuid", "owner_uuid"])

    def _learn_owner(self, record: Record) -> None:
        """What is below our home is ours by whatever way it was reached: found out step by step, so that it
        is not asked for any more."""
        context, owner = self._context, str(record.get("owner_uuid"))
        if context.is_ours(owner):
            if record.get("group_class", "project") == "project":
                context.note_ours(str(record.get("uuid")))
        elif "-j7d0g-" in owner and self._owners_asked.get(owner, float("-inf")) + AGAIN < time.monotonic():
            self._owners.add(owner)
            self._owners_asked[owner] = time.monotonic()

    def _count(self, begun: float) -> None:
        """Whether there are more or fewer projects than before that we may see."""
        before = self._groups
        self._groups = self._context.api.count_groups([["group_class", "in", GROUP_CLASSES]])
        if self._groups != before:  # the first time, too: what was listed earlier may be from before
            self._news.put(RightsChanged(begun, everything=False))
