"""Forking into the background, `--exec` and the limit on open files, each in a fresh process of its own."""

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DEADLINE = 20.0


def start(program: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def result(program: str, *arguments: str) -> tuple[int, str, str]:
    with start(program, *arguments) as process:
        out, err = process.communicate(timeout=DEADLINE)
    return process.returncode, out, err


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """The process has ended; one that nobody waited for yet counts as ended."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


BACKGROUND = """
import os, sys, time
from arvados_fuse.cli import background
def serve(ready):
    {before}
    ready()
    os.write(1, f"in {{os.getcwd()}} {{os.getsid(0) == os.getpid()}}\\n".encode())
    {after}
    return 0
try:
    pid = background.launch(serve, leave_terminal=lambda: None, follow_parent={follow})
    os.write(1, f"child {{pid}}\\n".encode())
except background.NotReady as failure:
    print("not ready", failure.code)
"""


def background(before: str = "pass", after: str = "pass", follow: bool = False) -> str:
    return BACKGROUND.format(before=before, after=after, follow=follow)


def test_the_parent_learns_that_the_child_is_ready() -> None:
    code, out, err = result(background())
    assert (code, err) == (0, "")
    assert "child " in out
    assert "in / True" in out


@pytest.mark.parametrize(
    ("before", "code"),
    [
        ("return 1", 1),
        ("sys.exit(7)", 7),
        ("os.kill(os.getpid(), 9)", 137),
        ("raise KeyboardInterrupt", 130),
        ("raise ValueError('broken')", 1),
    ],
)
def test_a_child_that_ends_before_it_is_ready_gives_its_exit_code(before: str, code: int) -> None:
    status, out, err = result(background(before))
    assert (status, out.split()) == (0, ["not", "ready", str(code)])
    assert ("ValueError: broken" in err) is ("broken" in before)


def test_interrupting_the_wait_takes_the_child_down(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = background(f"open({str(pid_file)!r}, 'w').write(str(os.getpid()) + '.'); time.sleep(60)")
    with start(program) as process:
        wait_for(lambda: pid_file.exists() and pid_file.read_text().endswith("."), "the child")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=DEADLINE)
    assert process.returncode != 0
    wait_for(lambda: gone(int(pid_file.read_text()[:-1])), "the child's end")


def test_a_following_child_ends_with_its_parent_however_that_dies() -> None:
    program = background(after="time.sleep(60)", follow=True) + "\ntime.sleep(60)\n"
    with start(program) as process:
        assert process.stdout
        lines = [process.stdout.readline(), process.stdout.readline()]
        child = int(next(line for line in lines if line.startswith("child")).split()[1])
        assert not gone(child)
        process.kill()
        wait_for(lambda: gone(child), "the child's end")


EXECUTE = """
import sys
from arvados_fuse.cli import execute, logs
logs.configure(None, False)
sys.exit(execute.run(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 37"], 37),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["/no/such/command"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_exec_gives_the_exit_code_of_the_command(arguments: list[str], code: int) -> None:
    status, _, err = result(EXECUTE, *arguments)
    assert status == code
    assert (f"can't run {arguments[0]}" in err) is (code in (126, 127))


def test_exec_keeps_the_working_directory_and_the_standard_streams() -> None:
    assert result(EXECUTE, "sh", "-c", "pwd; echo err >&2") == (0, f"{ROOT}\n", "err\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT])
def test_exec_passes_signals_on(number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo got {name}; exit 5' {name}; echo ready; while :; do sleep 0.05; done"
    with start(EXECUTE, "sh", "-c", script) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        out, _ = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out) == (5, f"got {name}\n")


def test_exec_leaves_ignored_signals_ignored() -> None:
    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    script = "echo ready; read line; echo on"
    with subprocess.Popen(
        [sys.executable, "-c", EXECUTE, "sh", "-c", script],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=ignore,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate("go on\n", timeout=DEADLINE)
    assert (process.returncode, out) == (0, "on\n")


END = """
import os, signal, sys, time
from arvados_fuse.cli import execute, logs
logs.configure(None, False)
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    {child}
    os.write(writing, b".")
    time.sleep(60)
os.read(reading, 1)
there = [True]
def force():
    print('forced')
    {force}
print(execute.end_mount(child, force, lambda: there[0], 0.2))
"""


@pytest.mark.parametrize(
    ("child", "force", "code", "told", "times"),
    [
        ("signal.signal(15, lambda *a: os._exit(0))", "pass", 0, "", 0),
        ("signal.signal(15, lambda *a: os._exit(3))", "pass", 3, "", 0),
        ("signal.signal(15, signal.SIG_IGN)", "os.kill(child, 9); there[0] = False", 137, "forcing it", 1),
        # Unmounted by force, it takes its time to save and is not killed.
        (
            "signal.signal(15, lambda *a: (time.sleep(7), os._exit(0)))",
            "there[0] = False",
            0,
            "forcing it",
            1,
        ),
        ("signal.signal(15, signal.SIG_IGN)", "pass", 137, "killing it", 2),
    ],
)
def test_a_mount_is_asked_to_end_and_then_forced(
    child: str, force: str, code: int, told: str, times: int
) -> None:
    """And once more where its process was killed, so that no dead mount stays."""
    status, out, err = result(END.format(child=child, force=force))
    assert (status, out) == (0, "forced\n" * times + f"{code}\n")
    assert told in err
    assert told or err == ""


SAVES = """
import os, signal, time
from arvados_fuse.cli import execute
signal.pthread_sigmask(signal.SIG_BLOCK, {*execute.PASSED_ON, signal.SIGCHLD})
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    came = []
    signal.signal(signal.SIGTERM, lambda *a: (came.append(1), os.write(1, b"told\\n")))
    signal.signal(signal.SIGINT, lambda *a: os._exit(7 if came else 8))
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.write(writing, b".")
    while True:
        time.sleep(1)
os.read(reading, 1)
print("ready", flush=True)
print(execute.end_mount(child, lambda: None, lambda: False, 0.1))
"""


def test_signals_reach_a_mount_that_saves() -> None:
    with start(SAVES) as process:
        assert process.stdout
        assert [process.stdout.readline(), process.stdout.readline()] == ["ready\n", "told\n"]
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=DEADLINE)
    assert out == "7\n"


LIMIT = """
import resource, sys
from arvados_fuse.cli import limits, logs
logs.configure(None, False)
soft, hard, cache = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(limits.raise_open_files(cache), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "cache", "expected"),
    [
        (256, 16000, 0, 10240),
        (256, 16000, 1 << 30, 10272),
        (12000, 16000, 0, 12000),
        (256, 4000, 0, 4000),
        (4000, 4000, 0, 4000),
    ],
)
def test_the_limit_on_open_files_is_raised_never_lowered(
    soft: int, hard: int, cache: int, expected: int
) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard:
        pytest.skip("the hard limit of this machine is lower")
    status, out, err = result(LIMIT, str(soft), str(hard), str(cache))
    assert (status, out.split()) == (0, [str(expected), str(expected), str(hard)])
    assert ("limit on open files" in err) is (expected < 10240)
