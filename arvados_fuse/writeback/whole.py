"""A commit for a server that does not know `replace_files`: the whole manifest with the changes in it.

Used by `commit`. Between the look at the manifest and the update somebody else's changes can be lost: that is
what `replace_files` is for. Pure functions.
"""

from arvados_fuse.collection import Collection, Directory, File
from arvados_fuse.collection.commit import CommitRequest
from arvados_fuse.collection.paths import COLLECTION


def with_changes(manifest_text: str, request: CommitRequest) -> str:
    """The manifest after what `request` asks for.

    Raises ManifestError when lines that matter are not legal.
    """
    result = Collection.from_manifest(manifest_text)
    sources = {
        "current": Collection.from_manifest(manifest_text),
        "manifest_text": Collection.from_manifest(request.manifest_text),
    }
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
        directory = result.find_or_create(parent, COLLECTION) if parent else result.root
        assert isinstance(directory, Directory)
        directory.add(found, name, overwrite=True)
    return result.manifest_text()
