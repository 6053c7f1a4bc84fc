"""What a workload gets to work with: the stage, the sizes, and mounts of any subject.

Used by the workloads; made by the driver.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.content import BLOCK, SMALL_FILE
from benchmarks.costs import NOTHING, Meter, Spent
from benchmarks.rows import Measured, Row
from benchmarks.runs import Caches, Mount, Subject
from benchmarks.shared import PROJECT, StockClients
from benchmarks.stage import PARTS, Stage


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rounds: int = 3
    blocks: int = 16
    """64 MiB blocks that are read from end to end."""
    slow_blocks: int = 20
    """Blocks that are looked into over the slow line."""
    random_reads: int = 20_000
    collections: int = 5_000
    """In the project that is listed."""
    misses: int = 1_000
    """Lookups of a name that is not there."""
    storm: int = 10_000
    """Files whose attributes are asked for."""
    walk_limit: float = 60.0
    """Seconds after which a walk is given up."""
    small_writes: int = 1_000
    """Small files that are written."""
    tar_files: int = 2_000
    large_write: int = 1 << 30
    """Bytes."""
    write_limit: float = 900.0
    """Seconds after which writing small files is given up: stock arv-mount finishes in that time, and a bound
    would show less than is true."""
    events: int = 20
    """Changes of each kind that are made elsewhere."""


QUICK = Sizes(
    rounds=1,
    blocks=8,
    slow_blocks=4,
    random_reads=5_000,
    collections=500,
    misses=200,
    storm=2_000,
    walk_limit=8.0,
    small_writes=200,
    tar_files=400,
    large_write=256 << 20,
    write_limit=30.0,
    events=5,
)
CACHED_BLOCKS = 10_000
"""Blocks in the cache directory of the second start-up."""


def ours() -> Subject:
    """This project's arv-mount, from the source tree."""
    command = [sys.executable, str(PROJECT / "bin/arv-mount")]
    return Subject("ours", command, ["--foreground"], {"PYTHONPATH": str(PROJECT)})


def stock(clients: StockClients) -> Subject:
    """arv-mount 3.2.1 from PyPI."""
    return Subject("stock", [str(clients.bin / "arv-mount")], ["--foreground"])


def null() -> Subject:
    """The file system that does nothing."""
    command = [sys.executable, "-m", "benchmarks.null_fs"]
    return Subject("null", command, (), {"PYTHONPATH": str(PROJECT)}, content="zeros")


@dataclass
class Bench:
    """One run of the measurements."""

    stage: Stage
    sizes: Sizes
    notes: list[str] = field(default_factory=list)
    """What a reader of the table must know: what failed, what was given up."""
    spent: Spent = NOTHING
    """What the mounts of this turn have cost; the driver sets it back."""
    _mounts: int = 0

    def __post_init__(self) -> None:
        self.caches = Caches(self.stage.scratch)

    @contextlib.contextmanager
    def mounted(
        self,
        subject: Subject,
        cache: Path | None = None,
        environment: Mapping[str, str] | None = None,
        null_files: int = 0,
        null_options: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> Iterator["Mounted"]:
        """A mount of the subject on this cache directory, else on one of its own that is dropped
        afterwards."""
        self._mounts += 1
        directory = cache or self.caches.fresh()
        scratch = self.stage.scratch
        mount = Mount(subject, scratch / f"mnt{self._mounts}", scratch / f"log{self._mounts}")
        mark = self.stage.api_mark()
        meter = Meter(lambda: self.stage.api_requests(mark), directory, self.stage.keep_dir)
        try:
            if subject.name == "null":
                given, sign = [*self._null_options(null_files), *null_options], "large"
            else:
                given, sign = ["--disk-cache-dir", str(directory), *options], "by_id/README"
            seconds = mount.start(given, environment or self.stage.environment(), sign)
            yield Mounted(mount, seconds)
            self.spent += meter.read(mount.pid)
        finally:
            mount.close()
            if cache is None:
                self.caches.drop(directory)

    def note(self, text: str) -> None:
        """Say it once."""
        if text not in self.notes:
            self.notes.append(text)

    def _null_options(self, files: int) -> list[str]:
        options = ["--large", self.sizes.blocks * BLOCK, "--parts", PARTS, "--small", SMALL_FILE]
        options += ["--files", files, "--flat", self.sizes.collections]
        return [str(option) for option in options]


@dataclass(frozen=True)
class Mounted:
    """A mount that answers; `ready`: seconds it took."""

    mount: Mount
    ready: float

    def path(self, uuid: str, below: str = "", null: str = "") -> str:
        """A path in a collection or project; `null`: what stands for it in the null file system."""
        if self.mount.subject.name == "null":
            return str(self.mount.root / null)
        return str(self.mount.root / "by_id" / uuid / below)


@dataclass(frozen=True)
class Workload:
    """A thing that people do with a mount. subjects: who can be measured; quick: whether it is short."""

    name: str
    title: str
    rows: Callable[[Sizes], Sequence[Row]]
    run: Callable[[Bench, Subject], Measured]
    subjects: Sequence[str] = ("ours", "stock", "null")
    quick: bool = True
