"""What a collection is described by: the fields of its record that extended attributes show.

Used by the nodes inside of collections. Any thread may call.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from arvados_fuse.tree import xattrs
from arvados_fuse.tree.collection_state import CollectionState

LISTED = frozenset({"uuid", "portable_data_hash", "modified_at"})
"""Fields that listings and refreshes bring, so that they are as fresh as what is shown."""


class DescribedCollection(NamedTuple):
    """The collection that a file or directory is in, for its extended attributes."""

    state: CollectionState

    @property
    def described_by(self) -> Sequence[str]:
        """See Described."""
        if not self.state.is_saved:
            return ("storage_classes_desired",)
        if not self.state.forever:
            return xattrs.COLLECTION_FIELDS
        return [name for name in xattrs.COLLECTION_FIELDS if self.field(name) is not None]

    def field(self, name: str) -> Any:
        """See Described. What a listing or the last look told is good as long as that is; for the rest the
        small fields are asked for."""
        state, record = self.state, self.state.record
        if name == "portable_data_hash" and state.forever:
            return state.pdh
        if state.forever or (name in LISTED and name in record and state.timeout() > 0):
            return record.get(name)
        return state.details().get(name)
