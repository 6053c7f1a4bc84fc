"""`replace_files` and `replace_segments`: new content for a collection out of pieces of this and other ones.

Used by `collections`, before the write transaction where that is possible. Every rule is checked and every
source fetched before the first change. Rules: Arvados, collections API, "Using replace_files" and "Using
replace_segments".
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from arvados_fuse.local.records.apierror import invalid
from arvados_fuse.local.records.content import Content, Piece, Segment
from arvados_fuse.local.records.identifiers import PORTABLE_DATA_HASH

MAX_REPLACEMENTS = 1_000_000

_SEGMENT = re.compile(
    r"(([0-9a-f]{32}\+([0-9]{1,18}))(?:\+[A-Z][A-Za-z0-9@_-]*)*) ([0-9]{1,18}) ([0-9]{1,18})"
)

Sources = Callable[[str], Content]
"""Gives the content that a source names: `current`, `manifest_text` or a portable data hash."""


def check_files(replace_files: Any, *, with_manifest: bool) -> dict[str, str]:
    """The argument `replace_files`, empty without it. with_manifest: a manifest that is not empty came along.

    Raises ApiError 422 for paths that are not canonical, targets inside targets, and a manifest that nothing
    uses.
    """
    if replace_files is None:
        return {}
    if not isinstance(replace_files, dict) or len(replace_files) > MAX_REPLACEMENTS:
        raise invalid("replace_files must be an object of target paths and sources")
    filled = {target for target, source in replace_files.items() if source}
    for target, source in replace_files.items():
        if not isinstance(source, str):
            raise invalid(f"replace_files: the source of {target[:200]!r} must be a string")
        if target != "/":
            if not target.startswith("/"):
                raise invalid(f"replace_files: the target {target[:200]!r} must begin with '/'")
            _check_path(target[1:], f"the target {target[:200]!r}")
        _check_ancestors(target, filled)
        if source:
            _check_source(source)
    uses = any(source.startswith("manifest_text/") for source in replace_files.values())
    if replace_files and with_manifest and not uses:
        raise invalid("replace_files: nothing uses the manifest_text that came along")
    return replace_files


def replace_files(content: Content, wanted: Mapping[str, str], sources: Sources) -> None:
    """Change `content` (a copy of what `sources("current")` gives) as `wanted` says.

    Raises ApiError 422 when a source is not there, and what `sources` raises.
    """
    pieces: dict[str, Piece] = {}
    for target, source in wanted.items():
        if source:
            name, _, path = source.partition("/")
            piece = sources(name).take(path)
            if piece is None:
                raise invalid(f"replace_files: there is no {source[:200]!r}")
            pieces[target] = piece
    for target in sorted(wanted.keys() - pieces.keys()):
        content.remove(target[1:])
    for target in sorted(pieces):
        content.put(target[1:], pieces[target])


def check_segments(replace_segments: Any, check_locator: Callable[[str], None]) -> dict[Segment, Segment]:
    """The argument `replace_segments`, empty without it; `check_locator` gets every new locator with hints.

    Raises ApiError 422 for what is no segment or of another length, and what `check_locator` raises.
    """
    if replace_segments is None:
        return {}
    if not isinstance(replace_segments, dict) or len(replace_segments) > MAX_REPLACEMENTS:
        raise invalid("replace_segments must be an object of old and new segments")
    wanted: dict[Segment, Segment] = {}
    checked: set[str] = set()
    for old_text, new_text in replace_segments.items():
        old, _ = _segment(old_text)
        new, locator = _segment(new_text)
        if old[2] != new[2]:
            raise invalid(f"replace_segments: {old_text[:200]!r} and its replacement differ in length")
        if wanted.setdefault(old, new) != new:
            raise invalid(f"replace_segments: {old_text[:200]!r} has two replacements")
        if locator not in checked:
            check_locator(locator)
            checked.add(locator)
    return wanted


def replace_segments(content: Content, wanted: Mapping[Segment, Segment]) -> None:
    """Change `content` as `wanted` says.

    Where one old segment is missing, all that would go into the same new block are passed over.
    """
    if not wanted:
        return
    there = content.segments({old[0] for old in wanted})
    skipped = {new[0] for old, new in wanted.items() if old not in there}
    content.replace_segments({old: new for old, new in wanted.items() if new[0] not in skipped})


def _segment(text: Any) -> tuple[Segment, str]:
    match = _SEGMENT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise invalid(f"replace_segments: {str(text)[:200]!r} is not 'locator offset length'")
    offset, length = int(match[4]), int(match[5])
    if length == 0 or offset + length > int(match[3]):
        raise invalid(f"replace_segments: {str(text)[:200]!r} is empty or goes past the end of its block")
    return (match[2], offset, length), match[1]


def _check_path(path: str, what: str) -> None:
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise invalid(f"replace_files: {what} is not a canonical path")


def _check_source(source: str) -> None:
    name, slash, path = source.partition("/")
    if not slash or not (name in ("current", "manifest_text") or PORTABLE_DATA_HASH.fullmatch(name)):
        raise invalid(
            f"replace_files: the source {source[:200]!r} must begin with current/, manifest_text/"
            " or a portable data hash and '/'"
        )
    if path:
        _check_path(path, f"the source {source[:200]!r}")


def _check_ancestors(target: str, filled: set[str]) -> None:
    above = target
    while above != "/":
        above = above.rpartition("/")[0] or "/"
        if above in filled:
            raise invalid(f"replace_files: {target[:200]!r} is inside the target {above[:200]!r}")
