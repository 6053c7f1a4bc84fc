"""What the server has, as its last answers said, and how it is asked for changes.

Used by `commit`. The answer to an update brings the whole manifest, which takes seconds where it has a
million files. So of large collections the update asks for the small fields only: what the manifest is then is
worked out here, and believed when it has the portable data hash that the answer tells; else it is fetched.

Threads: any; for one collection one at a time. No lock is held while the server is asked.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

from arvados_fuse.collection.commit import CommitRequest
from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.manifest.hashes import portable_data_hash
from arvados_fuse.collection.stores import RecordStore
from arvados_fuse.collection.tree import classes_of
from arvados_fuse.errors import ManifestError
from arvados_fuse.writeback.whole import with_changes

LOOK = ["uuid", "portable_data_hash", "storage_classes_desired"]
"""What is asked for before the first commit, so that nothing is stored for a collection that is not there."""

KEPT_BYTES = 64 << 20
"""Manifests remembered from the last answers, in bytes; the newest is kept whatever its size."""

LARGE = 1 << 20
"""Bytes of a manifest from which on working it out takes less than getting it."""

SMALL_FIELDS = [
    "uuid",
    "portable_data_hash",
    "version",
    "modified_at",
    "name",
    "owner_uuid",
    "storage_classes_desired",
    "replication_desired",
    "file_count",
    "file_size_total",
]
"""What is wanted of an update's answer where the manifest is worked out."""

FRESH_PART = 0.25
"""Part of a signature's life for which a manifest is worked on: then new signatures come with a whole one."""

MISSES = 2
"""After so many wrong results in a row a collection's manifest is not worked out any more: the first may be
because the manifest was not in the server's own form, and is from then on."""


class Known(NamedTuple):
    """The collection as an answer gave it.

    record: without manifest_text. at, token: when its signatures were made (monotonic), and for whom.
    """

    record: dict[str, Any]
    manifest: ManifestIndex
    at: float
    token: str

    @property
    def pdh(self) -> str:
        return str(self.record.get("portable_data_hash", ""))

    def whole_record(self) -> dict[str, Any]:
        """The record with its manifest_text."""
        return {**self.record, "manifest_text": self.manifest.data.decode()}


class Latest:
    """See the module."""

    def __init__(self, records: RecordStore) -> None:
        self.records = records
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._misses: dict[str, int] = {}
        self._life = getattr(records, "blob_signature_ttl", float("inf"))
        self._knows_replace_files = getattr(records, "knows_replace_files", True)

    def token(self) -> str:
        """The token in use, for signatures are made for one."""
        token = getattr(self.records, "token", None)
        return str(token()) if token is not None else ""

    def classes(self, uuid: str) -> Sequence[str]:
        """The storage classes for the blocks of a collection."""
        with self._lock:
            known = self._known.get(uuid)
        record = self.records.get_collection(uuid, select=LOOK) if known is None else known.record
        return classes_of(record)

    def look(self, uuid: str) -> Known:
        """The collection as it is now."""
        with self._lock:
            known = self._known.get(uuid)
        if known is not None:
            now = self.records.get_collection(uuid, select=["uuid", "portable_data_hash"])
            if now.get("portable_data_hash") == known.pdh:
                return known
        return self.fetch(uuid)

    def fetch(self, uuid: str) -> Known:
        """The same with signatures of now. Raises ManifestError for a record that can't be read."""
        token = self.token()
        return self._taken(uuid, self.records.get_collection(uuid), token)

    def ask(self, uuid: str, request: CommitRequest, theirs: Known, *, preserve: bool) -> Known:
        """Send an update; gives the collection as it is then. preserve: keep the version that it replaces."""
        if not request.replace_files:
            return self.fetch(uuid)
        token = self.token()
        fields: dict[str, Any] = {"manifest_text": request.manifest_text} if request.manifest_text else {}
        if preserve:
            fields["preserve_version"] = True
        if not self._knows_replace_files:
            text = with_changes(theirs.manifest, request).decode()
            record = self.records.update_collection(uuid, {"manifest_text": text})
        elif self._may_work_out(uuid, theirs):
            record = self.records.update_collection(
                uuid, fields, replace_files=request.replace_files, select=SMALL_FIELDS
            )
        else:
            record = self.records.update_collection(uuid, fields, replace_files=request.replace_files)
        if isinstance(record.get("manifest_text"), str):
            return self._taken(uuid, record, token)
        return self._worked_out(uuid, request, theirs, record)

    def _may_work_out(self, uuid: str, theirs: Known) -> bool:
        return (
            len(theirs.manifest.data) >= LARGE
            and self._misses.get(uuid, 0) < MISSES
            and theirs.token == self.token()
            and time.monotonic() - theirs.at < FRESH_PART * self._life
        )

    def _worked_out(self, uuid: str, request: CommitRequest, theirs: Known, answer: dict[str, Any]) -> Known:
        """The collection after an update whose answer has no manifest."""
        try:
            text = with_changes(theirs.manifest, request)
            if portable_data_hash(text) == answer.get("portable_data_hash"):
                self._misses.pop(uuid, None)
                return self._remember(uuid, theirs._replace(record=answer, manifest=ManifestIndex(text)))
        except ManifestError:
            pass
        self._misses[uuid] = self._misses.get(uuid, 0) + 1
        known = self.fetch(uuid)
        # What the update made, whatever others have made since.
        return known._replace(record={**known.record, "version": answer.get("version")})

    def _taken(self, uuid: str, answer: dict[str, Any], token: str) -> Known:
        record = dict(answer)
        manifest = ManifestIndex(str(record.pop("manifest_text", None) or ""))
        return self._remember(uuid, Known(record, manifest, time.monotonic(), token))

    def _remember(self, uuid: str, known: Known) -> Known:
        with self._lock:
            self._known[uuid] = known
            self._known.move_to_end(uuid)
            while len(self._known) > 1 and self._kept_bytes() > KEPT_BYTES:
                self._known.popitem(last=False)
        return known

    def _kept_bytes(self) -> int:
        """Caller holds the lock."""
        return sum(len(one.manifest.data) for one in self._known.values())
