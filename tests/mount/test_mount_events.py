"""Changes made elsewhere, seen through a real mount: how soon, and what programs notice of it."""

import itertools
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from mounting import Mounted, mounted, needs_fuse
from servers import PROJECT, LocalServer, wait_for
from sharing import Sharing
from worlds import Maker, environment

from arvados_fuse.fuse.notify import expires_names
from arvados_fuse.fuse.unmount import mounts_at, unmount
from arvados_fuse.tree.follow import AGAIN_AFTER, BRIEF

pytestmark = needs_fuse

SOON = 1.0
"""Seconds within which a change shows while events arrive."""
ROUNDS = int(os.environ.get("EVENT_ROUNDS", "5"))
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def mine(local_server: LocalServer) -> Maker:
    return Maker(local_server, local_server.new_user(f"user{secrets.token_hex(4)}")[1])


def listening(mount: Mounted) -> bool:
    return "Events: connected" in mount.log


@pytest.fixture(scope="module")
def home(mine: Maker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """Everything is refreshed once an hour, if there were no events."""
    base = tmp_path_factory.mktemp("home")
    variables = environment(mine.server, mine.token)
    with mounted(base, variables, "--all", "--refresh-time", "3600", "--debug") as mount:
        wait_for(lambda: listening(mount), "events arrive")
        yield mount


class Stage:
    """A project with a collection in it, as the mount shows it."""

    def __init__(self, mount: Mounted, maker: Maker) -> None:
        self.maker = maker
        self.name = f"stage {next(NUMBERS)}"
        self.project = maker.project(self.name)
        self.other = maker.project("other", owner_uuid=self.project)
        self.files = {"same": b"same", "d/changed": b"0", "d/e/deep": b"deep"}
        self.uuid = str(maker.collection("c", self.files, owner_uuid=self.project)["uuid"])
        self.top = mount.root
        self.root = mount.root / "home" / self.name
        self.by_id = mount.root / "by_id" / self.uuid
        self.by_tag = mount.root / "by_tag"
        wait_for((self.root / "c/d/changed").exists, "the stage is set")
        self.look()

    def look(self) -> None:
        """Let the kernel remember everything there is, and names that are not there."""
        for place in (self.root, self.by_id):
            for directory, names, files in os.walk(place):
                for name in [*names, *files]:
                    os.stat(os.path.join(directory, name))
        for missing in ("c/added", "c/d/added", "renamed", "made", "c/removed/x"):
            assert not (self.root / missing).exists()

    def save(self) -> None:
        self.maker.update("collections", self.uuid, manifest_text=self.maker.manifest(self.files))

    def shows(self, sharing: Sharing) -> bool:
        """Whether all of it is there."""
        return all((self.top / place).exists() for place in sharing.places) and self.lists(sharing)

    def hides(self, sharing: Sharing) -> bool:
        """Whether nothing of it is there."""
        return not any((self.top / place).exists() for place in sharing.places) and not self.lists(sharing)

    def lists(self, sharing: Sharing) -> bool:
        return sharing.name in os.listdir(self.top / "shared")

    def soon(self, shown: Callable[[], bool]) -> float:
        """Seconds until `shown`."""
        begun = time.monotonic()
        wait_for(shown, "the change shows", 20)
        return time.monotonic() - begun


@pytest.fixture
def stage(home: Mounted, mine: Maker) -> Stage:
    return Stage(home, mine)


def file_added(stage: Stage, number: int) -> float:
    path = f"d/added {number}"
    assert not (stage.root / "c" / path).exists()
    stage.files[path] = b"added"
    stage.save()
    return stage.soon(lambda: (stage.root / "c" / path).exists() and (stage.by_id / path).exists())


def file_listed(stage: Stage, number: int) -> float:
    stage.files[f"listed {number}"] = b""
    stage.save()
    return stage.soon(lambda: f"listed {number}" in os.listdir(stage.root / "c"))


def file_changed(stage: Stage, number: int) -> float:
    data = b"content of round %d" % number
    stage.files["d/changed"] = data
    stage.save()
    place = stage.root / "c/d/changed"
    return stage.soon(lambda: place.stat().st_size == len(data) and place.read_bytes() == data)


def file_removed(stage: Stage, number: int) -> float:
    stage.files["d/e/removed"] = b"%d" % number
    stage.save()
    wait_for((stage.root / "c/d/e/removed").exists, "it is there first")
    del stage.files["d/e/removed"]
    stage.save()
    return stage.soon(lambda: not (stage.root / "c/d/e/removed").exists())


def directory_removed(stage: Stage, number: int) -> float:
    stage.files["gone/x"] = b"%d" % number
    stage.save()
    wait_for((stage.root / "c/gone/x").exists, "it is there first")
    del stage.files["gone/x"]
    stage.save()
    return stage.soon(lambda: not (stage.root / "c/gone").exists())


def collection_created(stage: Stage, number: int) -> float:
    stage.maker.collection(f"made {number}", {"f": b"f"}, owner_uuid=stage.project)
    return stage.soon(lambda: (stage.root / f"made {number}" / "f").exists())


def collection_renamed(stage: Stage, number: int) -> float:
    stage.maker.update("collections", stage.uuid, name="renamed")
    took = stage.soon(lambda: (stage.root / "renamed/same").exists() and not (stage.root / "c").exists())
    stage.maker.update("collections", stage.uuid, name="c")
    return max(took, stage.soon(lambda: (stage.root / "c/same").exists()))


def collection_moved(stage: Stage, number: int) -> float:
    stage.maker.update("collections", stage.uuid, owner_uuid=stage.other)
    took = stage.soon(lambda: (stage.root / "other/c/same").exists() and not (stage.root / "c").exists())
    stage.maker.update("collections", stage.uuid, owner_uuid=stage.project)
    return max(took, stage.soon(lambda: (stage.root / "c/same").exists()))


def collection_trashed(stage: Stage, number: int) -> float:
    uuid = stage.maker.collection(f"trash {number}", {"f": b"f"}, owner_uuid=stage.project)["uuid"]
    wait_for((stage.root / f"trash {number}" / "f").exists, "it is there first")
    by_id = stage.by_id.parent / uuid / "f"
    assert by_id.exists()
    stage.maker.server.call("DELETE", f"collections/{uuid}", token=stage.maker.token)
    return stage.soon(lambda: not (stage.root / f"trash {number}").exists() and not by_id.exists())


def project_created(stage: Stage, number: int) -> float:
    assert not (stage.root / f"p {number}").exists()
    stage.maker.project(f"p {number}", owner_uuid=stage.project)
    return stage.soon(
        lambda: (stage.root / f"p {number}").exists() and f"p {number}" in os.listdir(stage.root)
    )


def project_renamed(stage: Stage, number: int) -> float:
    stage.maker.update("groups", stage.other, name=f"other {number}")
    took = stage.soon(
        lambda: (stage.root / f"other {number}").exists() and not (stage.root / "other").exists()
    )
    stage.maker.update("groups", stage.other, name="other")
    return max(took, stage.soon(lambda: (stage.root / "other").exists()))


def tag_added_and_removed(stage: Stage, number: int) -> float:
    name = f"tag {stage.uuid} {number}"
    assert not (stage.by_tag / name).exists()
    attributes = {"link_class": "tag", "name": name, "head_uuid": stage.uuid}
    link = stage.maker.make("links", **attributes)["uuid"]
    took = stage.soon(lambda: (stage.by_tag / name / stage.uuid / "same").exists())
    stage.maker.server.call("DELETE", f"links/{link}", token=stage.maker.token)
    return max(took, stage.soon(lambda: name not in os.listdir(stage.by_tag)))


def uuid_created(stage: Stage, number: int) -> float:
    """Looked up by its id while it is not there: the trash gives it back."""
    uuid = stage.maker.collection(f"by id {number}", {"f": b"f"}, owner_uuid=stage.project)["uuid"]
    stage.maker.server.call("DELETE", f"collections/{uuid}", token=stage.maker.token)
    place = stage.by_id.parent / uuid
    wait_for(lambda: not place.exists(), "it is in the trash")
    stage.maker.server.call("POST", f"collections/{uuid}/untrash", {}, token=stage.maker.token)
    return stage.soon((place / "f").exists)


def permission_removed(stage: Stage, number: int) -> float:
    sharing = Sharing(stage.maker, role=number % 2 == 1)
    sharing.give()
    wait_for(lambda: stage.shows(sharing), "it is shared")
    sharing.take()
    return stage.soon(lambda: stage.hides(sharing))


def permission_given(stage: Stage, number: int) -> float:
    sharing = Sharing(stage.maker, role=number % 2 == 1)
    assert stage.hides(sharing)
    sharing.give()
    return stage.soon(lambda: stage.shows(sharing))


KINDS = [
    file_added,
    file_listed,
    file_changed,
    file_removed,
    directory_removed,
    collection_created,
    collection_renamed,
    collection_moved,
    collection_trashed,
    project_created,
    project_renamed,
    tag_added_and_removed,
    uuid_created,
    permission_removed,
    permission_given,
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_change_elsewhere_shows_soon(
    stage: Stage, kind: Callable[[Stage, int], float], record_property: Callable[[str, object], None]
) -> None:
    times = sorted(kind(stage, number) for number in range(ROUNDS))
    record_property("seconds", times)
    print(f"{kind.__name__}: median {times[len(times) // 2]:.3f} s, most {times[-1]:.3f} s")
    assert times[-1] <= SOON


def test_what_is_open_stays_and_where_one_works_stays(stage: Stage) -> None:
    """Descriptors, working directories and mapped files outlive changes of everything around them."""
    with open(stage.root / "c/d/changed", "rb") as opened:
        program = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import os, sys\nfor line in sys.stdin: print(os.getcwd(), os.listdir('.'), flush=True)",
            ],
            cwd=stage.root / "c/d",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert program.stdin is not None
        assert program.stdout is not None
        try:
            for number in range(3):
                stage.files["d/changed"] = b"x" * (100 + number)
                stage.files[f"d/new {number}"] = b""
                stage.save()
                wait_for((stage.root / f"c/d/new {number}").exists, "the change shows")
                program.stdin.write("go\n")
                program.stdin.flush()
                said = program.stdout.readline()
                assert said.startswith(str(stage.root / "c/d")), said
                assert f"new {number}" in said
                assert opened.seek(0) == 0
                assert opened.read() == b"0"
                assert os.fstat(opened.fileno()).st_size == 1
        finally:
            program.stdin.close()
            program.wait(20)
            program.stdout.close()


def test_unchanged_files_stay_in_the_kernel(stage: Stage, home: Mounted) -> None:
    """Their number stays the same, and with it their pages."""
    before = (stage.root / "c/same").stat()
    stage.files["d/changed"] = b"more"
    stage.save()
    wait_for(lambda: (stage.root / "c/d/changed").read_bytes() == b"more", "the change shows")
    assert (stage.root / "c/same").stat().st_ino == before.st_ino


@pytest.mark.skipif(not expires_names(os.uname().release), reason="this kernel can't expire names")
def test_a_second_look_asks_nothing(stage: Stage, home: Mounted) -> None:
    """Where the kernel can be told of changes in directories it answers by itself meanwhile."""

    def look() -> int:
        for name in os.listdir(stage.root):
            os.stat(stage.root / name)
        return home.asked()["lookup"]

    time.sleep(3 * AGAIN_AFTER)  # what was told when the stage was set has come by then
    before = look()
    time.sleep(2 * BRIEF)  # time itself is what is tested
    assert look() == before
    stage.maker.update("collections", stage.uuid, name="another name")
    wait_for((stage.root / "another name").exists, "the change shows")
    assert look() > before


REFUSED = (
    "-c",
    "import sys\n"
    "from arvados_fuse.api import ApiClient\n"
    "from arvados_fuse.cli.main import main\n"
    "ApiClient.websocket_url = property(lambda self: 'wss://127.0.0.1:9/websocket')\n"
    "sys.exit(main())",
)
"""The command, on a cluster whose event server is down."""


@pytest.mark.parametrize("how", ["switched off", "no websocket"])
def test_without_events_within_the_refresh_time(mine: Maker, tmp_path: Path, how: str) -> None:
    refresh = 1.0
    options = ["--all", "--refresh-time", str(refresh), "--debug"]
    program: tuple[str, ...] = (str(PROJECT / "bin/arv-mount"),)
    if how == "switched off":
        options.append("--disable-event-listening")
    else:
        program = REFUSED
    with mounted(tmp_path, environment(mine.server, mine.token), *options, program=program) as mount:
        if how == "no websocket":
            wait_for(lambda: "Events: polling" in mount.log, "it asks for the log")
        stage = Stage(mount, mine)
        for kind in KINDS:
            took = kind(stage, 0)
            print(f"{how}: {kind.__name__} {took:.2f} s")
            assert took <= refresh + SOON, kind
        assert ("Events" not in mount.log) == (how == "switched off")


@pytest.mark.parametrize("options", [(), ("--disable-event-listening",)])
def test_the_record_is_never_old(mine: Maker, tmp_path: Path, options: Sequence[str]) -> None:
    variables = environment(mine.server, mine.token)
    made = mine.collection(f"record {next(NUMBERS)}", {"f": b"0"})
    place = (variables, "--collection", made["uuid"], "--refresh-time", "3600", *options)
    with mounted(tmp_path, *place) as mount:
        path = mount.root / ".arvados#collection"
        assert json.loads(path.read_text())["portable_data_hash"] == made["portable_data_hash"]
        for number in range(20):
            new = mine.update(
                "collections", made["uuid"], manifest_text=mine.manifest({"f" * (number + 1): b"%d" % number})
            )
            assert json.loads(path.read_text())["portable_data_hash"] == new["portable_data_hash"]
            assert path.stat().st_size == len(path.read_bytes())


def test_the_server_restarts_and_changes_show_again(fresh_server: LocalServer, tmp_path: Path) -> None:
    maker = Maker(fresh_server, fresh_server.settings.token)
    variables = environment(fresh_server, maker.token)
    with mounted(tmp_path, variables, "--all", "--refresh-time", "3600", "--debug") as mount:
        wait_for(lambda: listening(mount), "events arrive")
        stage = Stage(mount, maker)
        fresh_server.kill()
        wait_for(lambda: "Events: disconnected" in mount.log, "the break is noticed")
        assert (stage.root / "c/same").exists()
        fresh_server.start()
        stage.files["while away"] = b"away"
        stage.save()
        wait_for(lambda: mount.log.count("Events: connected") > 1, "events arrive again")
        assert stage.soon((stage.root / "c/while away").exists) <= SOON
        assert file_changed(stage, 1) <= SOON


def held_up(process: int) -> bool:
    """Whether a thread of the process is in an uninterruptible wait in the kernel."""
    for task in Path(f"/proc/{process}/task").iterdir():
        if (task / "stat").read_text().rpartition(") ")[2][0] == "D":
            return True
    return False


def test_a_kill_in_the_middle_of_a_notification_leaves_nobody_stuck(
    fresh_server: LocalServer, tmp_path: Path
) -> None:
    """A program waits for an answer in a directory, the kernel holds our notification up for it, and then the
    mount is killed: without help both would wait for ever."""
    maker = Maker(fresh_server, fresh_server.settings.token)
    names = [f"f{number}" for number in range(50)]
    uuid = maker.collection("c", dict.fromkeys(names, b"1"))["uuid"]
    held = 0
    for number in range(4):
        root, log = tmp_path / f"mnt{number}", tmp_path / "log"
        root.mkdir()
        with open(log, "wb") as output:
            mount = subprocess.Popen(
                [
                    *(sys.executable, str(PROJECT / "bin/arv-mount"), "--foreground", "--debug"),
                    *("--collection", uuid, "--disk-cache-dir", str(tmp_path / "cache"), str(root)),
                ],
                stderr=output,
                env={**os.environ, **environment(fresh_server, maker.token), "PYTHONPATH": str(PROJECT)},
            )
        program = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import os, sys\nsys.stdin.read(1)\nos.path.exists(sys.argv[1])",
                root / "missing",
            ],
            stdin=subprocess.PIPE,
        )
        try:
            wait_for(lambda log=log: "Events: connected" in log.read_text(), "events arrive")  # type: ignore[misc]
            for name in names:
                os.stat(root / name)
            maker.update("collections", uuid, description=str(number))
            changed = dict.fromkeys(names, b"1") | {"new": b"%d" % number}
            maker.update("collections", uuid, manifest_text=maker.manifest(changed))
            time.sleep(0.1)  # the event is on its way; it must have come before the server stops
            os.kill(fresh_server.pid, signal.SIGSTOP)
            assert program.stdin is not None
            program.stdin.write(b"x")
            program.stdin.close()
            deadline = time.monotonic() + 0.8
            while not held_up(mount.pid) and time.monotonic() < deadline:
                time.sleep(0.01)
            held += held_up(mount.pid)
            mount.kill()
            program.wait(5)
            assert mounts_at(root), "what programs write now would go to the directory below the mount"
        finally:
            os.kill(fresh_server.pid, signal.SIGCONT)
            unmount(root, timeout=4)
            mount.wait(10)
            program.kill()
            program.wait(10)
    assert held, "the test did not bring about what it is for"
