"""SQL `like` as Arvados has it, and the file names in manifests, as functions for SQLite.

SQLite's own `LIKE` ignores case and limits the pattern; these don't. `database` registers them on every
connection. A pattern is split at its `%` and the pieces are searched from the left, each once, so that no
pattern is slow.
"""

import re
import sqlite3
from functools import lru_cache
from typing import NamedTuple

from arvados_fuse.local.records.manifest import file_names


def register(connection: sqlite3.Connection) -> None:
    """Give `connection` arv_like(pattern, text), arv_ilike(pattern, text) and arv_file_names(manifest)."""
    connection.create_function("arv_file_names", 1, _file_names, deterministic=True)
    connection.create_function("arv_like", 2, _like, deterministic=True)
    connection.create_function("arv_ilike", 2, _ilike, deterministic=True)


def like(pattern: str, text: str, *, ignore_case: bool = False) -> bool:
    """Whether all of `text` matches `pattern`: `%` any characters, `_` one, `\\` makes the next one plain."""
    if ignore_case:
        pattern, text = pattern.lower(), text.lower()
    first, *others = _pieces(pattern)
    begin = _find(first, text, 0)
    if begin != 0:
        return False
    position = first.length
    if not others:
        return position == len(text)
    for piece in others[:-1]:
        begin = _find(piece, text, position)
        if begin < 0:
            return False
        position = begin + piece.length
    last = others[-1]
    begin = len(text) - last.length
    return begin >= position and _find(last, text, begin) == begin


def _file_names(text: str | None) -> str | None:
    return None if text is None else file_names(text)


def _like(pattern: str, text: object) -> bool | None:
    return None if text is None else like(pattern, str(text))


def _ilike(pattern: str, text: object) -> bool | None:
    return None if text is None else like(pattern, str(text), ignore_case=True)


class _Piece(NamedTuple):
    """What stands between two `%`: `plain` text, or a regular expression where it has a `_`."""

    plain: str
    expression: re.Pattern[str] | None
    length: int


def _find(piece: _Piece, text: str, start: int) -> int:
    if piece.expression is None:
        return text.find(piece.plain, start)
    found = piece.expression.search(text, start)
    return -1 if found is None else found.start()


@lru_cache(maxsize=256)
def _pieces(pattern: str) -> tuple[_Piece, ...]:
    pieces: list[list[str]] = [[]]
    characters = iter(pattern)
    for character in characters:
        if character == "%":
            pieces.append([])
        elif character == "_":
            pieces[-1].append("")
        else:
            pieces[-1].append(next(characters, "") if character == "\\" else character)
    return tuple(map(_piece, pieces))


def _piece(characters: list[str]) -> _Piece:
    if "" not in characters:
        return _Piece("".join(characters), None, len(characters))
    expression = "".join(re.escape(character) if character else "." for character in characters)
    return _Piece("", re.compile(expression, re.DOTALL), len(characters))
