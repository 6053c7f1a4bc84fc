"""What the measurements look at: an embedded Arvados in a temporary directory; collections made on demand.

Used by the driver, which makes one `Stage` for a run. Every collection is made once, when the first workload
asks for it.
"""

import contextlib
import hashlib
import http.client
import json
import random
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.content import BLOCK, SMALL_FILE, block_content, small_content
from benchmarks.shared import FAULT_PROXY, LocalServer

PER_DIRECTORY = 100
"""Files in each directory of the trees."""
SMALL_FILES = 1000
PARTS = 4
"""The file of large blocks can also be had in so many parts, for readers side by side."""

T = TypeVar("T")


class Stage:
    """The server and what is in it. `start` before use, `stop` at the end. Not for several threads."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        # One service, so that a slow line in front of it is the only way to the blocks.
        self.server = LocalServer(scratch / "arvados", "--keep-services", "1")
        self._made: dict[tuple[str, int], Any] = {}
        self._empties = 0

    def start(self) -> "Stage":
        """Start the server."""
        self.server.start()
        return self

    def stop(self) -> None:
        """Stop the server."""
        self.server.stop()

    def environment(self) -> dict[str, str]:
        """For a mount: this server, and nothing of the person who runs the measurements."""
        return self.server.environment(self.scratch / "home")

    # Counting

    @property
    def keep_dir(self) -> Path:
        """Where the server keeps its blocks."""
        return self.server.data_dir / "keep" / "0"

    def api_mark(self) -> int:
        """Where the server's log ends now, in bytes; for `api_requests`."""
        return (self.server.data_dir / "server.log").stat().st_size

    def api_requests(self, mark: int) -> int | None:
        """API requests that the server logged since `mark`; None when the log was rotated meanwhile."""
        log = self.server.data_dir / "server.log"
        if log.stat().st_size < mark:
            return None
        with log.open("rb") as lines:
            lines.seek(mark)
            return sum(b" arvados.local.api[" in line and b" /arvados/v1/" in line for line in lines)

    # Collections

    def blocks(self, count: int) -> str:
        """A collection with `large`, a file of so many full blocks, and `part0` ... of the same blocks."""

        def make() -> str:
            locators = [self._block(number) for number in range(count)]
            each = count // PARTS * BLOCK
            tokens = [f"0:{count * BLOCK}:large"]
            tokens += [f"{part * each}:{each}:part{part}" for part in range(PARTS)]
            return self._collection(f"{count} blocks", f". {' '.join(locators)} {' '.join(tokens)}\n")

        return self._once("blocks", count, make)

    def empty(self) -> str:
        """A new collection without files."""
        self._empties += 1
        return self._collection(f"empty {self._empties}", "")

    def empty_project(self) -> str:
        """A new project without anything."""
        self._empties += 1
        return self._project(f"empty {self._empties}")

    def tree(self, files: int) -> str:
        """A collection of so many files in directories of 100, `d00000/f000000` ..."""

        def make() -> str:
            locator = self._block(0)
            numbers, lines = random.Random(files), []
            for first in range(0, files, PER_DIRECTORY):
                tokens, position = [], 0
                for number in range(first, min(first + PER_DIRECTORY, files)):
                    size = numbers.randrange(65536)
                    tokens.append(f"{position}:{size}:f{number:06d}")
                    position += size
                lines.append(f"./d{first // PER_DIRECTORY:05d} {locator} {' '.join(tokens)}\n")
            return self._collection(f"{files} files", "".join(lines))

        return self._once("tree", files, make)

    def small_files(self) -> str:
        """A collection of SMALL_FILES files of SMALL_FILE bytes in directories of 100, in one block."""

        def make() -> str:
            locator = self._put(b"".join(small_content(number) for number in range(SMALL_FILES)))
            lines = []
            for first in range(0, SMALL_FILES, PER_DIRECTORY):
                numbers = range(first, first + PER_DIRECTORY)
                tokens = [f"{number * SMALL_FILE}:{SMALL_FILE}:f{number:06d}" for number in numbers]
                lines.append(f"./d{first // PER_DIRECTORY:05d} {locator} {' '.join(tokens)}\n")
            return self._collection("small files", "".join(lines))

        return self._once("small", 0, make)

    def project(self, collections: int) -> str:
        """A project of so many collections, each with one small file."""

        def make() -> str:
            project = self._project(f"{collections} collections")
            locator = self._put(small_content(0))
            text = f". {locator} 0:{SMALL_FILE}:sample.txt\n"
            with ThreadPoolExecutor(2) as pool:
                for _ in pool.map(
                    lambda numbers: self._fill(project, text, numbers),
                    (range(start, collections, 2) for start in range(2)),
                ):
                    pass
            return project

        return self._once("project", collections, make)

    # Slow lines

    @contextlib.contextmanager
    def slow_line(self, rate: float, latency: float) -> Iterator[Mapping[str, str]]:
        """A proxy in front of Keep: `rate` bytes per second in all, `latency` seconds before each answer.

        Gives the environment that sends a mount through it.
        """
        with self._proxy("--rate", str(rate), "--latency", str(latency)) as (environment, _):
            yield environment

    @contextlib.contextmanager
    def faulty_line(self) -> Iterator[tuple[Mapping[str, str], Callable[[Mapping[str, Any]], None]]]:
        """A proxy in front of Keep, and a function that lets the next block's first try fail in a way (the
        fields of `Fault` in tests/faults/proxy.py)."""
        with self._proxy() as (environment, proxy):

            def fail(fault: Mapping[str, Any]) -> None:
                assert proxy.stdin is not None
                assert proxy.stdout is not None
                print(json.dumps({"fault": fault, "times": 1}), file=proxy.stdin, flush=True)
                proxy.stdout.readline()

            yield environment, fail

    @contextlib.contextmanager
    def _proxy(self, *options: str) -> Iterator[tuple[Mapping[str, str], "subprocess.Popen[str]"]]:
        upstream = self.server.settings.keep_services[0].split("/")[2]
        command = [sys.executable, str(FAULT_PROXY), "--upstream", upstream, *options]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as proxy:
            assert proxy.stdin is not None
            assert proxy.stdout is not None
            port = int(proxy.stdout.readline())
            try:
                address = f"http://127.0.0.1:{port}/"
                yield {**self.environment(), "ARVADOS_KEEP_SERVICES": address}, proxy
            finally:
                proxy.stdin.close()

    # Inside

    def _once(self, kind: str, size: int, make: Callable[[], T]) -> T:
        key = (kind, size)
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made

    def _block(self, number: int) -> str:
        return self._once("block", number, lambda: self._put(block_content(number)))

    def _put(self, data: bytes) -> str:
        answer = self.server.keep("PUT", f"/{hashlib.md5(data).hexdigest()}", data)
        if answer.status != 200:
            raise RuntimeError(f"the embedded Keep refused a block: {answer}")
        return str(answer.body.decode().strip())

    def _collection(self, name: str, manifest: str) -> str:
        body = {"collection": {"name": name, "manifest_text": manifest}}
        return str(self._call("collections", body)["uuid"])

    def _project(self, name: str) -> str:
        body = {"group": {"group_class": "project", "name": name}}
        return str(self._call("groups", body)["uuid"])

    def _call(self, path: str, body: Any) -> dict[str, Any]:
        answer = self.server.call("POST", path, body)
        if answer.status != 200:
            raise RuntimeError(f"the embedded Arvados refused {path}: {answer}")
        made: dict[str, Any] = answer.body
        return made

    def _fill(self, project: str, manifest: str, numbers: Sequence[int]) -> None:
        """Make collections over one connection."""
        settings = self.server.settings
        context = ssl.create_default_context(cafile=str(settings.ca_file))
        connection = http.client.HTTPSConnection(settings.host, timeout=60, context=context)
        headers = {"Authorization": f"Bearer {settings.token}", "Content-Type": "application/json"}
        for number in numbers:
            fields = {"name": f"run {number:05d}", "owner_uuid": project, "manifest_text": manifest}
            body = json.dumps({"collection": fields})
            connection.request("POST", "/arvados/v1/collections?select=%5B%22uuid%22%5D", body, headers)
            response = connection.getresponse()
            if response.status != 200:
                raise RuntimeError(f"the embedded Arvados refused a collection: {response.read()!r}")
            response.read()
        connection.close()
