"""The whole manifest after a commit.

Used by `latest`: to send it to a server that does not know `replace_files` (between the look at the manifest
and the update somebody else's changes can be lost: that is what `replace_files` is for), and to know it when
the answer to an update does not have it. Pure functions.
"""

from arvados_fuse.collection import Directory, File
from arvados_fuse.collection.commit import CommitRequest
from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.moves import Moves
from arvados_fuse.collection.paths import COLLECTION
from arvados_fuse.collection.plan import make_plan
from arvados_fuse.collection.tree import Tree


def with_changes(manifest: ManifestIndex, request: CommitRequest) -> bytes:
    """The manifest after what `request` asks for.

    Raises ManifestError when lines that matter are not legal.
    """
    result = _tree(manifest)
    sources = {"current": _tree(manifest), "manifest_text": _tree(ManifestIndex(request.manifest_text))}
    taken: dict[str, File | Directory] = {}
    for target, source in request.replace_files.items():
        if source:
            name, _, path = source.partition("/")
            found = sources[name].find(path)
            assert isinstance(found, File | Directory)
            taken[target] = found
    for target, source in sorted(request.replace_files.items()):
        if not source and result.exists(target[1:]):
            result.remove(target[1:], recursive=True)
    for target, found in sorted(taken.items()):
        parent, _, name = target[1:].rpartition("/")
        directory = result.find_or_create(parent, COLLECTION) if parent else result
        assert isinstance(directory, Directory)
        directory.add(found, name, overwrite=True)
    return make_plan(result).write(Moves())


def _tree(manifest: ManifestIndex) -> Directory:
    return Directory(Tree(), None, ".", manifest)
