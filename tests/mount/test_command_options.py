"""Every option of the command does what it says, on a real mount in a subprocess."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from mounting import needs_fuse
from servers import PROJECT, LocalServer
from worlds import Maker, environment

from arvados_fuse.cli.described import options
from arvados_fuse.fuse.unmount import mounts_at

pytestmark = needs_fuse

ELSEWHERE = {
    "collection project home shared all by-id by-pdh by-tag custom": "test_command.py, test_command_stock.py",
    "mount-home mount-by-pdh mount-by-id": "test_command.py, test_container_contract.py",
    "local foreground exec unmount unmount-all replace unmount-timeout": "test_command.py",
    "subtype allow-other logfile debug version help": "test_command.py",
    "read-only read-write": "test_command_stock.py, test_mount_writing.py",
    "mount-tmp crunchstat-interval": "test_container_contract.py",
    "disable-event-listening refresh-time": "test_mount_events.py",
    "sync-on-close recover discard": "of write-back",
    "status top json metrics-port slow-request": "of looking inside",
    "warm pin unpin": "test_mount_warm.py",
}
"""Options with tests of their own. Those that are not here have one below, named after them."""


class Site:
    """A user with a project of two collections, and a place to mount."""

    def __init__(self, maker: Maker, base: Path) -> None:
        self.maker = maker
        self.base = base
        self.mnt, self.cache = base / "mnt", base / "cache"
        self.mnt.mkdir()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ARVADOS_")},
            **environment(maker.server, maker.token),
            "HOME": str(base),
            "XDG_CACHE_HOME": "",
            "PYTHONPATH": str(PROJECT),
        }

    def run(self, *arguments: str, stdin: str = "", **variables: str) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [sys.executable, str(PROJECT / "bin" / "arv-mount"), *arguments],
            env={**self.environment, **variables},
            cwd=self.base,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not mounts_at(self.mnt)
        return done

    def shell(self, script: str, *arguments: str, **more: str) -> str:
        """What a script prints with a mount of the home project beside it."""
        done = self.run("--home", *arguments, str(self.mnt), "--exec", "sh", "-c", script, **more)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout


@pytest.fixture
def site(local_server: LocalServer, mine: Maker, tmp_path: Path) -> Site:
    mine.collection("one", {"file": b"one\n"})
    mine.collection("other", {"file": b"other\n"})
    mine.project("project")
    return Site(mine, tmp_path)


def test_every_option_has_a_test() -> None:
    below = {name.removeprefix("test_").replace("_", "-") for name in globals() if name.startswith("test_")}
    elsewhere = {name for names in ELSEWHERE for name in names.split()}
    known = {option.name for option in options() if not option.hidden}
    assert sorted(known - below - elsewhere) == []
    assert sorted(elsewhere - known) == []


FILTERS = json.dumps([["collections.name", "like", "on%"], ["groups.name", "=", "none"]])


@pytest.mark.parametrize("source", ["text", "file", "standard input"])
def test_filters(site: Site, source: str) -> None:
    (site.base / "filters.json").write_text(FILTERS)
    value = {"text": FILTERS, "file": "filters.json", "standard input": "-"}[source]
    assert site.shell("ls mnt", "--filters", value, stdin=FILTERS) == "one\n"


def test_mount_shared(site: Site) -> None:
    done = site.run("--mount-shared", "s", str(site.mnt), "--exec", "ls", "mnt", "mnt/s")
    assert (done.returncode, done.stdout) == (0, "mnt:\ns\n\nmnt/s:\n")


def test_mount_by_tag(site: Site) -> None:
    uuid = site.maker.server.call("GET", "collections", token=site.maker.token).body["items"][0]["uuid"]
    site.maker.make("links", link_class="tag", name="important", head_uuid=uuid)
    done = site.run("--mount-by-tag", "t", str(site.mnt), "--exec", "ls", "mnt/t", "mnt/t/important")
    assert (done.returncode, done.stdout) == (0, f"mnt/t:\nimportant\n\nmnt/t/important:\n{uuid}\n")


def test_retries(site: Site) -> None:
    def attempts(times: str) -> int:
        count = 0
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def serve() -> None:
                nonlocal count
                with contextlib.suppress(OSError):  # until it is closed
                    while True:
                        listener.accept()[0].close()
                        count += 1

            thread = threading.Thread(target=serve)
            thread.start()
            host = f"127.0.0.1:{listener.getsockname()[1]}"
            done = site.run("--retries", times, str(site.mnt), ARVADOS_API_HOST=host)
            assert (done.returncode, done.stdout) == (1, "")
            assert "did not answer" in done.stderr
            listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        return count

    once = attempts("0")
    assert attempts("2") == 3 * (once - 1) + 1  # one is the look at name and certificate


def test_storage_classes(site: Site) -> None:
    script = "mkdir mnt/new && echo x > mnt/new/x && cat 'mnt/new/.arvados#collection'"
    told = json.loads(site.shell(script, "--read-write", "--storage-classes", " default , default"))
    assert set(told["storage_classes_desired"]) == {"default"}


def test_encoding(site: Site) -> None:
    site.maker.collection("näme", {})
    listed = site.shell("ls -b mnt | cat -v", "--encoding", "latin-1")
    assert "n\\344me" in listed


def test_fsns(site: Site) -> None:
    assert "my-mount" in site.shell("grep mnt /proc/self/mounts", "--fsns", "my-mount")


def test_disk_cache_dir(site: Site) -> None:
    site.shell("cat mnt/one/file", "--disk-cache-dir", str(site.cache))
    assert blocks(site.cache) == 1
    assert site.cache.stat().st_mode & 0o777 == 0o700
    assert not (site.base / ".cache" / "arvados" / "keep").exists()


def test_disk_cache(site: Site) -> None:
    site.shell("cat mnt/one/file mnt/other/file", "--disk-cache")
    assert blocks(site.base / ".cache" / "arvados" / "keep") == 2
    site.shell("cat mnt/one/file", "--disk-cache", CACHE_DIRECTORY=str(site.cache))
    assert blocks(site.cache / "keep") == 1


def test_ram_cache(site: Site) -> None:
    assert site.shell("cat mnt/one/file", "--ram-cache") == "one\n"
    assert not (site.base / ".cache").exists()


def status(site: Site, *arguments: str) -> Any:
    """What a mount tells of itself."""
    ask = f"{sys.executable} {PROJECT}/bin/arv-mount --status --json {site.mnt}"
    return json.loads(site.shell(ask, *arguments))


def test_file_cache(site: Site) -> None:
    assert status(site, "--file-cache", "200000000")["cache"]["limit"] == 200_000_000
    assert status(site, "--ram-cache", "--file-cache", "200000000")["cache"]["limit"] == 200_000_000


def test_directory_cache(site: Site) -> None:
    assert status(site, "--directory-cache", "1234567")["directories"]["limit"] == 1_234_567
    site.maker.collection("many", {f"{number}/file": b"x" for number in range(50)})
    script = "find mnt -name file | wc -l; find mnt -name file | wc -l"
    assert site.shell(script, "--directory-cache", "0").split() == ["52", "52"]


def blocks(directory: Path) -> int:
    """How many blocks are in a cache directory."""
    return sum(1 for path in directory.rglob("*.keepcacheblock"))
