"""Signals that end a mount, at every moment of its start: none is lost, none is taken for a failure."""

import subprocess
import sys
from pathlib import Path

from mounting import needs_fuse
from servers import PROJECT

ROUNDS = 8

# One process mounts again and again; each time the signal comes a little later after the loop has begun.
PROGRAM = """
import os, signal, sys, threading, time
from pathlib import Path
import llfuse
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
    session.hold_signals()
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
    assert session.run() == signal.SIGTERM, number
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
