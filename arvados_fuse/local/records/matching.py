"""SQL `like` as Arvados has it, and the file names in manifests, as functions for SQLite.

SQLite's own `LIKE` ignores case and limits the pattern; these don't. `database` registers them on every
connection.
A pattern is split at its `%` and the pieces are searched from the left, each once, so that no pattern is
slow.
"""

import re
import sqlite3
from functools import lru_cache

from arvados_fuse.local.records.manifest import file_names


def register(connection: sqlite3.Connection) -> None:
    """Give `connection` the functions `arv_like(pattern, text)`, `arv_ilike(pattern, text)` and
    `arv_file_names(manifest)`."""
    connection.create_function("arv_file_names", 1, _file_names, deterministic=True)
    connection.create_function("arv_like", 2, _like, deterministic=True)
    connection.create_function("arv_ilike", 2, _ilike, deterministic=True)


def like(pattern: str, text: str, *, ignore_case: bool = False) -> bool:
    """Whether all of `text` matches `pattern`: `%` any characters, `_` one, `\\` makes the next one plain."""
    pieces = _pieces(pattern, ignore_case)
    if len(pieces) == 1:
        return pieces[0].fullmatch(text) is not None
    first = pieces[0].match(text)
    if first is None:
        return False
    position = first.end()
    for piece in pieces[1:-1]:
        found = piece.search(text, position)
        if found is None:
            return False
        position = found.end()
    start = len(text) - _length(pieces[-1])
    return start >= position and pieces[-1].fullmatch(text, start) is not None


def _file_names(text: str | None) -> str | None:
    return None if text is None else file_names(text)


def _like(pattern: str, text: object) -> bool | None:
    return None if text is None else like(pattern, str(text))


def _ilike(pattern: str, text: object) -> bool | None:
    return None if text is None else like(pattern, str(text), ignore_case=True)


@lru_cache(maxsize=256)
def _pieces(pattern: str, ignore_case: bool) -> tuple[re.Pattern[str], ...]:
    pieces = [""]
    plain = False
    for character in pattern:
        if plain:
            pieces[-1] += re.escape(character)
            plain = False
        elif character == "\\":
            plain = True
        elif character == "%":
            pieces.append("")
        else:
            pieces[-1] += "." if character == "_" else re.escape(character)
    flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
    return tuple(re.compile(piece, flags) for piece in pieces)


@lru_cache(maxsize=256)
def _length(piece: re.Pattern[str]) -> int:
    """Every piece matches texts of one length only: count its characters without the escapes."""
    return len(re.sub(r"\\(.)", r"\1", piece.pattern, flags=re.DOTALL))
