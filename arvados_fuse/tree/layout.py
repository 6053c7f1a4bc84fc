"""Which directories the root of a mount has, for each mode of the command line.

Used by `cli/build.py`. Asks the API server once, for the user or the one object to be shown.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from arvados_fuse.errors import NotFoundError, SetupError
from arvados_fuse.tree.collection_nodes import CollectionRoot
from arvados_fuse.tree.collection_state import CollectionState
from arvados_fuse.tree.context import Context
from arvados_fuse.tree.keep_manifest import LOCATOR, keep_origin
from arvados_fuse.tree.listed import GROUP_CLASSES, FixedDirectory, ListedDirectory, ListingRef
from arvados_fuse.tree.listing import Entry, Listing
from arvados_fuse.tree.magic import COLLECTION_UUID, GROUP_UUID, MagicRef, MagicSource, readme
from arvados_fuse.tree.nodes import DirectoryNode, Text
from arvados_fuse.tree.projects import SharedSource, project_ref
from arvados_fuse.tree.tags import TagsSource
from arvados_fuse.tree.tmp import TmpRef


class Place(NamedTuple):
    """One directory of a custom layout: what it shows (`home`, `by_id`, ...) and its name at the root."""

    kind: str
    name: str


def build_root(context: Context, mode: str, target: str = "", places: Sequence[Place] = ()) -> DirectoryNode:
    """The root node for a mode of the command line; `target`: what `collection` and `project` show.

    Raises SetupError when the target is nothing of the kind, and what the API answers.
    """
    if mode == "collection":
        return _collection(context, target)
    if mode == "project":
        return _project(context, target)
    if mode == "custom":
        return FixedDirectory(context, {place.name: _place(context, place) for place in places})
    if mode == "all":
        return FixedDirectory(context, _all(context))
    if mode in ("by_id", "by_pdh"):
        return _ids(context, mode)
    entry = _entry(context, mode)
    root = entry.node(context, FixedDirectory(context, {}))
    if isinstance(root, DirectoryNode):
        return root
    raise SetupError(f"{mode} is not a directory")


def _all(context: Context) -> dict[str, Entry]:
    user = context.api.current_user()
    text = (
        f"This is Arvados at {context.api.host}, as seen by {user.get('email') or user.get('uuid')}.\n\n"
        "by_id    any collection or project, by its portable data hash or uuid\n"
        "by_tag   what is tagged, by tag\n"
        "home     your home project\n"
        "shared   what others share with you\n"
    )
    kinds = ("by_id", "by_tag", "home", "shared")
    return {
        "README": Text(text.encode(), context.started_ns),
        **{kind: _entry(context, kind) for kind in kinds},
    }


def _place(context: Context, place: Place) -> Entry:
    """The directory of a custom layout; each tmp collection is one of its own."""
    return TmpRef(context, place.name) if place.kind == "tmp" else _entry(context, place.kind)


def _entry(context: Context, kind: str) -> Entry:
    """The directory for one kind, as an entry of the root (or the root itself)."""
    makers: dict[str, Callable[[Context], Entry]] = {
        "home": _home,
        "shared": lambda context: ListingRef("shared", lambda: SharedSource(context), context.started_ns),
        "by_tag": lambda context: ListingRef("tags", lambda: TagsSource(context), context.started_ns),
        "by_id": lambda context: _magic(context, hashes_only=False),
        "by_pdh": lambda context: _magic(context, hashes_only=True),
    }
    if kind not in makers:
        raise SetupError(f"there is no {kind!r} directory")
    return makers[kind](context)


def _home(context: Context) -> ListingRef:
    user = context.api.current_user()
    context.note_ours(str(user.get("uuid")))
    return project_ref(context, str(user.get("uuid")), user)


def _magic(context: Context, *, hashes_only: bool) -> MagicRef:
    return MagicRef(
        MagicSource(context, hashes_only=hashes_only), {"README": readme(context, hashes_only=hashes_only)}
    )


def _ids(context: Context, mode: str) -> DirectoryNode:
    """Ids at the root; the same directory is there once more as `by_id`, as programs expect."""
    inner = _magic(context, hashes_only=mode == "by_pdh")
    return MagicRef(inner.source, {**inner.fixed, "by_id": inner}).node(context, None)


def _collection(context: Context, target: str) -> DirectoryNode:
    by_hash = LOCATOR.fullmatch(target)
    if not by_hash and not COLLECTION_UUID.fullmatch(target):
        raise SetupError(
            f"{target!r} is neither a collection's uuid nor a portable data hash; give one of these, as in "
            "zzzzz-4zz18-... or d41d8cd9...+0 (Workbench shows both)"
        )
    origin = keep_origin(context, target) if by_hash else None
    target = by_hash[1] if by_hash else target  # a signature is not for messages
    state = context.collection(target, lambda: CollectionState(context, target, origin=origin))
    try:
        state.current()
    except NotFoundError as error:
        raise SetupError(
            f"collection {target} was not found on {context.api.host}, or you may not read it; check the "
            "uuid or hash, and whose token it is"
        ) from error
    return CollectionRoot(context, state)


def _project(context: Context, target: str) -> DirectoryNode:
    if GROUP_UUID.fullmatch(target):
        record = context.api.get_group(target)
        if record.get("group_class") not in GROUP_CLASSES:
            raise SetupError(f"{target} is a group of users, not a project; give a project's uuid")
    elif "-tpzed-" in target:
        record = context.api.get_user(target)
    else:
        raise SetupError(
            f"{target!r} is not a project's uuid; give one, as in zzzzz-j7d0g-... (Workbench shows it), or a "
            "user's uuid for that user's home"
        )
    ref = project_ref(context, target, record)
    listing = context.listing(ref.key, lambda: Listing(context, ref.make_source()))
    return ListedDirectory(context, ref.key, listing, ref.mtime_ns)
