"""Changes in projects: making, renaming, moving and removing collections, and bringing things back from the
trash.

Used by `WritableFileSystem` where the directory is a `ListedDirectory`. Every change is a request to the API
server, made at once. Projects themselves are not changed here: Arvados users expect EPERM.
"""

import time
from typing import Any

from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.manifest.changes import Finder
from arvados_fuse.errors import (
    ArvadosFuseError,
    BadAnswer,
    ExistsError,
    NotADirectory,
    NotEmptyError,
    NotFoundError,
    NotPermitted,
    RequestRefused,
)
from arvados_fuse.tree.attributes import Missing
from arvados_fuse.tree.collection_nodes import CollectionRef
from arvados_fuse.tree.collection_state import CollectionState
from arvados_fuse.tree.context import Context
from arvados_fuse.tree.listed import ListedDirectory
from arvados_fuse.tree.nodes import DirectoryNode, Text
from arvados_fuse.tree.tmp import EMPTY_PDH
from arvados_fuse.tree.trash import restore, trashed_at


def make_collection(directory: ListedDirectory, name: str) -> CollectionRef:
    """mkdir: a new empty collection. Raises ExistsError, NotPermitted, and what the API answers."""
    context, owner = directory.context, _owner(directory, name)
    if _entry(directory, name) is not None:
        raise ExistsError(f"{name!r} is taken", subject=name)
    body: dict[str, Any] = {"name": name, "owner_uuid": owner, "manifest_text": ""}
    if context.storage_classes:
        body["storage_classes_desired"] = context.storage_classes
    try:
        record = context.api.create_collection(body)
    except RequestRefused as error:
        raise _explained(directory, name, error) from error
    finally:
        directory.expire()
    uuid = str(record.get("uuid") or "")
    if "-4zz18-" not in uuid:
        raise BadAnswer(f"API server {context.api.host} gave no uuid for the new {name!r}", subject=name)
    fields = {key: value for key, value in record.items() if key != "manifest_text"}
    return CollectionRef(uuid, fields, time.monotonic())


def remove_collection(directory: ListedDirectory, name: str) -> None:
    """rmdir: put an empty collection into the trash. Raises NotFoundError, NotADirectory, NotEmptyError,
    NotPermitted."""
    _owner(directory, name)
    ref = _collection(directory, name)
    state = _state(directory.context, ref)
    if not state.current().collection.root.is_empty():
        raise NotEmptyError(f"collection {name!r} is not empty", subject=name)
    state.save()
    # What is shown may be a moment old: others may have put something there.
    if not _is_empty(directory.context, ref.key):
        state.expire()
        raise NotEmptyError(f"collection {name!r} is not empty: others have changed it", subject=name)
    try:
        directory.context.api.trash(ref.key)
    finally:
        directory.expire()


def _is_empty(context: Context, uuid: str) -> bool:
    """Whether a collection has nothing in it, by what the server says now."""
    record = context.api.get_collection(uuid, select=["portable_data_hash"])
    if record.get("portable_data_hash") == EMPTY_PDH:
        return True
    # A manifest of nothing may still have words.
    text = context.api.get_collection(uuid, select=["manifest_text"]).get("manifest_text")
    return not Finder(ManifestIndex(str(text or ""))).has_entries("")


def rename(directory: ListedDirectory, name: str, target: DirectoryNode, new_name: str) -> bool:
    """Give a collection another name or project, or bring something back from the trash.

    Gives whether the same inode shows it after. Raises NotPermitted over an existing name, as for projects.
    """
    if not isinstance(target, ListedDirectory):
        raise NotPermitted(f"{name!r} can't be moved into a collection", subject=name)
    context, owner = directory.context, _owner(target, new_name)
    if directory is target and name == new_name:
        return True
    if _entry(target, new_name) is not None:
        raise NotPermitted(f"{new_name!r} is taken", subject=new_name)
    trashed = trashed_at(directory, name)
    if trashed is not None:
        restore(context, trashed, owner_uuid=owner, name=new_name)
        return False
    _owner(directory, name)
    if isinstance(_entry(directory, name), Text):
        raise NotPermitted(f"{name!r} can't be renamed", subject=name)
    ref = _collection(directory, name)
    try:
        context.api.rename(ref.key, name=new_name, owner_uuid=owner)
    except RequestRefused as error:
        raise _explained(target, new_name, error) from error
    finally:
        directory.expire()
        target.expire()
    return True


def _owner(directory: ListedDirectory, name: str) -> str:
    """The uuid of the project or user; raises NotPermitted for what only shows things."""
    if not directory.uuid or directory.is_filtered:
        raise NotPermitted(f"{name!r}: nothing can be changed in {directory.name!r}", subject=name)
    return directory.uuid


def _entry(directory: ListedDirectory, name: str) -> Any:
    try:
        return directory.find(name)[0]
    except Missing:
        return None


def _collection(directory: ListedDirectory, name: str) -> CollectionRef:
    entry = _entry(directory, name)
    if entry is None:
        raise NotFoundError(f"there is no {name!r}", subject=name)
    if isinstance(entry, Text):
        raise NotADirectory(f"{name!r} is not a collection", subject=name)
    if not isinstance(entry, CollectionRef):
        raise NotPermitted(f"{name!r} is a project: projects can't be changed here", subject=name)
    return entry


def _state(context: Context, ref: CollectionRef) -> CollectionState:
    return context.collection(ref.key, lambda: CollectionState(context, ref.key, ref.record, ref.at))


def _explained(directory: ListedDirectory, name: str, error: ArvadosFuseError) -> ArvadosFuseError:
    """What the API refused: most often because the name is taken, by something that filters hide, say."""
    if "name" in str(error) and any(word in str(error) for word in ("unique", "taken", "exists", "already")):
        return ExistsError(f"{name!r} is taken in {directory.name!r}: {error}", subject=name)
    return error
