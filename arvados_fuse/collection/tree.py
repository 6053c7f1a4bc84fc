"""What all directories and files of one collection share, and the order of locks.

Made by `Collection`; used by directories, files and contents.

Lock order, outermost first: the lock of a tree (of two trees: the smaller `number` first), then that of a
file's content, then those inside an index or a spool. A tree's lock guards names and is never held across
I/O. A content's lock may be held while its own bytes go to a spool or to Keep. No callback is called under a
lock.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from threading import RLock
from typing import Any, Protocol

from arvados_fuse.collection.failures import ReadFailed
from arvados_fuse.collection.spool import MemorySpool, SpoolFactory
from arvados_fuse.collection.stores import BlockStore

_numbers = count()


class Tree:
    """Shared state of one collection's tree.

    blocks: where content is read and stored; when None `find_blocks` tells, if there is one.
    upload_early: whether a file that has a full block of unsaved bytes stores it at once.
    storage_classes: for new blocks.
    owner: the collection, for programs that ask a directory for it.
    version: counts changes of names and contents.
    padding: locator of the block of zeros, and until when (monotonic seconds) it is taken to be stored.
    parsed: bytes of memory that listings take.
    """

    __slots__ = (
        "_versions",
        "blocks",
        "find_blocks",
        "lock",
        "new_spool",
        "number",
        "owner",
        "padding",
        "parsed",
        "storage_classes",
        "subject",
        "upload_early",
        "version",
        "writable",
    )

    def __init__(
        self,
        *,
        blocks: BlockStore | None = None,
        new_spool: SpoolFactory = MemorySpool,
        subject: str = "",
        writable: bool = True,
        owner: Any = None,
    ) -> None:
        self.lock = RLock()
        self.number = next(_numbers)
        self.blocks = blocks
        self.find_blocks: Callable[[], BlockStore] | None = None
        self.new_spool = new_spool
        self.upload_early = True
        self.storage_classes: Sequence[str] = ()
        self.subject = subject
        self.writable = writable
        self.owner = owner
        self.version = 0
        self._versions = count(1)
        self.parsed = 0
        self.padding = ("", 0.0)

    def count_change(self) -> None:
        """Something is different from now on. Any thread, with or without the lock: one atomic step each."""
        self.version = next(self._versions)

    def block_store(self) -> BlockStore | None:
        """Where blocks are; None when only names and sizes are wanted."""
        return self.find_blocks() if self.blocks is None and self.find_blocks is not None else self.blocks

    def need_block_store(self) -> BlockStore:
        """Where blocks are. Raises ReadFailed when there is no such place."""
        blocks = self.block_store()
        if blocks is None:
            raise ReadFailed("no block store to write to", subject=self.subject)
        return blocks


class InTree(Protocol):
    """Something that lies in a tree and may be moved to another one."""

    tree: Tree


class Guard:
    """Holds the lock of the tree that an object lies in, whichever that is by now."""

    __slots__ = ("_inside",)

    def __init__(self, inside: InTree) -> None:
        self._inside = inside

    def __enter__(self) -> Tree:
        while True:
            tree = self._inside.tree
            tree.lock.acquire()
            if self._inside.tree is tree:
                return tree
            tree.lock.release()

    def __exit__(self, *_: object) -> None:
        self._inside.tree.lock.release()


class TwoGuards:
    """Holds the locks of the trees of two objects, in their order."""

    __slots__ = ("_first", "_held", "_second")

    def __init__(self, first: InTree, second: InTree) -> None:
        self._first = first
        self._second = second
        self._held: list[Tree] = []

    def __enter__(self) -> None:
        while True:
            trees = {tree.number: tree for tree in (self._first.tree, self._second.tree)}
            held = [trees[number] for number in sorted(trees)]
            for tree in held:
                tree.lock.acquire()
            if {self._first.tree.number, self._second.tree.number} == set(trees):
                self._held = held
                return
            for tree in reversed(held):
                tree.lock.release()

    def __exit__(self, *_: object) -> None:
        for tree in reversed(self._held):
            tree.lock.release()


def classes_of(record: Mapping[str, Any]) -> list[str]:
    """The storage classes that a record wants for new blocks, as far as they can be names of such."""
    classes = record.get("storage_classes_desired")
    named = [name for name in classes if isinstance(name, str)] if isinstance(classes, list) else []
    return [name for name in named if name.isascii() and name.isprintable()]
