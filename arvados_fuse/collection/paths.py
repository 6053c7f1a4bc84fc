"""Working with paths: the methods that `Collection` and its directories share with the SDK's `Collection`.

Mixed into `Directory` and `Collection`; programs call it. A program written for
`arvados.collection.Collection` finds the same names, arguments, results and `OSError`s here.

Threads: any. Callbacks of `subscribe` are called after the change, without a lock.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias, Union, cast

from arvados_fuse.collection import handles
from arvados_fuse.collection.collector import collector_off
from arvados_fuse.collection.edits import DirectoryEdits
from arvados_fuse.collection.failures import (
    BadArgument,
    CollectionReadOnly,
    IsADirectoryPath,
    NotADirectoryPath,
    PathExists,
    PathNotFound,
)
from arvados_fuse.collection.file import File
from arvados_fuse.collection.view import Callback

ADD, DEL, MOD, TOK, WRITE = "add", "del", "mod", "tok", "write"
"""Kinds of changes, as the SDK calls them."""

FILE, COLLECTION = "file", "collection"
"""What `find_or_create` makes."""

Found: TypeAlias = Union["PathApi", File]
"""What is at a path. Every directory that is handed out is a `PathApi` too."""


class PathApi:
    """Lookups and changes by path below a directory."""

    __slots__ = ()

    @abstractmethod
    def here(self) -> DirectoryEdits:
        """The directory that paths start from."""

    # Where this is.

    def writable(self) -> bool:
        """Whether the collection may be changed."""
        return self.here().tree.writable

    def root_collection(self) -> Any:
        """The `Collection` that this belongs to."""
        return self.here().tree.owner

    def stream_name(self) -> str:
        """The path as the name of a manifest stream: `.` or `./a/b`."""
        return self.here().stream_name()

    # Looking.

    def find(self, path: str) -> Found | None:
        """What is at `path`, or None. Raises BadArgument for no path, NotADirectoryPath for one through a
        file."""
        if not path:
            raise BadArgument("Parameter 'path' is empty.")
        parts = _split(path)
        at: DirectoryEdits | File = self.here()
        for part in parts:
            if isinstance(at, File):
                raise NotADirectoryPath(f"Not a directory: {path!r}", subject=path)
            found = at.get(part)
            if found is None:
                return None
            at = found
        if isinstance(at, File) and path.endswith("/"):
            raise NotADirectoryPath(f"Not a directory: {path!r}", subject=path)
        return cast("Found", at) if parts else self

    def find_or_create(self, path: str, create_type: str) -> Found:
        """What is at `path`; made, with the directories on the way, if there is nothing yet.

        create_type: `FILE` or `COLLECTION` (a directory).
        """
        self.need_writable()
        directory = self.here()
        parts = _split(path)
        for number, part in enumerate(parts):
            found = directory.get(part)
            last = number == len(parts) - 1
            if found is None:
                try:
                    found = (
                        directory.create(part)
                        if last and create_type == FILE
                        else directory.make_directory(part)
                    )
                    directory.notify(ADD, directory, part, found)
                except PathExists:
                    # Another thread was quicker.
                    found = directory.get(part)
            if last and found is not None:
                return cast("Found", found)
            if not isinstance(found, DirectoryEdits):
                raise NotADirectoryPath(f"Not a directory: {path!r}", subject=path)
            directory = found
        return self

    def mkdirs(self, path: str) -> "PathApi":
        """Make a directory, and those on the way. Raises PathExists."""
        if self.find(path) is not None:
            raise PathExists(f"Directory or file exists: {path!r}", subject=path)
        made = self.find_or_create(path, COLLECTION)
        assert isinstance(made, PathApi)
        return made

    def exists(self, path: str) -> bool:
        """Whether something is at `path`."""
        return self.find(path) is not None

    def listdir(self, path: str = ".") -> list[str]:
        """Names in the directory at `path`, sorted."""
        return self._directory(path).names()

    def walk(self, top: str = ".") -> Iterator[tuple[str, list[str], list[str]]]:
        """Like `os.walk`: path (`.` and `./a/b`), names of directories (which may be changed in place), names
        of files."""
        pending = [(top, self._directory(top))]
        while pending:
            path, directory = pending.pop()
            below = {}
            files = []
            for name, entry in directory.entries():
                if isinstance(entry, File):
                    files.append(name)
                else:
                    below[name] = entry
            directories = list(below)
            yield path, directories, files
            pending += [(f"{path}/{name}", below[name]) for name in reversed(directories) if name in below]

    def _directory(self, path: str) -> DirectoryEdits:
        found = self.find(path)
        if found is None:
            raise PathNotFound(f"File not found: {path!r}", subject=path)
        if isinstance(found, File):
            raise NotADirectoryPath(f"Not a directory: {path!r}", subject=path)
        return found.here()

    def open(self, path: str, mode: str = "r", encoding: str | None = None) -> Any:
        """Open a file: modes r, r+, w, w+, a, a+, with b for binary; every mode but r makes the file if need
        be."""
        writing = handles.check_mode(mode)
        if not writing:
            found = self.find(path)
        else:
            self.need_writable()
            found = self.find_or_create(path, FILE)
        if found is None:
            raise PathNotFound(f"File not found: {path!r}", subject=path)
        if not isinstance(found, File):
            raise IsADirectoryPath(f"Is a directory: {path!r}", subject=path)
        if mode[0] == "w":
            found.truncate(0)
        return handles.open_file(found, mode, encoding)

    # One name of this directory.

    def __iter__(self) -> Iterator[str]:
        return iter(self.here().names())

    def __getitem__(self, name: str) -> Found:
        found = self.here().get(name)
        if found is None:
            raise KeyError(name)
        return cast("Found", found)

    def __contains__(self, name: str) -> bool:
        return self.here().get(name) is not None

    def __len__(self) -> int:
        return len(self.here().names())

    def __bool__(self) -> bool:
        return True

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self.here().unlink(name, recursive=True)
        self.notify(DEL, self, name, None)

    def keys(self) -> list[str]:
        """Names in this directory, sorted."""
        return self.here().names()

    def values(self) -> list[Found]:
        """What is in this directory, sorted by name."""
        items = self.items()
        with collector_off(len(items)):
            return [entry for _, entry in items]

    def items(self) -> Sequence[tuple[str, Found]]:
        """(name, what it is), sorted by name: a snapshot."""
        return cast("Sequence[tuple[str, Found]]", self.here().entries())

    # Changing.

    def need_writable(self) -> None:
        """Raise CollectionReadOnly unless the collection may be changed."""
        if not self.writable():
            raise CollectionReadOnly("Collection is read only", subject=self.here().tree.subject)

    def remove(self, path: str, recursive: bool = False) -> None:
        """Remove what is at `path`. Raises DirectoryNotEmpty for a full directory unless `recursive`."""
        self.need_writable()
        if not path:
            raise BadArgument("Parameter 'path' is empty.")
        *way, name = _split(path) or [""]
        if not name:
            raise BadArgument("Cannot remove '.'")
        parent = self._directory("/".join(way)) if way else self.here()
        removed = parent.unlink(name, recursive=recursive)
        parent.notify(DEL, parent, name, removed)

    def add(
        self, source_obj: Found, target_name: str, overwrite: bool = False, reparent: bool = False
    ) -> None:
        """Copy (or move, if `reparent`) a file or directory to the name `target_name` here. Raises
        PathExists."""
        self.need_writable()
        here = self.here()
        previous = here.get(target_name)
        if previous is not None and not overwrite:
            raise PathExists("File already exists", subject=target_name)
        if reparent:
            source, name = _place(source_obj)
            item: DirectoryEdits | Found = source.move(name, here, target_name, force=True)
            source.notify(DEL, source, name, item)
        else:
            if isinstance(source_obj, File):
                here.put(target_name, source_obj.content().clone(here, target_name), overwrite=overwrite)
            else:
                copied = source_obj.here().copy_of(here.tree, here, target_name)
                here.put(target_name, copied, overwrite=overwrite)
            item = self[target_name]
        if previous is not None:
            self.notify(MOD, self, target_name, (previous, item))
        else:
            self.notify(ADD, self, target_name, item)

    def copy(
        self,
        source: "str | Found",
        target_path: str,
        source_collection: "PathApi | None" = None,
        overwrite: bool = False,
    ) -> None:
        """Copy by reference; `source` is a path in `source_collection` (default: here) or an object.

        A `target_path` that ends in a slash, or is a directory, keeps the source's name below it.
        """
        self.need_writable()
        found, target, name = self._resolve(source, target_path, source_collection, create=True)
        target.add(found, name, overwrite, False)

    def rename(
        self,
        source: "str | Found",
        target_path: str,
        source_collection: "PathApi | None" = None,
        overwrite: bool = False,
    ) -> None:
        """Move, with the same arguments as `copy`; the target's directory must exist."""
        self.need_writable()
        found, target, name = self._resolve(source, target_path, source_collection, create=False)
        if not found.writable():
            raise CollectionReadOnly("Source collection is read only", subject=str(source))
        target.add(found, name, overwrite, True)

    def _resolve(
        self, source: "str | Found", target_path: str, source_collection: "PathApi | None", *, create: bool
    ) -> tuple[Found, "PathApi", str]:
        own_name = ""
        if isinstance(source, str):
            found = (self if source_collection is None else source_collection).find(source)
            if found is None:
                raise PathNotFound(f"File not found: {source!r}", subject=source)
            own_name = source.split("/")[-1]
        else:
            found = source
        way, _, name = target_path.rpartition("/")
        name = name or own_name
        if not name:
            raise BadArgument("Target path is empty and source is an object.  Cannot determine its name.")
        target: Found | None = self
        if way:
            target = self.find_or_create(way, COLLECTION) if create else self.find(way)
        if target is None:
            raise PathNotFound(f"Target directory not found: {target_path!r}", subject=target_path)
        if not isinstance(target, PathApi):
            raise NotADirectoryPath(f"Not a directory: {target_path!r}", subject=target_path)
        inside = (target if name == "." else target.here().get(name)) if own_name else None
        if isinstance(inside, PathApi):
            return found, inside, own_name
        return found, target, name

    # News.

    def subscribe(self, callback: Callback) -> None:
        """Let `callback(event, directory, name, item)` be called after each change here or below."""
        if self.here().callback is not None:
            raise BadArgument("A callback is already set on this collection.")
        self.here().callback = callback

    def unsubscribe(self) -> None:
        """Call nobody any more."""
        self.here().callback = None

    def notify(self, event: str, collection: Any, name: str, item: Any) -> None:
        """Tell the subscribers of this directory and of the collection."""
        self.here().notify(event, collection, name, item)


def _split(path: str) -> list[str]:
    """Components of a path that may begin with `./` and end with `/`."""
    if path == ".":
        return []
    path = path[2:] if path.startswith("./") else path
    parts = path.split("/")
    if parts and not parts[-1]:
        parts.pop()
    if "" in parts:
        raise NotADirectoryPath(f"Not a directory: {path!r}", subject=path)
    return parts


def _place(found: Found) -> tuple[DirectoryEdits, str]:
    if isinstance(found, File):
        if not found.is_linked():
            raise PathNotFound("File not found", subject=found.name)
        parent, name = found.parent, found.name
    else:
        directory = found.here()
        if directory.parent is None or not directory.linked:
            raise PathNotFound("not in a directory", subject=directory.name)
        parent, name = directory.parent, directory.name
    assert isinstance(parent, DirectoryEdits)
    return parent, name
