"""`--unmount` and `--recover` while servers are away, and with the wrong settings: what a person is told."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from faults.gate import Deed
from faults.writing_world import WritingMount, WritingWorld, rooms, write, writing
from mounting import needs_fuse
from servers import PROJECT, wait_for
from worlds import environment

from arvados_fuse.cli.live import ask
from arvados_fuse.fuse.unmount import mounts_at, unmount

__all__ = ["writing"]
pytestmark = needs_fuse


def command(variables: Mapping[str, str], *words: "str | Path") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(PROJECT / "bin/arv-mount"), *map(str, words)],
        env={"PATH": os.environ["PATH"], **variables, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def recover(
    mount: WritingMount, variables: Mapping[str, str], *words: str
) -> "subprocess.CompletedProcess[str]":
    done = command(variables, "--recover", "--disk-cache-dir", mount.cache, "--retries=1", *words)
    assert "Traceback" not in done.stderr
    assert "WARNING" not in done.stderr
    return done


def sentence(done: "subprocess.CompletedProcess[str]") -> str:
    """The last line, of a command that failed."""
    assert done.returncode == 1, done.stderr
    return done.stderr.splitlines()[-1]


def test_what_a_process_still_saves_is_not_called_nothing(writing: WritingWorld) -> None:
    """Neither while it is mounted nor after."""
    uuid = writing.site.api.create_collection({"name": "c"})["uuid"]
    mount = writing.begin("--retries=1")
    nothing = recover(mount, {})
    assert nothing.returncode == 0
    assert nothing.stderr == f"Nothing is unsaved in {mount.cache}/arv-mount-unsaved.\n"
    write(mount.root / uuid / "before", b"1", sync=True)
    writing.gates.api.rule = lambda ask: Deed(status=503)
    write(mount.root / uuid / "a", b"2")
    write(mount.root / uuid / "b", b"3")

    def reason() -> bool:
        (status,) = ask(mount.top, "status")
        return any(one["error"] for one in status["unsaved"]["collections"])

    wait_for(reason, "saving has failed once")
    done = recover(mount, {})
    where = f"The mount at {mount.top} (process {mount.process.pid}) has 2 changed paths to save ("
    assert sentence(done).startswith(where)

    done = command({}, "--unmount", mount.top)
    told = sentence(done)
    assert told.startswith(f"arv-mount: 2 changed paths at {mount.top} are not saved yet: ")
    assert "503" in told
    assert f"kept in {mount.cache}/arv-mount-unsaved, and process {mount.process.pid} goes on trying" in told
    assert f"arv-mount --recover --disk-cache-dir {mount.cache};" in told

    done = recover(mount, {})
    lines = done.stderr.splitlines()
    assert lines[0] == f"No mount that died left anything in {mount.cache}/arv-mount-unsaved."
    still = f"Process {mount.process.pid} is still saving 2 changed paths of the mount that was at "
    assert sentence(done).startswith(still)
    # Another mount may have the number of the one that is away: each is found where it listens.
    with writing.mount(cache="another", environment=environment(writing.server, writing.token)) as other:
        (status,) = ask(other.top, "status")
        assert status["mount"]["process"] == other.process.pid
        assert sentence(recover(mount, {})).startswith(still)
    writing.gates.api.rule = lambda ask: Deed()
    assert mount.process.wait(60) == 0
    assert rooms(mount.cache) == []
    assert recover(mount, {}).returncode == 0


def test_a_mount_that_does_not_answer_is_not_taken_for_saved(writing: WritingWorld) -> None:
    """It may have anything to save; what it has is saved when it goes on."""
    uuid = writing.site.api.create_collection({"name": "c"})["uuid"]
    mount = writing.begin()
    write(mount.root / uuid / "before", b"1", sync=True)
    writing.gates.api.rule = lambda ask: Deed(status=503)
    write(mount.root / uuid / "a", b"2")
    mount.process.send_signal(signal.SIGSTOP)
    try:
        told = sentence(command({}, "--unmount", "--unmount-timeout=1", mount.top))
    finally:
        mount.process.send_signal(signal.SIGCONT)
        writing.gates.clear()
    assert told.startswith(f"arv-mount: the mount at {mount.top} does not tell what it has to save (")
    assert "arv-mount --recover " in told
    assert not mounts_at(mount.top)
    assert mount.process.wait(60) == 0
    assert writing.tree(uuid) == {"before": b"1", "a": b"2"}


def refused_change(writing: WritingWorld) -> tuple[str, WritingMount]:
    """A collection that has `before`, and a mount whose change of `a` there the server refuses."""
    uuid = writing.site.api.create_collection({"name": "c"})["uuid"]
    mount = writing.begin()
    write(mount.root / uuid / "before", b"1", sync=True)
    writing.gates.api.rule = lambda ask: Deed(status=403 if ask.changes(uuid) else 0)
    write(mount.root / uuid / "a", b"2")
    return uuid, mount


def test_what_is_refused_is_told_with_what_to_do_when_it_is_allowed(writing: WritingWorld) -> None:
    """No process goes on trying."""
    uuid, mount = refused_change(writing)
    told = sentence(command({}, "--unmount", mount.top))
    assert told.startswith(f"arv-mount: 1 changed path at {mount.top} is not saved: {uuid}/a: ")
    assert told.count("not saved") == 1
    assert "journal" not in told
    assert "goes on" not in told
    saves = f"once the reason is gone it is saved by: arv-mount --recover --disk-cache-dir {mount.cache} "
    assert saves in told
    assert mount.process.wait(60) == 1

    writing.gates.clear()
    saved = recover(mount, writing.gates.environment(writing.token))
    assert (saved.returncode, saved.stderr.splitlines()[-1]) == (0, "Saved.")
    assert writing.tree(uuid) == {"before": b"1", "a": b"2"}


def test_what_a_mount_took_over_is_told_of_that_mount(writing: WritingWorld) -> None:
    """Not of the dead one that left it."""
    uuid = writing.site.api.create_collection({"name": "c"})["uuid"]
    dead = writing.begin("--retries=1")
    write(dead.root / uuid / "before", b"1", sync=True)
    writing.gates.api.rule = lambda ask: Deed(status=503 if ask.changes(uuid) else 0)
    write(dead.root / uuid / "a", b"2")
    dead.kill()
    mount = writing.begin("--retries=1")

    def took_over() -> bool:
        (status,) = ask(mount.top, "status")
        return bool(status["unsaved"]["files"] == 1)

    wait_for(took_over, "it has what the dead one left")
    done = recover(mount, {})
    where = f"The mount at {mount.top} (process {mount.process.pid}) has 1 changed path to save"
    assert sentence(done).startswith(where)
    assert len(done.stderr.splitlines()) == 2, done.stderr
    assert str(dead.process.pid) not in done.stderr
    writing.gates.clear()
    assert mount.end() == 0
    assert writing.tree(uuid) == {"before": b"1", "a": b"2"}


def test_a_mount_that_is_replaced_is_asked_to_save_too(writing: WritingWorld) -> None:
    """What is left of it is told, and the new one is mounted all the same."""
    uuid, mount = refused_change(writing)
    variables = {"HOME": str(writing.base), **environment(writing.server, writing.token)}
    done = command(variables, "--replace", "--home", "--ram-cache", mount.top)
    try:
        assert done.returncode == 0
        assert os.listdir(mount.top) == ["c"]
    finally:
        unmount(mount.top)
    assert done.stderr.startswith(f"arv-mount: 1 changed path at {mount.top} is not saved: {uuid}/a: ")
    assert len(done.stderr.splitlines()) == 1
    assert mount.process.wait(60) == 1


def test_each_of_several_mounts_is_asked_to_save_before_it_goes(writing: WritingWorld) -> None:
    """One that can't, first or last, keeps no other from it."""
    stuck, fine = (writing.site.api.create_collection({"name": name})["uuid"] for name in "ab")
    mounts = [writing.begin("--retries=1", cache=cache) for cache in ("one", "two", "three")]
    os.listdir(mounts[1].root / stuck)
    writing.gates.api.rule = lambda ask: Deed(status=503 if ask.changes(stuck) else 0)
    write(mounts[1].root / stuck / "f", b"1")
    for number in (0, 2):
        write(mounts[number].root / fine / f"f{number}", b"1")
    done = command({}, "--unmount-all", writing.base)
    assert f"arv-mount: 1 changed path at {mounts[1].top} is not saved yet: " in sentence(done)
    assert len(done.stderr.splitlines()) == 1
    assert writing.tree(fine) == {"f0": b"1", "f2": b"1"}
    writing.gates.api.rule = lambda ask: Deed()
    assert [mount.process.wait(60) for mount in mounts] == [0, 0, 0]
    assert writing.tree(stuck) == {"f": b"1"}


def test_what_keeps_a_dead_mounts_changes_from_being_saved(writing: WritingWorld) -> None:
    """Each time one sentence with the next step, and nothing is lost."""
    uuid = writing.site.api.create_collection({"name": "c"})["uuid"]
    mine = environment(writing.server, writing.token)
    mount = writing.begin("--retries=1")
    os.listdir(mount.root / uuid)
    writing.gates.api.rule = lambda ask: Deed(status=503)
    write(mount.root / uuid / "a", b"2")
    mount.kill()
    kept = rooms(mount.cache)

    away = {**mine, "ARVADOS_API_HOST": "127.0.0.1:1"}
    assert "check ARVADOS_API_HOST and the network" in sentence(recover(mount, away, "--retries=0"))
    refused = recover(mount, {**mine, "ARVADOS_API_TOKEN": f"{writing.token}x"})
    assert "get a new token in Workbench" in sentence(refused)
    assert len(refused.stderr.splitlines()) == 2
    _, theirs = writing.server.new_user(f"other{secrets.token_hex(4)}")
    other = recover(mount, environment(writing.server, theirs))
    assert f"of {writing.user} at {writing.gates.api.host}, or throw it away with:" in sentence(other)
    assert sentence(other).endswith(f"arv-mount --recover --disk-cache-dir {mount.cache} --discard")
    assert len(other.stderr.splitlines()) == 2
    assert rooms(mount.cache) == kept

    writing.gates.clear()
    saved = recover(mount, writing.gates.environment(writing.token))
    assert (saved.returncode, saved.stderr.splitlines()[-1]) == (0, "Saved.")
    assert " 1 changed path, 1 bytes of files, of " in saved.stderr
    assert writing.tree(uuid) == {"a": b"2"}
    assert rooms(mount.cache) == []
