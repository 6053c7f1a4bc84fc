"""The table of inodes: numbers, nodes, and how often the kernel refers to each.

Used by `FileSystem`. A node is in the table while the kernel knows its number, a handle on it is open, or a
node below it is in the table. Any thread may call; the lock is short and nothing is called under it but
constructors.

Invariants (`check`): every node is under its own number; a node's parent is in the table and lists it under
its name, unless the name was taken over by another (then it has no parent); no node is there without a
reason.
"""

import threading
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any

from arvados_fuse.errors import ArvadosFuseError, NotADirectory
from arvados_fuse.tree.nodes import DirectoryNode, FileNode, Node

ROOT = 1
"""The inode number of a FUSE file system's root."""
NUMBER_MASK = (1 << 63) - 1
"""Numbers have 63 bits, so that no program sees a negative one."""


class StaleInode(ArvadosFuseError):
    """The number is not (or no longer) in the table."""


def preferred_number(parent: int, name: str) -> int:
    """The number of an object by its place in the tree.

    The same after a remount, so that programs which remember numbers (git, backups) see unchanged files.
    """
    try:
        raw = name.encode()
    except UnicodeEncodeError:
        raw = name.encode("utf-8", "surrogatepass")
    digest = blake2b(parent.to_bytes(8, "little") + raw, digest_size=8).digest()
    return (int.from_bytes(digest, "little") & NUMBER_MASK) or 2


class Inodes:
    """Number to node. The root is there from the start and never goes."""

    def __init__(self, root: DirectoryNode) -> None:
        self._lock = threading.Lock()
        root.ino = ROOT
        root.lookups = 1
        self._nodes: dict[int, Node] = {ROOT: root}
        self._showing: dict[str, set[Node]] = {}
        if root.shows:
            self._note_shown(root)

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, number: int) -> Node:
        """The node; raises StaleInode."""
        try:
            return self._nodes[number]
        except KeyError:
            raise StaleInode(f"inode {number} is not known", subject=str(number)) from None

    def directory(self, number: int) -> DirectoryNode:
        """The node, which must be a directory; raises StaleInode, NotADirectory."""
        node = self.get(number)
        if not isinstance(node, DirectoryNode):
            raise NotADirectory(f"{node.name!r} is not a directory", subject=node.name)
        return node

    def adopt(self, parent: DirectoryNode, name: str, content: Any) -> Node:
        """The node for `content`, found in `parent` under `name`; counts one lookup by the kernel.

        The node that has the name stays if it can show that content; else it loses the name (whoever has it
        open goes on with it) and a new one is made. Raises StaleInode when the parent is not in the table any
        more: who asks for something in a directory and forgets that meanwhile.
        """
        with self._lock:
            if self._nodes.get(parent.ino) is not parent:
                raise StaleInode(f"inode {parent.ino} is not known", subject=parent.name)
            node = parent.children.get(name)
            if node is not None:
                if node.rebind(content):
                    node.lookups += 1
                    return node
                self._detach(node)
            node = parent.make(name, content)
            node.parent = parent
            node.name = name
            number = preferred_number(parent.ino, name)
            while number in self._nodes or number <= ROOT:
                number = (number + 1) & NUMBER_MASK
            node.ino = number
            node.lookups = 1
            self._nodes[number] = node
            if node.shows:
                self._note_shown(node)
            parent.children[name] = node
            return node

    def unlink(self, parent: DirectoryNode, name: str) -> None:
        """The name is gone; whoever has open what it stood for goes on with it."""
        with self._lock:
            node = parent.children.get(name)
            if node is not None:
                self._detach(node)

    def rename(self, parent: DirectoryNode, name: str, target: DirectoryNode, new_name: str) -> Node | None:
        """What has the name has another one, in another place perhaps, and keeps its number; gives it."""
        with self._lock:
            node = parent.children.get(name)
            replaced = target.children.get(new_name)
            if replaced is not None and replaced is not node:
                self._detach(replaced)
            if node is not None and self._nodes.get(target.ino) is target:
                del parent.children[name]
                node.parent, node.name = target, new_name
                target.children[new_name] = node
                self._drop_unused(parent)
            elif node is not None:
                self._detach(node)
            return node

    def forget(self, counts: Iterable[tuple[int, int]]) -> None:
        """The kernel dropped so many references to these numbers; unknown ones are ignored."""
        with self._lock:
            for number, count in counts:
                node = self._nodes.get(number)
                if node is not None and number != ROOT:
                    node.lookups = max(0, node.lookups - count)
                    self._drop_unused(node)

    def hold(self, node: Node) -> None:
        """A handle on the node was opened."""
        with self._lock:
            node.opens += 1

    def release(self, node: Node) -> None:
        """A handle on the node was closed."""
        with self._lock:
            node.opens -= 1
            self._drop_unused(node)

    def number_of(self, parent: DirectoryNode, name: str) -> int:
        """The number that `name` has, or would have, for a listing."""
        node = parent.children.get(name)
        return node.ino if node is not None else preferred_number(parent.ino, name)

    def all(self) -> list[Node]:
        """Every node in the table at this moment."""
        with self._lock:
            return list(self._nodes.values())

    def shown(self) -> list[str]:
        """The uuids of all collections, projects and users of which a top directory is in the table."""
        with self._lock:
            return list(self._showing)

    def is_in_two_places(self, uuid: str) -> bool:
        """Whether more than one directory that is in use shows the collection `uuid`."""
        return len(self._showing.get(uuid, ())) > 1

    def lasting_tops(self, uuid: str) -> Iterator[Node]:
        """Of the directories that show `uuid`, those of which the kernel may remember the name for long."""
        with self._lock:
            tops = list(self._showing.get(uuid, ()))
        return (node for node in tops if node.lasting)

    def lasting_inside(self, uuid: str) -> Iterator[Node]:
        """Everything in the directories that show `uuid` of which the kernel may remember the name for long,
        without what shows a collection or project of its own.

        The lock is held for one directory at a time: what is adopted meanwhile may be left out.
        """
        with self._lock:
            waiting: list[Node] = list(self._showing.get(uuid, ()))
        while waiting:
            directory = waiting.pop()
            if not isinstance(directory, DirectoryNode):
                continue
            with self._lock:
                children = [node for node in directory.children.values() if not node.shows]
            yield from (node for node in children if node.lasting)
            waiting += children

    def lasting_called(self, uuid: str, name: str) -> Iterator[Node]:
        """What is called `name` in the directories that show `uuid`, or would be but for another of that
        name, if the kernel may remember it for long."""
        apart = f"{name}~"
        with self._lock:
            called: list[Node] = []
            for top in self._showing.get(uuid, ()):
                children = top.children if isinstance(top, DirectoryNode) else {}
                called += [children[name]] if name in children else []
                # Some more than begin so may be told, at half the price for thousands.
                called += [children[child] for child in children if apart in child]
        return (node for node in called if node.lasting)

    def check(self) -> None:
        """Raise AssertionError when an invariant of the table does not hold."""
        with self._lock:
            showing = {node for nodes in self._showing.values() for node in nodes}
            assert showing == {node for node in self._nodes.values() if node.shows}, "books of collections"
            assert all(self._showing.values()), "a collection without a directory is kept"
            for number, node in self._nodes.items():
                where = f"inode {number} ({node.name!r})"
                assert node.ino == number, f"{where} says it is {node.ino}"
                assert node.lookups >= 0, f"{where} has {node.lookups} lookups"
                assert node.opens >= 0, f"{where} has {node.opens} handles"
                children = node.children if isinstance(node, DirectoryNode) else {}
                assert number == ROOT or node.lookups or node.opens or children, f"{where} is not used"
                for name, child in children.items():
                    assert child.parent is node, f"{where} lists {name!r}, which has another parent"
                    assert child.name == name, f"{where} lists {child.name!r} as {name!r}"
                    assert self._nodes.get(child.ino) is child, f"{where} lists {name!r}, not in the table"
                if node.parent is not None:
                    assert node.parent.children.get(node.name) is node, f"{where}: parent lists another"
                    assert self._nodes.get(node.parent.ino) is node.parent, (
                        f"{where}: parent not in the table"
                    )

    def _note_shown(self, node: Node) -> None:
        self._showing.setdefault(node.shows, set()).add(node)

    def _detach(self, node: Node) -> None:
        """Take its name from a node; caller holds the lock."""
        parent, node.parent = node.parent, None
        if parent is not None:
            del parent.children[node.name]
        self._drop_unused(node)

    def _drop_unused(self, node: Node) -> None:
        """Drop the node if nothing refers to it, then its parent likewise; caller holds the lock."""
        current: Node | None = node
        while current is not None and current.ino != ROOT and not current.lookups and not current.opens:
            if isinstance(current, DirectoryNode) and current.children:
                return
            if self._nodes.get(current.ino) is current:
                del self._nodes[current.ino]
            if current.shows and (nodes := self._showing.get(current.shows)):
                nodes.discard(current)
                if not nodes:
                    del self._showing[current.shows]
            parent, current.parent = current.parent, None
            if parent is not None:
                del parent.children[current.name]
            current = parent


__all__ = ["ROOT", "FileNode", "Inodes", "StaleInode", "preferred_number"]
