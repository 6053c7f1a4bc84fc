"""What stands behind an inode: the base of all nodes, and the small read-only text.

Used by `Inodes` (which numbers and keeps nodes) and `FileSystem` (which asks them). A node is light and lives
only while the kernel or an open handle refers to it; what is expensive to have is kept by the objects it
shows.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from arvados_fuse.tree.attributes import FOREVER, SPECIAL_MODE, Attributes

if TYPE_CHECKING:
    from arvados_fuse.tree.context import Context
    from arvados_fuse.tree.xattrs import Described


Found = tuple[Any, float]
"""What a directory has under a name, and the seconds for which the kernel may remember it. (A plain tuple:
one is
made for every lookup.)"""


class Content(Protocol):
    """An open file: what it was when it was opened, whatever happens to its name."""

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """Bytes from `offset`; fewer than `size` only at the end."""

    def close(self) -> None:
        """The handle is not used any more."""


class Node:
    """One inode. `lookups`, `opens`, `parent` and `name` belong to `Inodes`."""

    __slots__ = ("__weakref__", "context", "ino", "lookups", "name", "opens", "parent")

    lasting = False
    """Whether the kernel is told when the name stands for something else, and may remember it for long."""
    shows = ""
    """At the top of a collection that can change: its uuid."""

    def __init__(self, context: "Context") -> None:
        self.context = context
        self.ino = 0
        self.lookups = 0
        self.opens = 0
        self.parent: DirectoryNode | None = None
        self.name = ""

    def attributes(self, timeout: float | None = None) -> Attributes:
        """`stat`; loads nothing. timeout: seconds for which it may be believed, where the caller knows
        them."""
        raise NotImplementedError

    def described(self) -> "Described | None":
        """The object in Arvados that this is, or is a part of; loads nothing."""
        return None

    def rebind(self, content: Any) -> bool:
        """Whether this node can show `content`, found under its name now, without a program noticing a
        difference.

        False: the name stands for something else now and gets another inode.
        """
        raise NotImplementedError


class FileNode(Node):
    """Something that can be read."""

    __slots__ = ()

    def open(self) -> Content:
        """The content as it is now. May ask the server."""
        raise NotImplementedError


class Snapshot:
    """The names of a directory at the moment it was opened: `readdir` goes through them whatever happens
    since."""

    __slots__ = ("entries", "is_directory", "node")

    def __init__(
        self, node: "DirectoryNode", entries: Sequence[tuple[str, Any]], is_directory: Callable[[Any], bool]
    ) -> None:
        self.node = node
        self.entries = entries
        self.is_directory = is_directory


class DirectoryNode(Node):
    """Something with names in it. `children`: the nodes among them that are in use, by name; belongs to
    `Inodes`."""

    __slots__ = ("children",)

    def __init__(self, context: "Context") -> None:
        super().__init__(context)
        self.children: dict[str, Node] = {}

    def find(self, name: str) -> Found:
        """What is there under `name`. May ask the server. Raises Missing."""
        raise NotImplementedError

    def make(self, name: str, content: Any) -> Node:
        """A node for what `find` found; called with a lock held, so it only constructs."""
        raise NotImplementedError

    def snapshot(self) -> Snapshot:
        """All names, without hidden ones. May ask the server."""
        raise NotImplementedError


class Text(NamedTuple):
    """The content of a special file. mtime_ns: ns since 1970. timeout: seconds to rely on it."""

    data: bytes
    mtime_ns: int
    timeout: float = FOREVER

    @property
    def is_directory(self) -> bool:
        """See Entry."""
        return False

    def read(self, offset: int, size: int) -> bytes:
        """See Content."""
        return self.data[offset : offset + size]

    def close(self) -> None:
        """See Content."""

    def node(self, context: "Context", _parent: DirectoryNode) -> Node:
        """A file showing this."""
        return TextNode(context, self)


class TextNode(FileNode):
    """A special file (README, `.arvados#collection`, ...). Other text under the name gets another inode."""

    __slots__ = ("_text",)

    def __init__(self, context: "Context", text: Text) -> None:
        super().__init__(context)
        self._text = text

    def attributes(self, timeout: float | None = None) -> Attributes:
        text, context = self._text, self.context
        if timeout is None:
            timeout = text.timeout
        return Attributes(
            self.ino, SPECIAL_MODE, len(text.data), text.mtime_ns, context.uid, context.gid, timeout
        )

    def rebind(self, content: Any) -> bool:
        return isinstance(content, Text) and content.data == self._text.data

    def open(self) -> Content:
        return self._text
