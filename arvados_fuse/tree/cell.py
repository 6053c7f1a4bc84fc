"""A value from the server that one thread at a time loads, that gets old, and is refreshed when looked at.

Used for listings, single names, collections' trees. Freshness is a value such a cell holds: how old it may
get is said by its `Policy`. Any thread may call; no lock is held while loading or waiting.
"""

import logging
import time
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar, cast

from arvados_fuse.errors import Unreachable
from arvados_fuse.tree.attributes import FOREVER
from arvados_fuse.tree.pool import Attempt, Pool

logger = logging.getLogger("arvados.arvados_fuse")

T = TypeVar("T")

_NOTHING: Final = object()
"""In place of a value that is not there: one attribute says both, so no reader can see half of a change."""
PATIENCE = 0.8
"""Seconds to wait for news when there is an old value: a server that is slow or down must not stop those who
look."""
PAUSE_AFTER_FAILURE = 2.0
"""Seconds for which an old value is used without asking again, once asking failed."""


class Policy:
    """How long values are fresh; shared by many cells and changed when events begin or cease to arrive.

    max_age: seconds. valid_from: what was learned before (time.monotonic()) may be wrong. brief: the seconds
    for which the kernel may remember what it is not told about when it changes.
    """

    def __init__(self, max_age: float, brief: float = float("inf")) -> None:
        self.max_age = max_age
        self.brief = brief
        self.valid_from = float("-inf")

    def expire_all(self, before: float) -> None:
        """What was learned before this moment (time.monotonic()) may be wrong."""
        self.valid_from = max(self.valid_from, before)

    def until(self, learned_at: float) -> float:
        """When (time.monotonic()) what was learned at `learned_at` has to be asked for again."""
        return learned_at + self.max_age if learned_at > self.valid_from else float("-inf")


class Capped(Policy):
    """As long as another policy says, but `cap` seconds at most; with it goes what was learned too early."""

    def __init__(self, base: Policy, cap: float) -> None:
        super().__init__(cap)
        self._base = base

    def until(self, learned_at: float) -> float:
        return min(super().until(learned_at), self._base.until(learned_at))


ALWAYS = Policy(FOREVER)
"""For what is content-addressed."""


class Cell(Generic[T]):
    """Empty until first asked. `load` may raise ArvadosFuseError kinds; they are not remembered."""

    __slots__ = (
        "_attempt",
        "_expired_at",
        "_load",
        "_loaded_at",
        "_policy",
        "_pool",
        "_quiet_until",
        "_value",
        "subject",
    )

    def __init__(self, load: Callable[[], T], policy: Policy, pool: Pool, subject: str) -> None:
        self._load = load
        self._policy = policy
        self._pool = pool
        self.subject = subject
        self._attempt: Attempt[T] | None = None
        self._value: Any = _NOTHING
        self._loaded_at = float("-inf")
        self._quiet_until = 0.0
        self._expired_at = float("-inf")

    def get(self, deadline: float) -> T:
        """The value, loaded or refreshed as needed.

        deadline: seconds to wait when there is no value at all. Raises what the load raises; Unreachable
        after the deadline. When there is an old value and the server can't be reached, that is the answer.
        """
        now = time.monotonic()
        value = self._value
        filled = value is not _NOTHING
        if filled and now < self._policy.until(self._loaded_at):
            return cast(T, value)
        if filled and now < self._quiet_until:
            return cast(T, value)
        attempt = self.start()
        if not filled:
            return attempt.wait(deadline, self.subject)
        try:
            return attempt.wait(attempt.begun + PATIENCE - now, self.subject)
        except Unreachable as error:
            if attempt.done:
                self._quiet_until = time.monotonic() + PAUSE_AFTER_FAILURE
                logger.warning("%s is shown as it was known before: %s", self.subject, error)
            return cast(T, value)

    def get_newest(self, deadline: float) -> T:
        """The value as it is at some moment after this call began. Raises as `get` does for the first."""
        looked = time.monotonic()
        attempt = self.start()
        # The answer of one that was under way may be older than this look.
        while attempt.begun < looked and attempt.wait_done(deadline):
            attempt = self.start()
        return attempt.wait(deadline, self.subject)

    def start(self) -> Attempt[T]:
        """Begin to load, or join the load under way."""
        with self._pool.lock:
            attempt = self._attempt
            if attempt is not None:
                return attempt
            attempt = self._attempt = Attempt()
        self._pool.submit(lambda: self._run(attempt))
        return attempt

    def peek(self) -> T | None:
        """What is known now, fresh or not; loads nothing."""
        value = self._value
        return None if value is _NOTHING else value

    @property
    def filled(self) -> bool:
        return self._value is not _NOTHING

    def is_fresh(self) -> bool:
        return self.fresh() is not None

    def fresh(self) -> tuple[T, float] | None:
        """The value and the seconds for which the kernel may rely on it without asking; None when it is to be
        asked for. Loads nothing."""
        value = self._value  # read once: `clear` may come at any moment
        if value is not _NOTHING:
            left = self._policy.until(self._loaded_at) - time.monotonic()
            if left > 0:
                return value, left
        return None

    def put(self, value: T) -> None:
        """A value that came another way, of unknown age: used while nothing better can be had."""
        self._value = value
        self._loaded_at = float("-inf")

    def replace(self, value: T) -> None:
        """The same in another form, or what was learned since another way: good for as long as the value was,
        and to be asked for if that was."""
        self._value = value

    def obey(self, policy: Policy) -> None:
        """From now on this says how long the value is fresh."""
        self._policy = policy

    def touch(self, at: float) -> None:
        """The value was right at `at` (time.monotonic())."""
        if self.filled and at > self._expired_at:
            self._loaded_at = max(self._loaded_at, at)

    def expire(self) -> None:
        """The value may be wrong: ask when next looked at."""
        self._expired_at = time.monotonic()
        self._loaded_at = float("-inf")
        self._quiet_until = 0.0

    def clear(self) -> None:
        """Give the value back to memory; it is loaded again when next looked at."""
        self._value = _NOTHING

    def look(self, deadline: float) -> tuple[T, float]:
        """`get` and `remaining` in one, for what is asked very often."""
        return self.fresh() or (self.get(deadline), self.remaining())

    def remaining(self) -> float:
        """Seconds for which the kernel may rely on the value without asking."""
        if not self.filled:
            return 0.0
        return max(0.0, self._policy.until(self._loaded_at) - time.monotonic())

    def _run(self, attempt: Attempt[T]) -> None:
        begun = time.monotonic()

        def load() -> T:
            value = self._load()
            self._value = value
            # Counted from before the question: a change made meanwhile must not be hidden for longer.
            self._loaded_at = begun if begun > self._expired_at else float("-inf")
            return value

        try:
            attempt.run(load)
        finally:
            with self._pool.lock:
                self._attempt = None
