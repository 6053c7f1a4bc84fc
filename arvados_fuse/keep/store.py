"""What the cache needs from a place that holds blocks; `DiskStore` and `RamStore` are such places.

Used by `keep.cache` and `keep.transfer`. Threads: every method of a store may be called from any thread; a
sink belongs to the thread that asked for it.
"""

from collections.abc import Mapping
from typing import Protocol

from arvados_fuse.keep.content import Content
from arvados_fuse.keep.locator import MAX_BLOCK
from arvados_fuse.keep.pins import Pins
from arvados_fuse.reporting.counters import Counters

SMALLEST_LIMIT = MAX_BLOCK
"""A smaller limit is raised to this, as the SDK does: one block must fit."""

REREAD_SLACK = 1024 * 1024
"""Reading so many bytes before the furthest read is a second use of a block; less is a reader's own
disorder.
"""


class Held(Protocol):
    """A block in a store."""

    @property
    def content(self) -> Content | None:
        """Its bytes, if they are at hand and checked."""

    def read(self, offset: int, size: int) -> bytes | memoryview | None:
        """Exactly these bytes, or None when they can't be vouched for just now (not open, not checked,
        changed).
        """


class Sink(Protocol):
    """Where a block's bytes go while they come in."""

    content: Content
    """What was written so far, readable at once. May become another object after `write`."""

    def room(self, at: int, buffer: memoryview) -> memoryview:
        """Where to put the bytes from position `at` on: `buffer`, or a place of the sink's own."""

    def write(self, at: int, data: memoryview) -> None:
        """Take `data`, a part of the room that was filled. Never fails for want of disk: it goes on in
        memory.
        """

    def commit(self, high: int) -> None:
        """The hash was right: the store holds the block. `high`: how far readers got, in bytes."""

    def discard(self) -> None:
        """The block is not wanted; its content stays readable while somebody refers to it."""


class Store(Protocol):
    """Blocks by md5, the total size bounded."""

    @property
    def blocks(self) -> Mapping[str, Held]:
        """What can be tried first, without a lock; the same object for ever."""

    @property
    def counters(self) -> Counters:
        """Where the store counts."""

    @property
    def limit(self) -> int:
        """Bytes that it may hold."""

    @property
    def pins(self) -> Pins | None:
        """What is pinned; None where nothing can be."""

    def usage(self) -> int:
        """Bytes that it holds now, with those on their way."""

    def start(self) -> None:
        """Start what runs beside; after the fork."""

    def close(self) -> None:
        """End what runs beside and let go of files; blocks on disk stay."""

    def room(self) -> int:
        """Bytes that may be on their way in at one time."""

    def budget(self) -> int:
        """Bytes that may be filled ahead of what readers asked for."""

    def hold(self, md5: str) -> None:
        """A reader is at this block: others are evicted first."""

    def release(self, md5: str) -> None:
        """A reader that held the block went on."""

    def reopen(self, md5: str, size: int) -> Held | None:
        """The block if the store can vouch for it without reading it all."""

    def unchecked(self, md5: str, size: int) -> Content | None:
        """A content that may be the block and has to be hashed before use; then `accept` or `reject` it."""

    def accept(self, md5: str, content: Content) -> bool:
        """What `unchecked` gave has the right hash; False if it changed since."""

    def reject(self, md5: str, content: Content) -> None:
        """What `unchecked` gave is damaged: remove it."""

    def adopt(self, md5: str, size: int) -> None:
        """A block is here and checked: never evict it, if it is pinned."""

    def link(self, md5: str, size: int, path: str) -> bool:
        """Hold the block by a second name of a file that has all of it, checked, and never changes; False
        where that can't be.
        """

    def begin(self, md5: str, size: int) -> Sink:
        """Make room for a block that is about to come in."""
