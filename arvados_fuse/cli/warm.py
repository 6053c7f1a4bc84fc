"""`arv-mount --warm PATH...`, with `--pin` or `--unpin`: a running mount has files in its cache beforehand.

`register` is for the mount's side (`build.py`), `run` is the command. The work is done in the mount, by
`tree/warming.py`; the command shows how far it is, and ends it when it is itself ended.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arvados_fuse.cli.showing import counted
from arvados_fuse.cli.warm_options import Warming
from arvados_fuse.errors import InvalidArgument, NotFoundError, NotSupported, SetupError

if TYPE_CHECKING:
    from arvados_fuse.reporting.control import ControlServer
    from arvados_fuse.tree import FileSystem

SILENCE = 300.0
"""Seconds without an answer after which the mount is given up: it may load a large collection first."""
LINE_EVERY = 5.0
"""Seconds between two lines where no display can be drawn."""

NOT_PINNED = "nothing was pinned there"

Answer = Mapping[str, Any]


def register(control: "ControlServer", filesystem: "FileSystem") -> None:
    """Let the mount answer `warm` (`paths`, `pin`) and `unpin` (`paths`)."""
    from arvados_fuse.tree.inodes import ROOT
    from arvados_fuse.tree.warming import WarmingRun

    warming = WarmingRun(filesystem.context, filesystem.inodes.directory(ROOT))
    control.register("warm", lambda told: warming.warm(_paths(told), pin=bool(told.get("pin"))))
    control.register("unpin", lambda told: warming.unpin(_paths(told)))


def run(asked: Warming) -> int:
    """Ask the mounts on which the paths lie; the exit code: 1 when a file could not be had.

    Raises SetupError for a path on no mount, and what the mount answers.
    """
    failures = 0
    for mount_dir, below in _by_mount(asked.paths).items():
        with contextlib.closing(_ask(mount_dir, below, asked)) as answers:
            failures += _follow(answers, "pinned" if asked.pin else "in the cache")
    return 1 if failures else 0


def _paths(told: Mapping[str, Any]) -> list[str]:
    paths = told.get("paths")
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise InvalidArgument("`paths` has to be a list of paths below the mount")
    return paths


def _by_mount(paths: Sequence[Path]) -> dict[Path, list[str]]:
    """Mount points, each with the paths below it. By text first: looking could hang on a dead mount."""
    from arvados_fuse.cli.live import mount_of
    from arvados_fuse.fuse.unmount import fuse_mounts, mounts_at

    known = {Path(mount.path) for mount in fuse_mounts()}
    found: dict[Path, list[str]] = {}
    for path in paths:
        place: Path | None = mount_of(path)
        if place not in known:  # perhaps there is a symbolic link on the way
            place = next((above for above in (path, *path.parents) if mounts_at(above)), None)
        if place is None:
            raise SetupError(
                f"{path} is on no mount of arv-mount; mount with: arv-mount DIR, and name paths below DIR"
            )
        below = path.relative_to(place)
        found.setdefault(place, []).append("" if below == Path() else str(below))
    return found


def _ask(mount_dir: Path, paths: list[str], asked: Warming) -> Generator[Answer, None, None]:
    from arvados_fuse.cli.live import ask

    try:
        if asked.unpin:
            yield from ask(mount_dir, "unpin", {"paths": paths}, silence=SILENCE)
        else:
            yield from ask(mount_dir, "warm", {"paths": paths, "pin": asked.pin}, silence=SILENCE)
    except NotFoundError as error:
        path = mount_dir / error.subject
        raise SetupError(f"{path} does not exist; see what there is with: ls {path.parent}") from error
    except NotSupported as error:
        raise SetupError(
            f"{mount_dir / error.subject} is no data in Keep; name a project, a collection, or a file or "
            "directory in a collection"
        ) from error


def _follow(answers: Iterator[Answer], what: str) -> int:
    """Show the answers; how many files could not be had."""
    done: Answer = {}
    with _display() as show:
        for answer in answers:
            if "failure" in answer:
                failed = answer["failure"]
                print(f"arv-mount: {failed['path']}: {failed['message']}", file=sys.stderr)
            elif "done" in answer:
                done = answer["done"]
            else:
                show(answer)
    if "unpinned" in done:
        pins = counted(done["unpinned"], "pin", "pins")
        print(f"{pins} removed: what was kept by it may be evicted again" if done["unpinned"] else NOT_PINNED)
        return 0
    failures = int(done.get("failures", 0))
    print(f"{done.get('files', 0) - failures:,} files, {_amount(done.get('bytes', 0))}, are {what}")
    if failures:
        print(f"arv-mount: {failures:,} could not be had", file=sys.stderr)
    return failures


@contextlib.contextmanager
def _display() -> Iterator[Callable[[Answer], None]]:
    """Gives what shows one answer: a bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield _Lines().show
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("looking ...", total=None)

        def show(answer: Answer) -> None:
            if "looking" in answer:
                progress.update(task, description=f"looking: {answer['looking']:,} files")
                return
            text = f"{answer['files']:,} of {answer['all_files']:,} files{_left(answer)}"
            progress.update(task, description=text, total=answer["all_bytes"], completed=answer["bytes"])

        yield show


class _Lines:
    """For logs and pipes."""

    def __init__(self) -> None:
        self._next = 0.0

    def show(self, answer: Answer) -> None:
        """A line, if the last one is long enough ago."""
        if time.monotonic() < self._next or "looking" in answer:
            return
        self._next = time.monotonic() + LINE_EVERY
        print(
            f"{answer['files']:,} of {answer['all_files']:,} files, "
            f"{_amount(answer['bytes'])} of {_amount(answer['all_bytes'])}{_left(answer)}",
            file=sys.stderr,
            flush=True,
        )


def _left(answer: Answer) -> str:
    seconds = answer.get("seconds_left")
    return f", {seconds:,.0f} s left" if seconds else ""


def _amount(count: float) -> str:
    """Bytes for a person."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
