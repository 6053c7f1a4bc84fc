"""One directory as a manifest describes it, and the contents that were opened from there.

Used by directories and `File`. A file that nobody opened is nothing but a name in a listing. Its content is
made when it is first
needed, once: `opened` finds it for every `File` that was handed out for that name. A name that was removed or
renamed since stays findable in `gone`, so that a `File` handed out before still means the same file. When a
directory gets a new manifest, the old base points to its `successor`.

Threads: `read` takes the lock itself to keep its result; everything else is called with the tree's lock held.
"""

from weakref import WeakValueDictionary

from arvados_fuse.collection.content import Content, Holder
from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.manifest.listing import Listing
from arvados_fuse.collection.manifest.tokens import strip_hints
from arvados_fuse.collection.segments import Segment, Segments
from arvados_fuse.collection.tree import Guard

_NOTHING = Listing.empty()


class Base:
    """What `index` has under `key`, for `directory`; an index of None is a directory that no manifest has.

    disturbed: whether a handed-out file may be something else than the listing says.
    gone: names that are no longer what they were; with their content if it was opened.
    """

    __slots__ = ("_listing", "directory", "disturbed", "gone", "index", "key", "opened", "successor")

    def __init__(self, directory: Holder, index: ManifestIndex | None, key: str) -> None:
        self.directory = directory
        self.index = index
        self.key = key
        self.disturbed = False
        self.gone: dict[str, Content | None] = {}
        self.opened: WeakValueDictionary[str, Content] | None = None
        self.successor: Base | None = None
        self._listing: Listing | None = _NOTHING if index is None else None

    def read(self) -> Listing:
        """The listing. Raises ManifestError when the directory's lines are not legal."""
        listing = self._listing
        if listing is None:
            assert self.index is not None
            # Without the lock: a large directory takes a while, and reading it twice does no harm.
            listing = Listing.read(self.index, self.key)
            with Guard(self.directory) as tree:
                if self._listing is None:
                    self._listing = listing
                    tree.parsed += listing.approximate_size()
        return listing

    def drop(self) -> None:
        """Forget the listing."""
        if self._listing is not None and self.index is not None:
            self.directory.tree.parsed -= self._listing.approximate_size()
            self._listing = None

    def size_of_listing(self) -> int:
        """Bytes of memory."""
        listing = self._listing
        return 0 if listing is None or self.index is None else listing.approximate_size()

    def is_parsed(self) -> bool:
        """Whether the listing is in memory."""
        return self._listing is not None and self.index is not None

    def take_listing(self, older: "Base") -> None:
        """Use the listing of an older base if this manifest has the same lines; saves reading them again."""
        listing, index, other = older._listing, self.index, older.index
        if listing is None or index is None or other is None:
            return
        mine, theirs = index.own(self.key), other.own(older.key)
        if len(mine) != 1 or len(theirs) != 1 or index.has_loose_lines or other.has_loose_lines:
            return
        old, new = other.line(theirs.start), index.line(mine.start)
        if old.tokens() == new.tokens() and strip_hints(b" " + old.head) == strip_hints(b" " + new.head):
            self._listing = listing.moved(mine.start, index.subdirectories(self.key))
            self.directory.tree.parsed += self.size_of_listing()

    # Contents.

    def contents(self) -> dict[str, Content]:
        """Every content that was opened from here and still lives."""
        return {} if self.opened is None else dict(self.opened)

    def known(self, name: str) -> Content | None:
        """The content of a file if it was opened."""
        content = self.gone.get(name)
        if content is None and self.opened is not None:
            content = self.opened.get(name)
        return content

    def content(self, name: str) -> Content:
        """The content of a file, which the listing has."""
        content = self.known(name)
        if content is None:
            segments, generation = self.segments(name)
            content = Content(self.directory, name, segments, index=self.index, generation=generation)
            if name in self.gone:
                content.detach()
                self.gone[name] = content
            else:
                self.register(name, content)
        return content

    def register(self, name: str, content: Content) -> None:
        """Let `known` find a content."""
        if self.opened is None:
            self.opened = WeakValueDictionary()
        self.opened[name] = content
        self.disturbed = True

    def remove(self, name: str) -> None:
        """The file `name` is no longer here; its content, if somebody has it, is up to the caller."""
        self.gone[name] = self.known(name)
        self.disturbed = True

    def segments(self, name: str) -> tuple[Segments, int]:
        """What the manifest says is in a file, and the generation of the signatures."""
        listing, index = self.read(), self.index
        at = listing.find(name)
        assert at is not None
        assert index is not None
        generation = index.generation
        segments = Segments()
        for piece in listing.pieces(at):
            table = index.blocks(piece.entry)
            for number, offset, size in table.pieces(piece.position, piece.size):
                segments.append(Segment(table.locators[number], offset, size))
        return segments, generation
