"""`--top` on busy mounts, in a real terminal (tmux)."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mounting import Mounted, mounted, needs_fuse
from servers import PROJECT, wait_for
from worlds import World, environment

pytestmark = [
    needs_fuse,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux"),
]


class Terminal:
    """A terminal of 100 columns and 30 lines that runs `--top`, and says afterwards how it ended."""

    def __init__(self, base: Path, arguments: str) -> None:
        self._socket = ["tmux", "-S", str(base / "tmux"), "-f", "/dev/null"]
        program = shlex.join([sys.executable, str(PROJECT / "bin/arv-mount")])
        self._tmux("new-session", "-d", "-x", "100", "-y", "30", f"{program} {arguments}; echo ended $?; cat")

    def _tmux(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._socket, *arguments],
            env={**os.environ, "PYTHONPATH": str(PROJECT), "TMUX": "", "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout

    @property
    def text(self) -> str:
        return self._tmux("capture-pane", "-p")

    def shows(self, *words: str) -> str:
        def found() -> str:
            text = self.text
            return text if all(word in text for word in words) else ""

        try:
            return wait_for(found, f"the terminal shows {words}", 30)
        except AssertionError:
            raise AssertionError(f"the terminal does not show {words}:\n{self.text}") from None

    def press(self, key: str) -> None:
        self._tmux("send-keys", key)

    def resize(self, columns: int, lines: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def close(self) -> None:
        self._tmux("kill-server")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[[str], Terminal]]:
    opened: list[Terminal] = []

    def make(arguments: str) -> Terminal:
        opened.append(Terminal(tmp_path, arguments))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@contextmanager
def busy(mount: Mounted) -> Iterator[None]:
    """A program that reads one file over and over."""
    stopping = threading.Event()

    def read() -> None:
        while not stopping.is_set():
            descriptor = os.open(mount.root / "plain/data/numbers.bin", os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            while os.read(descriptor, 1 << 20):
                pass
            os.close(descriptor)
            stopping.wait(0.01)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def test_a_busy_mount_and_q(world: World, tmp_path: Path, terminal: Callable[[str], Terminal]) -> None:
    with mounted(tmp_path, environment(world.server, world.token), "--home") as mount, busy(mount):
        shown = terminal(f"--top {mount.root}")
        text = shown.shows("operation", "read", "lookup", "plain/data/numbers.bin", "/s", "q ends this")
        first = text.splitlines()[0]
        assert str(mount.root) in first
        assert "read-only" in first
        rate = next(line for line in text.splitlines() if line.startswith("read "))
        assert int(rate.split()[1].replace(",", "")) > 0
        assert "ms" in rate or "us" in rate
        shown.resize(70, 20)
        wait_for(lambda: 0 < len(shown.text.rstrip().splitlines()) <= 20, "the picture fits 20 lines")
        assert "plain/data/numbers.bin" in shown.shows("q ends this")
        shown.press("q")
        shown.shows("ended 0")


def test_ctrl_c(world: World, tmp_path: Path, terminal: Callable[[str], Terminal]) -> None:
    with mounted(tmp_path, environment(world.server, world.token), "--home") as mount:
        shown = terminal(f"--top {mount.root}")
        shown.shows("q ends this")
        shown.press("C-c")
        text = shown.shows("ended 0")
        assert "Traceback" not in text


def test_the_mount_ends(world: World, tmp_path: Path, terminal: Callable[[str], Terminal]) -> None:
    with mounted(tmp_path, environment(world.server, world.token), "--home") as mount:
        shown = terminal(f"--top {mount.root}")
        shown.shows("q ends this")
        mount.process.send_signal(signal.SIGTERM)
        text = shown.shows("ended 1")
        assert "arv-mount: the mount " in text
        assert "Traceback" not in text


def test_without_a_terminal(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PROJECT / "bin/arv-mount"), "--top", str(tmp_path)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "arv-mount: --top needs a terminal; for programs there is: arv-mount --status --json\n"
    )


def test_nothing_mounted(tmp_path: Path, terminal: Callable[[str], Terminal]) -> None:
    text = terminal(f"--top {tmp_path}").shows("ended 1")
    assert "nothing is mounted" in text
