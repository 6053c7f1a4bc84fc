"""The faults of the soak run, one at a time, in an order that a seed decides.

Used by `soak`. Every fault is over when its function returns; then the programs must get on again.
"""

import errno
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.shared import PASS, Ask, Deed, Fault, wait_for
from benchmarks.soak_crew import Crew, Failed, Window
from benchmarks.soak_world import SAVING_LIMIT, Life, World

DEAD = frozenset(
    {
        errno.ENOTCONN,
        errno.ECONNABORTED,
        errno.ESHUTDOWN,
        errno.ENODEV,
        errno.ENOENT,
        errno.EIO,
        errno.EBADF,
    }
)
"""What programs get whose mount was killed; ENOENT where it is unmounted, EBADF for files of the old one."""
NONE: frozenset[int] = frozenset()
"""A fault that no program may notice, but for the time it takes."""


class Setting(Protocol):
    """What a fault acts on."""

    world: World
    crew: Crew
    random: random.Random
    writer: Life

    def mount_again(self) -> None:
        """Another mount at the same place, which takes over what the last one left."""

    def wait_saved(self) -> None:
        """Until the writing mount says that nothing is unsaved."""

    def wait_taken(self) -> None:
        """Until it says that the server refuses nothing of what is unsaved."""


@dataclass(frozen=True)
class Kind:
    """A fault. grace: seconds after its end in which programs may still fail. mounts: ends the mount."""

    name: str
    act: Callable[[Setting], None]
    tolerated: frozenset[int] = NONE
    grace: float = 0.0
    mounts: bool = False


def _length(run: Setting, least: float, most: float) -> None:
    run.crew.pause(run.random.uniform(least, most))


def server_killed(run: Setting) -> None:
    """The server process dies and is started again."""
    run.world.server.kill()
    try:
        _length(run, 0.5, 4)
    finally:
        run.world.server.start()


def refused(run: Setting) -> None:
    """No connections."""
    run.world.refuse()
    try:
        _length(run, 1, 6)
    finally:
        run.world.clear()


def cut(run: Setting) -> None:
    """All connections end, several times."""
    for _ in range(run.random.randrange(2, 6)):
        run.world.cut_all()
        _length(run, 0.1, 1)


def slow(run: Setting) -> None:
    """Long ways and a thin line."""
    latency = run.random.uniform(0.1, 0.5)
    for proxy in run.world.keep:
        proxy.fault = Fault(latency=latency, rate=4e6)

    def late(ask: Ask) -> Deed:
        time.sleep(latency)
        return PASS

    run.world.api.rule = late
    try:
        _length(run, 3, 8)
    finally:
        run.world.clear()


def failing(run: Setting) -> None:
    """A third of all requests: 5xx, cut off, or done but the answer is lost."""
    for proxy in run.world.keep:
        proxy.mixed = [Fault(status=503), Fault(status=500), Fault(cut_at=0), Fault(cut_at=1000)]
        proxy.often = 0.3
    deeds = [Deed(status=503), Deed(status=500), Deed(status=502), Deed(cut=True), Deed(lose=True)]

    def often(ask: Ask) -> Deed:
        return random.choice(deeds) if random.random() < 0.3 else PASS

    run.world.api.rule = often
    try:
        _length(run, 3, 8)
    finally:
        run.world.clear()


def wrong_bytes(run: Setting) -> None:
    """One Keep service gives blocks that are damaged near their ends.

    Nobody may see that; but of many blocks there is no other copy: EIO. Of damage further in front
    docs/blocks.md says what programs may see of it.
    """
    proxy = run.random.choice(run.world.keep)
    proxy.mixed = [Fault(wrong_at=-1), Fault(wrong_at=-100)]
    proxy.often = 0.7
    try:
        _length(run, 3, 8)
    finally:
        run.world.clear()


def silent(run: Setting) -> None:
    """Requests are taken and not answered; later some are, or all connections end."""
    for proxy in run.world.keep:
        proxy.mixed = [Fault(hang_at=0), Fault(hang_at=2000)]
    run.world.api.rule = lambda ask: Deed(hold=True)
    try:
        _length(run, 2, 8)
    finally:
        if run.random.random() < 0.5:
            run.world.api.drop()
        run.world.clear()


def token_ended(run: Setting) -> None:
    """The token is refused; later there is a new one in the settings, and what was refused is saved."""
    run.world.end_token()
    try:
        _length(run, 1, 6)
    finally:
        run.world.new_token()
    # Programs are told of a refusal until the next attempt has succeeded, which other faults would hold up.
    run.wait_taken()


def disk_full(run: Setting) -> None:
    """No room for cache and unsaved data."""
    try:
        for _ in range(run.random.randrange(2, 12)):
            run.world.disk.fill()
            run.crew.pause(0.5)
    finally:
        run.world.disk.relieve()


def clock_jump(run: Setting) -> None:
    """The wall clock of the mounts is hours ahead or behind, or a month ahead: signatures look expired then.

    Not further behind than two days: the embedded server's certificate is not older.
    """
    try:
        for _ in range(run.random.randrange(2, 5)):
            hours = run.random.choice([run.random.uniform(-40, 0), run.random.uniform(0, 40), 30 * 24])
            run.world.clock.set(int(hours * 3600))
            _length(run, 0.5, 3)
    finally:
        run.world.clock.set(0)


def _gone(run: Setting, after_it: Callable[[], None] | None = None, again: int = 0) -> None:
    """Kill the mount at work, and go on with a new one once it has saved what was left.

    after_it: called when it is dead. again: how many mounts are killed that take over.
    """
    run.writer.kill()
    if after_it is not None:
        after_it()
    run.crew.killed()
    run.crew.stop()
    run.crew.wait_parked()
    for _ in range(again):
        run.mount_again()
        _length(run, 0, 0.7)
        run.writer.kill()
    run.mount_again()
    writer = run.writer
    wait_for(lambda: len(writer.rooms()) <= 1, "what was left is saved", SAVING_LIMIT)
    run.crew.go()


def mount_killed(run: Setting) -> None:
    """kill -9."""
    _gone(run)


def killed_in_outage(run: Setting) -> None:
    """kill -9 while the servers are away and nothing can be saved."""
    run.world.refuse()
    try:
        _length(run, 1, 4)
        _gone(run, run.world.clear)
    finally:
        run.world.clear()


def killed_in_recovery(run: Setting) -> None:
    """kill -9, and again of the mount that takes over, while it does."""
    _gone(run, again=1)


def remounted(run: Setting) -> None:
    """Unmounted in good order, and mounted again."""
    run.crew.stop()
    run.crew.wait_parked()
    code = run.writer.end()
    if code or run.writer.rooms():
        raise Failed(
            f"the mount ended with {code}, and left {run.writer.rooms()}: {run.writer.said()[-1000:]}"
        )
    run.crew.killed()
    run.mount_again()
    run.crew.go()


REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EIO})
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

KINDS = (
    Kind("server killed and restarted", server_killed),
    Kind("connections refused", refused),
    Kind("connections cut", cut),
    Kind("slow line", slow),
    Kind("5xx, cut and lost answers", failing),
    Kind("damaged blocks", wrong_bytes, frozenset({errno.EIO}), 10.0),
    Kind("silence", silent),
    Kind("token ended and renewed", token_ended, REFUSED, 15.0),
    Kind("disk full", disk_full, FULL, 5.0),
    Kind("clock jump", clock_jump),
    Kind("mount killed", mount_killed, DEAD, 1.0, mounts=True),
    Kind("mount killed in an outage", killed_in_outage, DEAD, 1.0, mounts=True),
    Kind("mount killed in recovery", killed_in_recovery, DEAD, 1.0, mounts=True),
    Kind("unmounted and mounted", remounted, mounts=True),
)


@dataclass
class Schedule:
    """Deals faults so that every kind comes as often as the others, and keeps their windows."""

    random: random.Random
    without: frozenset[str] = frozenset()
    """Names of kinds that are left out."""
    windows: list[Window] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    _deck: list[Kind] = field(default_factory=list)

    def next(self, world: World, mounts: bool) -> Kind:
        """The next kind. mounts: also those that end the mount."""
        possible: dict[Callable[[Setting], None], bool] = {
            disk_full: world.disk.is_small,
            clock_jump: world.clock.can_jump,
        }
        while True:
            if not self._deck:
                self._deck = [kind for kind in KINDS if kind.name not in self.without]
                self.random.shuffle(self._deck)
            kind = self._deck.pop()
            if (mounts or not kind.mounts) and possible.get(kind.act, True):
                return kind

    def act(self, kind: Kind, run: Any) -> None:
        """Do it. Raises Failed, AssertionError."""
        begin = time.monotonic()
        try:
            kind.act(run)
        finally:
            end = time.monotonic()
            self.windows.append(Window(kind.name, begin, end + kind.grace, kind.tolerated))
            self.counts[kind.name] = self.counts.get(kind.name, 0) + 1
            self.seconds[kind.name] = self.seconds.get(kind.name, 0.0) + end - begin
