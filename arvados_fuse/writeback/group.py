"""The unsaved changes of one collection as the committer keeps account of them, and who waits for them.

Used by the committer, under its condition.
"""

import time
from dataclasses import dataclass, field

from arvados_fuse.errors import ArvadosFuseError
from arvados_fuse.writeback.pending import Pending

NEVER = float("inf")


@dataclass
class Group:
    """The unsaved changes of one collection in one room. Times are of the monotonic clock.

    saved: number of the last record that is on the server. started: attempts that began.
    waits_for: collections to which something was moved from here that they don't have yet (`order`); refused:
    one of them was, then.
    """

    pending: Pending
    uuid: str
    first: float = NEVER
    last: float = 0.0
    urgent: bool = False
    running: bool = False
    saved: int = 0
    started: int = 0
    error: ArvadosFuseError | None = None
    refused: bool = False
    waits_for: frozenset[str] = frozenset()
    pause: float = 0.0
    not_before: float = 0.0
    since: float = field(default_factory=time.time)


@dataclass
class Wish:
    """Somebody waits until a group's records up to `number` are saved; `started`: attempts before that."""

    group: Group
    number: int
    started: int

    def is_done(self) -> bool:
        return self.group.saved >= self.number or not self.group.pending.has(self.group.uuid)

    def was_tried(self) -> bool:
        """Whether an attempt that began later has ended."""
        return self.group.started - self.group.running > self.started

    def push(self) -> bool:
        """Make the group due; whether that is news."""
        group = self.group
        if group.running or group.first == NEVER:
            return False
        news = not group.urgent
        group.urgent = True
        if group.not_before and not self.was_tried():
            group.not_before = 0.0
            return True
        return news
