"""The files in a manifest as a tree that can be taken apart and put together again.

`collections` and `replacing` change collections with it. A directory whose line nobody touches stays the text
that it was, so a change of a few files costs no walk over the others. Not for several threads. Paths have no
slash at their ends, "" is the root. Written manifests are normalized as the Arvados SDKs do it: directories
before what is in them, names sorted, each block once per stream in the order of its first use, tokens that
continue each other joined.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import accumulate
from operator import itemgetter

from arvados_fuse.local.records.apierror import invalid
from arvados_fuse.local.records.manifest import escape, unescape
from arvados_fuse.local.signature import EMPTY_BLOCK

Segment = tuple[str, int, int]
"""(locator without hints, offset in the block, length), bytes."""
Segments = tuple[Segment, ...]
"""The content of a file. Tuples, because a million of them cost the garbage collector nothing."""
Files = dict[str, Segments]

_TOKEN = re.compile(r" ([0-9]+):([0-9]+):([^ ]+)")
_FIRST_TOKEN = re.compile(r" (?=[0-9]+:[0-9]+:)")
_EMPTY_DIRECTORY = f"{EMPTY_BLOCK} 0:0:\\056"


class Directory:
    """One directory: its line without the stream name, and its files once they are needed.

    original: it is as it was loaded, so its files are in the totals that came with the text.
    """

    __slots__ = ("_files", "_line", "original")

    def __init__(self, line: str | None = "", files: Files | None = None, *, original: bool = False) -> None:
        self._line = line
        self._files = files
        self.original = original

    @property
    def has_files(self) -> bool:
        return bool(self._files if self._line is None else self._line)

    def mentions(self, locators: Iterable[str]) -> bool:
        """Whether one of `locators` may be in it; cheap while nobody has changed it."""
        if self._line is not None:
            return any(locator in self._line for locator in locators)
        wanted = set(locators)
        return any(segment[0] in wanted for segments in self.files().values() for segment in segments)

    def files(self) -> Mapping[str, Segments]:
        """What is in it, to look at."""
        if self._files is None:
            self._files = parse(self._line or "")
        return self._files

    def changeable(self) -> Files:
        """Its files, to change; from now on its line is written anew."""
        files = self.files()
        self._line = None
        assert isinstance(files, dict)
        return files

    def copy(self) -> "Directory":
        """One like it, for another place."""
        return Directory(self._line, dict(self.files()) if self._line is None else None)

    def line(self) -> str:
        """Its line in a manifest without the stream name; "" when there is no file in it."""
        return write(self.files()) if self._line is None else self._line

    def totals(self) -> tuple[int, int]:
        """(number of files, bytes in them)"""
        if self._line is None or self._files is not None:
            bytes_in = (segment[2] for segments in self.files().values() for segment in segments)
            return len(self.files()), sum(bytes_in)
        tokens = _TOKEN.findall(self._line, _tokens_at(self._line))
        return len(set(map(itemgetter(2), tokens))), sum(map(int, map(itemgetter(1), tokens)))


Piece = Segments | dict[str, Directory]
"""What is at a path: a file, or a directory's subdirectories by relative path, "" being itself."""


class Content:
    """A collection's files. `load` one, change it, take its `text`."""

    def __init__(self) -> None:
        self._directories: dict[str, Directory] = {"": Directory()}
        self._file_count = 0
        self._file_size_total = 0

    @classmethod
    def load(cls, text: str, totals: tuple[int, int] | None = None) -> "Content":
        """The files in a legal manifest without hints.

        totals: number of files and their bytes, given with a text that this class has written. Without them,
            every line is looked at, and those that are not normalized are taken apart and written anew.
        """
        content = cls()
        known = totals is not None
        content._file_count, content._file_size_total = totals or (0, 0)
        for line in text.split("\n")[:-1]:
            stream, _, rest = line.partition(" ")
            path = unescape(stream)[2:]
            there = content._directories.get(path)
            if rest == _EMPTY_DIRECTORY:
                content._make(path, check=False)
            elif (there is None or not there.has_files) and (known or is_normalized(rest)):
                content._make(path, check=False)
                content._directories[path] = Directory(rest, original=known)
            else:
                content._add(path, parse(rest))
        return content

    def take(self, path: str) -> Piece | None:
        """A copy of what is at `path`, None when nothing is there."""
        if path in self._directories:
            start = len(path) + 1 if path else 0
            return {name[start:]: self._directories[name].copy() for name in self._below(path)}
        parent, _, name = path.rpartition("/")
        directory = self._directories.get(parent)
        return directory.files().get(name) if directory is not None else None

    def remove(self, path: str) -> None:
        """Take away what is at `path`, if there is something. The directory around it stays, even empty."""
        if path in self._directories:
            for name in self._below(path):
                self._leave(self._directories.pop(name))
            self._directories.setdefault("", Directory())
            return
        parent, _, name = path.rpartition("/")
        directory = self._directories.get(parent)
        if directory is not None and name in directory.files():
            self._change(directory).pop(name)

    def put(self, path: str, piece: Piece) -> None:
        """Put `piece` at `path` in place of what is there, with the directories that it needs.

        Raises ApiError 422 when a directory of `path` is a file, or a file is to be the root.
        """
        self.remove(path)
        parent, _, name = path.rpartition("/")
        if isinstance(piece, dict):
            self._make(path)
            for relative, directory in piece.items():
                self._directories["/".join(filter(None, (path, relative)))] = directory
        elif not path:
            raise invalid("a file can't take the place of the whole collection")
        else:
            self._make(parent)
            self._change(self._directories[parent])[name] = piece

    def replace_segments(self, wanted: Mapping[Segment, Segment]) -> None:
        """Let `wanted` values take the place of the segments that are its keys, wherever they occur."""
        locators = {segment[0] for segment in wanted}
        for directory in self._directories.values():
            if directory.mentions(locators):
                files = self._change(directory)
                for name, segments in files.items():
                    files[name] = joined(wanted.get(segment, segment) for segment in segments)

    def segments(self, locators: set[str]) -> set[Segment]:
        """The segments of files that are in one of the blocks `locators`."""
        found: set[Segment] = set()
        for directory in self._directories.values():
            if directory.mentions(locators):
                for segments in directory.files().values():
                    found.update(segment for segment in segments if segment[0] in locators)
        return found

    def text(self) -> str:
        """The normalized manifest, without hints."""
        parents = {path.rpartition("/")[0] for path in self._directories if path}
        lines = []
        for path in sorted(self._directories, key=lambda path: path.split("/") if path else []):
            directory = self._directories[path]
            if directory.has_files:
                lines.append(f"{escape('./' + path) if path else '.'} {directory.line()}\n")
            elif path and path not in parents:
                lines.append(f"{escape('./' + path)} {_EMPTY_DIRECTORY}\n")
        return "".join(lines)

    def totals(self) -> tuple[int, int]:
        """(number of files, bytes in them)"""
        changed = [directory.totals() for directory in self._directories.values() if not directory.original]
        count, size = (sum(numbers) for numbers in zip((0, 0), *changed, strict=True))
        return self._file_count + count, self._file_size_total + size

    def _below(self, path: str) -> list[str]:
        prefix = f"{path}/" if path else ""
        return [name for name in self._directories if name == path or name.startswith(prefix)]

    def _make(self, path: str, *, check: bool = True) -> None:
        """Let `path` and the directories above it be there; with `check`, no file may be in the way."""
        while path not in self._directories:
            parent, _, name = path.rpartition("/")
            above = self._directories.get(parent)
            if check and above is not None and name in above.files():
                raise invalid(f"{path[:200]!r} is a file, not a directory")
            self._directories[path] = Directory()
            path = parent

    def _add(self, path: str, files: Files) -> None:
        """Add to the directory `path`: to files that are there already, the rest of them is appended."""
        self._make(path, check=False)
        for name, segments in files.items():
            directory, _, last = name.rpartition("/")
            full = "/".join(filter(None, (path, directory)))
            self._make(full, check=False)
            if last != ".":
                there = self._directories[full].changeable()
                there[last] = joined((*there.get(last, ()), *segments))

    def _change(self, directory: Directory) -> Files:
        self._leave(directory)
        directory.original = False
        return directory.changeable()

    def _leave(self, directory: Directory) -> None:
        """`directory` is about to be no longer as it was loaded."""
        if directory.original:
            count, size = directory.totals()
            self._file_count -= count
            self._file_size_total -= size


def parse(rest: str) -> Files:
    """The files of one manifest line without its stream name, by their names without escapes."""
    end = _tokens_at(rest)
    locators = rest[:end].split()
    sizes = [int(locator[33:]) for locator in locators]
    starts = [0, *accumulate(sizes)]
    escaped = "\\" in rest
    files: Files = {}
    pieces: dict[str, list[Segment]] = {}  # of files that are in several tokens
    block = begin = limit = 0
    for position_text, size_text, name in _TOKEN.findall(rest, end):
        position, size = int(position_text), int(size_text)
        if not begin <= position < limit:
            block = bisect_right(starts, position) - 1
            begin, limit = starts[block], starts[min(block + 1, len(sizes))]
        segments: Segments
        if not size:
            segments = ()
        elif position + size <= limit:
            segments = ((locators[block], position - begin, size),)
        else:
            segments = _over_blocks(locators, sizes, block, position - begin, size)
        if escaped:
            name = unescape(name)
        if name not in files:
            files[name] = segments
        elif name in pieces:
            pieces[name] += segments
        else:
            pieces[name] = [*files[name], *segments]
    for name, all_of_it in pieces.items():
        files[name] = joined(all_of_it)
    return files


def is_normalized(rest: str) -> bool:
    """Whether a manifest line without its stream name is surely as `write` makes it.

    Recognizes the usual: files in the order of their names, one after the other in blocks that are all used.
    """
    end = _tokens_at(rest)
    locators = rest[:end].split()
    tokens = _TOKEN.findall(rest, end)
    if len(set(locators)) != len(locators) or "/" in rest or rest.count(":") != 2 * len(tokens):
        return False
    names = list(map(itemgetter(2), tokens))
    if "\\" in rest:
        plain = list(map(unescape, names))
        if list(map(escape, plain)) != names:
            return False
        names = plain
    if names != sorted(set(names)) or "." in names:
        return False
    sizes = list(map(int, map(itemgetter(1), tokens)))
    ends = list(accumulate(sizes))
    wanted = [f" {end - size if size else 0}:{size}:" for end, size in zip(ends, sizes, strict=True)]
    if [f" {position}:{size}:" for position, size, _ in tokens] != wanted:
        return False
    if not ends[-1]:
        return locators == [EMPTY_BLOCK]
    # The tail of the last block may be unused.
    blocks = [int(locator[33:]) for locator in locators]
    return 0 not in blocks and ends[-1] > sum(blocks[:-1])


def write(files: Mapping[str, Segments]) -> str:
    """A normalized manifest line without its stream name; "" for no files."""
    names = sorted(files)
    starts: dict[str, int] = {}
    length = 0
    for name in names:
        for locator, _, _ in files[name]:
            if locator not in starts:
                starts[locator] = length
                length += int(locator.partition("+")[2])
    tokens: list[str] = list(starts) or [EMPTY_BLOCK] if names else []
    for name in names:
        escaped = escape(name)
        begin = end = 0
        for locator, offset, size in files[name]:
            position = starts[locator] + offset
            if position != end and end > begin:
                tokens.append(f"{begin}:{end - begin}:{escaped}")
                begin = position
            elif end == begin:
                begin = position
            end = position + size
        tokens.append(f"{begin}:{end - begin}:{escaped}" if end > begin else f"0:0:{escaped}")
    return " ".join(tokens)


def joined(segments: Iterable[Segment]) -> Segments:
    """`segments` with those made one that continue each other in the same block."""
    found: list[Segment] = []
    for segment in segments:
        if found:
            locator, offset, length = found[-1]
            if locator == segment[0] and offset + length == segment[1]:
                found[-1] = (locator, offset, length + segment[2])
                continue
        found.append(segment)
    return tuple(found)


def _over_blocks(locators: list[str], sizes: list[int], block: int, offset: int, size: int) -> Segments:
    """The segments of `size` bytes that begin at `offset` in block number `block` and go on in the next."""
    segments = []
    while size > 0:
        length = min(size, sizes[block] - offset)
        if length > 0:
            segments.append((locators[block], offset, length))
        size -= length
        offset = 0
        block += 1
    return joined(segments)


def _tokens_at(rest: str) -> int:
    """Where the blank before the first file token is."""
    first = _FIRST_TOKEN.search(rest)
    return first.start() if first else len(rest)
