"""`.versions/<n>/` in a collection's root: the versions of it that the server has kept, by their numbers.

Used by `CollectionRoot`. Read-only always: a version is history, the present one too. Each is a collection
with another origin; its content is asked for when it is looked into, and then never again.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from arvados_fuse.errors import NotFoundError
from arvados_fuse.tree import xattrs
from arvados_fuse.tree.context import Context
from arvados_fuse.tree.listed import ListingRef
from arvados_fuse.tree.listing import Entry
from arvados_fuse.tree.version import Origin, Record

NUMBER = re.compile(r"[1-9][0-9]{0,8}")
FIELDS = ("version", "file_size_total", *xattrs.COLLECTION_FIELDS)
"""What the listing asks for: what is shown, and no manifest."""
WHOLE = (
    *FIELDS,
    *("name", "description", "manifest_text", "current_version_uuid", "preserve_version", "file_count"),
    *("created_at", "modified_by_user_uuid", "trash_at", "delete_at", "is_trashed"),
    *("replication_desired", "replication_confirmed", "storage_classes_confirmed"),
)
"""What `.arvados#collection` of a version shows: lists leave the manifest out unless it is named."""


MakeEntry = Callable[[str, Record, float, Origin], Entry]
"""Makes the entry for a collection of its key, its record, when that was learned, and its origin."""


def versions_ref(context: Context, uuid: str, mtime_ns: int, make: MakeEntry) -> ListingRef:
    """The directory of the versions of the collection `uuid`."""
    return ListingRef(f"versions {uuid}", lambda: VersionsSource(context, uuid, make), mtime_ns)


class VersionsSource:
    """The versions of one collection. See `listing.Source`."""

    hidden: frozenset[str] = frozenset()
    changes_with = frozenset({"arvados#collection"})
    owner = ""

    def __init__(self, context: Context, uuid: str, make: MakeEntry) -> None:
        self._context = context
        self._make = make
        self._uuid = uuid

    @property
    def subject(self) -> str:
        """The collection's uuid."""
        return f"versions of {self._uuid}"

    def possible(self, name: str) -> bool:
        """Only numbers as they are written here."""
        return NUMBER.fullmatch(name) is not None

    def record(self) -> Record:
        """A list has none."""
        return {}

    def all(self) -> Mapping[str, Any]:
        """Every version by its number."""
        at = time.monotonic()
        return self._entries(self._context.api.versions_of(self._uuid, select=FIELDS), at)

    def find(self, name: str) -> Any:
        """One version."""
        at = time.monotonic()
        found = self._context.api.versions_of(self._uuid, number=int(name), select=FIELDS)
        return self._entries(found, at).get(name)

    def _entries(self, records: Iterable[Record], at: float) -> Mapping[str, Any]:
        return {str(record.get("version")): self._entry(record, at) for record in records}

    def _entry(self, record: Record, at: float) -> Entry:
        number = record.get("version")
        pdh = str(record.get("portable_data_hash") or "")
        # The hash is part of the name: were the number given to other content, that would be another object.
        key = f"{self._uuid} version {number} {pdh}"
        context, uuid = self._context, self._uuid

        def fetch(select: Sequence[str] | None) -> Record:
            return one_version(context, uuid, int(str(number)), select)

        return self._make(key, record, at, Origin(fetch, pdh))


def one_version(context: Context, uuid: str, number: int, select: Sequence[str] | None) -> Record:
    """The fields of one version. Raises NotFoundError."""
    for record in context.api.versions_of(uuid, number=number, select=select or WHOLE):
        return record
    raise NotFoundError(f"version {number} of {uuid} is gone", subject=uuid)
