"""What the soak run stands on: embedded Arvados, proxies, a small disk, a token that can end, a clock that
can jump, mounts.

Used by `soak` and `soak_faults`. Threads: those of the proxies; everything else is for the main one.
"""

import contextlib
import hashlib
import os
import random
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from arvados_fuse.fuse.unmount import mounts_at, unmount
from benchmarks.shared import PROJECT, Fault, FaultProxy, Gate, JumpingClock, LocalServer, wait_for
from benchmarks.soak_content import State, text, whole

UNSAVED = "arv-mount-unsaved"
"""The directory below a cache where each mount has a room for what is not saved."""
DISK = 512 << 20
"""Bytes of the disk that cache and unsaved data of the writing mount share."""
CACHE = 48 << 20
"""Bytes of each block cache; less than the known files take."""
SAVING_LIMIT = 120.0
"""Seconds in which everything must be saved once the servers are well."""


class SoakProxy(FaultProxy):
    """Before a Keep service; `often` is which part of the requests the fault happens to."""

    often = 1.0
    mixed: Sequence[Fault] = ()
    """One of these for each request, instead of always the same."""

    def take(self, method: str, path: str) -> Fault:
        """The fault for this request."""
        fault = random.choice(list(self.mixed)) if self.mixed else self.fault
        if random.random() >= self.often or (fault.wrong_at is not None and method != "GET"):
            return Fault()
        return fault

    def clear(self) -> None:
        """Be faithful again."""
        self.often, self.mixed = 1.0, ()
        super().clear()


class Life:
    """One mount process, from start to its end."""

    def __init__(self, root: Path, log: Path, cache: Path, environment: Mapping[str, str]) -> None:
        self.root, self.log, self.cache = root, log, cache
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self, *options: str) -> "Life":
        """Mount, and wait until it is there. Raises AssertionError."""
        command = [sys.executable, str(PROJECT / "bin/arv-mount"), "--foreground", "--mount-by-id", "by_id"]
        command += ["--disk-cache-dir", str(self.cache), "--file-cache", str(CACHE), *options, str(self.root)]
        with open(self.log, "ab") as output:
            self._process = process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
            )

        def up() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"the mount ended with {process.returncode}: {self.said()[-2000:]}")
            return bool(mounts_at(self.root))

        wait_for(up, "the mount is there")
        return self

    def said(self) -> str:
        """Its log."""
        return self.log.read_text(errors="replace")

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """As `kill -9` does, and take away what is left of the mount."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        unmount(self.root, timeout=2)

    def end(self) -> int:
        """Unmount in good order; the exit code."""
        unmount(self.root, timeout=SAVING_LIMIT)
        assert self._process is not None
        return self._process.wait(SAVING_LIMIT)

    def rooms(self) -> list[str]:
        """What waits in its cache: its own room while it lives, and what dead mounts left."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(each.name for each in (self.cache / UNSAVED).iterdir() if each.is_dir())
        return []

    def close(self) -> None:
        """Whatever happened: neither process nor mount is left."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(Exception):
            unmount(self.root, timeout=2)


class SmallDisk:
    """A file system of DISK bytes that can be filled. Who may not mount one gets an ordinary directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_small = False

    def make(self) -> None:
        """Mount it."""
        self.path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "tmpfs", str(self.path)]
        self.is_small = subprocess.run(command, capture_output=True, check=False).returncode == 0

    def fill(self) -> None:
        """Leave no room."""
        with open(self.path / "ballast", "ab", buffering=0) as ballast, contextlib.suppress(OSError):
            for size in (1 << 20, 4096):
                with contextlib.suppress(OSError):
                    while True:
                        ballast.write(b"\0" * size)

    def relieve(self) -> None:
        """Give the room back."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / "ballast").unlink()

    def remove(self) -> None:
        """Unmount it."""
        if self.is_small:
            subprocess.run(["umount", "-l", str(self.path)], check=False)


class World:
    """Everything but mounts and programs. `start` before use, `stop` at the end."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.server = LocalServer(scratch / "arvados", "--keep-services", "2")
        self.keep: list[SoakProxy] = []
        self.disk = SmallDisk(scratch / "disk")
        self.clock = JumpingClock(scratch)
        self.user = self.token = ""
        self.tokens: list[str] = []
        self._api: Gate | None = None
        self._refusing = False
        self._lives = 0
        self.lives: list[Life] = []

    @property
    def api(self) -> Gate:
        """Before the API server."""
        assert self._api is not None, "not started"
        return self._api

    def start(self) -> None:
        """Servers, proxies, user."""
        settings = self.server.start().settings
        self._api = Gate(settings.host, settings.data_dir).start()
        for url in settings.keep_services:
            proxy = SoakProxy(url.split("/")[2])
            proxy.start()
            self.keep.append(proxy)
        self.user, self.token = self.server.new_user(f"soak{secrets.token_hex(4)}")
        self.tokens.append(self.token)
        self.disk.make()
        self.clock.make()
        self.new_token()

    def stop(self) -> None:
        """Everything."""
        for life in self.lives:
            life.close()
        if self._api is not None:
            self._api.stop()
        for proxy in self.keep:
            proxy.stop()
        self.server.stop()
        self.disk.remove()

    # The user's token

    def new_token(self) -> None:
        """Write a new one into the settings that the mounts read."""
        body = {"api_client_authorization": {"owner_uuid": self.user}}
        admin = self.server.settings.admin_token
        made = self.server.call("POST", "api_client_authorizations", body, token=admin).body
        self.token = f"v2/{made['uuid']}/{made['api_token']}"
        self.tokens.append(self.token)
        path = self.scratch / "home/.config/arvados/settings.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        written = path.with_suffix(".new")
        written.write_text(f"ARVADOS_API_HOST={self.api.host}\nARVADOS_API_TOKEN={self.token}\n")
        written.replace(path)

    def end_token(self) -> None:
        """It is refused from now on."""
        path = f"api_client_authorizations/{self.token.split('/')[1]}"
        answer = self.server.call("DELETE", path, token=self.server.settings.admin_token)
        assert answer.status == 200, answer

    # Mounts

    @property
    def environment(self) -> dict[str, str]:
        """For our commands: the servers without proxies between."""
        inherited = self.server.environment(self.scratch / "home", self.token)
        return {**inherited, "PYTHONPATH": str(PROJECT)}

    def life(self, name: str, cache: Path, *options: str, direct: bool = False) -> Life:
        """A new mount at `name`. direct: without proxies between."""
        root = self.scratch / name
        root.mkdir(exist_ok=True)
        self._lives += 1
        environment = {**self.environment, **self.clock.environment}
        if not direct:
            for variable in ("ARVADOS_API_HOST", "ARVADOS_API_TOKEN"):
                del environment[variable]
            urls = [f"http://127.0.0.1:{proxy.port}/" for proxy in self.keep]
            environment["ARVADOS_KEEP_SERVICES"] = " ".join(urls)
        made = Life(root, self.scratch / f"{self._lives:03d}-{name}.log", cache, environment)
        self.lives.append(made)
        return made.start(*options)

    # Collections

    def collection(self, name: str, files: Mapping[str, bytes]) -> str:
        """A new one; its uuid. files: in its root."""
        blocks, tokens, position = [], [], 0
        for path, data in files.items():
            answer = self.server.keep("PUT", f"/{hashlib.md5(data).hexdigest()}", data, token=self.token)
            assert answer.status == 200, answer
            blocks.append(answer.body.decode().strip())
            tokens.append(f"{position}:{len(data)}:{path}")
            position += len(data)
        manifest = f". {' '.join(blocks)} {' '.join(tokens)}\n" if files else ""
        body = {"collection": {"name": name, "manifest_text": manifest}}
        return str(self.server.call("POST", "collections", body, token=self.token).body["uuid"])

    def record(self, uuid: str) -> dict[str, Any]:
        """A collection as the API has it."""
        return dict(self.server.call("GET", f"collections/{uuid}", token=self.token).body)

    # Faults that more than one kind needs

    def cut_all(self) -> None:
        """End every connection there is; new ones are taken."""
        for proxy in self.keep:
            proxy.stop()
            proxy.start()
        self.api.stop()
        self.api.start()

    def refuse(self) -> None:
        """Take no connections."""
        self._refusing = True
        self.api.stop()
        for proxy in self.keep:
            proxy.stop()

    def clear(self) -> None:
        """Everything passes again."""
        if self._refusing:
            self.api.start()
            self._refusing = False
        self.api.clear()
        for proxy in self.keep:
            proxy.clear()  # which lets it listen again, too


def known_files() -> dict[str, State]:
    """What is in the collection that nobody changes."""
    sizes = {f"large{number}": 24 << 20 for number in range(4)}
    sizes |= {f"small{number:03d}": 5000 + number for number in range(60)}
    return {name: whole("known", number, size) for number, (name, size) in enumerate(sizes.items())}


def known_bytes() -> dict[str, bytes]:
    """The same as bytes."""
    return {name: text(*state[:3]) for name, state in known_files().items()}


def process_figures(pid: int) -> dict[str, int]:
    """Bytes of own memory, threads, open files of a process."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in status if ":" in line)
    return {
        "memory": int(fields["RssAnon"].split()[0]) * 1024,
        "resident": int(fields["VmRSS"].split()[0]) * 1024,
        "threads": int(fields["Threads"]),
        "files": len(os.listdir(f"/proc/{pid}/fd")),
    }
