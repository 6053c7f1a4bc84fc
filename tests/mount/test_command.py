"""The real command in a subprocess, on real mounts: every way to start, end and fail."""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from arvados_fuse.local.client import call
from arvados_fuse.local.control import LocalSettings, ensure_running, stop_running
from arvados_fuse.version import __version__

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "bin" / "arv-mount"
DEADLINE = 30.0


def fuse_is_missing() -> str:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse can't be opened: {error.strerror}"
    return ""


needs_fuse = pytest.mark.skipif(bool(fuse_is_missing()), reason=fuse_is_missing() or "-")


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@dataclass
class Site:
    """An embedded Arvados, an environment that names it, and a directory to mount on."""

    settings: LocalSettings
    environment: dict[str, str]
    mnt: Path
    home: Path

    def start(self, *arguments: str, **extra: str) -> "subprocess.Popen[str]":
        """The command under way; `extra` variables come on top, and those that are "" are taken out."""
        environment = {name: value for name, value in {**self.environment, **extra}.items() if value}
        return subprocess.Popen(
            [sys.executable, str(PROGRAM), *arguments],
            cwd=self.home,
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str, **extra: str) -> Result:
        with self.start(*arguments, **extra) as process:
            out, err = process.communicate(timeout=DEADLINE)
        return Result(process.returncode, out, err)

    def mounted(self) -> bool:
        return mount_type(self.mnt) != ""


def mount_type(path: Path) -> str:
    """The kernel's type of what is mounted at `path`, "" for nothing; the path itself is not touched."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == str(path):
            return fields[fields.index("-") + 1]
    return ""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.02)


def mount_processes(mnt: Path) -> list[int]:
    """Process ids of arv-mount commands for `mnt` (without the tests' own)."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (directory / "cmdline").read_bytes().split(b"\0")
            if os.fsencode(PROGRAM) in words and os.fsencode(mnt) in words:
                found.append(int(directory.name))
    return found


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSettings]:
    data = tmp_path_factory.mktemp("command") / "data"
    settings = ensure_running(data)
    body = {"collection": {"name": "empty", "manifest_text": ""}}
    call(settings.host, settings.ca_file, settings.token, "POST", "collections", body)
    yield settings
    stop_running(data)


@pytest.fixture
def site(local: LocalSettings, tmp_path: Path) -> Iterator[Site]:
    mnt, home = tmp_path / "mnt", tmp_path / "home"
    mnt.mkdir()
    home.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        **local.environment(),
    }
    site = Site(local, environment, mnt, home)
    yield site
    if site.mounted():
        subprocess.run(["fusermount", "-u", "-z", str(mnt)], check=False)
        pytest.fail("the mount was left behind")


def collection_uuid(site: Site) -> str:
    settings = site.settings
    answer = call(settings.host, settings.ca_file, settings.token, "GET", "collections")
    return str(answer["items"][0]["uuid"])


# What needs no mount


def test_version_and_help(site: Site) -> None:
    assert site.run("--version") == Result(0, f"{PROGRAM} {__version__}\n", "")
    result = site.run("--help")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("usage: arv-mount [options] MOUNT_DIR")


def test_wrong_options_exit_with_2_and_the_usage(site: Site) -> None:
    result = site.run("--all", "--home", str(site.mnt))
    assert result.code == 2
    assert result.err.startswith("usage: arv-mount")
    assert result.err.endswith("error: argument --home: not allowed with argument --all\n")


def test_a_mode_with_a_custom_layout_exits_with_1(site: Site) -> None:
    result = site.run("--by-id", "--mount-home", "h", str(site.mnt))
    assert result == Result(1, "", "Cannot combine 'by_id' mode with custom --mount-* options.\n")
    result = site.run("--mount-home", "a/b", str(site.mnt))
    assert result == Result(1, "", "Mount point 'a/b' is not supported.\n")


@pytest.mark.parametrize("option", ["--unmount", "--unmount-all"])
def test_unmounting_nothing_is_fine_and_needs_no_arvados(site: Site, option: str) -> None:
    assert site.run(option, str(site.mnt), ARVADOS_API_HOST="", ARVADOS_API_TOKEN="") == Result(0, "", "")
    assert site.run(option, "/no/such/place", ARVADOS_API_HOST="", ARVADOS_API_TOKEN="") == Result(0, "", "")


# Set-up errors: one line, exit code 1, nothing left mounted


def refusal(site: Site, *arguments: str, **extra: str) -> str:
    result = site.run(*arguments, **extra)
    assert (result.code, result.out) == (1, "")
    assert result.err.count("\n") == 1, result.err
    assert result.err.startswith("arv-mount: ")
    assert site.settings.token not in result.err
    assert not site.mounted()
    return result.err


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@needs_fuse
class TestSetUpErrors:
    def test_no_token(self, site: Site) -> None:
        assert "ARVADOS_API_TOKEN" in refusal(site, str(site.mnt), ARVADOS_API_TOKEN="")
        sentence = refusal(site, str(site.mnt), ARVADOS_API_HOST="", ARVADOS_API_TOKEN="")
        assert "ARVADOS_API_HOST" in sentence
        assert "settings.conf" in sentence

    def test_a_token_that_is_not_valid_any_more(self, site: Site) -> None:
        sentence = refusal(site, str(site.mnt), ARVADOS_API_TOKEN=f"{site.settings.token[:-1]}_")
        assert "get a new token in Workbench" in sentence

    def test_a_host_that_does_not_exist(self, site: Site) -> None:
        sentence = refusal(site, "--retries=0", str(site.mnt), ARVADOS_API_HOST="no-such-host.invalid")
        assert "ARVADOS_API_HOST" in sentence

    def test_a_host_that_does_not_answer(self, site: Site) -> None:
        host = f"127.0.0.1:{unused_port()}"
        sentence = refusal(site, "--retries=0", str(site.mnt), ARVADOS_API_HOST=host)
        assert f"{host} did not answer" in sentence
        assert "check ARVADOS_API_HOST and the network" in sentence

    def test_a_server_that_speaks_no_https(self, site: Site) -> None:
        host = site.settings.keep_services[0].removeprefix("http://").strip("/")
        assert "does not speak HTTPS" in refusal(site, str(site.mnt), ARVADOS_API_HOST=host)

    def test_a_certificate_that_is_not_trusted(self, site: Site) -> None:
        sentence = refusal(site, str(site.mnt), SSL_CERT_FILE="")
        assert "certificate" in sentence
        assert "ARVADOS_API_HOST_INSECURE=1" in sentence

    @pytest.mark.parametrize("target", ["zzzzz-4zz18-000000000000000", "nonsense", f"{0:032}+99"])
    def test_a_collection_that_cannot_be_read(self, site: Site, target: str) -> None:
        sentence = refusal(site, "--collection", target, str(site.mnt))
        assert target in sentence
        assert "; " in sentence, "the next step"

    @pytest.mark.parametrize("target", ["zzzzz-j7d0g-000000000000000", "nonsense"])
    def test_a_project_that_cannot_be_read(self, site: Site, target: str) -> None:
        sentence = refusal(site, "--project", target, str(site.mnt))
        assert target in sentence
        assert "; " in sentence, "the next step"

    @pytest.mark.parametrize(
        ("mode", "filters"),
        [
            ("--all", '[["collections.bogus", "=", "x"]]'),
            ("--home", '[["name", "resembles", "x"]]'),
            ("--shared", '[["groups.bogus", "=", "x"]]'),
            ("--by-tag", '[["links.bogus", "=", "x"]]'),
        ],
    )
    def test_filters_that_the_server_does_not_take(self, site: Site, mode: str, filters: str) -> None:
        sentence = refusal(site, mode, "--filters", filters, str(site.mnt))
        assert "bogus" in sentence or "resembles" in sentence
        assert sentence.endswith("; correct --filters: attributes and operators are those of the API\n")

    def test_storage_classes_that_the_server_does_not_have(self, site: Site) -> None:
        sentence = refusal(site, "--read-write", "--storage-classes", "default, cold", str(site.mnt))
        wanted = f"arv-mount: --storage-classes: {site.settings.host} has no 'cold'; it has default\n"
        assert sentence == wanted

    def test_a_mount_point_that_is_none(self, site: Site) -> None:
        assert "mkdir -p" in refusal(site, str(site.mnt / "missing"))
        (site.mnt / "file").write_text("")
        assert "not a directory" in refusal(site, str(site.mnt / "file"))
        assert "not empty" in refusal(site, str(site.mnt))

    def test_a_cache_directory_that_cannot_be_written(self, site: Site) -> None:
        assert "--disk-cache-dir" in refusal(site, "--disk-cache-dir", "/proc/cache", str(site.mnt))
        assert "--disk-cache-dir" in refusal(site, str(site.mnt), XDG_CACHE_HOME="/proc/cache")

    def test_a_log_file_that_cannot_be_written(self, site: Site) -> None:
        assert "--logfile" in refusal(site, "--logfile", "/no/such/log", str(site.mnt))

    def test_a_data_directory_that_is_something_else(self, site: Site) -> None:
        (site.home / "file").write_text("")
        assert str(site.home) in refusal(site, "--local", str(site.home), str(site.mnt))

    def test_with_debug_there_is_a_traceback_too(self, site: Site) -> None:
        result = site.run("--debug", str(site.mnt / "missing"))
        assert result.code == 1
        assert "Traceback" in result.err
        assert result.err.splitlines()[-1].startswith("arv-mount: ")

    def test_with_a_log_file_the_sentence_is_in_both_places(self, site: Site) -> None:
        log = site.home / "log"
        assert "mkdir -p" in refusal(site, "--logfile", str(log), str(site.mnt / "missing"))
        assert "mkdir -p" in log.read_text()

    def test_exec_does_not_run_its_command(self, site: Site) -> None:
        refusal(site, "--collection", "nonsense", str(site.mnt), "--exec", "touch", str(site.home / "ran"))
        assert not (site.home / "ran").exists()


# Mounting


def unmount(site: Site) -> None:
    assert site.run("--unmount", str(site.mnt), ARVADOS_API_HOST="", ARVADOS_API_TOKEN="") == Result(
        0, "", ""
    )
    assert not site.mounted()
    wait_for(lambda: not mount_processes(site.mnt), "the mount's process to end")


@needs_fuse
class TestMounting:
    def test_in_the_background(self, site: Site) -> None:
        assert site.run(str(site.mnt)) == Result(0, "", "")
        assert site.mounted()
        assert sorted(os.listdir(site.mnt)) == ["README", "by_id", "by_tag", "home", "shared"]
        assert os.listdir(site.mnt / "home") == ["empty"]
        (process,) = mount_processes(site.mnt)
        assert os.readlink(f"/proc/{process}/cwd") == "/"
        assert [os.readlink(f"/proc/{process}/fd/{fd}") for fd in range(3)] == ["/dev/null"] * 3
        assert os.getsid(process) == process
        unmount(site)

    @pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
    def test_without_some_of_the_standard_streams(self, site: Site, closed: str) -> None:
        script = f'exec "$@" {closed}'
        words = ["bash", "-c", script, "-", sys.executable, str(PROGRAM), "--home", str(site.mnt)]

        def run(*more: str) -> "subprocess.CompletedProcess[str]":
            return subprocess.run(
                [*words, *more],
                env=site.environment,
                capture_output=True,
                text=True,
                timeout=DEADLINE,
                check=False,
            )

        done = run()
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert os.listdir(site.mnt) == ["empty"]
        unmount(site)
        # The command has all three.
        open_all = 'for n in 0 1 2; do [ -e /proc/self/fd/$n ] || exit 9; done; ls "$1" > "$2"'
        there = site.home / "there"
        done = run("--exec", "sh", "-c", open_all, "-", str(site.mnt), str(there))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert there.read_text() == "empty\n"

    @pytest.mark.parametrize(
        ("arguments", "names"),
        [
            (["--home"], ["empty"]),
            (["--by-id"], ["README", "by_id"]),
            (["--by-pdh"], ["README", "by_id"]),
            (["--shared"], []),
            (["--by-tag"], []),
            (["--custom"], ["README", "by_id", "by_tag", "home", "shared"]),
            (["--mount-home", "h", "--mount-by-pdh", "by_id"], ["by_id", "h"]),
        ],
    )
    def test_modes(self, site: Site, arguments: list[str], names: list[str]) -> None:
        result = site.run(*arguments, str(site.mnt), "--exec", "ls", str(site.mnt))
        assert (result.code, result.err) == (0, "")
        assert result.out.split() == names

    def test_one_collection(self, site: Site) -> None:
        uuid = collection_uuid(site)
        record = str(site.mnt / ".arvados#collection")
        result = site.run("--collection", uuid, str(site.mnt), "--exec", "cat", record)
        assert (result.code, result.err) == (0, "")
        assert f'"uuid": "{uuid}"' in result.out

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_in_the_foreground_until_a_signal(self, site: Site, number: signal.Signals) -> None:
        with site.start("--foreground", str(site.mnt)) as process:
            wait_for(site.mounted, "the mount")
            assert os.listdir(site.mnt / "home") == ["empty"]
            process.send_signal(number)
            out, err = process.communicate(timeout=DEADLINE)
        assert (process.returncode, out, err) == (0, "", "")
        assert not site.mounted()

    def test_in_the_foreground_until_unmounted(self, site: Site) -> None:
        with site.start("--foreground", str(site.mnt)) as process:
            wait_for(site.mounted, "the mount")
            assert os.listdir(site.mnt / "home") == ["empty"]
            unmount_result = site.run("--unmount", str(site.mnt))
            out, err = process.communicate(timeout=DEADLINE)
        assert unmount_result == Result(0, "", "")
        assert (process.returncode, out, err) == (0, "", "")

    def test_a_log_file_and_debug_tell_no_token(self, site: Site) -> None:
        log = site.home / "log"
        assert site.run("--debug", "--logfile", str(log), str(site.mnt)).code == 0
        assert os.listdir(site.mnt / "home") == ["empty"]
        unmount(site)
        text = log.read_text()
        assert "DEBUG" in text
        assert site.settings.token not in text
        assert site.settings.token.rpartition("/")[2] not in text

    def test_subtype_and_options_of_the_kernel_mount(self, site: Site) -> None:
        assert site.run("--subtype", "arv", "--allow-other", str(site.mnt)).code == 0
        assert mount_type(site.mnt) == "fuse.arv"
        line = next(line for line in Path("/proc/mounts").read_text().splitlines() if f" {site.mnt} " in line)
        assert "allow_other" in line
        assert "max_read=524288" in line
        unmount(site)

    def test_the_limit_on_open_files_is_raised_for_the_mount_only(self, site: Site) -> None:
        script = f"ulimit -n 400; exec {sys.executable} {PROGRAM} {site.mnt} --exec sh -c 'ulimit -n'"
        result = subprocess.run(
            ["sh", "-c", script],
            env=site.environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert (result.returncode, result.stdout) == (0, "400\n")

    def test_local_needs_no_settings_at_all(self, site: Site) -> None:
        result = site.run(
            "--local",
            str(site.settings.data_dir),
            str(site.mnt),
            "--exec",
            "ls",
            str(site.mnt / "home"),
            ARVADOS_API_HOST="",
            ARVADOS_API_TOKEN="",
            SSL_CERT_FILE="",
        )
        assert result == Result(0, "empty\n", "")

    def test_local_starts_the_server_and_says_so(self, site: Site) -> None:
        data = site.home / "data"
        try:
            result = site.run(f"--local={data}", str(site.mnt), "--exec", "cat", str(site.mnt / "README"))
            assert result.code == 0
            assert result.out.startswith("This is Arvados at 127.0.0.1:")
            assert str(data) in result.err
        finally:
            assert stop_running(data)


@needs_fuse
class TestReplacing:
    def test_a_busy_mount_point(self, site: Site) -> None:
        assert site.run("--home", str(site.mnt)).code == 0
        result = site.run("--by-id", str(site.mnt))
        assert (result.code, result.err.count("\n")) == (1, 1)
        assert f"arv-mount --unmount {site.mnt} (or mount with --replace)" in result.err
        assert os.listdir(site.mnt) == ["empty"]
        assert site.run("--by-id", "--replace", str(site.mnt)) == Result(0, "", "")
        assert sorted(os.listdir(site.mnt)) == ["README", "by_id"]
        unmount(site)

    def test_a_mount_that_died(self, site: Site) -> None:
        assert site.run(str(site.mnt)).code == 0
        (process,) = mount_processes(site.mnt)
        os.kill(process, signal.SIGKILL)
        wait_for(lambda: not mount_processes(site.mnt), "its end")
        result = site.run(str(site.mnt))
        assert result.code == 1
        assert "alive or dead" in result.err
        assert site.run("--replace", str(site.mnt)) == Result(0, "", "")
        assert os.listdir(site.mnt / "home") == ["empty"]
        unmount(site)

    def test_a_stopped_mount_is_cleared_without_waiting_for_it(self, site: Site) -> None:
        assert site.run(str(site.mnt)).code == 0
        (process,) = mount_processes(site.mnt)
        os.kill(process, signal.SIGSTOP)
        try:
            assert "alive or dead" in site.run(str(site.mnt)).err
            started = time.monotonic()
            assert site.run("--unmount", "--unmount-timeout=1", str(site.mnt)).code == 0
            assert time.monotonic() - started < 10
            assert not site.mounted()
        finally:
            os.kill(process, signal.SIGCONT)
        wait_for(lambda: not mount_processes(site.mnt), "its end")

    def test_only_the_given_subtype(self, site: Site) -> None:
        assert site.run("--subtype", "one", str(site.mnt)).code == 0
        assert site.run("--unmount", "--subtype", "two", str(site.mnt)) == Result(0, "", "")
        assert site.mounted()
        assert site.run("--unmount", "--subtype", "one", str(site.mnt)) == Result(0, "", "")
        assert not site.mounted()

    def test_everything_below_a_directory(self, site: Site) -> None:
        below = [site.mnt / name for name in ("a", "b")]
        for directory in below:
            directory.mkdir()
            assert site.run(str(directory)).code == 0
        assert site.run("--unmount-all", str(site.mnt)) == Result(0, "", "")
        assert [mount_type(directory) for directory in below] == ["", ""]


@needs_fuse
class TestExec:
    def test_the_exit_code_the_directory_and_the_mount_during_the_command(self, site: Site) -> None:
        result = site.run(str(site.mnt), "--exec", "sh", "-c", f"pwd; ls {site.mnt}/home; exit 7")
        assert result == Result(7, f"{site.home}\nempty\n", "")
        assert not site.mounted()
        assert mount_processes(site.mnt) == []

    @pytest.mark.parametrize(
        ("command", "code"),
        [(["true"], 0), (["false"], 1), (["/no/such/command"], 127), (["sh", "-c", "kill -KILL $$"], 137)],
    )
    def test_exit_codes(self, site: Site, command: list[str], code: int) -> None:
        assert site.run(str(site.mnt), "--exec", *command).code == code
        assert not site.mounted()

    def test_a_parent_that_ignores_the_end_of_its_children(self, site: Site) -> None:
        with subprocess.Popen(
            [sys.executable, str(PROGRAM), str(site.mnt), "--exec", "sh", "-c", "exit 3"],
            env=site.environment,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
        ) as process:
            try:
                _, err = process.communicate(timeout=DEADLINE)
            finally:
                process.kill()
        assert (process.returncode, err) == (3, "")

    def test_two_dashes_end_the_command(self, site: Site) -> None:
        result = site.run("--home", "--exec", "ls", str(site.mnt), "--", str(site.mnt))
        assert result == Result(0, "empty\n", "")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT])
    def test_signals_reach_the_command(self, site: Site, number: signal.Signals) -> None:
        name = number.name.removeprefix("SIG")
        script = f"trap 'ls {site.mnt}/home; exit 5' {name}; echo ready; while :; do sleep 0.05; done"
        with site.start(str(site.mnt), "--exec", "sh", "-c", script) as process:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            out, err = process.communicate(timeout=DEADLINE)
        # The mount was still there when the command dealt with the signal.
        assert (process.returncode, out, err) == (5, "empty\n", "")
        assert not site.mounted()

    def test_an_interrupt_at_the_terminal_reaches_the_command_once_and_not_the_mount(
        self, site: Site
    ) -> None:
        script = f"trap 'ls {site.mnt}/home; exit 5' INT; echo ready; while :; do sleep 0.05; done"
        ours, theirs = os.openpty()
        with (
            open(ours, "wb", buffering=0) as keyboard,
            subprocess.Popen(
                [sys.executable, str(PROGRAM), str(site.mnt), "--exec", "sh", "-c", script],
                env=site.environment,
                text=True,
                stdin=theirs,
                stdout=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            ) as process,
        ):
            os.close(theirs)
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            keyboard.write(b"\x03")
            out, _ = process.communicate(timeout=DEADLINE)
        assert (process.returncode, out) == (5, "empty\n")
        assert not site.mounted()

    def test_a_command_that_leaves_somebody_behind_in_the_mount(self, site: Site) -> None:
        script = f"cd {site.mnt}/home && (sleep 60 >/dev/null 2>&1 & echo $!)"
        result = site.run("--unmount-timeout=1", str(site.mnt), "--exec", "sh", "-c", script)
        os.kill(int(result.out), signal.SIGKILL)
        assert result.code == 0
        assert not site.mounted()

    def test_a_mount_that_is_killed_is_taken_away_and_told_of(self, site: Site) -> None:
        kill = "kill -KILL $(ps -o pid= --ppid $PPID | head -1); echo $?"
        result = site.run("--home", str(site.mnt), "--exec", "sh", "-c", kill)
        assert (result.code, result.out) == (137, "0\n")
        assert "the mount's process was ended by signal 9" in result.err
        assert "--recover" not in result.err, "there was nothing to save"
        assert not site.mounted()

        cache = site.home / "own cache"
        arguments = ["--read-write", "--mount-tmp", "t", "--disk-cache-dir", str(cache), str(site.mnt)]
        result = site.run(*arguments, "--exec", "sh", "-c", kill)
        assert result.code == 137
        assert f"save it with: arv-mount --recover --disk-cache-dir '{cache}'\n" in result.err
        assert not site.mounted()

    def test_killing_the_command_line_takes_the_mount_along(self, site: Site) -> None:
        with site.start(str(site.mnt), "--exec", "sh", "-c", "echo ready; exec sleep 60") as process:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            process.kill()
            wait_for(lambda: not site.mounted() and not mount_processes(site.mnt), "the unmount")
            subprocess.run(["fuser", "-k", str(site.mnt)], check=False, capture_output=True)
