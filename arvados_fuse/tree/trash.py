"""`.trash/` in a project: what was put into the trash there, and how it comes back.

Used by projects, which have one (not listed, but it can be opened), and by renames out of it (`restore`).
Read-only. Names that are taken twice, which in the trash is nothing special, are kept apart by their uuids.
A cluster does not sign manifests of what is in the trash: names and sizes can be seen there, contents read
once it is back.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from arvados_fuse.errors import ArvadosFuseError, ExistsError, RequestRefused
from arvados_fuse.tree import xattrs
from arvados_fuse.tree.attributes import nanoseconds
from arvados_fuse.tree.collection_nodes import CollectionRef
from arvados_fuse.tree.context import Context
from arvados_fuse.tree.listed import GROUP_CLASSES, PROJECT, TRASH, ListedDirectory, ListingRef
from arvados_fuse.tree.nodes import DirectoryNode
from arvados_fuse.tree.version import Origin, Record

logger = logging.getLogger("arvados.arvados_fuse")

TRASH_NAME = ".trash"
"""Not listed; an object that is really called so comes first."""
TRASHED = "trashed"
"""How the key of the listing of what a project in the trash owns begins."""
COLLECTION_FIELDS = ["name", "file_size_total", "trash_at", *xattrs.COLLECTION_FIELDS]
GROUP_FIELDS = ["uuid", "name", "modified_at", "group_class", "trash_at"]
KINDS = {"arvados#group": ("groups", GROUP_FIELDS), "arvados#collection": ("collections", COLLECTION_FIELDS)}


class Trashed(NamedTuple):
    """An object in the trash: what `restore` takes."""

    uuid: str


def trash_ref(context: Context, owner_uuid: str) -> ListingRef:
    """The directory of what is in the trash and belongs to `owner_uuid` (a project or user)."""
    return ListingRef(
        f"{TRASH} {owner_uuid}", lambda: TrashSource(context, owner_uuid, inside=False), context.started_ns
    )


def trashed_at(directory: DirectoryNode, name: str) -> Trashed | None:
    """What `name` in `directory` is, if that is a project's trash; None when it is any other directory.

    Raises Missing, and what the API answers.
    """
    if not isinstance(directory, ListedDirectory) or not directory.key.startswith(f"{TRASH} "):
        return None
    entry, _ = directory.find(name)
    return Trashed(entry.key.partition(" ")[2])


def restore(context: Context, trashed: Trashed, *, owner_uuid: str, name: str) -> None:
    """Bring an object back from the trash as `name` (as Arvados has it, not as it is shown) of `owner_uuid`.

    Either it is there after, or it is in the trash as before. Raises ExistsError when the name is taken,
    and what the API answers.
    """
    api, uuid = context.api, trashed.uuid
    record = api.untrash(uuid)
    where = str(record.get("owner_uuid") or "")
    try:
        if (record.get("name"), where) != (name, owner_uuid):
            api.rename(uuid, name=name, owner_uuid=owner_uuid)
    except ArvadosFuseError as error:
        _put_back(context, uuid)
        if isinstance(error, RequestRefused):
            raise ExistsError(f"{name!r} can't be given to {uuid}: {error}", subject=uuid) from error
        raise
    finally:
        for key in (f"{TRASH} {where}", f"{PROJECT} {where}", f"{PROJECT} {owner_uuid}"):
            listing = context.known_listing(key)
            if listing is not None:
                listing.expire()


def _put_back(context: Context, uuid: str) -> None:
    try:
        context.api.trash(uuid)
    except ArvadosFuseError as error:
        logger.error("%s is not in the trash any more, and could not be put back: %s", uuid, error)


class TrashSource:
    """What one project or user has in the trash; with `inside`, what a project that is in the trash owns.

    See `listing.Source`.
    """

    hidden: frozenset[str] = frozenset()
    changes_with = frozenset({"arvados#collection", "arvados#group"})

    def __init__(self, context: Context, owner_uuid: str, *, inside: bool) -> None:
        self._context = context
        self._owner_uuid = owner_uuid
        self._inside = inside

    @property
    def subject(self) -> str:
        """The owner's uuid."""
        return f"trash of {self._owner_uuid}"

    @property
    def owner(self) -> str:
        """Who has thrown it away."""
        return self._owner_uuid

    def possible(self, _name: str) -> bool:
        """Any name may come to be there."""
        return True

    def record(self) -> Record:
        """None of its own."""
        return {}

    def all(self) -> Mapping[str, Any]:
        """Everything by its name."""
        at = time.monotonic()
        records: list[Record] = []
        for kind, (table, fields) in KINDS.items():
            filters: list[Sequence[Any]] = [[f"{table}.is_trashed", "=", not self._inside]]
            if table == "groups":
                filters.append(["groups.group_class", "in", GROUP_CLASSES])
            records += self._context.api.project_contents(
                self._owner_uuid, kind=kind, filters=filters, select=fields, include_trash=True
            )
        return self._entries(records, at)

    def find(self, name: str) -> Any:
        """The trash is small: it is listed."""
        return self.all().get(name)

    def _entries(self, records: Iterable[Record], at: float) -> Mapping[str, Any]:
        named = self._context.names.of_objects(records)
        return {name: self._entry(record, at) for name, record in named.items()}

    def _entry(self, record: Record, at: float) -> CollectionRef | ListingRef:
        context, uuid = self._context, str(record.get("uuid") or "")
        if "-4zz18-" not in uuid:
            return ListingRef(
                f"{TRASHED} {uuid}",
                lambda: TrashSource(context, uuid, inside=True),
                nanoseconds(record.get("modified_at")),
            )

        def fetch(select: Sequence[str] | None) -> Record:
            return context.api.get_collection(uuid, select=select, include_trash=True)

        return CollectionRef(f"{TRASHED} {uuid}", record, at, Origin(fetch))
