"""Projects: what a user's home, a project or a filter group owns, and what others share with us.

Used by the layout, by id lookups, and by projects for their subprojects. All methods ask the API server and
run on the pool.
"""

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from arvados_fuse.api import ahead
from arvados_fuse.tree.attributes import nanoseconds
from arvados_fuse.tree.collection_nodes import CollectionRef
from arvados_fuse.tree.context import Context
from arvados_fuse.tree.listed import GROUP_CLASSES, PROJECT, ListingRef
from arvados_fuse.tree.names import SUFFIX
from arvados_fuse.tree.nodes import Text
from arvados_fuse.tree.trash import TRASH_NAME, trash_ref
from arvados_fuse.tree.version import Record

RECORD_NAME = ".arvados#project"
COLLECTION_FIELDS = ["uuid", "name", "modified_at", "portable_data_hash", "file_size_total"]
GROUP_FIELDS = ["uuid", "name", "modified_at", "group_class"]
"""What listings ask for: what is shown, and no manifest."""
NOTHING: frozenset[str] = frozenset()
EVERYTHING = frozenset({"arvados#collection", "arvados#group", "arvados#link", "arvados#user"})
BOTH_FIELDS = list(dict.fromkeys([*COLLECTION_FIELDS, *GROUP_FIELDS]))


def entry_for(context: Context, record: Record, at: float) -> CollectionRef | ListingRef:
    """The entry for a collection's or group's record, learned `at` (time.monotonic())."""
    uuid = str(record.get("uuid") or "")
    if "-4zz18-" in uuid:
        state = context.known_collection(uuid)
        if state is not None:
            state.note(record, at)
        return CollectionRef(uuid, record, at)
    return project_ref(context, uuid, record)


def project_key(uuid: str) -> str:
    """Under which `Context` keeps the listing of what `uuid` owns."""
    return f"{PROJECT} {uuid}"


def project_ref(context: Context, uuid: str, record: Record) -> ListingRef:
    """The entry for what `uuid` (user, project, filter group) owns."""
    # A filter group lists what satisfies its filters, anywhere; other groups only what they own.
    changes_with = EVERYTHING if record.get("group_class") == "filter" else NOTHING
    return ListingRef(
        project_key(uuid),
        lambda: ProjectSource(context, uuid, changes_with),
        nanoseconds(record.get("modified_at")),
    )


class ProjectSource:
    """The subprojects and current collections that one user or group owns. See `listing.Source`."""

    hidden = frozenset({RECORD_NAME, TRASH_NAME})

    def __init__(self, context: Context, uuid: str, changes_with: frozenset[str]) -> None:
        self._context = context
        self._uuid = uuid
        self.changes_with = changes_with

    @property
    def subject(self) -> str:
        """The owner's uuid."""
        return f"project {self._uuid}"

    @property
    def owner(self) -> str:
        """The project itself; a filter group shows what belongs to anybody."""
        return "" if self.changes_with else self._uuid

    def possible(self, _name: str) -> bool:
        """Any name may come to exist."""
        return True

    def all(self) -> Mapping[str, Any]:
        """Subprojects and collections, each under a name of its own."""
        context, at = self._context, time.monotonic()
        filters = context.filters
        groups = ahead(
            context.api.project_contents(
                self._uuid,
                kind="arvados#group",
                filters=[["groups.group_class", "in", GROUP_CLASSES], *filters.groups],
                select=GROUP_FIELDS,
            )
        )
        collections = context.api.project_contents(
            self._uuid, kind="arvados#collection", filters=filters.collections, select=COLLECTION_FIELDS
        )
        return self._entries([*collections, *groups], at)

    def find(self, name: str) -> Any:
        """One name, without listing the project."""
        if name == RECORD_NAME:
            return self._record_text()
        found = self._called(name).get(name)
        if found is None and (match := SUFFIX.match(name)):
            found = self._called(match["name"]).get(name)
        if found is None and name == TRASH_NAME and not self.changes_with:
            found = trash_ref(self._context, self._uuid)
        return found

    def _called(self, shown: str) -> Mapping[str, Any]:
        """All objects whose name is shown as `shown`, under the names they have in the listing."""
        context, at = self._context, time.monotonic()
        filters = context.filters
        records = context.api.named_in_project(
            self._uuid,
            context.names.filter_for(shown),
            filters=[
                ["groups.group_class", "in", GROUP_CLASSES],
                *([f"groups.{field}", *rest] for field, *rest in filters.groups),
                *([f"collections.{field}", *rest] for field, *rest in filters.collections),
            ],
            select=BOTH_FIELDS,
        )
        same = (record for record in records if context.names.shown(str(record.get("name") or "")) == shown)
        return self._entries(same, at)

    def _entries(self, records: Iterable[Record], at: float) -> Mapping[str, Any]:
        context = self._context
        named = context.names.of_objects(records)
        if context.is_ours(self.owner):
            for record in named.values():
                if record.get("group_class") == "project":
                    context.note_ours(str(record.get("uuid")))
        return {name: entry_for(context, record, at) for name, record in named.items()}

    def record(self) -> Record:
        """The record of the user or group."""
        api = self._context.api
        return api.get_user(self._uuid) if "-tpzed-" in self._uuid else api.get_group(self._uuid)

    def _record_text(self) -> Text:
        record = self.record()
        data = (json.dumps(record, indent=4, sort_keys=True) + "\n").encode("ascii")
        return Text(data, nanoseconds(record.get("modified_at")), self._context.policy.max_age)


class SharedSource:
    """The projects that others share with us, by owner. See `listing.Source`."""

    hidden: frozenset[str] = frozenset()
    changes_with = frozenset({"arvados#group", "arvados#link", "arvados#user"})
    subject = "shared projects"
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
        """Owners that we may read, by display name; else the projects themselves."""
        context = self._context
        groups, owners = context.api.shared_groups(
            filters=[["group_class", "in", GROUP_CLASSES], *context.filters.groups]
        )
        known = {str(owner.get("uuid")): owner for owner in owners}
        shown: dict[str, Record] = {}
        for group in groups:
            owner = known.get(str(group.get("owner_uuid")))
            record = group if owner is None else {**owner, "name": display_name(owner)}
            shown[str(record.get("uuid"))] = record
        named = context.names.of_objects(shown.values())
        return {name: project_ref(context, str(record.get("uuid")), record) for name, record in named.items()}

    def find(self, name: str) -> Any:
        """The listing is one request anyway."""
        return self.all().get(name)


def display_name(owner: Record) -> str:
    """`First Last` of a user, the name of a group."""
    if "-tpzed-" not in str(owner.get("uuid")):
        return str(owner.get("name") or "")
    full = f"{owner.get('first_name') or ''} {owner.get('last_name') or ''}".strip()
    return full or str(owner.get("username") or owner.get("email") or owner.get("uuid"))
