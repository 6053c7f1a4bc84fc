"""The methods that a file shares with the SDK's `ArvadosFile`, beyond those of our own.

Mixed into `File`; programs call it. `num_retries` is accepted and left to the block store.
Threads: any.
"""

import re
import time
from abc import abstractmethod
from typing import Any, NamedTuple

from arvados_fuse.collection.content import Content, Holder
from arvados_fuse.collection.manifest import stripped
from arvados_fuse.collection.manifest.lines import LineWriter, located
from arvados_fuse.collection.manifest.names import escape
from arvados_fuse.collection.moves import hashed
from arvados_fuse.collection.segments import ZERO_BLOCK, Source, Zeros

_SIGNED = re.compile(r"\+A[0-9a-f]{40}@([0-9a-f]{1,8})")


class FileSegment(NamedTuple):
    """A part of a file: `range_size` bytes from `range_start` are in a block from `segment_offset`.

    locator: the block's, or what holds the bytes while they are in none.
    """

    locator: Source
    range_start: int
    range_size: int
    segment_offset: int


class FileApi:
    """What a program written for `ArvadosFile` calls."""

    __slots__ = ()

    @property
    @abstractmethod
    def parent(self) -> Holder:
        """The directory it is in."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name there."""

    @abstractmethod
    def content(self) -> Content:
        """What all `File`s of this file share."""

    @abstractmethod
    def need_writable(self) -> None:
        """Raise CollectionReadOnly unless the collection may be changed."""

    def readfrom(
        self,
        offset: int,
        size: int,
        num_retries: int | None = None,
        exact: bool = False,
        return_memoryview: bool = False,
    ) -> Any:
        """At most `size` bytes from `offset`; less only at the end, whether `exact` or not."""
        data = self.content().read(offset, size)
        return memoryview(data) if return_memoryview else bytes(data)

    def writeto(self, offset: int, data: Any, num_retries: int | None = None) -> int | None:
        """Put bytes (text is encoded in UTF-8) at `offset`. Gives their number, None when there are none."""
        self.need_writable()
        written = self.content().write(offset, data.encode() if isinstance(data, str) else data)
        if written:
            self.parent.notify("write", self.parent, self.name, (self, self))
        return written or None

    def flush(self, sync: bool = True, num_retries: int = 0) -> None:
        """Store unsaved bytes in Keep, in blocks of this file alone."""
        self.content().store()

    def segments(self) -> list[FileSegment]:
        """A snapshot of where the bytes are."""
        found, start = [], 0
        for source, offset, size in self.content().snapshot()[0]:
            found.append(FileSegment(source, start, size, offset))
            start += size
        return found

    def replace_contents(self, other: "FileApi") -> None:
        """Have the bytes of another file, by reference."""
        self.need_writable()
        kind = "tok" if self == other else "mod"
        self.content().replace(other.content().snapshot()[0])
        self.parent.notify(kind, self.parent, self.name, (self, self))

    def manifest_text(
        self,
        stream_name: str = ".",
        portable_locators: bool = False,
        normalize: bool = False,
        only_committed: bool = False,
    ) -> str:
        """The line of a stream with this file alone."""
        if not only_committed:
            self.flush()
        writer = LineWriter(strip=portable_locators)
        saved = (part for part in self.content().snapshot()[0] if not part.is_unsaved)
        writer.add(escape(self.name), located(saved, ZERO_BLOCK))
        return writer.text(stream_name).decode()

    # State.

    def writable(self) -> bool:
        """Whether the collection may be changed."""
        return self.parent.tree.writable

    def committed(self) -> bool:
        """Whether this is what was loaded or last saved."""
        return not self.content().changed

    def modified(self) -> bool:
        """The opposite of `committed`."""
        return not self.committed()

    def closed(self) -> bool:
        """True: a file does not count its handles."""
        return True

    def has_remote_blocks(self) -> bool:
        """Whether a block has the signature of another cluster (`+R`)."""
        return any("+R" in part.locator for part in self.segments() if isinstance(part.locator, str))

    def permission_expired(self, as_of_dt: Any = None) -> bool:
        """Whether the signature of a block is over, now or at a time (a datetime in UTC)."""
        moment = time.time() if as_of_dt is None else as_of_dt.timestamp()
        signed = [_SIGNED.search(part.locator) for part in self.segments() if isinstance(part.locator, str)]
        return any(int(match[1], 16) <= moment for match in signed if match)


def comparable(content: Content) -> list[tuple[Any, int, int]]:
    """Segments in a form in which the same data in the same blocks is equal, whatever the signatures.

    Unsaved bytes count as being in the block that they would be stored in.
    """
    return [
        (
            stripped(source)
            if isinstance(source, str)
            else ZERO_BLOCK
            if isinstance(source, Zeros)
            else source,
            offset,
            size,
        )
        for source, offset, size in hashed(content.snapshot()[0])
    ]
