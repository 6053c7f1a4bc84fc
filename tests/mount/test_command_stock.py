"""Stock arv-mount 3.2.1 and ours, given the same command lines: the same exit code, the same kind of answer.

Where they differ on purpose, DIFFERENCES says what each does and why; docs/compatibility.md has that table.
"""

import contextlib
import os
import re
import signal
import string
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_lines import DIFFERENCES, LINES, Kind, Line, kind_of_output, shown
from mounting import needs_fuse
from servers import PROJECT, LocalServer, StockClients, wait_for
from worlds import Maker

from arvados_fuse.fuse.unmount import mounts_at, unmount

DEADLINE = 60.0
STOCK_TRIES = 3


@dataclass(frozen=True)
class Site:
    """A user of the embedded Arvados with one collection `one`, one `two` and one project."""

    environment: Mapping[str, str]
    ids: Mapping[str, str]


@pytest.fixture(scope="module")
def site(local_server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Site:
    _, token = local_server.new_user(f"lines{os.getpid()}")
    maker = Maker(local_server, token)
    ids = {
        "COLLECTION": maker.collection("one", {"hello": b"hello\n"})["uuid"],
        "PROJECT": maker.project("project"),
        "WRONG_TOKEN": token[:-1] + "_",
    }
    maker.collection("two", {"hello": b"two\n"})
    maker.collection("inner", {"hello": b"inner\n"}, owner_uuid=ids["PROJECT"])
    return Site(local_server.environment(tmp_path_factory.mktemp("home"), token), ids)


class Place:
    """Where one command runs: a mount point of its own, a home directory, a cache."""

    def __init__(self, base: Path, program: list[str], site: Site) -> None:
        self.parent, self.home = base / "parent", base / "home"
        self.mnt = self.parent / "mnt"
        self.mnt.mkdir(parents=True)
        self.home.mkdir()
        self._program = program
        self._values = {
            **site.ids,
            "MNT": str(self.mnt),
            "PARENT": str(self.parent),
            "HOME": str(self.home),
        }
        self._environment = {**site.environment, "HOME": str(self.home), "PYTHONPATH": ""}
        if program[0] == sys.executable:
            self._environment["PYTHONPATH"] = str(PROJECT)

    def filled(self, text: str) -> str:
        return string.Template(text).substitute(self._values)

    def prepare(self, before: str) -> None:
        if before == "missing":
            self.mnt.rmdir()
        elif before == "file":
            self.mnt.rmdir()
            self.mnt.write_text("")
        elif before == "full":
            (self.mnt / "file").write_text("")
        elif before == "mounted":
            # By itself each program mounts all: that is what must still be there, or not.
            done = self.run(Line("", ["$MNT"]))
            assert done.code == 0, done

    def run(self, line: Line) -> "Answer":
        changes = {name: self.filled(value) for name, value in line.environment.items()}
        environment = {n: v for n, v in {**self._environment, **changes}.items() if v or n not in changes}
        with subprocess.Popen(
            [*self._program, *(self.filled(argument) for argument in line.arguments)],
            cwd=self.home,
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            first = ""
            if line.signal:
                assert process.stdout
                first = process.stdout.readline()
                process.send_signal(signal.Signals[f"SIG{line.signal}"])
            try:
                out, err = process.communicate(timeout=DEADLINE)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return Answer(process.returncode, first + out, err)

    def look(self, after: str) -> str:
        if after == "listing":
            return " ".join(sorted(os.listdir(self.mnt)))
        if after == "type":
            return " ".join(mount.fstype for mount in mounts_at(self.mnt))
        return ""

    def clear(self) -> None:
        for mount in mounts_at(self.parent, recursive=True):
            unmount(Path(mount.path), timeout=5)
        wait_for(lambda: not mounts_at(self.parent, recursive=True), "nothing is mounted")
        for process in self._processes():  # stock's stays now and then when its mount is taken away
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def _processes(self) -> list[int]:
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.fsencode(self.mnt) in (directory / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(directory.name))
        return found

    def plain(self, text: str) -> str:
        """Without what differs between two places."""
        for name, value in sorted(self._values.items(), key=lambda item: -len(item[1])):
            text = text.replace(value, f"${name}")
        return text


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


def answer(line: Line, program: list[str], site: Site, base: Path) -> tuple[Kind, Answer]:
    base.mkdir()
    place = Place(base, program, site)
    try:
        place.prepare(line.before)
        found = place.run(line)
        after = place.look(line.after)
        left = mounts_at(place.mnt) and not line.after
        assert not left, "the mount was left behind"
    finally:
        place.clear()
    out = place.plain(found.out)
    if out.startswith("usage: "):
        out = "help"
    out = re.sub(r"^\S*/arv-mount \d+\.\d+\S*$", "arv-mount VERSION", out, flags=re.MULTILINE)
    return Kind(found.code, out, kind_of_output(found.err), after), found


def patient_answer(line: Line, program: list[str], site: Site, base: Path) -> tuple[Kind, Answer]:
    """The same of 3.2.1, which loses a signal now and then and then stays: asked again."""
    for number in range(STOCK_TRIES - 1):
        with contextlib.suppress(subprocess.TimeoutExpired):
            return answer(line, program, site, base.with_name(f"{base.name}{number}"))
    return answer(line, program, site, base)


MEANT = {name: difference for difference in DIFFERENCES for name in difference.names}


@needs_fuse
@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_both_answer_in_the_same_way(line: Line, site: Site, stock: StockClients, tmp_path: Path) -> None:
    if stock.arv_mount is None:
        pytest.skip("stock arv-mount could not be built here")
    programs = {"stock": [str(stock.arv_mount)], "ours": [sys.executable, str(PROJECT / "bin" / "arv-mount")]}
    with ThreadPoolExecutor(2) as pool:
        under_way = {
            who: pool.submit(
                patient_answer if who == "stock" else answer, line, program, site, tmp_path / who
            )
            for who, program in programs.items()
        }
        found = {who: future.result() for who, future in under_way.items()}
    told = {who: shown(kind) for who, (kind, _) in found.items()}
    meant = MEANT.get(line.name)
    if meant is None:
        assert told["ours"] == told["stock"], found
    else:
        assert told == {"stock": meant.stock, "ours": meant.ours}, found


def test_the_table_of_differences_is_about_these_command_lines() -> None:
    names = [line.name for line in LINES]
    assert len(names) == len(set(names))
    assert set(MEANT) <= set(names)


def test_the_documentation_has_the_same_table() -> None:
    text = (PROJECT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "exit " in line]
    assert rows == [
        f"| {'; '.join(each.names)} | {each.stock} | {each.ours} | {each.reason} |" for each in DIFFERENCES
    ]
