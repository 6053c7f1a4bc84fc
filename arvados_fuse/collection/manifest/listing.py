"""The entries of one directory as its manifest lines give them, in compact form.

Used by `base`, `plan` and `changes`. A listing is immutable; it holds names, sizes and places, not the lines,
so that it stays valid when signatures are replaced. It can be dropped and read again at any time.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from itertools import islice
from operator import lt
from typing import NamedTuple

from arvados_fuse.collection.manifest.index import ManifestIndex
from arvados_fuse.collection.manifest.tokens import SIZE_MAX


class Piece(NamedTuple):
    """A range of one stream: `entry` is its place in the index, `position` and `size` are bytes."""

    entry: int
    position: int
    size: int


class Listing:
    """Files of a directory, sorted by name, and the names of its subdirectories.

    names, sizes: parallel; sizes in bytes.
    positions: where each file starts in the stream `entry`, except for files in `scattered`.
    in_line_order: whether the tokens of the line are just these files, in this order, and spelled as they
    would be written.
    scattered: files made of several ranges, or lying in another stream than `entry`, by their place in
    `names`.
    """

    __slots__ = ("entry", "in_line_order", "names", "positions", "scattered", "sizes", "subdirectories")

    def __init__(
        self,
        names: list[str],
        sizes: "array[int]",
        positions: "array[int]",
        entry: int,
        scattered: dict[int, tuple[Piece, ...]],
        subdirectories: list[str],
        *,
        in_line_order: bool = False,
    ) -> None:
        self.names = names
        self.sizes = sizes
        self.positions = positions
        self.entry = entry
        self.scattered = scattered
        self.subdirectories = subdirectories
        self.in_line_order = in_line_order

    @classmethod
    def empty(cls) -> "Listing":
        """That of a directory which no manifest has."""
        return cls([], array("Q"), array("Q"), 0, {}, [])

    def moved(self, entry: int, subdirectories: list[str]) -> "Listing | None":
        """The same files of a line that stands elsewhere now; None when not all are of one line."""
        if self.scattered:
            return None
        return Listing(
            self.names,
            self.sizes,
            self.positions,
            entry,
            {},
            subdirectories,
            in_line_order=self.in_line_order,
        )

    @classmethod
    def read(cls, index: ManifestIndex, key: str) -> "Listing":
        """Read the lines of directory `key`. Raises ManifestError when one of them is not legal."""
        own = index.own(key)
        subdirectories = index.subdirectories(key)
        listing = None
        if len(own) == 1:
            listing = cls._read_single(index, own.start, subdirectories)
        if listing is None:
            listing = cls._read_several(index, own, subdirectories)
        listing._refuse_double_names(index, own)
        return listing

    @classmethod
    def _read_single(cls, index: ManifestIndex, entry: int, subdirectories: list[str]) -> "Listing | None":
        """The usual case: one line, each name once, in order."""
        tokens = index.tokens(entry)
        names = tokens.names
        if not tokens.plain and any(name == "." for name in names):
            return None
        sizes, positions = tokens.sizes, tokens.positions
        if not tokens.ascending:
            if len(set(names)) < len(names):
                return None
            order = sorted(range(len(names)), key=names.__getitem__)
            names = [names[at] for at in order]
            sizes = array("Q", (sizes[at] for at in order))
            positions = array("Q", (positions[at] for at in order))
        in_line_order = tokens.ascending and tokens.plain
        return cls(names, sizes, positions, entry, {}, subdirectories, in_line_order=in_line_order)

    @classmethod
    def _read_several(cls, index: ManifestIndex, own: range, subdirectories: list[str]) -> "Listing":
        """Any lines: a path may come in several tokens, and is then all of them one after the other."""
        found: dict[str, list[Piece]] = {}
        for entry in own:
            tokens = index.tokens(entry)
            for name, position, size in zip(tokens.names, tokens.positions, tokens.sizes, strict=True):
                if name != ".":
                    found.setdefault(name, []).append(Piece(entry, position, size))
        names = sorted(found)
        home = own.start
        sizes, positions = array("Q"), array("Q")
        scattered = {}
        for at, name in enumerate(names):
            pieces = found[name]
            total = sum(piece.size for piece in pieces)
            if total > SIZE_MAX:
                raise index.fault(pieces[-1].entry, "file is longer than 2^63-1 bytes", name)
            sizes.append(total)
            positions.append(pieces[0].position)
            if len(pieces) > 1 or pieces[0].entry != home:
                scattered[at] = tuple(pieces)
        return cls(names, sizes, positions, home, scattered, subdirectories)

    def _refuse_double_names(self, index: ManifestIndex, own: range) -> None:
        if len(self.subdirectories) <= len(self.names):
            double = next((name for name in self.subdirectories if self.find(name) is not None), None)
        else:
            subdirectories = set(self.subdirectories)
            double = next((name for name in self.names if name in subdirectories), None)
        if double is not None:
            raise index.fault(own.start, "both a file and a directory", double)

    def find(self, name: str) -> int | None:
        """Place of a file, or None."""
        at = bisect_left(self.names, name)
        return at if at < len(self.names) and self.names[at] == name else None

    def has_subdirectory(self, name: str) -> bool:
        """Whether there is a directory of this name."""
        at = bisect_left(self.subdirectories, name)
        return at < len(self.subdirectories) and self.subdirectories[at] == name

    def pieces(self, at: int) -> Iterator[Piece]:
        """The ranges that make up the file at a place, in order."""
        if at in self.scattered:
            yield from self.scattered[at]
        else:
            yield Piece(self.entry, self.positions[at], self.sizes[at])

    def approximate_size(self) -> int:
        """Bytes of memory."""
        count = len(self.names)
        sample = self.names[:: count // 32 + 1]
        text = count * (49 + sum(map(len, sample)) // max(1, len(sample)))
        places = 16 * count + 150 * sum(map(len, self.scattered.values()))
        return 200 + 8 * count + text + places + 70 * len(self.subdirectories)

    def check(self) -> None:
        """Assert the invariants (for tests)."""
        assert len(self.names) == len(self.sizes) == len(self.positions)
        assert all(map(lt, self.names, islice(self.names, 1, None)))
        assert all(map(lt, self.subdirectories, islice(self.subdirectories, 1, None)))
        assert not set(self.names) & set(self.subdirectories)
        for at, pieces in self.scattered.items():
            assert sum(piece.size for piece in pieces) == self.sizes[at]
