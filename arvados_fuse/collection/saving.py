"""Saving a collection to its record, and taking over what the record has become.

Mixed into `Collection`; programs call it under the names of the SDK. Unsaved bytes are stored first, then
what others changed is merged, then one request updates the record.

Threads: everything here holds the commit lock of the collection, which spans requests; names and
contents may be changed meanwhile, and are part of the next save then.
"""

import datetime
import re
from collections.abc import Callable, Mapping
from typing import Any

from arvados_fuse.collection import manifests
from arvados_fuse.collection.commit import commit_request
from arvados_fuse.collection.failures import BadArgument
from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.manifest.changes import compare
from arvados_fuse.collection.manifest.hashes import portable_data_hash
from arvados_fuse.collection.merge import merge_into
from arvados_fuse.collection.moves import Moves
from arvados_fuse.collection.plan import Plan, make_plan
from arvados_fuse.collection.state import CollectionState
from arvados_fuse.collection.tree import Guard

UUID = re.compile(r"[a-z0-9]{5}-4zz18-[a-z0-9]{15}")
_REMOTE = re.compile(r"(?<= )[0-9a-f]{32}\+[0-9]+[^ \n]*\+R[^ \n]*")


class SavingApi(CollectionState):
    """`save`, `commit`, `save_new` and `update`."""

    def save(
        self,
        properties: dict[str, Any] | None = None,
        storage_classes: list[str] | None = None,
        trash_at: datetime.datetime | None = None,
        merge: bool = True,
        num_retries: int | None = None,
        preserve_version: bool = False,
    ) -> str:
        """Save to the record that the collection came from, after merging what it has become if `merge`.

        Gives the manifest. Raises AssertionError without a record (then use `save_new`).
        """
        self.need_writable()
        body = self._fields(properties, storage_classes, trash_at, preserve_version)
        with self.commit_lock:
            if self.committed():
                if body:
                    self._remember(self.records().update_collection(self._own_uuid(), body))
                return self.manifest_text()
            uuid = self._own_uuid()
            manifests.store(make_plan(self.root), self.root)
            if merge:
                self.update()
            plan, text = self._stored()
            record = self.records().update_collection(uuid, {**body, "manifest_text": text})
            self._saved(record, plan, text)
            return str(record.get("manifest_text") or text)

    def commit(self) -> list[str]:
        """Save only what was changed here, path by path, so that what others save meanwhile stays.

        Gives the paths under which other people's versions of the same paths were kept. The server must know
        `replace_files`; use `save` with one that does not. Raises AssertionError without a record.
        """
        self.need_writable()
        with self.commit_lock:
            if self.committed():
                return []
            uuid = self._own_uuid()
            ours = ManifestIndex(self._stored()[1])
            record = self.records().get_collection(uuid)
            theirs = ManifestIndex(str(record.get("manifest_text") or ""))
            request = commit_request(self.baseline, ours, theirs)
            if request.replace_files:
                fields = {"manifest_text": request.manifest_text} if request.manifest_text else {}
                record = self.records().update_collection(uuid, fields, replace_files=request.replace_files)
                theirs = ManifestIndex(str(record.get("manifest_text") or ""))
            merge_into(self.root, ours, theirs)
            self._settle(theirs)
            self._remember(record)
            return request.conflicts

    def save_new(
        self,
        name: str | None = None,
        create_collection_record: bool = True,
        owner_uuid: str | None = None,
        properties: dict[str, Any] | None = None,
        storage_classes: list[str] | None = None,
        trash_at: datetime.datetime | None = None,
        ensure_unique_name: bool = False,
        num_retries: int | None = None,
        preserve_version: bool = False,
    ) -> str:
        """Save to a new record, which the collection belongs to from now on. Gives the manifest.

        Without `create_collection_record` only blocks are stored.
        """
        self.need_writable()
        body = self._fields(properties, storage_classes, trash_at, preserve_version)
        with self.commit_lock:
            plan, text = self._stored()
            if create_collection_record:
                if name is None:
                    name, ensure_unique_name = "New collection", True
                body |= {"manifest_text": text, "name": name, "replication_desired": self.replication_desired}
                if owner_uuid:
                    body["owner_uuid"] = owner_uuid
                record = self.records().create_collection(body, ensure_unique_name=ensure_unique_name)
                self.locator = record["uuid"]
                self._saved(record, plan, text)
            return text

    def _fields(
        self,
        properties: dict[str, Any] | None,
        storage_classes: list[str] | None,
        trash_at: datetime.datetime | None,
        preserve_version: bool,
    ) -> dict[str, Any]:
        """What a request says beside the manifest."""
        if properties and type(properties) is not dict:
            raise BadArgument("properties must be dictionary type.")
        if storage_classes and type(storage_classes) is not list:
            raise BadArgument("storage_classes must be list type.")
        if trash_at and type(trash_at) is not datetime.datetime:
            raise BadArgument("trash_at must be datetime type.")
        if preserve_version:
            config: Any = getattr(self.records(), "config", dict)()
            if not config.get("Collections", {}).get("CollectionVersioning", False):
                raise BadArgument(
                    "preserve_version is not supported when CollectionVersioning is not enabled."
                )
        if storage_classes:
            self.root.tree.storage_classes = storage_classes
        body: dict[str, Any] = {}
        if properties:
            body["properties"] = properties
        if self.storage_classes_desired():
            body["storage_classes_desired"] = self.storage_classes_desired()
        if trash_at:
            body["trash_at"] = trash_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if preserve_version:
            body["preserve_version"] = True
        return body

    def _own_uuid(self) -> str:
        if not self.locator or not UUID.fullmatch(self.locator):
            raise AssertionError(
                "Collection manifest_locator is not a collection uuid.  Use save_new() for new collections."
            )
        return self.locator

    def _stored(self) -> tuple[Plan, str]:
        """A plan whose bytes are all stored, in blocks of this cluster, and its text."""
        plan = make_plan(self.root)
        moves, zero_block = manifests.store(plan, self.root)
        text = plan.write(moves, zero_block=zero_block).decode()
        refresh = getattr(self.root.tree.block_store(), "refresh_signature", None) if "+R" in text else None
        if refresh is not None:
            fresh = {locator: refresh(locator) for locator in set(_REMOTE.findall(text))}
            text = _REMOTE.sub(lambda match: fresh[match[0]], text)
        return plan, text

    # What the record has become.

    def update(self, other: Any = None, num_retries: int | None = None) -> None:
        """Merge what the record has become, or what `other` has, into this.

        See `merge` for the rules. Raises BadArgument without a record and without `other`.
        """
        with self.commit_lock:
            if other is not None:
                self._merge(ManifestIndex(other.manifest_text()))
                return
            if not self.locator:
                raise BadArgument("`other` is None but collection does not have a manifest_locator uuid")
            self.take_record(self.records().get_collection(self.locator))

    def take_record(
        self,
        record: Mapping[str, Any],
        *,
        ours: Callable[[str], bool] | None = None,
        left: Callable[[str], None] | None = None,
    ) -> list[str]:
        """Merge a newer record of this collection, which has `manifest_text`; gives the paths that changed.

        With the same portable data hash only signatures and fields are taken over. Files that are open stay
        open, and show what their path has now where it was not changed here. ours, left: see `merge_into`.
        """
        text = str(record.get("manifest_text") or "")
        with self.commit_lock:
            changed: list[str] = []
            told, known = record.get("portable_data_hash"), self.record.get("portable_data_hash")
            # A look at the hashes first: to compare two large texts takes longer than all the rest.
            if (told and known and told != known) or not self.baseline.resign(text):
                theirs = ManifestIndex(text)
                if ours is None:
                    changed = self._merge(theirs)
                else:
                    changed = merge_into(self.root, self.baseline, theirs, ours=ours, left=left).changed
                self.baseline = theirs
            self._remember(record)
            return changed

    def _merge(self, theirs: ManifestIndex) -> list[str]:
        committed = self.committed()
        changed = merge_into(self.root, self.baseline, theirs).changed
        if committed and self.locator is not None:
            self._settle(theirs)
        return changed

    def _settle(self, index: ManifestIndex) -> None:
        """The server has `index`: what is the same here is not a change any more."""
        self.baseline = index
        plan = make_plan(self.root)
        text = plan.write(Moves(), strip=True)
        if not any(plan.unsaved()) and not any(compare(ManifestIndex(text), index)):
            self._rebase(index, plan)

    def _saved(self, record: Mapping[str, Any], plan: Plan, text: str) -> None:
        """The server has what `plan` says."""
        answered = record.get("manifest_text")
        same = isinstance(answered, str) and portable_data_hash(answered) == portable_data_hash(text)
        self.baseline = ManifestIndex(answered if same and isinstance(answered, str) else text)
        self._rebase(self.baseline, plan)
        self._remember(record)

    def _rebase(self, index: ManifestIndex, plan: Plan) -> None:
        """`index` has what `plan` says: forget the changes, unless there are newer ones."""
        versions = {id(content): version for content, version in plan.contents}
        with Guard(self.root) as tree:
            if tree.version == plan.version:
                self.root.rebase(index, versions)
                self.saved_version = tree.version
            else:
                self.saved_version = plan.version

    def _remember(self, record: Mapping[str, Any]) -> None:
        self.record = {name: value for name, value in record.items() if name != "manifest_text"}
