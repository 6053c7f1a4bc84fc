"""`arv-mount --top`: what a mount is doing, live in a terminal.

Used by `main.py`. One thread listens to the mount and puts its samples on a queue; this one draws, and reads
keys. `picture` is made of two samples alone.
"""

import contextlib
import os
import queue
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from arvados_fuse.cli import live, showing
from arvados_fuse.cli.showing import age, amount
from arvados_fuse.errors import ArvadosFuseError, BadAnswer, SetupError, Unreachable

INTERVAL = 1.0
"""Seconds between two samples."""
SILENCE = 15.0
"""Seconds without a sample after which the mount is given up."""
LOOK_EVERY = 0.1
"""Seconds within which a key works."""
ENDING_KEYS = "qQ\x03\x1b"
FIXED_LINES = 15
"""Of the picture, besides operations and files."""
LEAST_ROWS = 3

Sample = Mapping[str, Any]


def run(mount_dir: Path) -> None:
    """Show the mount until a key ends it. Raises SetupError without a terminal, what `live.ask` raises."""
    if not sys.stdout.isatty():
        raise SetupError("--top needs a terminal; for programs there is: arv-mount --status --json")
    samples: queue.SimpleQueue[Sample | ArvadosFuseError] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(mount_dir, samples), name="top", daemon=True).start()
    console = Console()
    first = _next(samples, None)
    with contextlib.suppress(KeyboardInterrupt), _keys() as keys:
        before = first
        drawing = Live(
            picture(first, first, console.size.height), console=console, screen=True, auto_refresh=False
        )
        with drawing:
            while (sample := _next(samples, keys)) is not None:
                drawing.update(picture(before or sample, sample, console.size.height), refresh=True)
                before = sample


def _listen(mount_dir: Path, samples: "queue.SimpleQueue[Sample | ArvadosFuseError]") -> None:
    try:
        for sample in live.ask(mount_dir, "watch", {"interval": INTERVAL}, silence=SILENCE):
            samples.put(sample)
        samples.put(Unreachable("the mount has ended"))
    except ArvadosFuseError as error:
        samples.put(error)


def _next(samples: "queue.SimpleQueue[Sample | ArvadosFuseError]", keys: int | None) -> Any:
    """The next sample, None when a key ended it; raises what the mount answered."""
    while True:
        with contextlib.suppress(queue.Empty):
            found = samples.get(timeout=LOOK_EVERY)
            if isinstance(found, ArvadosFuseError):
                raise found
            return found
        if keys is not None and select.select([keys], [], [], 0)[0]:
            typed = os.read(keys, 64)
            if not typed or any(key in typed.decode(errors="replace") for key in ENDING_KEYS):
                return None


@contextlib.contextmanager
def _keys() -> Iterator[int | None]:
    """The descriptor on which single keys can be read, None when standard input is no terminal."""
    if not sys.stdin.isatty():
        yield None
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def picture(before: Sample, after: Sample, height: int) -> RenderableType:
    """What to show for the time between two samples, in so many lines. Raises BadAnswer."""
    for name, part in after.items():
        if showing.why_unknown(part):
            raise BadAnswer(f"the mount could not tell about {name}: {showing.why_unknown(part)}")
    seconds = after["at"] - before["at"]
    rows = max(LEAST_ROWS, (height - FIXED_LINES) // 2)
    return Group(
        _head(after),
        _flow(before, after, seconds),
        Text(),
        _operations(before, after, seconds, rows),
        Text(),
        _files(after, seconds, rows),
        Text(),
        _foot(after),
    )


def _head(sample: Sample) -> RenderableType:
    mount, events = sample["mount"], sample["events"]
    table = Table.grid(expand=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column(justify="right", no_wrap=True)
    mode = "read-write" if mount["read_write"] else "read-only"
    state = {"connected": "events connected", "off": "no events"}.get(
        events["state"], f"events {events['state']}"
    )
    table.add_row(
        Text(f"{mount['path']}  {sample['server']['host']}", style="bold"),
        f"{mode}, {state}, up {age(time.time() - mount['since'])}",
    )
    return table


def _flow(before: Sample, after: Sample, seconds: float) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    old, new, cache = before["bytes"], after["bytes"], after["cache"]
    table.add_row(
        "programs", f"read {_rate(new, old, 'read', seconds)}", f"write {_rate(new, old, 'written', seconds)}"
    )
    table.add_row(
        "Keep", f"receive {_rate(new, old, 'received', seconds)}", f"send {_rate(new, old, 'sent', seconds)}"
    )
    hits, misses = (cache[name] - before["cache"][name] for name in ("hits", "misses"))
    found = f"{hits / (hits + misses):.1%} found" if hits + misses else "not asked"
    table.add_row("cache", f"{amount(cache['used'])} of {amount(cache['limit'])}", found)
    opened = showing.counted(after["open"]["files"], "file", "files")
    table.add_row("open", opened, f"unsaved {_unsaved(after['unsaved'])}")
    return table


def _rate(new: Sample, old: Sample, name: str, seconds: float) -> str:
    return f"{amount((new[name] - old[name]) / seconds)}/s" if seconds > 0 else "-"


def _unsaved(unsaved: Any) -> str:
    if not unsaved or not unsaved.get("files"):
        return "nothing"
    failed = any(one.get("error") for one in unsaved.get("collections", ()))
    return (
        f"{unsaved['files']:,} files, {amount(unsaved['bytes'])}{', FAILED (see --status)' if failed else ''}"
    )


def _operations(before: Sample, after: Sample, seconds: float, rows: int) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("operation", width=12)
    for title in ("per second", "mean", "worst", "in all"):
        table.add_column(title, justify="right", width=12)
    nothing = {"count": 0, "seconds": 0.0}
    found = []
    for name, now in after["operations"].items():
        then = before["operations"].get(name, nothing)
        found.append((now["count"] - then["count"], now["count"], name, now["seconds"] - then["seconds"]))
    for count, total, name, spent in sorted(found, reverse=True)[:rows]:
        worst = after["longest"].get(name)
        table.add_row(
            name,
            f"{count / seconds:,.0f}" if seconds > 0 else "-",
            _time(spent / count) if count else "",
            _time(worst) if count and worst is not None else "",
            f"{total:,}",
        )
    return table


def _time(seconds: float) -> str:
    """A short time, in the unit that fits."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} us"


def _files(after: Sample, seconds: float, rows: int) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("busiest files", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("read", justify="right", width=12)
    table.add_column("written", justify="right", width=12)
    for file in after["busiest"][:rows] if seconds > 0 else ():
        table.add_row(
            Text(file["path"]),
            f"{amount(file['read'] / seconds)}/s",
            f"{amount(file['written'] / seconds)}/s",
        )
    return table


def _foot(sample: Sample) -> RenderableType:
    lines = []
    if sample["pending"]:
        longest = max(sample["pending"], key=lambda request: request["seconds"])
        waiting = f"{longest['operation']} {longest['path']} for {_time(longest['seconds'])}"
        lines.append(
            f"{showing.counted(len(sample['pending']), 'request', 'requests')} under way, longest {waiting}"
        )
    errors = sample["errors"]
    if errors["latest"]:
        last = errors["latest"][-1]
        count, ago = showing.counted(errors["count"], "error", "errors"), age(time.time() - last["at"])
        lines.append(f"{count}, {ago} ago: {last['operation']} {last['path']}: {last['message']}")
    lines.append("q ends this")
    return Group(*(Text(line, no_wrap=True, overflow="ellipsis", style="dim") for line in lines))
