"""A file in a collection, as it is handed out.

Made by directories. A `File` that was only listed is a name and a size; what it stands for is found when it
is first read or changed, and stays the same file through renames and unlinking, whichever `File` of it is
used.

Threads: any; see `tree` for the order of locks.
"""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, overload

from arvados_fuse.collection.base import Base
from arvados_fuse.collection.content import Content, Holder
from arvados_fuse.collection.failures import CollectionReadOnly
from arvados_fuse.collection.file_api import FileApi, comparable
from arvados_fuse.collection.stores import BlockReader
from arvados_fuse.collection.tree import Guard


class File(FileApi):
    """One file. Two of them are equal when their segments are, as with the SDK's `ArvadosFile`."""

    __slots__ = ("_base", "_content", "_name", "_size")

    def __init__(self, base: Base | None, name: str, size: int = 0, content: Content | None = None) -> None:
        """A file that is in the listing of `base`, or `content`."""
        self._base = base
        self._name = name
        self._size = size
        self._content = content

    # Where and what.

    @property
    def name(self) -> str:
        """Where it is in its directory, or was last."""
        content = self._peek()
        return self._name if content is None else content.name

    @property
    def parent(self) -> Holder:
        """The directory it is in, or was last in."""
        content = self._peek()
        if content is not None:
            return content.parent
        assert self._base is not None
        return self._base.directory

    def is_linked(self) -> bool:
        """Whether it can still be found under its name."""
        content = self._peek()
        return content is None or content.linked

    def size(self) -> int:
        """Bytes."""
        base = self._base
        if self._content is None and base is not None and not base.disturbed:
            return self._size  # without another call: whoever lists a million files asks each
        content = self._peek()
        return self._size if content is None else content.size

    def content(self) -> Content:
        """What all `File`s of this file share. Raises ManifestError when its locators are not legal."""
        content = self._peek()
        if content is None:
            base = self._base
            assert base is not None
            with Guard(base.directory):
                content = self._follow()
                if content is None:
                    assert self._base is not None
                    content = self._content = self._base.content(self._name)
        return content

    def _peek(self) -> Content | None:
        """The content if it was opened, by whomever; None while the listing's word is good."""
        if self._content is None and self._base is not None and self._base.disturbed:
            with Guard(self._base.directory):
                return self._follow()
        return self._content

    def _follow(self) -> Content | None:
        """Caller holds the tree's lock. Follow the file through the manifests that its directory had
        since."""
        while self._content is None:
            base = self._base
            assert base is not None
            self._content = base.known(self._name)
            if self._content is None and self._name in base.gone:
                self._content = base.content(self._name)
            if self._content is not None or base.successor is None:
                break
            listing = base.successor.read()
            at = listing.find(self._name)
            if at is None:
                base.remove(self._name)
            else:
                self._base = base.successor
                self._size = listing.sizes[at]
        return self._content

    # Content.

    def read(self, offset: int, size: int, blocks: BlockReader | None = None) -> bytes | memoryview:
        """The bytes from `offset`, at most `size`, less only at the end of the file.

        blocks: takes the place of the collection's block store (a reader that reads ahead for one handle). A
        read inside one block gives what the block store gave, without a copy. Raises an ArvadosFuseError when
        a block can't be had.
        """
        content = self._content
        return (self.content() if content is None else content).read(offset, size, blocks)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        """Put bytes at `offset`; a gap before them becomes zeros. Gives their number."""
        self.need_writable()
        return self.content().write(offset, data)

    def append(self, data: bytes | bytearray | memoryview) -> int:
        """Put bytes at the end, wherever that is by now. Gives the offset behind them."""
        self.need_writable()
        return self.content().append(data)

    def truncate(self, size: int) -> None:
        """Cut the file, or make it longer with zeros, which take no space."""
        self.need_writable()
        self.content().truncate(size)

    def clone(self, new_parent: Any, new_name: str) -> "File":
        """A copy by reference, which lies nowhere until `new_parent.add` puts it there."""
        return File(None, new_name, 0, self.content().clone(new_parent.here(), new_name))

    def is_same(self, other: "File") -> bool:
        """Whether both are the same file, not only files of the same content."""
        mine, theirs = self._peek(), other._peek()
        if mine is None and theirs is None:
            return self._base is other._base and self._name == other._name
        return self.content() is other.content()

    def version(self) -> int:
        """Counts changes of the content; 0 for one that nobody opened."""
        content = self._peek()
        return 0 if content is None else content.version

    def need_writable(self) -> None:
        """Raise CollectionReadOnly unless the collection may be changed."""
        if not self.parent.tree.writable:
            raise CollectionReadOnly("the collection is read-only", subject=self.parent.tree.subject)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, File):
            return NotImplemented
        if self.size() != other.size():
            return False
        mine, theirs = self.content(), other.content()
        return mine is theirs or comparable(mine) == comparable(theirs)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<File {self.name!r} of {self.size()} bytes>"


class Files(Sequence[tuple[str, File]]):
    """The files of a listing with their names, in order, each made when it is asked for.

    A directory of a million files costs nothing but its listing to whoever goes through it once.
    """

    __slots__ = ("_base", "_listing")

    def __init__(self, base: Base) -> None:
        """Raises ManifestError when the directory's lines are not legal."""
        self._base = base
        self._listing = base.read()

    def __len__(self) -> int:
        return len(self._listing.names)

    def __iter__(self) -> Iterator[tuple[str, File]]:
        listing = self._listing
        return zip(listing.names, map(File, repeat(self._base), listing.names, listing.sizes), strict=False)

    @overload
    def __getitem__(self, at: int) -> tuple[str, File]: ...

    @overload
    def __getitem__(self, at: slice) -> list[tuple[str, File]]: ...

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        name = self._listing.names[at]
        return name, File(self._base, name, self._listing.sizes[at])
