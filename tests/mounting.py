"""Real mounts for tests: the command in a process of its own, its log read at the end."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from servers import PROJECT, wait_for

from arvados_fuse.fuse.unmount import mounts_at, unmount

needs_fuse = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="no /dev/fuse that this user may open"
)

UNEXPECTED = ("Traceback", "Unhandled exception", "CRITICAL")
"""What must not be in the log of a mount."""


class Mounted:
    """One mount: where it is, its process, its log."""

    def __init__(self, root: Path, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.root = root
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        """What the process wrote so far."""
        return self._log.read_text(errors="replace")

    def memory(self) -> int:
        """Bytes of resident memory of the process."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the process is gone")

    def asked(self) -> Counter[str]:
        """How many requests of each kind the kernel has made."""
        command = [sys.executable, str(PROJECT / "bin/arv-mount"), "--status", "--json", str(self.root)]
        told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        return Counter({name: tally["count"] for name, tally in told["operations"].items()})


@contextmanager
def mounted(
    base: Path,
    environment: Mapping[str, str],
    *options: str,
    expected: Sequence[str] = (),
    program: Sequence[str] = (str(PROJECT / "bin/arv-mount"),),
) -> Iterator[Mounted]:
    """Mount below `base` with options of the command line; unmount, look at exit code and log at the end.

    expected: words of UNEXPECTED that this test provokes. program: what Python runs as the command.
    """
    number = sum(1 for _ in base.glob("mnt*"))
    root, log = base / f"mnt{number}", base / f"log{number}"
    root.mkdir()
    command = [sys.executable, *program, "--foreground", *options]
    if "--disk-cache-dir" not in options:
        command += ["--disk-cache-dir", str(base / "cache")]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [*command, str(root)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment, "PYTHONPATH": str(PROJECT)},
        )
    result = Mounted(root, process, log)

    def up() -> bool:
        assert process.poll() is None, f"the mount ended with {process.returncode}: {result.log}"
        return bool(mounts_at(root))

    try:
        wait_for(up, "the mount is there")
        root.stat()
        yield result
    finally:
        unmount(root, timeout=10)
        code = process.wait(60)
    assert code == 0, result.log
    wrong = [word for word in UNEXPECTED if word in result.log and word not in expected]
    assert not wrong, result.log


def drop_kernel_caches() -> bool:
    """Make the kernel forget names and pages, where we may; False where we may not."""
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    time.sleep(0)
    return True
