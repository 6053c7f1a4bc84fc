"""The set-uid helper with which ordinary users mount and unmount.

Used by `session.py` and `unmount.py`. libfuse 2, on which llfuse stands, calls a program of the name
`fusermount`; there are systems that have only `fusermount3` of libfuse 3, which understands the same words.
"""

import os
import shutil
import tempfile

NAMES = ("fusermount", "fusermount3")


def find() -> str | None:
    """The path of whichever is there."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Alias:
    """While it is there, `fusermount` is found in this process's PATH even if only `fusermount3` exists."""

    def __init__(self) -> None:
        self._directory = ""

    def make(self) -> None:
        """Nothing where `fusermount` exists, or neither does. Raises OSError."""
        if shutil.which(NAMES[0]) is None and (program := find()):
            self._directory = tempfile.mkdtemp(prefix="arv-mount-")
            os.symlink(program, os.path.join(self._directory, NAMES[0]))
            os.environ["PATH"] = self._directory + os.pathsep + os.environ.get("PATH", os.defpath)

    def remove(self) -> None:
        """Safe to call twice."""
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)
            os.environ["PATH"] = os.environ["PATH"].removeprefix(self._directory + os.pathsep)
            self._directory = ""
