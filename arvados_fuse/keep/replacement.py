"""Which cached block goes first: two segments, so that one long scan can't push out what is used again.

A new block is on probation. It moves to the protected segment when it is read again, or when it comes back
soon after it was dropped. Blocks on probation go first, least recently used first; the protected segment
keeps to its share.
Used by the stores. Threads: none of its own; the caller holds the store's lock.
"""

from collections import OrderedDict

PROTECTED_SHARE = 0.8
"""Part of the limit that protected blocks may fill; the rest is what a scan passes through."""

REMEMBERED = 4096
"""Dropped blocks whose return counts as a second use; as many 64 MiB blocks are 256 GiB."""


class Replacement:
    """An order over keys with sizes in bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self._probation: OrderedDict[str, int] = OrderedDict()
        self._protected: OrderedDict[str, int] = OrderedDict()
        self._protected_total = 0
        self._dropped: OrderedDict[str, None] = OrderedDict()
        self._readers: dict[str, int] = {}
        self._pinned: dict[str, int] = {}
        self.pinned_total = 0

    def __len__(self) -> int:
        return len(self._probation) + len(self._protected)

    def __contains__(self, key: str) -> bool:
        return key in self._probation or key in self._protected

    def add(self, key: str, size: int, *, protected: bool = False, cold: bool = False) -> None:
        """A block is here now: the most recently used one of its segment, or with `cold` the least recently
        used.

        Adding it again changes its size.
        """
        pinned = key in self._pinned
        again = self.remove(key)
        self.total += size
        if protected or again or key in self._dropped:
            self._dropped.pop(key, None)
            self._protect(key, size, cold=cold)
        else:
            self._probation[key] = size
            if cold:
                self._probation.move_to_end(key, last=False)
        self.pin(key, pinned)

    def touch(self, key: str) -> None:
        """The block is the most recently used of its segment."""
        if key in self._protected:
            self._protected.move_to_end(key)
        elif key in self._probation:
            self._probation.move_to_end(key)

    def protect(self, key: str) -> None:
        """The block was used a second time."""
        size = self._probation.pop(key, None)
        if size is not None:
            self._protect(key, size)

    def drop(self, key: str) -> None:
        """The block was evicted to make room; should it come back soon, it is protected."""
        self.remove(key)
        self._dropped[key] = None
        self._dropped.move_to_end(key)
        if len(self._dropped) > REMEMBERED:
            self._dropped.popitem(last=False)

    def remove(self, key: str) -> bool:
        """The block is gone; returns whether it was protected."""
        self.pin(key, False)
        size = self._probation.pop(key, None)
        if size is not None:
            self.total -= size
            return False
        size = self._protected.pop(key, None)
        if size is not None:
            self.total -= size
            self._protected_total -= size
            return True
        return False

    def hold(self, key: str) -> None:
        """A reader is at this block (here or not yet here): it goes after all blocks without readers."""
        self._readers[key] = self._readers.get(key, 0) + 1

    def release(self, key: str) -> None:
        """A reader that held the block went on."""
        left = self._readers.get(key, 0) - 1
        if left > 0:
            self._readers[key] = left
        else:
            self._readers.pop(key, None)

    def pin(self, key: str, pinned: bool = True) -> None:
        """A block that is here is not to be dropped, or may be again."""
        self.pinned_total -= self._pinned.pop(key, 0)
        size = self._probation.get(key, self._protected.get(key)) if pinned else None
        if size is not None:
            self._pinned[key] = size
            self.pinned_total += size

    def keys(self) -> list[str]:
        """All keys."""
        return [*self._probation, *self._protected]

    def coldest(self) -> list[str]:
        """Keys that may be dropped, those to drop first first."""
        keys = [key for key in self.keys() if key not in self._pinned]
        if not self._readers:
            return keys
        return [key for key in keys if key not in self._readers] + [
            key for key in keys if key in self._readers
        ]

    def check(self) -> None:
        """Raise AssertionError when an invariant is broken; for tests."""
        assert not self._probation.keys() & self._protected.keys()
        assert self.total == sum(self._probation.values()) + sum(self._protected.values())
        assert self._protected_total == sum(self._protected.values())
        assert self.pinned_total == sum(self._pinned.values())
        assert all(
            self._pinned[key] == self._probation.get(key, self._protected.get(key)) for key in self._pinned
        )
        assert len(self._dropped) <= REMEMBERED
        assert self._protected_total <= self.limit * PROTECTED_SHARE or len(self._protected) <= 1

    def _protect(self, key: str, size: int, *, cold: bool = False) -> None:
        self._protected[key] = size
        self._protected_total += size
        if cold:
            self._protected.move_to_end(key, last=False)
        while self._protected_total > self.limit * PROTECTED_SHARE and len(self._protected) > 1:
            coldest, its_size = self._protected.popitem(last=False)
            self._protected_total -= its_size
            self._probation[coldest] = its_size
