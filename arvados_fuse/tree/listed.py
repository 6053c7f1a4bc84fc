"""The one directory node for everything that is listed: projects, shared, tags, the root of a layout.

Used by the layout and by listings themselves (a project's subprojects). What it shows is a `Listing` or fixed
entries; which objects those are is the business of its source.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from arvados_fuse.tree.attributes import (
    DIRECTORY_MODE,
    FOREVER,
    WRITABLE_DIRECTORY_MODE,
    Attributes,
    Missing,
)
from arvados_fuse.tree.context import Context
from arvados_fuse.tree.listing import Entry, Listing, Source
from arvados_fuse.tree.nodes import DirectoryNode, Found, Node, Snapshot
from arvados_fuse.tree.xattrs import PROJECT_FIELDS, USER_FIELDS

GROUP_CLASSES = ["project", "filter"]
"""Groups that are shown as directories; roles are not."""
PROJECT = "project"
"""How the key of what a user or group owns begins; its uuid follows."""
GATHERING = ("shared", "tags", "tag")
"""How the keys of lists begin that hold what may be anybody's."""
TRASH = "trash"
"""How the key of what it has in the trash begins."""


class ListedObject(NamedTuple):
    """The user or group of a listing, for its extended attributes."""

    listing: Listing
    uuid: str

    @property
    def described_by(self) -> Sequence[str]:
        """See Described."""
        return USER_FIELDS if "-tpzed-" in self.uuid else PROJECT_FIELDS

    def field(self, name: str) -> Any:
        """See Described."""
        return self.uuid if name == "uuid" else self.listing.record().get(name)


class ListingRef(NamedTuple):
    """A listed directory as its parent knows it. make_source: constructs its source. mtime_ns: ns since
    1970."""

    key: str
    make_source: Callable[[], Source]
    mtime_ns: int

    @property
    def is_directory(self) -> bool:
        """See Entry."""
        return True

    def node(self, context: Context, parent: DirectoryNode) -> Node:
        """A directory for it; empty when it stands below itself (a filter group can contain itself)."""
        above: DirectoryNode | None = parent
        while above is not None:
            if isinstance(above, ListedDirectory) and above.key == self.key:
                return FixedDirectory(context, {})
            above = above.parent
        listing = context.listing(self.key, lambda: Listing(context, self.make_source()))
        return ListedDirectory(context, self.key, listing, self.mtime_ns)


class ListedDirectory(DirectoryNode):
    """Shows a listing."""

    __slots__ = ("_listing", "_mtime_ns", "gathers", "grows", "key", "shows")

    def __init__(self, context: Context, key: str, listing: Listing, mtime_ns: int) -> None:
        super().__init__(context)
        self.key = key
        self._listing = listing
        self._mtime_ns = mtime_ns
        self.shows = self.uuid
        of_many = bool(self.shows) and (self.is_filtered or "-tpzed-" in self.shows)
        self.gathers = self.grows = of_many or key.partition(" ")[0] in GATHERING

    @property
    def lasting(self) -> bool:
        return bool(self.shows) and self.context.expires_names

    def attributes(self, timeout: float | None = None) -> Attributes:
        context = self.context
        if timeout is None:
            timeout = context.policy.max_age
        can_change = context.writeback is not None and self.uuid and not self.is_filtered
        mode = WRITABLE_DIRECTORY_MODE if can_change else DIRECTORY_MODE
        return Attributes(self.ino, mode, 0, self._mtime_ns, context.uid, context.gid, timeout)

    def described(self) -> "ListedObject | None":
        return ListedObject(self._listing, self.uuid) if self.uuid else None

    @property
    def stands_for(self) -> str:
        return self.uuid

    @property
    def uuid(self) -> str:
        """Of the user or group whose things are listed; "" where it is none (tags)."""
        kind, _, uuid = self.key.partition(" ")
        return uuid if kind == PROJECT else ""

    @property
    def is_filtered(self) -> bool:
        """Whether it shows what is elsewhere (a filter group)."""
        return bool(self._listing.changes_with)

    def expire(self) -> None:
        """Something in it was changed."""
        self._listing.expire()

    def rebind(self, content: Any) -> bool:
        if not isinstance(content, ListingRef) or content.key != self.key:
            return False
        self._mtime_ns = content.mtime_ns
        return True

    def find(self, name: str) -> Found:
        entry, timeout = self._listing.find(name)
        if not self.shows:
            # What is moved out of the trash is another object at once.
            return entry, 0.0 if self.key.startswith(f"{TRASH} ") else self.context.brief(timeout)
        # A filter group's names can come to stand for something else without an event on that.
        return entry, self.context.brief(timeout) if self.is_filtered else timeout

    def make(self, name: str, content: Entry) -> Node:
        return content.node(self.context, self)

    def snapshot(self) -> Snapshot:
        entries = sorted(self._listing.all().items())
        return Snapshot(self, entries, lambda entry: entry.is_directory)


class FixedDirectory(DirectoryNode):
    """Shows entries that never change: the root of a layout."""

    __slots__ = ("_entries",)

    gathers = True

    def __init__(self, context: Context, entries: Mapping[str, Entry]) -> None:
        super().__init__(context)
        self._entries = entries

    def attributes(self, timeout: float | None = None) -> Attributes:
        context = self.context
        return Attributes(self.ino, DIRECTORY_MODE, 0, context.started_ns, context.uid, context.gid, FOREVER)

    def rebind(self, content: Any) -> bool:
        return isinstance(content, FixedRef) and content.entries is self._entries

    def find(self, name: str) -> Found:
        entry = self._entries.get(name)
        if entry is None:
            raise Missing(name, timeout=FOREVER)
        return entry, FOREVER

    def make(self, name: str, content: Entry) -> Node:
        return content.node(self.context, self)

    def snapshot(self) -> Snapshot:
        return Snapshot(self, sorted(self._entries.items()), lambda entry: entry.is_directory)


class FixedRef(NamedTuple):
    """A fixed directory as its parent knows it."""

    entries: Mapping[str, Entry]

    @property
    def is_directory(self) -> bool:
        """See Entry."""
        return True

    def node(self, context: Context, _parent: DirectoryNode) -> Node:
        """A directory for it."""
        return FixedDirectory(context, self.entries)
