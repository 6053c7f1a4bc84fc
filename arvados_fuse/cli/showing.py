"""`arv-mount --status`: how a mount is doing, for people and as JSON.

Used by `main.py`. What the JSON holds is described in docs/inside.md.
"""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from arvados_fuse.cli import live
from arvados_fuse.errors import BadAnswer

WITHIN = 10.0
"""Seconds that a mount has to answer."""
INDENT = 12
SHOWN_ERRORS = 5
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")

Status = Mapping[str, Any]


def status(mount_dir: Path, *, as_json: bool) -> str:
    """The whole text. Raises what `live.ask` raises."""
    answers = list(live.ask(mount_dir, "status", deadline=WITHIN))
    if len(answers) != 1:
        raise BadAnswer("the mount gave no status")
    if as_json:
        return json.dumps(answers[0], indent=2, sort_keys=True)
    return "\n".join(lines(answers[0], time.time()))


def lines(told: Status, moment: float) -> Iterator[str]:
    """The status for people; moment: time.time()."""
    mount = told["mount"]
    yield f"{mount['path']}: {_what(mount)}, {'read-write' if mount['read_write'] else 'read-only'}"
    for name, part, words in (
        ("server", "server", _server),
        ("mounted", "mount", lambda mount: _mounted(mount, moment)),
        ("events", "events", lambda events: _events(events, moment)),
        ("cache", "cache", _cache),
        ("listings", "directories", _listings),
        ("open", "open", _open),
        ("unsaved", "unsaved", lambda unsaved: _unsaved(unsaved, moment)),
        ("moved", "bytes", _moved),
        ("metrics", "metrics", str),
    ):
        if part in told:
            yield _line(name, why_unknown(told[part]) or words(told[part]))
    for request in told["pending"]:
        yield _line("under way", f"{request['operation']} {request['path']}, {request['seconds']:.1f} s")
    if why_unknown(told["errors"]):
        yield _line("errors", why_unknown(told["errors"]))
    else:
        yield from _errors(told["errors"], moment)


def why_unknown(part: Any) -> str:
    """Why the mount could not tell this part, "" when it did."""
    return f"not known ({part['failed']})" if isinstance(part, dict) and "failed" in part else ""


def _line(name: str, text: str) -> str:
    return f"  {name:<{INDENT - 2}}{text}"


def amount(count: float) -> str:
    """Bytes, as people read them: three digits and a unit."""
    unit = 0
    while count >= 999.5 and unit < len(UNITS) - 1:
        count, unit = count / 1024, unit + 1
    digits = 0 if unit == 0 or count >= 99.95 else 1
    return f"{count:.{digits}f} {UNITS[unit]}"


def age(seconds: float) -> str:
    """A time span in its two largest units."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2])


def counted(number: int, one: str, many: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number:,} {one if number == 1 else many}"


def changed_paths(count: int) -> str:
    """How many paths are unsaved, in words."""
    return counted(count, "changed path", "changed paths")


def _what(mount: Status) -> str:
    if mount["mode"] == "custom":
        return ", ".join(f"{one['name']} ({one['kind']})" for one in mount["custom"]) or "nothing"
    return f"{mount['mode']} {mount['target']}".strip()


def _server(server: Status) -> str:
    user = server["user"]
    if not user:
        return f"{server['host']}"
    name = user.get("full_name") or user.get("username") or ""
    contact = user.get("email") or user.get("uuid") or ""
    return f"{server['host']} as {name} <{contact}>" if name else f"{server['host']} as {contact}"


def _mounted(mount: Status, moment: float) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(mount["since"]))
    ago = age(moment - mount["since"])
    return f"{since} ({ago} ago), process {mount['process']}, arv-mount {mount['version']}"


def _events(events: Status, moment: float) -> str:
    words = {
        "connected": "connected",
        "polling": "asked for every few seconds",
        "disconnected": "not connected",
        "off": "not listened to",
    }
    text = words.get(events["state"], str(events["state"]))
    if events["state"] != "off":
        text += f" for {age(moment - events['since'])}"
    return f"{text} ({events['reason']})" if events["reason"] else text


def _cache(cache: Status) -> str:
    where = f" in {cache['directory']}" if cache["directory"] else " of memory"
    text = f"{amount(cache['used'])} of {amount(cache['limit'])}{where}"
    if cache["hit_rate"] is None:
        return text
    total = cache["hits"] + cache["misses"]
    return f"{text}; {cache['hit_rate']:.1%} of {counted(total, 'read', 'reads')} found there"


def _listings(directories: Status) -> str:
    used, limit = amount(directories["used"]), amount(directories["limit"])
    return f"{used} of {limit} of memory, {counted(directories['inodes'], 'inode', 'inodes')} in use"


def _open(opened: Status) -> str:
    files = counted(opened["files"], "file", "files")
    return f"{files}, {counted(opened['directories'], 'directory', 'directories')}"


def _unsaved(unsaved: Any, moment: float) -> str:
    if unsaved is None:
        return "nothing (read-only)"
    local = amount(unsaved["spool"])
    if not unsaved["files"]:
        return f"nothing but {local} of open files" if unsaved["spool"] else "nothing"
    waiting = age(moment - min(one["since"] for one in unsaved["collections"]))
    text = f"{counted(unsaved['files'], 'file', 'files')}, {amount(unsaved['bytes'])}, for {waiting}"
    for one in unsaved["collections"]:
        if one["error"]:
            text += f"\n{'':{INDENT}}{one['uuid']}: {one['error']}"
    return text


def _moved(moved: Status) -> str:
    programs = f"{amount(moved['read'])} read and {amount(moved['written'])} written by programs"
    return f"{programs}; {amount(moved['received'])} received from Keep, {amount(moved['sent'])} sent"


def _errors(errors: Status, moment: float) -> Iterator[str]:
    if not errors["count"]:
        yield _line("errors", "none")
        return
    yield _line("errors", f"{errors['count']:,} since it was mounted; the last ones:")
    for trouble in errors["latest"][-SHOWN_ERRORS:]:
        known = ", ".join(
            f"{word} {trouble[key]}"
            for word, key in (("object", "subject"), ("server", "server"), ("request", "request_id"))
            if trouble[key] and trouble[key] not in trouble["message"]
        )
        times = f" ({trouble['times']} times)" if trouble["times"] > 1 else ""
        what = f"{trouble['operation']} {trouble['path']}".strip()
        yield f"    {age(moment - trouble['at'])} ago{times}: {what}: {trouble['message']}" + (
            f" ({known})" if known else ""
        )
