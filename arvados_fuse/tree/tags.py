"""Tags: links of class `tag`; a directory for each tag's name, in it what is tagged so, by uuid.

Used by the layout. All methods ask the API server and run on the pool.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from arvados_fuse.tree.context import Context
from arvados_fuse.tree.listed import GROUP_CLASSES, ListingRef
from arvados_fuse.tree.projects import COLLECTION_FIELDS, GROUP_FIELDS, entry_for
from arvados_fuse.tree.version import Record

IS_TAG = ["link_class", "=", "tag"]
UUIDS_PER_REQUEST = 200
"""Uuids in one `in` filter: some 6 kB of request, well below what web servers take."""


class TagsSource:
    """All tag names. See `listing.Source`."""

    hidden: frozenset[str] = frozenset()
    changes_with = frozenset({"arvados#link"})
    subject = "tags"
    owner = ""

    def __init__(self, context: Context) -> None:
        self._context = context

    def possible(self, _name: str) -> bool:
        """Any name may come to exist."""
        return True

    def record(self) -> Record:
        """None of its own."""
        return {}

    def all(self) -> Mapping[str, Any]:
        """Every tag once."""
        links = self._context.api.list_links([IS_TAG, *self._context.filters.links], select=["uuid", "name"])
        return self._entries(links)

    def find(self, name: str) -> Any:
        """One tag by its name."""
        filters = [IS_TAG, ["name", *self._context.names.filter_for(name)], *self._context.filters.links]
        return self._entries(self._context.api.list_links(filters, select=["uuid", "name"])).get(name)

    def _entries(self, links: Iterable[Record]) -> Mapping[str, Any]:
        context = self._context
        names = sorted({str(link.get("name") or "") for link in links})
        # A tag is its name: that stands where other objects have a uuid.
        named = context.names.keep_apart({"name": name, "uuid": name} for name in names)
        return {
            shown: ListingRef(f"tag {tag['name']}", _tag_source(context, tag["name"]), context.started_ns)
            for shown, tag in named.items()
        }


def _tag_source(context: Context, tag: str) -> "Callable[[], TagSource]":
    return lambda: TagSource(context, tag)


class TagSource:
    """The collections and projects that have one tag, by uuid. See `listing.Source`."""

    hidden: frozenset[str] = frozenset()
    changes_with = frozenset({"arvados#collection", "arvados#group", "arvados#link"})
    owner = ""

    def __init__(self, context: Context, tag: str) -> None:
        self._context = context
        self._tag = tag

    @property
    def subject(self) -> str:
        """The tag's name."""
        return f"tag {self._tag!r}"

    def possible(self, name: str) -> bool:
        """Only uuids of collections and groups."""
        return len(name) == 27 and name[5:12] in ("-4zz18-", "-j7d0g-")

    def record(self) -> Record:
        """A tag is only a name."""
        return {}

    def all(self) -> Mapping[str, Any]:
        """Everything tagged so that we may read."""
        return self._entries([])

    def find(self, name: str) -> Any:
        """One uuid."""
        return self._entries([["head_uuid", "=", name]]).get(name)

    def _entries(self, more: Sequence[Sequence[Any]]) -> Mapping[str, Any]:
        context, at = self._context, time.monotonic()
        filters = [IS_TAG, ["name", "=", self._tag], *more, *context.filters.links]
        heads = {
            str(link.get("head_uuid"))
            for link in context.api.list_links(filters, select=["uuid", "head_uuid"])
        }
        uuids = sorted(uuid for uuid in heads if self.possible(uuid))
        records: list[Record] = []
        for start in range(0, len(uuids), UUIDS_PER_REQUEST):
            some = ["uuid", "in", uuids[start : start + UUIDS_PER_REQUEST]]
            records += context.api.list_collections([some], select=COLLECTION_FIELDS)
            records += context.api.list_groups(
                [some, ["group_class", "in", GROUP_CLASSES]], select=GROUP_FIELDS
            )
        return {str(record.get("uuid")): entry_for(context, record, at) for record in records}
