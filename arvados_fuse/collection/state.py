"""What a `Collection` remembers beside its tree: the record, the manifest that the server had last, the
stores.

Base of `saving.SavingApi` and `Collection`. Fields are changed with the commit lock held.
"""

from threading import RLock
from typing import Any

from arvados_fuse.collection import manifests
from arvados_fuse.collection.clients import Clients
from arvados_fuse.collection.directory import Directory
from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.stores import RecordStore
from arvados_fuse.collection.tree_api import TreeApi


class CollectionState(TreeApi):
    """Fields of a collection.

    root: the tree. locator: uuid or portable data hash of the record, or None.
    baseline: the manifest that the record had when it was last loaded or saved.
    record: its other fields. saved_version: the tree's version that was loaded or saved last; -1 for never.
    """

    def __init__(self, root: Directory, baseline: ManifestIndex, clients: Clients) -> None:
        self.root = root
        self.baseline = baseline
        self.clients = clients
        self.commit_lock = RLock()
        self.locator: str | None = None
        self.record: dict[str, Any] = {}
        self.replication_desired: int | None = None
        self.saved_version = 0

    def here(self) -> Directory:
        """The root: see `PathApi`."""
        return self.root

    def records(self) -> RecordStore:
        """Where the record is. Raises SetupError when there are no settings."""
        return self.clients.records()

    def storage_classes_desired(self) -> list[str]:
        """For new blocks and for the record."""
        return list(self.root.tree.storage_classes)

    def committed(self) -> bool:
        """Whether this is what was loaded or last saved."""
        return self.root.tree.version == self.saved_version

    def set_committed(self, value: bool = True) -> None:
        """Say that this is (or is not) what was last saved; nothing is saved by that."""
        self.saved_version = self.root.tree.version if value else -1

    def manifest_text(
        self,
        stream_name: str = ".",
        strip: bool = False,
        normalize: bool = False,
        only_committed: bool = False,
    ) -> str:
        """The manifest, after storing unsaved bytes (unless `only_committed`, which leaves them out).

        Lines of directories that nobody changed are as they came, unless `normalize`; `strip` leaves no
        hints but sizes.
        """
        return manifests.manifest_text(
            self.root, stream_name, strip=strip, normalize=normalize, only_committed=only_committed
        )
