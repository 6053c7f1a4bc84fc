"""`--warm`, `--pin` and `--unpin` on real mounts, with the real command."""

import os
import pty
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mounting import Mounted, drop_kernel_caches, mounted, needs_fuse
from servers import PROJECT, LocalServer, wait_for
from worlds import Maker, environment

from arvados_fuse.cli.live import ask

pytestmark = needs_fuse

FILES = {f"d{number}/f": secrets.token_bytes(50_000) for number in range(5)}
COMMAND = [sys.executable, str(PROJECT / "bin/arv-mount")]
BARE = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)}
"""An environment in which no Arvados is configured: the mount has all that is needed."""


def command(*arguments: "str | Path", cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    words = [*COMMAND, *map(str, arguments)]
    return subprocess.run(words, env=BARE, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def own(fresh_server: LocalServer) -> Maker:
    return Maker(fresh_server, fresh_server.settings.token)


def received(mount: Mounted) -> int:
    """Bytes that came from Keep."""
    (told,) = ask(mount.root, "status")
    return int(told["bytes"]["received"])


def test_warm(own: Maker, tmp_path: Path) -> None:
    own.collection("c", FILES)
    own.collection("other", {"f": b"other"})
    with mounted(tmp_path, environment(own.server, own.token), "--home") as mount:
        done = command("--warm", mount.root / "c")
        assert (done.returncode, done.stdout) == (0, "5 files, 250.0 kB, are in the cache\n"), done.stderr
        assert received(mount) == 250_000
        for path, data in FILES.items():
            assert (mount.root / "c" / path).read_bytes() == data
        assert received(mount) == 250_000
        done = command("--warm", "c/d1", "other", cwd=mount.root)
        assert (done.returncode, done.stdout) == (0, "2 files, 50.0 kB, are in the cache\n"), done.stderr
        missing = command("--warm", mount.root / "nothing")
        assert (missing.returncode, missing.stdout) == (1, "")
        wanted = f"arv-mount: {mount.root}/nothing does not exist; see what there is with: ls {mount.root}\n"
        assert missing.stderr == wanted
        missing = command("--unpin", mount.root / "c/d1/nothing")
        assert f"{mount.root}/c/d1/nothing does not exist" in missing.stderr
        done = command("--unpin", mount.root / "c")
        assert (done.returncode, done.stdout) == (0, "nothing was pinned there\n")


def test_pinned_content_outlives_mounts_and_the_cluster(own: Maker, tmp_path: Path) -> None:
    pdh = own.collection("c", FILES)["portable_data_hash"]
    options = ("--all", "--disk-cache-dir", str(tmp_path / "cache"))
    with mounted(tmp_path, environment(own.server, own.token), *options) as mount:
        done = command("--warm", mount.root / "home/c", "--pin")
        assert (done.returncode, done.stdout) == (0, "5 files, 250.0 kB, are pinned\n"), done.stderr
    with mounted(tmp_path, environment(own.server, own.token), *options) as mount:
        own.server.kill()
        drop_kernel_caches()
        for path, data in FILES.items():
            assert (mount.root / "by_id" / pdh / path).read_bytes() == data
        own.server.start()
        done = command("--unpin", mount.root / "home/c")
        assert (done.returncode, done.stdout) == (
            0,
            "1 pin removed: what was kept by it may be evicted again\n",
        ), done.stderr
    assert list((tmp_path / "cache/pins/blocks").iterdir()) == []


def test_a_display_for_terminals_and_an_end_by_the_keyboard(own: Maker, tmp_path: Path) -> None:
    own.collection("c", FILES)
    with mounted(tmp_path, environment(own.server, own.token), "--home") as mount:
        mine, theirs = pty.openpty()
        words = [*COMMAND, "--warm", str(mount.root / "c")]
        done = subprocess.run(
            words,
            env={**BARE, "TERM": "xterm"},
            stdout=subprocess.PIPE,
            stderr=theirs,
            check=False,
            timeout=60,
        )
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(mine, 65536):
                shown += piece
        except OSError:
            pass  # the other end is closed
        os.close(mine)
        assert done.returncode == 0
        assert b"of 5 files" in shown
        # A mount that hangs: the command ends when it is told to.
        mount.process.send_signal(signal.SIGSTOP)
        try:
            with subprocess.Popen(words, env=BARE, stderr=subprocess.DEVNULL) as process:
                wait_for(lambda: _is_connected(process.pid), "it asks the mount")
                process.send_signal(signal.SIGINT)
                assert process.wait(30) == 130
        finally:
            mount.process.send_signal(signal.SIGCONT)


def _is_connected(pid: int) -> bool:
    """Whether a process has a socket open."""
    try:
        return any("socket:" in os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--warm"], 2, "need a PATH"),
        (["--pin", "x", "--unpin", "y"], 2, "not allowed"),
        (["--warm", "x", "--unmount"], 2, "not allowed"),
        (["--warm", "/nowhere/at/all"], 1, "is on no mount"),
    ],
)
def test_what_can_not_be_meant(arguments: list[str], code: int, words: str, tmp_path: Path) -> None:
    done = command(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
