"""A mount is killed while events drop names and programs create, rename, remove, look: nobody stays stuck."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from mounting import needs_fuse
from servers import PROJECT, LocalServer, wait_for
from worlds import Maker, environment

from arvados_fuse.fuse.unmount import mounts_at, unmount

pytestmark = needs_fuse

ROUNDS = int(os.environ.get("KILL_ROUNDS", "3"))
FREE_WITHIN = 5.0
"""Seconds after the kill within which every program has to have got an answer."""

PROGRAM = """
import os, random, sys
root, seed = sys.argv[1], int(sys.argv[2])
chance = random.Random(seed)
done = 0
def step():
    name = f"{root}/d{chance.randrange(3)}/p{seed} {chance.randrange(5)}"
    kind = chance.choice("create rename remove look list read".split())
    if kind == "create":
        with open(name, "w") as file:
            file.write("x" * chance.randrange(100))
    elif kind == "rename":
        os.rename(name, f"{root}/d{chance.randrange(3)}/p{seed} {chance.randrange(5)}")
    elif kind == "remove":
        os.remove(name)
    elif kind == "look":
        os.stat(name)
    elif kind == "list":
        for entry in os.scandir(f"{root}/d{chance.randrange(3)}"):
            entry.stat()
    else:
        open(f"{root}/d0/f{chance.randrange(30)}", "rb").read()
while True:
    try:
        step()
        done += 1
    except FileNotFoundError:
        done += 1
    except OSError as error:
        print(done, error.errno)
        sys.exit(7)
    if done == 20:
        print("going", flush=True)
"""


def start_mount(root: Path, base: Path, uuid: str, variables: dict[str, str]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, str(PROJECT / "bin/arv-mount"), "--foreground", "--read-write", "--debug"]
    command += ["--collection", uuid, "--disk-cache-dir", str(base / "cache"), str(root)]
    with open(base / "log", "wb") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **variables, "PYTHONPATH": str(PROJECT)}
        )


class Changer:
    """Somebody else, who changes files of the same directories through the API all the time."""

    def __init__(self, maker: Maker, uuid: str, text: str) -> None:
        self._maker, self._uuid, self._text = maker, uuid, text
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            targets = {f"/d0/f{number % 30}": f"manifest_text/g{number % 2}", f"/d1/e{number % 4}": ""}
            body = {"collection": {"manifest_text": self._text}, "replace_files": targets}
            self._maker.server.call("PUT", f"collections/{self._uuid}", body, token=self._maker.token)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)


def test_nobody_stays_stuck(fresh_server: LocalServer, tmp_path: Path) -> None:
    maker = Maker(fresh_server, fresh_server.settings.token)
    files = {f"d0/f{number}": b"%d" % number for number in range(30)}
    files |= {"d1/x": b"x", "d2/x": b"x"}
    text = maker.manifest({"g0": b"zero", "g1": b"one one"})
    variables = environment(fresh_server, maker.token)
    chance = random.Random(1)
    slowest = 0.0
    for number in range(ROUNDS):
        uuid = maker.collection(f"c{number}", files)["uuid"]
        base = tmp_path / str(number)
        root = base / "mnt"
        root.mkdir(parents=True)
        mount = start_mount(root, base, uuid, variables)
        programs: list[subprocess.Popen[str]] = []
        changer = None
        try:
            wait_for(lambda base=base: "Events: connected" in (base / "log").read_text(), "events arrive")  # type: ignore[misc]
            changer = Changer(maker, uuid, text)
            for seed in range(5):
                command = [sys.executable, "-c", PROGRAM, str(root), str(seed)]
                programs.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            for program in programs:
                assert program.stdout is not None
                assert program.stdout.readline() == "going\n"
            time.sleep(chance.random())  # any moment
            mount.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            for program in programs:
                assert program.wait(max(0.0, killed + FREE_WITHIN - time.monotonic())) == 7
            slowest = max(slowest, time.monotonic() - killed)
            assert mounts_at(root), "what programs write now would go to the directory below the mount"
        finally:
            if changer is not None:
                changer.stop()
            mount.kill()
            unmount(root, timeout=4)
            mount.wait(10)
            for program in programs:
                program.kill()
                program.communicate()
    print(f"{ROUNDS} rounds, the slowest program was free after {slowest:.2f} s")
