"""Collections: the `collections` resource.

A save checks the manifest and the signatures of its blocks before the write transaction begins (`prepare`),
because a manifest can be 100 MB and others wait for the right to write. Manifests are stored unsigned, once
per portable data hash; they are signed for the caller on the way out.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from arvados_fuse.local.records import logs, manifest, replacing, trash, versions
from arvados_fuse.local.records.apierror import forbidden, invalid, not_found
from arvados_fuse.local.records.content import Content
from arvados_fuse.local.records.context import Context, Parameters, Record
from arvados_fuse.local.records.filters import Binds
from arvados_fuse.local.records.identifiers import PORTABLE_DATA_HASH
from arvados_fuse.local.records.listing import list_records, visible_sql
from arvados_fuse.local.records.manifest import Manifest
from arvados_fuse.local.records.naming import check_name, free_name
from arvados_fuse.local.records.permissions import WRITE
from arvados_fuse.local.records.schema import COLLECTIONS
from arvados_fuse.local.records.store import (
    answer,
    attributes_of,
    find,
    find_writable,
    insert,
    need_owner,
    new_row,
    row_of,
    selected,
    update,
    writable_values,
)
from arvados_fuse.local.records.values import flag, text

EMPTY = manifest.read("", lambda locator: None)


@dataclass(frozen=True)
class Prepared:
    """What a save will store, worked out before its transaction.

    sent: the manifest that came along. content: the content to be, None when it stays. base: the portable
        data hash of the content that it was made from, None when it doesn't depend on one.
    """

    sent: Manifest | None
    content: Manifest | None
    base: str | None


def prepare_create(context: Context, parameters: Parameters) -> Prepared:
    """Before the transaction of a create: check what came along and put the content together.

    Raises ApiError 422 when it is not legal or is not what `portable_data_hash` says, 403 for a block's
    signature.
    """
    sent = _sent(context, parameters)
    return Prepared(sent, _composed(context, EMPTY.portable_data_hash, parameters, sent), None)


def prepare_update(context: Context, parameters: Parameters) -> Prepared:
    """Before the transaction of an update: the same, on the content that the collection has now."""
    row = _for_change(context, parameters)
    sent = _sent(context, parameters)
    base: str = row["portable_data_hash"]
    depends = parameters.get("replace_files") or (parameters.get("replace_segments") and sent is None)
    return Prepared(sent, _composed(context, base, parameters, sent), base if depends else None)


def get(context: Context, parameters: Parameters) -> Record:
    """A collection by uuid, or the content that has a portable data hash. Raises ApiError 404."""
    uuid = text(parameters, "uuid")
    if PORTABLE_DATA_HASH.match(uuid):
        return _by_hash(context, "+".join(uuid.split("+")[:2]), parameters)
    find(context, COLLECTIONS, uuid, include_trash=flag(parameters, "include_trash"))
    return _answer(context, uuid, parameters)


def list_(context: Context, parameters: Parameters) -> Record:
    """The collections that the caller may see; manifests only when selected, signed."""
    listed = list_records(context, COLLECTIONS, parameters)
    for item in listed["items"]:
        _sign(context, item)
    return listed


def create(context: Context, parameters: Parameters) -> Record:
    """A new collection in a project or home that the caller may write."""
    prepared: Prepared = context.prepared
    given = attributes_of(COLLECTIONS, parameters)
    claimed = given.pop("portable_data_hash", None)
    if claimed and prepared.content is None and claimed != EMPTY.portable_data_hash:
        raise invalid("portable_data_hash came without its manifest_text")
    row = new_row(context, COLLECTIONS, writable_values(context, COLLECTIONS, given, None))
    need_owner(context, row["owner_uuid"])
    _check(context, row)
    _check_classes(context, row)
    _set_content(context, row, prepared.content or EMPTY)
    row["current_version_uuid"] = row["uuid"]
    trash.settle(context, row)
    ensure = flag(parameters, "ensure_unique_name")
    row["name"] = free_name(context, COLLECTIONS, row["name"], row["owner_uuid"], row["uuid"], ensure=ensure)
    insert(context, COLLECTIONS, row)
    logs.record(context, COLLECTIONS, "create", None, row)
    return _answer(context, row["uuid"], parameters)


def change(context: Context, parameters: Parameters) -> Record:
    """Change a collection: its content, its name, where it is, when it goes into the trash."""
    row = _for_change(context, parameters)
    given = attributes_of(COLLECTIONS, parameters)
    claimed = given.pop("portable_data_hash", None)
    values = writable_values(context, COLLECTIONS, given, row)
    prepared: Prepared = context.prepared
    content = prepared.content
    if prepared.base not in (None, row["portable_data_hash"]):
        # Somebody else changed it meanwhile: once more, on what is there now.
        content = _composed(context, row["portable_data_hash"], parameters, prepared.sent)
    if content is not None:
        _set_content(context, values, content)
    elif claimed and claimed != row["portable_data_hash"]:
        raise invalid("portable_data_hash came without its manifest_text")
    return _change(context, row, values, parameters)


def put_in_trash(context: Context, parameters: Parameters) -> Record:
    """Put a collection and its past versions into the trash."""
    row = _for_change(context, parameters, include_trash=True)
    values = {} if trash.in_trash(context, row) else {"trash_at": context.now}
    return _change(context, row, values, parameters)


def untrash(context: Context, parameters: Parameters) -> Record:
    """Bring a collection back from the trash. Raises ApiError 422 when its name was taken meanwhile."""
    row = _for_change(context, parameters, include_trash=True)
    if not trash.in_trash(context, row):
        raise invalid(f"the collection {row['uuid']} is not in the trash")
    return _change(context, row, {"trash_at": None}, parameters)


def forget_manifest(context: Context, portable_data_hash: str) -> None:
    """Remove a stored manifest that no record has any more."""
    query = "SELECT 1 FROM collections WHERE portable_data_hash = ? LIMIT 1"
    if context.connection.execute(query, (portable_data_hash,)).fetchone() is None:
        context.connection.execute(
            "DELETE FROM manifests WHERE portable_data_hash = ?", (portable_data_hash,)
        )


def _for_change(
    context: Context, parameters: Parameters, *, include_trash: bool = False
) -> Mapping[str, Any]:
    row = find_writable(context, COLLECTIONS, text(parameters, "uuid"), include_trash=include_trash)
    if row["current_version_uuid"] != row["uuid"]:
        raise forbidden(f"{row['uuid']} is a past version of {row['current_version_uuid']} and can't change")
    return row


def _change(context: Context, row: Mapping[str, Any], values: Record, parameters: Parameters) -> Record:
    new = dict(row) | values
    if new["uuid"] != row["uuid"]:
        raise invalid("the uuid of a collection can't change")
    if new["owner_uuid"] != row["owner_uuid"]:
        need_owner(context, new["owner_uuid"])
        if context.access.owner_level(row["owner_uuid"]) < WRITE:
            raise forbidden(f"you may not take anything out of {row['owner_uuid']}")
    _check(context, new)
    _check_classes(context, values)
    if "trash_at" in values and values["trash_at"] != row["trash_at"]:
        trash.settle(context, values)
    new.update(values)
    if not trash.in_trash(context, new):
        ensure = flag(parameters, "ensure_unique_name")
        name = free_name(context, COLLECTIONS, new["name"], new["owner_uuid"], row["uuid"], ensure=ensure)
        if name != row["name"]:
            values["name"] = name
    if row["preserve_version"] and not values.get("preserve_version", 1):
        del values["preserve_version"]
    versions.keep_past(context, row, values)
    update(context, COLLECTIONS, row["uuid"], values)
    versions.follow(context, row["uuid"], values)
    changed = row_of(context, COLLECTIONS, row["uuid"])
    assert changed is not None
    if changed["portable_data_hash"] != row["portable_data_hash"]:
        forget_manifest(context, row["portable_data_hash"])
    logs.record(context, COLLECTIONS, trash.event(context, row, changed), row, changed)
    return _answer(context, row["uuid"], parameters)


def _check(context: Context, row: Record) -> None:
    check_name(context, COLLECTIONS, row["name"])
    if row["replication_desired"] is not None and not 0 <= row["replication_desired"] <= 100:
        raise invalid("replication_desired must be from 0 to 100")


def _check_classes(context: Context, values: Record) -> None:
    """Check the storage classes in `values`; instead of none, those of the site."""
    if "storage_classes_desired" not in values:
        return
    names = json.loads(values["storage_classes_desired"])
    if not names:
        values["storage_classes_desired"] = json.dumps(context.site.default_storage_classes)
    for name in names:
        if not isinstance(name, str) or name not in context.site.storage_classes:
            raise invalid(f"there is no storage class {str(name)[:80]!r}")


def _sent(context: Context, parameters: Parameters) -> Manifest | None:
    """The manifest that came along, checked; None without one."""
    given = attributes_of(COLLECTIONS, parameters)
    text = given.get("manifest_text")
    claimed = given.get("portable_data_hash")
    if not isinstance(claimed, (str, type(None))) or not isinstance(text, (str, type(None))):
        raise invalid("portable_data_hash and manifest_text must be strings")
    if text is None:
        return None
    sent = manifest.read(text, manifest.signature_check(context.signer, context.caller.token))
    replaces = parameters.get("replace_files") or parameters.get("replace_segments")
    if claimed and not replaces and claimed != sent.portable_data_hash:
        raise invalid(
            f"portable_data_hash {claimed[:80]} is not that of the manifest: {sent.portable_data_hash}"
        )
    return sent


def _composed(context: Context, base: str, parameters: Parameters, sent: Manifest | None) -> Manifest | None:
    """The content that a save makes out of the content `base` and what was sent; None when it stays."""
    files = replacing.check_files(parameters.get("replace_files"), with_manifest=bool(sent and sent.text))
    check = manifest.signature_check(context.signer, context.caller.token)
    segments = replacing.check_segments(parameters.get("replace_segments"), check)
    if not files and not segments:
        return sent
    content = _stored_content(context, base) if files or sent is None else Content.load(sent.text)
    others: dict[str, Content] = {"current": content}

    def source(name: str) -> Content:
        if name not in others:
            if name != "manifest_text":
                others[name] = _stored_content(context, _visible_hash(context, name)["portable_data_hash"])
            elif sent is not None:
                others[name] = Content.load(sent.text)
            else:
                raise invalid("replace_files: no manifest_text came along")
        return others[name]

    replacing.replace_files(content, files, source)
    replacing.replace_segments(content, segments)
    return manifest.of_text(content.text(), *content.totals())


def _stored_content(context: Context, portable_data_hash: str) -> Content:
    query = (
        "SELECT text, normalized, file_count, file_size_total FROM manifests JOIN collections"
        " USING (portable_data_hash) WHERE portable_data_hash = ? LIMIT 1"
    )
    row = context.connection.execute(query, (portable_data_hash,)).fetchone()
    if row is None:
        return Content()
    totals = (row["file_count"], row["file_size_total"]) if row["normalized"] else None
    return Content.load(row["text"], totals)


def _set_content(context: Context, values: Record, content: Manifest) -> None:
    """Store `content` and make `values` refer to it."""
    context.connection.execute(
        "INSERT INTO manifests (portable_data_hash, normalized, text) VALUES (?, ?, ?)"
        " ON CONFLICT (portable_data_hash) DO UPDATE SET normalized = max(normalized, excluded.normalized)",
        (content.portable_data_hash, content.normalized, content.text),
    )
    values["portable_data_hash"] = content.portable_data_hash
    values["file_count"] = content.file_count
    values["file_size_total"] = content.file_size_total


def _by_hash(context: Context, portable_data_hash: str, parameters: Parameters) -> Record:
    row = _visible_hash(context, portable_data_hash)
    names = selected(COLLECTIONS, parameters)
    shown: Record = {name: row[name] for name in ("portable_data_hash", "trash_at") if name in names}
    if "manifest_text" in names:
        query = "SELECT text FROM manifests WHERE portable_data_hash = ?"
        shown["manifest_text"] = context.connection.execute(query, (portable_data_hash,)).fetchone()["text"]
    _sign(context, shown)
    return shown


def _visible_hash(context: Context, portable_data_hash: str) -> Record:
    """Hash and trash_at of content in some collection that the caller may see. Raises ApiError 404."""
    binds = Binds()
    binds.values.update(now=context.now, hash=portable_data_hash)
    condition = visible_sql(context, COLLECTIONS, binds, old_versions=True)
    row = context.connection.execute(
        "SELECT portable_data_hash, trash_at FROM collections"
        f" WHERE portable_data_hash = :hash AND {condition}"
        " ORDER BY trash_at IS NOT NULL, trash_at DESC LIMIT 1",
        binds.values,
    ).fetchone()
    if row is None:
        raise not_found(f"no collection {portable_data_hash} is there for you")
    return dict(row)


def _answer(context: Context, uuid: str, parameters: Parameters) -> Record:
    record = answer(context, COLLECTIONS, uuid, parameters)
    _sign(context, record)
    return record


def _sign(context: Context, record: Record) -> None:
    if "manifest_text" in record:
        record["manifest_text"] = manifest.sign(record["manifest_text"], context.signer, context.caller.token)
