"""What a tree of collections must do, in dictionaries and bytearrays: the same calls, the same errno."""

import errno
import os

Path = tuple[int | str, ...]
"""The number of a collection, and names."""


class ModelFile:
    """A file, wherever it is, or nowhere. mtime_ns: what somebody set, as long as nobody wrote since."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self.mtime_ns: int | None = None

    def write(self, offset: int, data: bytes) -> None:
        self.data.extend(bytes(max(0, offset - len(self.data))))
        self.data[offset : offset + len(data)] = data
        self.mtime_ns = None

    def truncate(self, size: int) -> None:
        del self.data[size:]
        self.data.extend(bytes(size - len(self.data)))
        self.mtime_ns = None


class ModelDirectory:
    """Names, and what they stand for."""

    def __init__(self) -> None:
        self.entries: dict[str, ModelFile | ModelDirectory] = {}

    def walk(self, prefix: str = "") -> dict[str, bytes | None]:
        """Paths and what is in the files; None for a directory."""
        found: dict[str, bytes | None] = {}
        for name, entry in self.entries.items():
            if isinstance(entry, ModelFile):
                found[prefix + name] = bytes(entry.data)
            else:
                found[prefix + name] = None
                found |= entry.walk(f"{prefix}{name}/")
        return found

    def files(self, prefix: str = "") -> dict[str, ModelFile]:
        """All files by their paths."""
        found: dict[str, ModelFile] = {}
        for name, entry in self.entries.items():
            if isinstance(entry, ModelFile):
                found[prefix + name] = entry
            else:
                found |= entry.files(f"{prefix}{name}/")
        return found

    def holds(self, other: "ModelDirectory") -> bool:
        """Whether the other is this one, or somewhere below."""
        below = [entry for entry in self.entries.values() if isinstance(entry, ModelDirectory)]
        return self is other or any(entry.holds(other) for entry in below)


def fail(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class ModelTree:
    """Collections by number; a path begins with that."""

    def __init__(self, number: int) -> None:
        self.tops = [ModelDirectory() for _ in range(number)]

    def at(self, path: Path) -> "ModelFile | ModelDirectory":
        found: ModelFile | ModelDirectory = self.tops[int(path[0])]
        for name in path[1:]:
            if not isinstance(found, ModelDirectory):
                raise fail(errno.ENOTDIR)
            entry = found.entries.get(str(name))
            if entry is None:
                raise fail(errno.ENOENT)
            found = entry
        return found

    def directory(self, path: Path) -> ModelDirectory:
        """The directory above a path."""
        found = self.at(path[:-1])
        if not isinstance(found, ModelDirectory):
            raise fail(errno.ENOTDIR)
        return found

    def open(self, path: Path, flags: int) -> ModelFile:
        above, name = self.directory(path), str(path[-1])
        entry = above.entries.get(name)
        if entry is None:
            if not flags & os.O_CREAT:
                raise fail(errno.ENOENT)
            entry = above.entries[name] = ModelFile()
        elif flags & os.O_CREAT and flags & os.O_EXCL:
            raise fail(errno.EEXIST)
        if isinstance(entry, ModelDirectory):
            raise fail(errno.EISDIR)
        if flags & os.O_TRUNC:
            entry.truncate(0)
        return entry

    def mkdir(self, path: Path) -> None:
        above, name = self.directory(path), str(path[-1])
        if name in above.entries:
            raise fail(errno.EEXIST)
        above.entries[name] = ModelDirectory()

    def mknod(self, path: Path) -> None:
        above, name = self.directory(path), str(path[-1])
        if name in above.entries:
            raise fail(errno.EEXIST)
        above.entries[name] = ModelFile()

    def unlink(self, path: Path) -> None:
        above, name = self.directory(path), str(path[-1])
        if name not in above.entries:
            raise fail(errno.ENOENT)
        if isinstance(above.entries[name], ModelDirectory):
            raise fail(errno.EISDIR)
        del above.entries[name]

    def rmdir(self, path: Path) -> None:
        above, name = self.directory(path), str(path[-1])
        entry = above.entries.get(name)
        if entry is None:
            raise fail(errno.ENOENT)
        if isinstance(entry, ModelFile):
            raise fail(errno.ENOTDIR)
        if entry.entries:
            raise fail(errno.ENOTEMPTY)
        del above.entries[name]

    def rename(self, path: Path, new_path: Path) -> None:
        above, target = self.directory(path), self.directory(new_path)
        name, new_name = str(path[-1]), str(new_path[-1])
        entry, previous = above.entries.get(name), target.entries.get(new_name)
        if entry is None:
            raise fail(errno.ENOENT)
        if entry is previous:
            return
        if isinstance(entry, ModelDirectory):
            if entry.holds(target):
                raise fail(errno.EINVAL)
            if isinstance(previous, ModelFile):
                raise fail(errno.ENOTDIR)
        elif isinstance(previous, ModelDirectory):
            raise fail(errno.EISDIR)
        if isinstance(previous, ModelDirectory) and previous.entries:
            raise fail(errno.ENOTEMPTY)
        del above.entries[name]
        target.entries[new_name] = entry

    def truncate(self, path: Path, size: int) -> None:
        entry = self.at(path)
        if isinstance(entry, ModelDirectory):
            raise fail(errno.EISDIR)
        if size != len(entry.data):
            entry.truncate(size)
        entry.mtime_ns = None

    def utime(self, path: Path, mtime_ns: int) -> None:
        entry = self.at(path)
        if isinstance(entry, ModelFile):
            entry.mtime_ns = mtime_ns
