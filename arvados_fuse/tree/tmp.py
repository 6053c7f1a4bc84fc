"""`--mount-tmp`: a collection that is never saved to the API. Its blocks go to Keep, its manifest is in
`.arvados#collection`; when the mount ends it is gone.

Used by the layout. Compute containers write their output into one.
"""

import json
from collections.abc import Sequence

from arvados_fuse.tree.collection_nodes import CollectionRoot
from arvados_fuse.tree.collection_state import CollectionState
from arvados_fuse.tree.context import Context
from arvados_fuse.tree.nodes import DirectoryNode, Node
from arvados_fuse.tree.version import Origin, Record

EMPTY_PDH = "d41d8cd98f00b204e9800998ecf8427e+0"
"""The portable data hash of a collection without files."""


class TmpCollection(CollectionState):
    """A collection without a record."""

    is_saved = False

    def __init__(self, context: Context, name: str) -> None:
        super().__init__(context, f"tmp {name}", origin=Origin(self._fetch))

    @property
    def writable(self) -> bool:
        """See CollectionState."""
        return self.context.writeback is not None

    def _fetch(self, _select: Sequence[str] | None) -> Record:
        return {
            "manifest_text": "",
            "portable_data_hash": EMPTY_PDH,
            "storage_classes_desired": self.context.storage_classes,
        }

    def save(self) -> None:
        """Nothing to bring anywhere."""

    def _load_text(self) -> bytes:
        """Exactly these fields: what a container runtime needs to make a collection of the output."""
        collection = self.current().collection
        manifest = collection.manifest_text(normalize=True)
        record = {
            "uuid": None,
            "manifest_text": manifest,
            "portable_data_hash": collection.portable_data_hash(),
            "storage_classes_desired": collection.storage_classes_desired(),
        }
        return (json.dumps(record, indent=4, sort_keys=True) + "\n").encode("ascii")


class TmpRef:
    """A tmp collection as the root of a layout knows it; keeps it for the life of the mount."""

    is_directory = True

    def __init__(self, context: Context, name: str) -> None:
        self._state = TmpCollection(context, name)

    def node(self, context: Context, _parent: DirectoryNode) -> Node:
        """Its root."""
        return CollectionRoot(context, self._state)
