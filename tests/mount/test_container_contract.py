"""What the container dispatcher does with a mount, step by step: start, wait, read, write, watch, end.

The command line, the readiness check, the paths, the patterns in stderr and the times are those of Arvados'
crunch-run, which keeps calling arv-mount in this way.
"""

import json
import os
import re
import secrets
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from mounting import needs_fuse
from servers import PROJECT, LocalServer, wait_for
from worlds import Maker, environment

from arvados_fuse.fuse.unmount import mounts_at, unmount

PROGRAM = [sys.executable, str(PROJECT / "bin" / "arv-mount")]
ALARMS = re.compile(r"Keep write error|Block not found error|Unhandled exception during FUSE operation")
"""What the dispatcher looks for in stderr."""
LOGGED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (\S+)\[\d+\] [A-Z]+: (.*)")
UNMOUNT_TIMEOUT, PATIENCE = 8, 9.0
"""Seconds: what the unmounting command is told, and when the dispatcher kills what is still there."""

BY_HASH = ["--mount-by-pdh", "by_id", "--disable-event-listening", "--mount-by-id", "by_uuid"]
BY_ID = ["--mount-by-id", "by_id", "--mount-by-id", "by_uuid"]

pytestmark = needs_fuse


class Container:
    """One mount as the dispatcher starts it."""

    def __init__(self, server: LocalServer, token: str, base: Path, options: Sequence[str]) -> None:
        self.mnt, self._stderr = base / "keep", base / "arv-mount.txt"
        self.mnt.mkdir()
        self.environment = {
            **os.environ,
            **environment(server, token),
            "ARVADOS_KEEP_SERVICES": " ".join(server.settings.keep_services),
            "PYTHONPATH": str(PROJECT),
        }
        with open(self._stderr, "wb") as output:
            self.process = subprocess.Popen(
                [*PROGRAM, "--foreground", *options, str(self.mnt)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    def ready(self) -> None:
        def there() -> bool:
            assert self.process.poll() is None, self.stderr
            return (self.mnt / "by_id" / "README").exists()

        wait_for(there, "by_id/README")

    def end(self) -> float:
        """Unmount as the dispatcher does; the seconds until the mount's process was gone."""
        began = time.monotonic()
        command = [*PROGRAM, f"--unmount-timeout={UNMOUNT_TIMEOUT}", "--unmount", str(self.mnt)]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        self.process.wait(PATIENCE)
        assert not mounts_at(self.mnt)
        return time.monotonic() - began


@contextmanager
def container(
    server: LocalServer, token: str, base: Path, *options: str, cache: Sequence[str] = ()
) -> Iterator[Container]:
    cache = cache or ["--disk-cache", "--disk-cache-dir", str(base / "cache"), "--file-cache", "1"]
    running = Container(server, token, base, [*cache, *options])
    try:
        running.ready()
        yield running
    finally:
        unmount(running.mnt, timeout=5)
        running.process.kill()
        running.process.wait()


@pytest.fixture
def image(mine: Maker) -> tuple[str, str, bytes]:
    """uuid, portable data hash and content of a collection with an image of several blocks."""
    blocks = [secrets.token_bytes(300_000) for _ in range(3)]
    locators = " ".join(mine.block(block) for block in blocks)
    content = b"".join(blocks)
    made = mine.make("collections", name="image", manifest_text=f". {locators} 0:{len(content)}:image.sif\n")
    return made["uuid"], made["portable_data_hash"], content


@pytest.mark.parametrize("layout", [BY_HASH, BY_ID], ids=["by hash", "by id"])
@pytest.mark.parametrize("ram", [False, True], ids=["disk", "memory"])
def test_a_container_that_reads(
    mine: Maker, image: tuple[str, str, bytes], tmp_path: Path, layout: list[str], ram: bool
) -> None:
    uuid, pdh, content = image
    cache = ["--ram-cache", "--file-cache", "1"] if ram else []
    with container(mine.server, mine.token, tmp_path, *layout, cache=cache) as running:
        assert (running.mnt / "by_id" / pdh / "image.sif").read_bytes() == content
        assert (running.mnt / "by_uuid" / uuid / "image.sif").read_bytes() == content
        record = json.loads((running.mnt / "by_uuid" / uuid / ".arvados#collection").read_text())
        assert record["portable_data_hash"] == pdh
        # Some other step of the workflow makes this while the container is running.
        later = mine.collection("later", {"input.txt": b"input\n"})["portable_data_hash"]
        assert (running.mnt / "by_id" / later / "input.txt").read_bytes() == b"input\n"
        assert running.end() < PATIENCE
        assert running.process.returncode == 0
        assert not ALARMS.search(running.stderr)
        assert "Traceback" not in running.stderr


def test_somebody_who_stays_in_the_mount_does_not_hold_up_the_end(
    mine: Maker, image: tuple[str, str, bytes], tmp_path: Path
) -> None:
    _, pdh, _ = image
    with container(mine.server, mine.token, tmp_path, *BY_HASH) as running:
        inside = running.mnt / "by_id" / pdh
        with (
            open(inside / "image.sif", "rb") as held,
            subprocess.Popen(["sleep", "60"], cwd=inside, stdin=held) as left_behind,
        ):
            try:
                assert running.end() < PATIENCE
            finally:
                left_behind.kill()
        assert running.process.returncode == 0


def test_a_block_that_is_nowhere_is_told_in_the_words_the_dispatcher_looks_for(
    mine: Maker, fresh_server: LocalServer, tmp_path: Path
) -> None:
    maker = Maker(fresh_server, fresh_server.settings.token)
    made = maker.collection("lost", {"lost.txt": b"lost\n"})
    for block in (tmp_path / "arvados" / "keep").rglob("[0-9a-f]" * 32):
        block.unlink()
    (tmp_path / "job").mkdir()
    with container(fresh_server, maker.token, tmp_path / "job", *BY_HASH, "--retries=0") as running:
        path = running.mnt / "by_id" / made["portable_data_hash"] / "lost.txt"
        with pytest.raises(OSError, match="Input/output error"):
            path.read_bytes()
        found = [match for match in map(LOGGED.match, running.stderr.splitlines()) if match]
        assert any(ALARMS.search(match[2]) for match in found), running.stderr
        assert running.end() < PATIENCE


# Containers write.


WRITING = ["--read-write", "--storage-classes", "default", "--crunchstat-interval=10"]


@pytest.mark.parametrize("layout", [BY_HASH, BY_ID], ids=["by hash", "by id"])
def test_a_container_that_writes_its_output(mine: Maker, tmp_path: Path, layout: list[str]) -> None:
    big = secrets.token_bytes(3_000_000)
    with container(mine.server, mine.token, tmp_path, *WRITING, "--mount-tmp", "tmp0", *layout) as running:
        output = running.mnt / "tmp0"
        (output / "logs").mkdir()
        (output / "logs" / "log.txt").write_text("done\n")
        (output / "big").write_bytes(big)
        (output / "big").chmod(0o755)
        os.mknod(output / "target", stat.S_IFREG | 0o644)  # what container runtimes bind over
        record = json.loads((output / ".arvados#collection").read_text())
        assert set(record) == {"uuid", "manifest_text", "portable_data_hash", "storage_classes_desired"}
        assert record["uuid"] is None
        made = mine.make("collections", name="output", manifest_text=record["manifest_text"])
        assert made["portable_data_hash"] == record["portable_data_hash"]
        saved = running.mnt / "by_id" / made["portable_data_hash"]
        assert (saved / "big").read_bytes() == big
        assert (saved / "logs" / "log.txt").read_text() == "done\n"
        assert (saved / "target").read_bytes() == b""
        assert running.end() < PATIENCE
        assert running.process.returncode == 0
        assert not ALARMS.search(running.stderr)


@pytest.mark.parametrize("layout", [BY_HASH, BY_ID], ids=["by hash", "by id"])
def test_an_image_that_is_made_is_there_at_once_under_its_hash(
    mine: Maker, tmp_path: Path, layout: list[str]
) -> None:
    uuid = mine.make("collections", name="cached image", manifest_text="")["uuid"]
    content = secrets.token_bytes(2_000_000)
    with container(mine.server, mine.token, tmp_path, *WRITING, *layout) as running:
        directory = running.mnt / "by_uuid" / uuid
        (directory / "image.sif").write_bytes(content)
        pdh = json.loads((directory / ".arvados#collection").read_text())["portable_data_hash"]
        assert (running.mnt / "by_id" / pdh / "image.sif").read_bytes() == content
        answer = mine.server.call("GET", f"collections/{uuid}", token=mine.token).body
        assert answer["portable_data_hash"] == pdh
        assert running.end() < PATIENCE
        assert running.process.returncode == 0


def test_output_that_keep_does_not_take_is_told_in_the_words_the_dispatcher_looks_for(
    fresh_server: LocalServer, tmp_path: Path
) -> None:
    settings = tmp_path / "arvados" / "server.json"
    fresh_server.stop()
    told = json.loads(settings.read_text())
    for service in told["keep"]:
        service["read_only"] = True
    settings.write_text(json.dumps(told))
    fresh_server.start()
    (tmp_path / "job").mkdir()
    token = fresh_server.settings.token
    with container(
        fresh_server, token, tmp_path / "job", *WRITING, "--retries=0", "--mount-tmp", "tmp0", *BY_HASH
    ) as running:
        (running.mnt / "tmp0" / "file").write_bytes(b"data")
        with pytest.raises(OSError):  # noqa: PT011 - which one is for the cause to say
            (running.mnt / "tmp0" / ".arvados#collection").read_text()
        wait_for(lambda: ALARMS.search(running.stderr), "the alarm", 30)


def test_statistics_come_in_the_form_that_is_parsed(mine: Maker, tmp_path: Path) -> None:
    options = ["--read-write", "--storage-classes", "default", "--crunchstat-interval=1", *BY_HASH]
    line = re.compile(
        r"^crunchstat: (\S+)( [\d.]+ \w+)+ -- interval \d+\.\d{4} seconds( -?[\d.]+ \w+)+$", re.MULTILINE
    )
    with container(mine.server, mine.token, tmp_path, *options) as running:
        wait_for(lambda: len(line.findall(running.stderr)) > 5, "statistics", 30)
        prefixes = [found[0] for found in line.findall(running.stderr)]
        assert prefixes[:5] == ["keepcalls", "net:keep0", "keepcache", "blkio:0:0", "fuseops"]


def test_a_dispatcher_that_dies_leaves_nothing_that_needs_killing(mine: Maker, tmp_path: Path) -> None:
    with container(mine.server, mine.token, tmp_path, *BY_HASH) as running:
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(PATIENCE)
        assert running.process.returncode == 0
        assert not mounts_at(running.mnt)
