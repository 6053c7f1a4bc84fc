"""What stands behind an inode: the base of all nodes, and the small read-only text.

Used by `Inodes` (which numbers and keeps nodes) and `FileSystem` (which asks them). A node is light and lives
only while the kernel or an open handle refers to it; what is expensive to have is kept by the objects it
shows.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from arvados_fuse.errors import NotPermitted, NotSupported
from arvados_fuse.tree.attributes import FOREVER, SPECIAL_MODE, Attributes

if TYPE_CHECKING:
    from arvados_fuse.tree.context import Context
    from arvados_fuse.tree.open_files import OpenWriting
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

    shows = ""
    """At the top of a collection that can change, or of what a project or user owns: the uuid."""

    def __init__(self, context: "Context") -> None:
        self.context = context
        self.ino = 0
        self.lookups = 0
        self.opens = 0
        self.parent: DirectoryNode | None = None
        self.name = ""

    @property
    def lasting(self) -> bool:
        """Whether the kernel is told when the name stands for something else, and may remember it for
        long."""
        return False

    def path(self) -> str:
        """Where it is on the mount, for reports: names with slashes between them, "" for the root."""
        names: list[str] = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            names.append(node.name)
            node = node.parent
        return "/".join(reversed(names))

    @property
    def stands_for(self) -> str:
        """The uuid or portable data hash of what is shown here, "" where only its parents have one."""
        return ""

    def object(self) -> str:
        """The uuid or portable data hash of what this is or is in, for reports."""
        node: Node | None = self
        while node is not None and not node.stands_for:
            node = node.parent
        return "" if node is None else node.stands_for

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

    def open_writing(self) -> "OpenWriting":
        """The same for writing. Raises NotPermitted where that can't be."""
        raise NotPermitted(f"{self.name!r} can't be changed", subject=self.name)

    def sync(self) -> None:
        """What was written to it is on the server after this."""


class Snapshot:
    """The names of a directory at the moment it was opened: `readdir` goes through them whatever happens
    since. as_of: how many changes of names the mount had seen; `FileSystem` keeps it."""

    __slots__ = ("as_of", "entries", "is_directory", "node")

    def __init__(
        self, node: "DirectoryNode", entries: Sequence[tuple[str, Any]], is_directory: Callable[[Any], bool]
    ) -> None:
        self.node = node
        self.entries = entries
        self.is_directory = is_directory
        self.as_of = 0


class DirectoryNode(Node):
    """Something with names in it. `children`: the nodes among them that are in use, by name; belongs to
    `Inodes`."""

    __slots__ = ("children",)

    gathers = False
    """Whether what is in it may be anybody's, so that each thing in it can be seen or not by itself."""
    grows = False
    """Whether names may appear in it because others permit it."""

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

    # Changes; where they can't be they raise NotPermitted.

    def create(self, name: str) -> Any:
        """A new empty file: what `find` gives for it. Raises ExistsError."""
        raise NotSupported(f"no file can be made in {self.name!r}: {name!r}", subject=name)

    def make_directory(self, name: str) -> Any:
        """A new empty directory: what `find` gives for it. Raises ExistsError."""
        raise self._refusal(name)

    def unlink(self, name: str) -> None:
        """Remove a file. Raises NotFoundError, IsADirectory."""
        raise self._refusal(name)

    def remove_directory(self, name: str) -> None:
        """Remove an empty directory. Raises NotFoundError, NotADirectory, NotEmptyError."""
        raise self._refusal(name)

    def rename(self, name: str, target: "DirectoryNode", new_name: str) -> None:
        """Move an entry into `target`. Raises what POSIX has for it."""
        raise self._refusal(name)

    def sync(self) -> None:
        """What was changed in it is on the server after this."""

    def set_mtime(self, moment_ns: int) -> None:
        """The time it was modified, ns since 1970; kept where that makes sense."""

    def _refusal(self, name: str) -> NotPermitted:
        return NotPermitted(f"{name!r} in {self.name!r} can't be changed", subject=name)


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
