"""One file of a working copy that is open for writing.

Used by `Working`, whose lock guards it, and by what has it open.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from arvados_fuse.writeback import State

if TYPE_CHECKING:
    from arvados_fuse.tree.working import Working


class Writer:
    """One file that is open for writing.

    before: what the server had at its path when it was opened, renamed or saved last, for the commit to
    compare with.
    recorded: the version of the content that the journal has; -1 for none. mtime_ns: ns since 1970, None as
    long as nothing was written. working: of the collection that the file lies in; another one after a rename
    to there, through whichever place of the tree. It changes with the lock of both.
    """

    __slots__ = ("before", "mtime_ns", "opens", "recorded", "working")

    def __init__(self, working: "Working", before: State, recorded: int) -> None:
        self.working = working
        self.before = before
        self.recorded = recorded
        self.opens = 0
        self.mtime_ns: int | None = None

    @contextmanager
    def held(self) -> "Iterator[Working]":
        """The working copy of the collection that the file lies in, with its lock."""
        while True:
            working = self.working
            with working.lock:
                if working is self.working:
                    yield working
                    return
