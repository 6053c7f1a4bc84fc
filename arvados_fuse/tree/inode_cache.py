"""What is kept in memory because it may be wanted again: least recently used first to go, by bytes.

Used by the nodes: each time they use a holder (a collection's tree, a listing) they `touch` it, and `resize`
it when it may have grown. Over the cap
the holder not used for longest gives back what it can load again. What open files, the kernel's inodes or
unsaved changes need is referred to by them and stays. Any thread may call; holders are asked to shrink
outside the lock.
"""

import threading
from typing import Protocol


class Holder(Protocol):
    """Something that keeps memory which it can do without."""

    def footprint(self) -> int:
        """Bytes held now, roughly; cheap."""

    def shrink(self) -> bool:
        """Give memory back, keeping what can't be loaded again; False when there is nothing more to give."""


class InodeCache:
    """At most `cap` bytes in all holders together."""

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._lock = threading.Lock()
        self._sizes: dict[Holder, int] = {}
        self._latest: Holder | None = None
        self._total = 0

    @property
    def total(self) -> int:
        """Bytes held by all holders, as far as they told."""
        return self._total

    def __len__(self) -> int:
        return len(self._sizes)

    def touch(self, holder: Holder) -> None:
        """The holder is in use now."""
        if holder is not self._latest:
            self.resize(holder)

    def resize(self, holder: Holder) -> None:
        """The holder is in use and may have grown: learn its size; make room when the cap is passed."""
        size = holder.footprint()
        with self._lock:
            self._total += size - self._sizes.pop(holder, 0)
            if not size:
                return
            self._sizes[holder] = size  # at the end: most recently used
            self._latest = holder
            over = self._total > self._cap
        if over:
            self._make_room(holder)

    def forget(self, holder: Holder) -> None:
        """The holder is gone."""
        with self._lock:
            self._total -= self._sizes.pop(holder, 0)
            if self._latest is holder:
                self._latest = None

    def check(self) -> None:
        """Raise AssertionError when the books are wrong."""
        with self._lock:
            assert self._total == sum(self._sizes.values()), "the total is not the sum of the sizes"

    def _make_room(self, current: Holder) -> None:
        """Shrink the oldest holders until the total fits; the one in use comes last."""
        given_all: set[int] = set()
        while True:
            with self._lock:
                if self._total <= self._cap:
                    return
                oldest = next((holder for holder in self._sizes if id(holder) not in given_all), None)
            if oldest is None:
                return
            more = oldest.shrink()
            size = oldest.footprint()
            if not more or oldest is current:
                given_all.add(id(oldest))
            with self._lock:
                if oldest in self._sizes:
                    self._total += size - self._sizes[oldest]
                    self._sizes[oldest] = size
                    if not size:
                        del self._sizes[oldest]
                        self._latest = None
