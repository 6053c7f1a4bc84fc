"""What makes a running mount visible from outside, put together in one place.

Made by `build.py`; it starts with the mount and ends with it. Whoever has more to tell registers it here.
"""

from arvados_fuse.reporting.control import ControlServer


class Inside:
    """Constructing does nothing; `start` after the mount is made, `close` after it is taken away."""

    def __init__(self) -> None:
        self.control = ControlServer()
        """Register requests before `start`."""

    def start(self, minor: int) -> None:
        """Begin to answer, for the mount with this number."""
        self.control.start(minor)

    def close(self) -> None:
        """End what was started; safe to call twice and without `start`."""
        self.control.close()
