"""Locators that the API server will take: of this cluster, and with a signature that still holds.

Used by `commit`. A change can wait for weeks when the server refuses it; signatures end, and blocks that no
collection has are taken for garbage then; and a signature holds for one token only, which may be replaced.
Storing a block again renews all.

Threads: any.
"""

import re
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from arvados_fuse.collection.manifest import stripped
from arvados_fuse.collection.segments import Segment
from arvados_fuse.collection.stores import BlockStore
from arvados_fuse.writeback.kept import Kept
from arvados_fuse.writeback.states import State

RENEW_BEFORE = 1800.0
"""Seconds before its end at which a signature is renewed: more than the longest pause between attempts. Where
signatures are short-lived: a tenth of their life."""

_REMOTE = re.compile(r"[0-9a-f]{32}\+[0-9]+\S*\+R")
_EXPIRY = re.compile(r"\+A[0-9a-f]+@([0-9a-f]{1,16})")


def is_remote(locator: str) -> bool:
    """Whether the block is signed by another cluster (`+R`)."""
    return _REMOTE.match(locator) is not None


def expires(locator: str) -> float:
    """When the signature ends, in seconds since 1970; never without one."""
    match = _EXPIRY.search(locator)
    return float(int(match[1], 16)) if match else float("inf")


class Signer(Protocol):
    """Has signatures for some blocks: a manifest, or `Restored`."""

    def signed(self, locator: str) -> str:
        """The locator with its signature, as it is where it has none."""


def signed_by(signer: Signer, state: State) -> State:
    """The state with the signatures that somebody has for its blocks, as far as he has them."""
    if not isinstance(state, tuple):
        return state
    signed = {source: signer.signed(source) for source in _locators(state)}
    return tuple(
        Segment(signed[source], offset, size) if isinstance(source, str) else Segment(source, offset, size)
        for source, offset, size in state
    )


def _locators(state: tuple[Segment, ...]) -> set[str]:
    """Each once: many segments are of few blocks."""
    return {source for source, _, _ in state if isinstance(source, str)}


class Restored:
    """Locators of blocks that were stored again since the token in use is in use: nothing is gained by doing
    it once more when the server refuses a change for another reason, and it may not be possible any more."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token
        self._lock = threading.Lock()
        self._of = ""
        self._locators: dict[str, str] = {}

    def has(self, locator: str) -> bool:
        """Whether this is one of them."""
        with self._lock:
            return self._of == self._token() and self._locators.get(stripped(locator)) == locator

    def signed(self, locator: str) -> str:
        """See `Signer`."""
        with self._lock:
            if self._of != self._token():
                return locator
            return self._locators.get(stripped(locator), locator)

    def add(self, locators: Iterable[str], token: str) -> None:
        """These were stored, with this token or a newer one."""
        with self._lock:
            if token != self._of:
                self._of = token
                self._locators.clear()
            self._locators.update((stripped(locator), locator) for locator in locators)


class Renewal:
    """Gives fresh locators for those of one batch, each block once."""

    def __init__(
        self,
        blocks: BlockStore,
        classes: Callable[[], Sequence[str]],
        life: float = float("inf"),
        is_refused: Callable[[str], bool] = lambda locator: False,
        *,
        kept: Kept,
        now: float,
    ) -> None:
        """classes: called for the storage classes of new blocks. life: seconds that a new signature lives.
        is_refused: whether a locator that looks good may be what the server refused. now: seconds since 1970,
        by the server's clock."""
        self._blocks = blocks
        self._kept = kept
        self._classes = classes
        self._is_refused = is_refused
        self._fresh: dict[str, str] = {}
        self._soon = now + min(RENEW_BEFORE, life / 10)

    def is_needed(self, state: State) -> bool:
        """Whether some locator of a state would not be taken, or not for long."""
        return isinstance(state, tuple) and any(map(self._is_stale, _locators(state)))

    def renewed(self, state: State) -> State:
        """The state with locators that will be taken. Raises what the block store raises."""
        if not isinstance(state, tuple) or not self.is_needed(state):
            return state
        stale = set(filter(self._is_stale, _locators(state)))
        return tuple(
            segment._replace(source=self._locator(str(segment.source)))
            if segment.source in stale
            else segment
            for segment in state
        )

    def _is_stale(self, locator: str) -> bool:
        return is_remote(locator) or expires(locator) < self._soon or self._is_refused(locator)

    def fresh(self) -> Sequence[str]:
        """The locators that were made."""
        return list(self._fresh.values())

    def _locator(self, locator: str) -> str:
        known = self._fresh.get(locator)
        if known is None:
            refresh = getattr(self._blocks, "refresh_signature", None) if is_remote(locator) else None
            known = self._fresh[locator] = (
                self._stored_again(locator) if refresh is None else refresh(locator)
            )
        return known

    def _stored_again(self, locator: str) -> str:
        """Read from wherever the bytes still are: where they were written, or often our own cache."""
        data = self._kept.read(locator)
        if data is None:
            size = int(stripped(locator)[33:])
            return self._blocks.put(self._blocks.read(locator, 0, size), storage_classes=self._classes())
        with memoryview(data) as view:
            return self._blocks.put(view, storage_classes=self._classes())
