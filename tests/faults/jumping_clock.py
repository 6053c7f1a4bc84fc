"""A wall clock that jumps, for processes of one's choice: the others keep the machine's time.

Used by tests of mounts and by the soak run. A small library, made of `jumping_clock.c` with the C compiler of
this machine, is preloaded into a mount; servers and programs are as on another machine then.
"""

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("jumping_clock.c")


class JumpingClock:
    """`make` before the mounts are started."""

    def __init__(self, directory: Path) -> None:
        self._library = directory / "jumping_clock.so"
        self._file = directory / "clock"
        self.environment: dict[str, str] = {}
        """What a process needs to have this clock; empty where it can't be made."""

    def make(self) -> None:
        """Compile. Raises CalledProcessError."""
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            return
        self.set(0)
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        self.environment = {"LD_PRELOAD": str(self._library), "JUMPING_CLOCK": str(self._file)}

    @property
    def can_jump(self) -> bool:
        """Whether it was made."""
        return bool(self.environment)

    def set(self, ahead: int) -> None:
        """Be so many seconds ahead of the machine's clock from now on; behind it with a negative number."""
        # Written over, never replaced: the mounts have it mapped.
        with open(self._file, "r+b" if self._file.exists() else "wb", buffering=0) as file:
            file.write(ahead.to_bytes(8, "little", signed=True))
