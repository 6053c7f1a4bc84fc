"""Signals that end a mount, at every moment of its start: none is lost, none is taken for a failure."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mounting import mounted, needs_fuse
from servers import PROJECT, LocalServer, wait_for
from worlds import Maker, World, environment

from arvados_fuse.cli.execute import LAST_WAIT
from arvados_fuse.fuse.unmount import mounts_at, unmount

ROUNDS = 8

# One process mounts again and again; each time the signal comes a little later after the loop has begun.
PROGRAM = """
import os, signal, sys, threading, time
from pathlib import Path
import llfuse
from arvados_fuse.fuse.ending import Ending
from arvados_fuse.fuse.session import Session

where, rounds = Path(sys.argv[1]), int(sys.argv[2])
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # in the threads below too

def work():
    while True:
        sum(range(100))

for _ in range(2):  # others who want the processor while llfuse starts its threads
    threading.Thread(target=work, daemon=True).start()
slowest = 0.0
for number in range(rounds):
    session = Session(llfuse.Operations(), where, fsname="test")
    session.open()
    ending = Ending().__enter__()
    ending.hold()
    ended = []
    def kill():
        time.sleep(number * 0.002)
        ended.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)
    killer = threading.Thread(target=kill)
    if number:
        killer.start()
    else:
        kill()  # before the loop
    ending.run(session.run)
    assert ending.number == signal.SIGTERM, number
    ending.__exit__()
    slowest = max(slowest, time.monotonic() - ended[0])
    if number:
        killer.join()
    session.close()
print(f"{slowest:.2f}")
"""


@needs_fuse
def test_a_signal_at_any_moment_of_the_start_ends_the_loop(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(ROUNDS)],
        env={"PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) < 10


@needs_fuse
def test_no_thread_of_a_mount_takes_a_signal_from_the_one_that_waits_for_it(
    world: World, tmp_path: Path
) -> None:
    with mounted(tmp_path, environment(world.server, world.token), "--home") as mount:
        sorted((mount.root / "plain").iterdir())
        masks = [
            int(line.split()[1], 16)
            for status in Path(f"/proc/{mount.process.pid}/task").glob("*/status")
            for line in status.read_text().splitlines()
            if line.startswith("SigBlk:")
        ]
    assert len(masks) > 10
    # While a thread waits for signals, the kernel does not show them as blocked.
    assert sum(not mask & 1 << (signal.SIGTERM - 1) for mask in masks) == 1


SETTING_UP = """
import sys
from arvados_fuse.cli.main import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
@needs_fuse
def test_a_signal_interrupts_the_setting_up(tmp_path: Path, number: signal.Signals, code: int) -> None:
    # A server that takes the connection and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [sys.executable, "-c", SETTING_UP, "--foreground", str(tmp_path)],
            env={
                "PYTHONPATH": str(PROJECT),
                "PATH": "/usr/bin:/bin",
                "HOME": str(tmp_path.parent),
                "ARVADOS_API_HOST": f"127.0.0.1:{listener.getsockname()[1]}",
                "ARVADOS_API_HOST_INSECURE": "1",
                "ARVADOS_API_TOKEN": "x" * 50,
            },
            stderr=subprocess.PIPE,
        )
        connections = [listener.accept()[0]]
        listener.settimeout(60)
        connections[0].close()  # that was the first look; the next is the client's
        connections.append(listener.accept()[0])
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
        connections[1].close()
    assert process.returncode == code
    assert b"Traceback" not in err


# The command, which sends itself a signal just before a thread of this name starts.
STARTING = """
import os, sys, threading, time
from arvados_fuse.cli.main import main

name, number = sys.argv.pop(1), int(sys.argv.pop(1))
start, sent = threading.Thread.start, []

def start_late(thread):
    if not sent and name in (thread.name, getattr(thread._target, "__name__", "")):
        sent.append(number)
        os.kill(os.getpid(), number)
        time.sleep(0.3)
    start(thread)

threading.Thread.start = start_late
code = main()
assert sent
sys.exit(code)
"""
IN_THE_HANDSHAKE = "_notify_loop"
"""A thread of llfuse's, that both its loops start."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("thread", [IN_THE_HANDSHAKE, "notify", "control"])
@needs_fuse
def test_a_signal_while_a_mount_begins_leaves_no_dead_mount(
    world: World, tmp_path: Path, thread: str, number: signal.Signals
) -> None:
    mnt = tmp_path / "mnt"
    mnt.mkdir()
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-c", STARTING, thread, str(int(number)), "--foreground", "--home"),
                *("--disk-cache-dir", str(tmp_path / "cache"), str(mnt)),
            ],
            env={**os.environ, **environment(world.server, world.token), "PYTHONPATH": str(PROJECT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr, mounts_at(mnt)) == (0, "", [])
    finally:
        unmount(mnt)


@pytest.mark.parametrize("blocked", [signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM])
@needs_fuse
def test_a_mount_ends_whatever_its_caller_has_blocked(
    world: World, tmp_path: Path, blocked: signal.Signals
) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {blocked})
    try:
        with mounted(tmp_path, environment(world.server, world.token), "--home") as mount:
            mount.process.terminate()
            assert mount.process.wait(60) == 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGINT])
@needs_fuse
def test_what_the_caller_ignores_ends_no_mount(world: World, tmp_path: Path, ignored: signal.Signals) -> None:
    before = signal.signal(ignored, signal.SIG_IGN)
    try:
        with mounted(tmp_path, environment(world.server, world.token), "--home") as mount:
            sorted(mount.root.iterdir())
            mount.process.send_signal(ignored)
            with pytest.raises(subprocess.TimeoutExpired):
                mount.process.wait(2)
            sorted(mount.root.iterdir())
            mount.process.terminate()
            assert mount.process.wait(60) == 0
    finally:
        signal.signal(ignored, before)


@needs_fuse
def test_a_mount_ends_when_its_terminal_closes(world: World, tmp_path: Path) -> None:
    with mounted(tmp_path, environment(world.server, world.token), "--home") as mount:
        sorted(mount.root.iterdir())
        mount.process.send_signal(signal.SIGHUP)
        assert mount.process.wait(60) == 0
        assert mounts_at(mount.root) == []


@needs_fuse
def test_a_mount_of_exec_saves_however_long_it_takes(fresh_server: LocalServer, tmp_path: Path) -> None:
    maker = Maker(fresh_server, fresh_server.settings.token)
    uuid = maker.collection("c", {})["uuid"]
    mnt = tmp_path / "mnt"
    mnt.mkdir()
    # The server stands still from before the command ends until long after the mount was to end.
    script = f"echo data > {mnt}/f && kill -STOP {fresh_server.pid}"
    with subprocess.Popen(
        [
            *(sys.executable, str(PROJECT / "bin" / "arv-mount"), "--read-write", "--unmount-timeout=1"),
            *("--disk-cache-dir", str(tmp_path / "cache"), "--collection", uuid),
            *(str(mnt), "--exec", "sh", "-c", script),
        ],
        env={**os.environ, **environment(fresh_server, maker.token), "PYTHONPATH": str(PROJECT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        stopped = Path(f"/proc/{fresh_server.pid}/stat")
        try:
            wait_for(lambda: ") T " in stopped.read_text(), "the server stands still")
            wait_for(lambda: not mounts_at(mnt), "it is unmounted")
            time.sleep(LAST_WAIT + 3)  # what is tested is that this time is given
            assert process.poll() is None
        finally:
            os.kill(fresh_server.pid, signal.SIGCONT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    record = fresh_server.call("GET", f"collections/{uuid}").body
    assert ":f\n" in record["manifest_text"]
