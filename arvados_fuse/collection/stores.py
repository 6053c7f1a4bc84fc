"""What the collection model needs from the floors below it, as small protocols.

`arvados_fuse.keep.BlockCache` is a `BlockStore` and `arvados_fuse.api.ApiClient` a `RecordStore` as they are;
tests give plain dictionaries. Every method may be called from any thread, and never under a collection's
lock.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class BlockReader(Protocol):
    """Where blocks can be read."""

    def read(self, locator: str, offset: int, size: int) -> bytes | memoryview:
        """Exactly `size` bytes of the block from `offset`; raises an `ArvadosFuseError` else."""
        ...


class BlockStore(BlockReader, Protocol):
    """Where blocks can be read and stored."""

    def put(
        self, data: bytes | memoryview, *, storage_classes: Sequence[str] = (), file: str | None = None
    ) -> str:
        """Store a block of at most 64 MiB; gives its signed locator.

        file: the path of a file that holds just these bytes and never will hold others: a cache can give it
        a second name rather than write them once more.
        """
        ...


class RecordStore(Protocol):
    """Collection records as plain dictionaries with the API's field names."""

    def get_collection(self, uuid_or_pdh: str, *, select: Sequence[str] | None = None) -> dict[str, Any]: ...

    def create_collection(
        self, body: Mapping[str, Any], *, ensure_unique_name: bool = False
    ) -> dict[str, Any]: ...

    def update_collection(
        self,
        uuid: str,
        body: Mapping[str, Any],
        *,
        replace_files: Mapping[str, str] | None = None,
        select: Sequence[str] | None = None,
    ) -> dict[str, Any]: ...
