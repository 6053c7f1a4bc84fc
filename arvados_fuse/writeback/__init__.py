"""Unsaved changes: spools, the journal, and the committer that brings them to the server."""

from arvados_fuse.writeback.journal import JournalTooNew, Owner
from arvados_fuse.writeback.recovery import Adoption, Leftover, discard, list_pending
from arvados_fuse.writeback.states import DIRECTORY, PathChange, State
from arvados_fuse.writeback.status import Limits, Saved, Status, Unsaved
from arvados_fuse.writeback.writeback import WriteBack

__all__ = [
    "DIRECTORY",
    "Adoption",
    "JournalTooNew",
    "Leftover",
    "Limits",
    "Owner",
    "PathChange",
    "Saved",
    "State",
    "Status",
    "Unsaved",
    "WriteBack",
    "discard",
    "list_pending",
]
