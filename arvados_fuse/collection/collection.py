"""A collection: its tree, and the record it came from.

Public as `arvados_fuse.Collection`. Used by the tree floor and by programs.

Threads: any; see `tree` for the order of locks.
"""

from collections.abc import Mapping
from typing import Any

from arvados_fuse.collection.directory import Directory
from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.stores import BlockStore, RecordStore
from arvados_fuse.collection.tree import Tree


class Collection:
    """A tree of directories and files, described by a manifest."""

    def __init__(
        self, manifest_text: str = "", *, blocks: BlockStore | None = None, subject: str = ""
    ) -> None:
        self._tree = Tree(blocks=blocks, subject=subject)
        self._index = ManifestIndex(manifest_text)
        self.root = Directory(self._tree, None, ".", self._index)
        self._records: RecordStore | None = None
        self._record: dict[str, Any] = {}

    @classmethod
    def from_manifest(cls, text: str, *, blocks: BlockStore | None = None) -> "Collection":
        """A collection of a manifest. Raises ManifestError when a stream name or the division into lines is
        not legal."""
        return cls(text, blocks=blocks)

    @classmethod
    def from_record(
        cls,
        record: Mapping[str, Any],
        *,
        blocks: BlockStore | None,
        records: RecordStore | None = None,
        subject: str = "",
    ) -> "Collection":
        """A collection of an API record that has `manifest_text`. Raises ManifestError like `from_manifest`.

        subject: how error texts call it; by default its uuid or portable data hash.
        """
        subject = subject or record.get("uuid") or record.get("portable_data_hash") or ""
        made = cls(record["manifest_text"] or "", blocks=blocks, subject=subject)
        made._records = records
        made._record = {name: value for name, value in record.items() if name != "manifest_text"}
        return made

    def replace_signatures(self, manifest_text: str) -> bool:
        """Take the locators of a text with the same portable data hash; tree and files stay valid.

        Gives False, and changes nothing, when the hash is another.
        """
        return self._index.resign(manifest_text)

    def drop_parsed(self) -> None:
        """Forget what was read of the manifest's directories; it is read again when needed."""
        self.root.drop_parsed()

    def approximate_size(self) -> int:
        """Bytes of memory that the collection takes."""
        return self._index.approximate_size() + self._tree.parsed
