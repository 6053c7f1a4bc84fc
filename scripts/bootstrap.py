"""Everything that must be on the machine before the project runs, put there step by step.

Used by `scripts/try` and `scripts/test`. Standard library only, any Python 3.7 or later, because it is what
runs first on a new machine. Every step says what it does, shows that it is alive, can be repeated, costs
nothing when there is nothing to do, and fails with one sentence (`Failure`).
"""

from __future__ import annotations

import collections
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed"
LOG = ROOT / ".setup.log"
OLDEST = (3, 10)

QUIET = 15.0
"""Seconds after which a step that prints nothing to a file or a CI log says that it is still there."""
TAIL = 15
"""Lines of a failed step's output that are shown."""

NO_NETWORK = (
    "temporary failure resolving",
    "could not resolve",
    "failed to establish a new connection",
    "name or service not known",
    "network is unreachable",
    "connection timed out",
    "read timed out",
)


class Failure(Exception):
    """One sentence for a person: what is wrong and what to do."""


def main(work: Callable[[], int]) -> int:
    """Run `work`; a Failure or an interrupt becomes one line and an exit code."""
    if sys.version_info < OLDEST:
        print(f"This needs Python 3.10 or later; python3 here is {sys.version.split()[0]}.", file=sys.stderr)
        return 1
    try:
        os.chdir(str(ROOT))
        return work()
    except Failure as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; run it again to go on from here.", file=sys.stderr)
        return 130


def say(text: str) -> None:
    """One line of progress."""
    print(f"==> {text}", flush=True)


# Debian packages

SAMTOOLS = ("samtools", "samtools")
"""A program and its package. Without it the sample's reads stay text."""
TRIED = (
    SAMTOOLS,
    ("git", "git"),
    ("rsync", "rsync"),
    ("make", "make"),
    ("tmux", "tmux"),
    ("getfattr", "attr"),
    ("groff", "groff-base"),
    ("zsh", "zsh"),
    ("fish", "fish"),
)
"""Programs that tests run on a mount, or on what is generated for them; a test whose program is missing is
skipped and named."""


def missing_packages(optional: Sequence[tuple[str, str]] = ()) -> list[str]:
    """Debian packages for what this machine can't do yet; asked by what is there, not by what dpkg lists.

    optional: pairs of a program and its package.
    """
    wanted = []
    if not (shutil.which("cc") or shutil.which("gcc")):
        wanted += ["gcc", "libc6-dev"]
    elif not Path("/usr/include/stdlib.h").exists():
        wanted += ["libc6-dev"]
    if not shutil.which("pkg-config"):
        wanted += ["pkg-config"]
    if not Path("/usr/include/fuse/fuse_lowlevel.h").exists():
        wanted += ["libfuse-dev"]
    # Never both: the packages fuse and fuse3 exclude each other.
    if not (shutil.which("fusermount") or shutil.which("fusermount3") or Path("/bin/fusermount").exists()):
        wanted += ["fuse"]
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        wanted += [_of_this_python("dev")]
    if not _importable("ensurepip") or not _importable("venv"):
        wanted += [_of_this_python("venv")]
    wanted += [package for program, package in optional if not shutil.which(program)]
    return wanted


def _importable(module: str) -> bool:
    code = f"import {module}" + ("; ensurepip.version()" if module == "ensurepip" else "")
    return (
        subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, check=False).returncode == 0
    )


def _of_this_python(part: str) -> str:
    if not Path(sys.executable).resolve().as_posix().startswith("/usr/bin/"):
        raise Failure(
            f"{sys.executable} lacks what python3-{part} brings; run this with Debian's own Python: "
            f"/usr/bin/python3 {' '.join(sys.argv)}"
        )
    return f"python{sys.version_info[0]}.{sys.version_info[1]}-{part}"


def ensure_packages(optional: Sequence[tuple[str, str]] = ()) -> list[str]:
    """Install what is missing. Gives the optional packages that could not be had."""
    wanted = missing_packages(optional)
    extras = [package for _, package in optional if package in wanted]
    needed = [package for package in wanted if package not in extras]
    if needed:
        _apt_install(needed)
    refused = _install_extras(extras)
    left = [package for package in missing_packages() if package in needed]
    if left:
        raise Failure(f"apt-get ran, and {', '.join(left)} is still not usable; see {LOG}.")
    return refused


def _install_extras(packages: list[str]) -> list[str]:
    """Together, or one by one where that fails; gives those that could not be had."""
    if not packages:
        return []
    try:
        _apt_install(packages)
        return []
    except Failure as failure:
        if len(packages) == 1:
            say(f"Going on without {packages[0]} ({str(failure).splitlines()[0]})")
            return packages
    return [refused for package in packages for refused in _install_extras([package])]


def _apt_install(packages: list[str]) -> None:
    names = " ".join(packages)
    if not shutil.which("apt-get"):
        raise Failure(f"Please install what these Debian packages hold, and run this again: {names}")
    prefix = _as_root(names)
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    install = [*prefix, "apt-get", "install", "-y", "--no-install-recommends", *packages]
    if prefix:
        install[len(prefix) : len(prefix)] = ["env", "DEBIAN_FRONTEND=noninteractive"]
    listed = any(Path("/var/lib/apt/lists").glob("*Packages*"))
    if listed and _attempt(f"Installing Debian packages: {names}", install, environment) == 0:
        return
    run("Reading the list of Debian packages (apt-get update)", [*prefix, "apt-get", "update"], environment)
    run(f"Installing Debian packages: {names}", install, environment)


def _as_root(names: str) -> list[str]:
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo"):
        if subprocess.run(["sudo", "-n", "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return ["sudo", "-n"]
        if sys.stdin.isatty():
            say("sudo will ask for your password, to install Debian packages")
            if subprocess.run(["sudo", "-v"], check=False).returncode == 0:
                return ["sudo", "-n"]
    raise Failure(
        f"Debian packages are missing and you are not root; run this once as root: apt-get install {names}"
    )


# The virtual environment


def ensure_venv(extras: str = "") -> None:
    """A virtual environment in `.venv` with the package in it, editable, and its dependencies.

    extras: "" or "dev". Nothing is done when it was done before with the same pyproject.toml and Python.
    """
    if not _works(PYTHON):
        if VENV.exists():
            shutil.rmtree(str(VENV))
        run("Making a virtual environment in .venv", [sys.executable, "-m", "venv", str(VENV)])
    wanted = _fingerprint()
    done = STAMP.read_text().split() if STAMP.exists() else []
    if done[:1] == [wanted] and (not extras or extras in done):
        return
    target = f".[{extras}]" if extras else "."
    pip = [str(PYTHON), "-m", "pip", "install", "--progress-bar", "off", "--disable-pip-version-check"]
    run("Installing arv-mount and the libraries it uses into .venv (pip)", [*pip, "-e", target])
    STAMP.write_text(f"{wanted} {extras}".strip() + "\n")


def _works(python: Path) -> bool:
    try:
        found = subprocess.run(
            [str(python), "-m", "pip", "--version"], stdout=subprocess.DEVNULL, check=False
        )
    except OSError:
        return False
    return found.returncode == 0


def _fingerprint() -> str:
    text = (ROOT / "pyproject.toml").read_bytes() + sys.version.encode() + str(ROOT).encode()
    return hashlib.sha256(text).hexdigest()[:16]


def missing_fuse() -> str:
    """Why nothing can be mounted here, as one sentence, or ""."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except FileNotFoundError:
        return "there is no /dev/fuse (load it with: modprobe fuse; in a container: --device /dev/fuse)"
    except OSError as error:
        return f"/dev/fuse can't be opened ({error.strerror}; in a container: --cap-add SYS_ADMIN)"
    return ""


# Running a step


def run(title: str, command: list[str], environment: dict[str, str] | None = None) -> None:
    """One step whose output goes to the log; raises Failure with its last lines when it fails."""
    code = _attempt(title, command, environment)
    if code == 0:
        return
    lines = LOG.read_text(errors="replace").splitlines()
    text = "\n".join(lines[-200:]).lower()
    for line in lines[-TAIL:]:
        print(f"    {line}", file=sys.stderr)
    if any(sign in text for sign in NO_NETWORK):
        raise Failure(f"No network, it seems: {title} failed. Connect, and run this again.")
    if "lock" in text and "dpkg" in text:
        raise Failure("Another program is installing Debian packages; run this again when it is done.")
    if "no space left on device" in text:
        raise Failure(f"The disk is full: {title} failed. Make room, and run this again.")
    raise Failure(f"{title} failed (exit code {code}); all of its output is in {LOG}.")


def _attempt(title: str, command: list[str], environment: dict[str, str] | None = None) -> int:
    """Run with a sign of life; gives the exit code."""
    say(title)
    started = time.monotonic()
    last: collections.deque[str] = collections.deque(maxlen=1)
    with LOG.open("ab") as log:
        log.write(f"\n==> {' '.join(command)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        reader = threading.Thread(target=_copy, args=(process.stdout, log, last), daemon=True)
        reader.start()
        try:
            _show_life(process, started, last)
        except BaseException:
            process.terminate()
            raise
        finally:
            process.wait()
            reader.join()
    return process.returncode


def _copy(source: IO[bytes], log: IO[bytes], last: collections.deque[str]) -> None:
    with source:
        for line in source:
            log.write(line)
            log.flush()
            text = line.decode(errors="replace").strip()
            if text:
                last.append(text)


def _show_life(process: subprocess.Popen[bytes], started: float, last: collections.deque[str]) -> None:
    """On a terminal one line that changes; elsewhere a line now and then."""
    live = sys.stdout.isatty()
    told = started
    while True:
        try:
            process.wait(0.25 if live else 1.0)
            break
        except subprocess.TimeoutExpired:
            now = time.monotonic()
            line = f"    {now - started:4.0f} s  {last[-1] if last else ''}"
            if live:
                width = shutil.get_terminal_size().columns - 1
                print(f"\r{line[:width]:<{width}}", end="", flush=True)
            elif now - told >= QUIET:
                print(line[:100], flush=True)
                told = now
    if live:
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{'':<{width}}\r", end="", flush=True)
