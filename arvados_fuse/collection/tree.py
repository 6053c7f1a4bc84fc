"""What all directories and files of one collection share.

Made by `Collection`; used by `Directory`, `File` and `content`.

Lock order, outermost first: the `lock` of a tree (of two trees: the one with the smaller `number` first),
then the lock of a file's content, then the locks inside an index or a spool. A tree's lock guards names and
is never held across I/O. A content's lock may be held while its own bytes go to a spool or to Keep.
"""

from collections.abc import Sequence
from itertools import count
from threading import RLock

from arvados_fuse.collection.spool import MemorySpool, SpoolFactory
from arvados_fuse.collection.stores import BlockStore

_numbers = count()


class Tree:
    """Shared state of one collection's tree.

    blocks: where content is read and stored; None when only names and sizes are wanted.
    version: counts changes of names and of content.
    parsed: bytes of memory that listings take.
    """

    __slots__ = (
        "blocks",
        "lock",
        "new_spool",
        "number",
        "parsed",
        "storage_classes",
        "subject",
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
    ) -> None:
        self.lock = RLock()
        self.number = next(_numbers)
        self.blocks = blocks
        self.new_spool = new_spool
        self.storage_classes: Sequence[str] = ()
        self.subject = subject
        self.writable = writable
        self.version = 0
        self.parsed = 0
