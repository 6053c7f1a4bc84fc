"""The manifest as an index: where each directory's lines are, nothing more.

Used by `base`, `listing` and `plan`. Loading reads stream names only; the tokens of a line are read by
`listing` when its directory is looked into. The text is kept as UTF-8 bytes, so one wide character does not
double its memory.

A directory is known by its key: its path with NUL for each slash ("" for the root). In the sorted list of
keys a directory's own lines stand together, followed by everything below it.

Threads: an index never changes, except that `resign` replaces text and offsets in one assignment.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from itertools import islice
from operator import le, lt
from threading import Lock

from arvados_fuse.collection.manifest.names import PATH_DEPTH_MAX, path_fault, unescape
from arvados_fuse.collection.manifest.tokens import (
    BlockTable,
    Line,
    Tokens,
    line_fault,
    parse_tokens,
    strip_hints,
)
from arvados_fuse.errors import ManifestError

_CONTROL_FREE = bytes(range(0x21, 0x100))
_TABLES_KEPT = 64
"""Block tables remembered, so that opening neighbours does not read the same locators again."""

_PATHS_FACTOR = 32
"""Paths made from tokens with slashes may take this many times the text's bytes: a text of a few
megabytes with one long stream name could otherwise ask for terabytes."""


class ManifestIndex:
    """Where the lines of each directory are.

    keys: sorted keys, one for each line (and for each directory that a line reaches through slashes in
    names).
    in_order: whether the lines already stand in the order of `keys`, each directory's being next to each
    other.
    """

    __slots__ = (
        "_key_bytes",
        "_loose",
        "_signatures",
        "_table_lock",
        "_tables",
        "_text",
        "_virtual",
        "in_order",
        "keys",
    )

    def __init__(self, manifest: str | bytes) -> None:
        """Read the stream names. Raises ManifestError when one of them, or the division into lines, is not
        legal."""
        data = _encode(manifest) if isinstance(manifest, str) else manifest
        starts, raw = _split(data)
        keys = _keys(data, starts, raw)
        order = None
        if not all(map(le, keys, islice(keys, 1, None))):
            order = sorted(range(len(keys)), key=keys.__getitem__)
            keys = [keys[at] for at in order]
            starts = array("Q", (starts[at] for at in order))
        self.in_order = order is None
        self.keys = keys
        self._text: tuple[bytes, array[int], int] = (data, starts, 0)
        self._virtual: dict[int, Tokens] = {}
        self._loose: frozenset[int] = frozenset()
        self._tables: OrderedDict[tuple[int, int], BlockTable] = OrderedDict()
        self._table_lock = Lock()
        self._signatures: tuple[int, dict[str, str]] | None = None
        if _has_paths_in_tokens(data, raw):
            self._spread()
        # Kept, because the size is asked for at every directory: counting then would make a walk quadratic.
        self._key_bytes = sum(map(len, self.keys)) + 57 * len(self.keys)

    def _spread(self) -> None:
        """Give directories that are only reached through slashes in file names their own entries in the
        index."""
        data, starts, _ = self._text
        found: dict[tuple[str, int], tuple[list[str], array[int], array[int]]] = {}
        loose = set()
        budget = _PATHS_FACTOR * len(data) + 65536
        for key, start in zip(self.keys, starts, strict=True):
            line = Line.at(data, start)
            text = line.tokens()
            if b"/" not in text and b"\\057" not in text:
                continue
            tokens = parse_tokens(line, BlockTable(line).size)
            for path, position, size in zip(tokens.names, tokens.positions, tokens.sizes, strict=True):
                parent, slash, name = path.rpartition("/")
                if not slash:
                    continue
                loose.add(start)
                deeper = (key + "\0" if key else "") + parent.replace("/", "\0")
                group = found.get((deeper, start))
                if group is None:
                    budget -= len(deeper)
                    if budget < 0:
                        raise line.fault("too many long paths", path)
                    fault = path_fault(deeper.replace("\0", "/"))
                    if fault:
                        raise line.fault(fault, path)
                    group = found[deeper, start] = ([], array("Q"), array("Q"))
                group[0].append(name)
                group[1].append(position)
                group[2].append(size)
        if not loose:
            return
        rows: list[tuple[str, int, Tokens | None]] = [
            (key, start, None) for key, start in zip(self.keys, starts, strict=True)
        ]
        rows += [(key, start, Tokens(*group)) for (key, start), group in found.items()]
        rows.sort(key=lambda row: row[:2])
        self.keys = [row[0] for row in rows]
        self._text = (data, array("Q", (row[1] for row in rows)), 0)
        self._virtual = {at: row[2] for at, row in enumerate(rows) if row[2] is not None}
        self._loose = frozenset(at for at, row in enumerate(rows) if row[1] in loose)
        self.in_order = False

    # What is where.

    @property
    def generation(self) -> int:
        """Counts the replacements of signatures."""
        return self._text[2]

    @property
    def data(self) -> bytes:
        """The whole text."""
        return self._text[0]

    @property
    def has_loose_lines(self) -> bool:
        """Whether some line holds files of more than one directory, so that lines can't be reused one by
        one."""
        return bool(self._loose)

    def own(self, key: str) -> range:
        """The entries of the directory itself."""
        return range(bisect_left(self.keys, key), bisect_right(self.keys, key))

    def below(self, key: str) -> range:
        """The entries of all directories below."""
        first = bisect_right(self.keys, key)
        return range(first, bisect_left(self.keys, key + "\1", first) if key else len(self.keys))

    def has_directory(self, key: str) -> bool:
        """Whether the manifest has this directory, by a line of its own or by something below it."""
        if not key:
            return True
        at = bisect_left(self.keys, key)
        return at < len(self.keys) and (self.keys[at] == key or self.keys[at].startswith(key + "\0"))

    def subdirectories(self, key: str) -> list[str]:
        """Names of the directories directly in this one, sorted."""
        keys = self.keys
        below = self.below(key)
        at, end = below.start, below.stop
        prefix = key + "\0" if key else ""
        skip = len(prefix)
        found: list[str] = []
        while at < end:
            stop = keys[at].find("\0", skip)
            name = keys[at][skip:] if stop < 0 else keys[at][skip:stop]
            found.append(name)
            at += 1
            if at < end and keys[at].startswith(prefix + name):
                at = bisect_left(keys, prefix + name + "\1", at, end)
        return found

    # Lines.

    def line(self, at: int) -> Line:
        """The line of entry `at`. Raises ManifestError when it has no locator or no file token."""
        data, starts, _ = self._text
        return Line.at(data, starts[at])

    def fault(self, at: int, why: str, token: str) -> ManifestError:
        """The error for something wrong with entry `at`."""
        data, starts, _ = self._text
        return line_fault(data, starts[at], why, token)

    def span(self, first: int, last: int) -> bytes:
        """The text of entries `first` to `last - 1`, whole lines, in the order of the keys; not with loose
        lines."""
        data, starts, _ = self._text
        if first >= last:
            return b""
        if self.in_order:
            return data[starts[first] : data.index(b"\n", starts[last - 1]) + 1]
        return b"".join(data[starts[at] : data.index(b"\n", starts[at]) + 1] for at in range(first, last))

    def tokens(self, at: int) -> Tokens:
        """The files of entry `at`: only those of its own directory. Raises ManifestError."""
        if at in self._virtual:
            return self._virtual[at]
        data, starts, generation = self._text
        line = Line.at(data, starts[at])
        found = parse_tokens(line, self._table(line, generation).size)
        if at not in self._loose:
            return found
        here = [number for number, name in enumerate(found.names) if "/" not in name]
        return Tokens(
            [found.names[number] for number in here],
            array("Q", (found.positions[number] for number in here)),
            array("Q", (found.sizes[number] for number in here)),
        )

    def blocks(self, at: int) -> BlockTable:
        """The blocks that the files of entry `at` lie in. Raises ManifestError."""
        data, starts, generation = self._text
        table = self._tables.get((generation, starts[at]))
        return self._table(Line.at(data, starts[at]), generation) if table is None else table

    def _table(self, line: Line, generation: int) -> BlockTable:
        # The generation is part of the key: while signatures are being replaced both texts are in use.
        table = BlockTable(line)
        with self._table_lock:
            self._tables[generation, line.start] = table
            if len(self._tables) > _TABLES_KEPT:
                self._tables.popitem(last=False)
        return table

    # Signatures.

    def resign(self, manifest: str) -> bool:
        """Take the text with other locator hints if it is otherwise the same; else change nothing and say
        False."""
        try:
            data = _encode(manifest)
        except ManifestError:
            return False
        if strip_hints(data) != strip_hints(self.data):
            return False
        fresh, _ = _split(data)
        old = sorted(set(self._text[1]))
        moved = dict(zip(old, fresh, strict=True))
        with self._table_lock:
            _, starts, generation = self._text
            self._text = (data, array("Q", (moved[start] for start in starts)), generation + 1)
            self._tables.clear()
        return True

    def signed(self, locator: str) -> str:
        """The locator as the text has it now; itself when the text has no such block."""
        data, starts, generation = self._text
        known = self._signatures
        if known is None or known[0] != generation:
            table: dict[str, str] = {}
            for start in sorted(set(starts)):
                for found in Line.at(data, start).head.decode().split(" "):
                    table.setdefault(stripped(found), found)
            known = self._signatures = (generation, table)
        return known[1].get(stripped(locator), locator)

    # Memory and invariants.

    def approximate_size(self) -> int:
        """Bytes of memory that the index takes, the text included."""
        data, starts, _ = self._text
        return len(data) + 8 * len(starts) + self._key_bytes

    def check(self) -> None:
        """Assert the invariants (for tests)."""
        data, starts, _ = self._text
        assert len(starts) == len(self.keys)
        assert all(map(le, self.keys, islice(self.keys, 1, None)))
        assert set(starts) == {0, *(at + 1 for at, byte in enumerate(data) if byte == 0x0A)} - {len(data)}
        if self.in_order:
            assert all(map(lt, starts, islice(starts, 1, None)))
        assert set(self._virtual) <= self._loose


def stripped(locator: str) -> str:
    """`md5+size` of a locator."""
    end = locator.find("+", 33)
    return locator if end < 0 else locator[:end]


def _encode(manifest: str) -> bytes:
    try:
        return manifest.encode()
    except UnicodeEncodeError as error:
        line = manifest.count("\n", 0, error.start) + 1
        raise ManifestError(f"manifest line {line}: not Unicode text", line=line) from None


def _split(data: bytes) -> tuple["array[int]", list[bytes]]:
    """Offsets of the lines and their stream names as they stand."""
    starts = array("Q")
    raw = []
    position, end = 0, len(data)
    find = data.find
    if data and not data.endswith(b"\n"):
        raise line_fault(data, end, "the last line has no end", data[data.rfind(b"\n") + 1 :][:80])
    while position < end:
        stop = find(b"\n", position)
        space = find(b" ", position, stop)
        if space <= position:
            raise line_fault(data, position, "not a stream", data[position : min(stop, position + 80)])
        starts.append(position)
        raw.append(data[position:space])
        position = stop + 1
    return starts, raw


def _has_paths_in_tokens(data: bytes, raw: list[bytes]) -> bool:
    """Whether there may be a slash outside of the stream names. A single byte is found quickest, so it is
    looked for first."""
    if b"/" in data and data.count(b"/") != sum(name.count(b"/") for name in raw):
        return True
    return b"\\" in data and b"\\057" in data


def _keys(data: bytes, starts: "array[int]", raw: list[bytes]) -> list[str]:
    """The keys of stream names, all checked."""
    if not raw:
        return []
    joined = b"\n%s\n" % b"\n".join(raw)
    text = joined.decode()
    plain = (
        not any(part in joined for part in (b"//", b"/./", b"/../", b"/\n", b"/.\n", b"/..\n", b"\\"))
        and {name[:2] for name in raw} <= {b".", b"./"}
        and joined.translate(None, _CONTROL_FREE) == b"\n" * (len(raw) + 1)
        and max(map(len, raw)) < 2 * PATH_DEPTH_MAX
    )
    if plain:
        return [name[2:] for name in text.replace("/", "\0")[1:-1].split("\n")]
    return [_key(data, start, name) for start, name in zip(starts, raw, strict=True)]


def _key(data: bytes, start: int, raw: bytes) -> str:
    if raw.translate(None, _CONTROL_FREE):
        raise line_fault(data, start, "control character in a stream name", raw)
    name = unescape(raw.decode())
    if name == ".":
        return ""
    if not name.startswith("./"):
        raise line_fault(data, start, "a stream name starts with './'", raw)
    fault = path_fault(name[2:])
    if fault:
        raise line_fault(data, start, fault, raw)
    return name[2:].replace("/", "\0")
