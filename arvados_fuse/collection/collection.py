"""A collection: its tree, and the record it came from.

Public as `arvados_fuse.Collection`. Used by the tree floor, which gives its own stores, and by programs, for
which it has the constructor and the methods of the SDK's `arvados.collection.Collection`.

Threads: any; see `tree` for the order of locks. The commit lock (see `saving`) comes before all of them.
"""

import re
from collections.abc import Mapping
from typing import Any

import ciso8601

from arvados_fuse.collection.clients import Clients
from arvados_fuse.collection.directory import Directory
from arvados_fuse.collection.failures import BadArgument
from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.manifests import normalized_hash
from arvados_fuse.collection.saving import UUID, SavingApi
from arvados_fuse.collection.spool import SpoolFactory
from arvados_fuse.collection.stores import BlockStore, RecordStore
from arvados_fuse.collection.tree import Tree, classes_of

PORTABLE_DATA_HASH = re.compile(r"[0-9a-f]{32}\+[0-9]+(\+[A-Z][A-Za-z0-9@_-]*)*")


class Collection(SavingApi):
    """A tree of directories and files, described by a manifest."""

    def __init__(
        self,
        manifest_locator_or_text: str | None = None,
        api_client: Any = None,
        keep_client: Any = None,
        num_retries: int = 10,
        parent: Any = None,
        apiconfig: Mapping[str, str] | None = None,
        block_manager: Any = None,
        replication_desired: int | None = None,
        storage_classes_desired: list[str] | None = None,
        put_threads: int | None = None,
    ) -> None:
        """A collection by uuid or portable data hash (whose record is fetched here, as the SDK does), by
        manifest text, or a new one.

        api_client, keep_client: ours or the SDK's; without them the user's settings, or `apiconfig` in their
        place.
        num_retries: requests after the first. replication_desired, storage_classes_desired: for new blocks
        and the record. parent, block_manager and put_threads are accepted and not needed.

        Raises ManifestError when a stream name or the division into lines is not legal.
        """
        if storage_classes_desired and type(storage_classes_desired) is not list:
            raise BadArgument("storage_classes_desired must be list type.")
        clients = Clients(
            api_client, keep_client, retries=num_retries, copies=replication_desired, settings=apiconfig
        )
        text = manifest_locator_or_text or ""
        locator = text if UUID.fullmatch(text) or PORTABLE_DATA_HASH.fullmatch(text) else None
        record: Mapping[str, Any] = {}
        if locator is not None:
            record = clients.records().get_collection(locator)
            text = str(record.get("manifest_text") or "")
        elif text and not text.startswith("."):
            raise BadArgument("Argument to CollectionReader is not a manifest or a collection UUID")
        self._start(clients, text, record, subject=locator or "")
        self.num_retries = num_retries
        self.parent = parent
        self.events = None
        self.locator = locator
        self.replication_desired = replication_desired
        if replication_desired is None:
            self.replication_desired = record.get("replication_desired")
        classes = storage_classes_desired
        self._tree.storage_classes = classes if classes is not None else classes_of(record)
        if not manifest_locator_or_text:
            self.saved_version = -1

    def _start(self, clients: Clients, text: str, record: Mapping[str, Any], *, subject: str) -> None:
        index = ManifestIndex(text)
        self._tree = Tree(subject=subject, owner=self)
        self._tree.find_blocks = clients.blocks
        super().__init__(Directory(self._tree, None, ".", index), index, clients)
        self._remember(record)

    @classmethod
    def from_manifest(cls, text: str, *, blocks: BlockStore | None = None) -> "Collection":
        """A collection of a manifest.

        Raises ManifestError when a stream name or the division into lines is not legal.
        """
        return cls.from_record({"manifest_text": text}, blocks=blocks)

    @classmethod
    def from_record(
        cls,
        record: Mapping[str, Any],
        *,
        blocks: BlockStore | None,
        records: RecordStore | None = None,
        subject: str = "",
        new_spool: SpoolFactory | None = None,
    ) -> "Collection":
        """A collection of an API record that has `manifest_text`. Raises ManifestError like `from_manifest`.

        It uses the given stores and no others. subject: how error texts call it; by default its uuid or
        portable data hash. new_spool: makes the places for unsaved bytes; whoever gives it also decides when
        they are stored (otherwise a file does so itself when it has a block full).
        """
        made = cls.__new__(cls)
        locator = record.get("uuid") or record.get("portable_data_hash")
        clients = Clients(records, blocks, connect=False)
        made._start(clients, str(record.get("manifest_text") or ""), record, subject=subject or locator or "")
        made._tree.find_blocks = None
        made._tree.blocks = blocks
        if new_spool is not None:
            made._tree.new_spool = new_spool
            made._tree.upload_early = False
        made._tree.storage_classes = classes_of(record)
        made.num_retries = 10
        made.parent = made.events = None
        made.locator = locator
        made.replication_desired = record.get("replication_desired")
        return made

    # The record.

    def manifest_locator(self) -> str | None:
        """The uuid of the record, else the portable data hash it was loaded by, else None."""
        return self.locator

    def api_response(self) -> dict[str, Any] | None:
        """The record, or None."""
        if not self.record:
            return None
        return {**self.record, "manifest_text": self.baseline.data.decode()}

    def get_properties(self) -> dict[str, Any]:
        """The record's properties."""
        return self.record.get("properties") or {}

    def get_trash_at(self) -> Any:
        """When the record goes to the trash, as a datetime, or None."""
        try:
            return ciso8601.parse_datetime(self.record["trash_at"])
        except (KeyError, TypeError, ValueError):
            return None

    def portable_data_hash(self) -> str:
        """The record's, as long as nothing was changed; else that of the normalized manifest."""
        known = self.record.get("portable_data_hash")
        return str(known) if known and self.committed() else normalized_hash(self.root)

    # The tree.

    def replace_signatures(self, manifest_text: str) -> bool:
        """Take the locators of a text with the same portable data hash; tree and files stay valid.

        Gives False, and changes nothing, when the hash is not that of what was loaded or last saved.
        """
        return self.baseline.resign(manifest_text)

    def drop_parsed(self) -> None:
        """Forget what was read of the manifest's directories; it is read again when needed."""
        self.root.drop_parsed()

    def approximate_size(self) -> int:
        """Bytes of memory that the collection takes, without unsaved bytes."""
        return self.baseline.approximate_size() + self._tree.parsed

    def clone(
        self,
        new_parent: Any = None,
        new_name: str | None = None,
        readonly: bool = False,
        new_config: Mapping[str, str] | None = None,
    ) -> "Collection":
        """A new collection with the same tree, without a record."""
        kind = CollectionReader if readonly else Collection
        made = kind(parent=new_parent, apiconfig=new_config or self.clients.settings)
        made.clients = self.clients
        made._tree.find_blocks = self._tree.find_blocks
        made._tree.blocks = self._tree.blocks
        made.root = self.root.copy_of(made._tree, None, ".")
        return made

    def stop_threads(self) -> None:
        """End what was started for this collection alone."""
        self.clients.close()

    def __enter__(self) -> "Collection":
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        """Save, if the collection has a record of its own and nothing was raised."""
        if kind is None and self.writable() and self.locator and UUID.fullmatch(self.locator):
            self.save()
        self.stop_threads()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.locator or 'without a record'}>"


class CollectionReader(Collection):
    """A collection that refuses every change."""

    def __init__(self, manifest_locator_or_text: str | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(manifest_locator_or_text, *args, **kwargs)
        self._tree.writable = False
        self.saved_version = self._tree.version
