"""Write-back: what programs changed and the server does not have yet."""

from arvados_fuse.writeback.states import DIRECTORY, PathChange, State

__all__ = ["DIRECTORY", "PathChange", "State"]
