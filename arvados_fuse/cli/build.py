"""The only place that wires the floors together: from options and settings to a mount that can be run.

Used by the door. Order: `build` (talks to the API server, starts no thread), `mount`, `start` (threads, so
after any fork), `run` in the main thread, `close`.
"""

from arvados_fuse.api import ApiSettings
from arvados_fuse.errors import SetupError
from arvados_fuse.options import MountOptions


class MountSession:
    """One mount from first to last breath; see the module for the order of calls."""

    def mount(self) -> None:
        """Mount at the directory of the options. Raises SetupError."""
        raise SetupError("not built yet")

    def start(self) -> None:
        """Start the threads."""

    def run(self) -> int | None:
        """Answer until unmounted: None, or the number of the signal that ended it."""
        return None

    def close(self) -> None:
        """Take everything down; safe to call twice and after a failure in any earlier step."""


def build(options: MountOptions, settings: ApiSettings) -> MountSession:
    """Make the mount that `options` describe. Raises SetupError and what the API server answers."""
    raise SetupError(f"{options.mode} at {settings.host}: not built yet")
