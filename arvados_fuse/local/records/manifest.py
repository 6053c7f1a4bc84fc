"""Manifest texts: are they legal, what do they hold, with and without signatures.

Used by `collections` for every save and read. Works on whole lines and whole texts with compiled patterns,
never token by token: a manifest can have a million files. Pure functions, any thread.
Format: Arvados manifest format, as `docs` of Arvados give it. Stored texts have no hints but the size, so the
portable data hash of a text is simply its md5 and its length.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from operator import add, itemgetter

from arvados_fuse.local.records.apierror import forbidden, invalid
from arvados_fuse.local.signature import SignatureError, Signer

_FIRST_FILE = re.compile(r" (?=[0-9]{1,18}:[0-9]{1,18}:)")
_FILE = re.compile(r"(?:^| )([0-9]{1,18}):([0-9]{1,18}):([^ ]+)")
_LOCATOR = re.compile(r"[0-9a-f]{32}\+[0-9]{1,18}(?:\+[A-Z][A-Za-z0-9@_-]*)*")
_BARE = re.compile(r"(?<= )([0-9a-f]{32})\+[0-9]{1,18}(?= |$)")
_STREAM = re.compile(r"\.(?:/(?!\.{1,2}(?:/|$))[^/ ]+)*")
_ESCAPE = re.compile(r"\\([0-7]{3})")
_BAD_ESCAPE = re.compile(r"\\(?![0-3][0-7][0-7])|\\000")
# Escapes that nobody needs: all but control characters, space, colon and backslash.
_NEEDLESS_ESCAPE = re.compile(r"\\(?!0[0-3]|040|072|134)")
_CONTROL = re.compile(r"[\x00-\x1f]")
_BAD_PART = re.compile(r"(?:^|/)\.{0,2}(?:/|$)")
_BEFORE_NAME = re.compile(r" [0-9]+:[0-9]+:")
_NEEDS_ESCAPE = re.compile(r"[\x00-\x20:\\]")


@dataclass(frozen=True)
class Manifest:
    """text: without hints but sizes. file_size_total: bytes. normalized: `content` wrote it."""

    text: str
    portable_data_hash: str
    file_count: int
    file_size_total: int
    normalized: bool = False


def sign(text: str, signer: Signer, token: str) -> str:
    """A stored text with every locator signed for `token` from now on."""
    expiry = signer.expiry()
    signed: dict[str, str] = {}

    def one(match: re.Match[str]) -> str:
        locator = match[0]
        answer = signed.get(locator)
        if answer is None:
            answer = signed[locator] = locator + signer.hint(match[1], token, expiry)
        return answer

    def line(text: str) -> str:
        # Locators stand before the first file: the rest, nearly all of the text, is left alone.
        first = _FIRST_FILE.search(text)
        return _BARE.sub(one, text[: first.start()]) + text[first.start() :] if first else text

    return "\n".join(map(line, text.split("\n")))


def escape(name: str) -> str:
    """A name as a manifest has it: control characters, space, colon and backslash as octal escapes."""
    return _NEEDS_ESCAPE.sub(lambda match: f"\\{ord(match[0]):03o}", name)


def unescape(name: str) -> str:
    """A manifest's name without escapes; `\\ooo` stands for one character, as the SDK reads it."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), name) if "\\" in name else name


def read(text: str, check: Callable[[str], None]) -> Manifest:
    """Check a manifest that a client sent; `check` is called once with each different locator, hints and all.

    Raises ApiError 422 when the manifest is not legal, and what `check` raises.
    """
    if text and not text.endswith("\n"):
        raise invalid("a manifest must end with a line end")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise invalid("the manifest has text that is not Unicode") from None
    streams: dict[str, set[str]] = {}
    locators: set[str] = set()
    file_size_total = 0
    lines = text.split("\n")
    for number, line in enumerate(lines[:-1], 1):
        lines[number - 1], size = _read_line(number, line, streams, locators)
        file_size_total += size
    for locator in locators:
        check(locator)
    _check_conflicts(streams)
    bare = "\n".join(lines)
    return Manifest(bare, portable_data_hash(bare), sum(map(len, streams.values())), file_size_total)


def of_text(text: str, file_count: int, file_size_total: int) -> Manifest:
    """A manifest that `content` wrote, with what it counted."""
    return Manifest(text, portable_data_hash(text), file_count, file_size_total, normalized=True)


def portable_data_hash(text: str) -> str:
    """The portable data hash of a text without hints but sizes."""
    encoded = text.encode()
    return f"{hashlib.md5(encoded, usedforsecurity=False).hexdigest()}+{len(encoded)}"


def file_names(text: str) -> str:
    """The names of directories and files in a legal manifest, for searches; one to a line."""
    names = []
    for line in text.split("\n")[:-1]:
        first = _FIRST_FILE.search(line)
        names += [line.partition(" ")[0][2:], _BEFORE_NAME.sub("\n", line[first.start() :]) if first else ""]
    return unescape("\n".join(names))


def signature_check(signer: Signer, token: str) -> Callable[[str], None]:
    """A check for `read`: the locator is signed for `token`. It raises ApiError 403 otherwise."""

    def check(locator: str) -> None:
        try:
            signer.verify(locator, token)
        except SignatureError as error:
            raise forbidden(f"this manifest can't be saved: {error}") from None

    return check


def _read_line(number: int, line: str, streams: dict[str, set[str]], locators: set[str]) -> tuple[str, int]:
    """Check one line and add what it holds to `streams` and `locators`.

    Returns the line without hints but sizes, and the bytes of its files.
    """
    # isprintable is many times faster than the pattern, but it also dislikes some legal characters.
    if not line.isprintable() and _CONTROL.search(line):
        raise invalid(f"line {number} of the manifest has a control character")
    if "\\" in line and _BAD_ESCAPE.search(line):
        raise invalid(f"line {number} of the manifest has an illegal escape")
    first = _FIRST_FILE.search(line)
    if first is None:
        raise invalid(f"line {number} of the manifest has no file")
    stream, *blocks = line[: first.start()].split(" ")
    tokens = line[first.end() :]
    if not blocks or not all(map(_LOCATOR.fullmatch, blocks)):
        raise invalid(f"line {number} of the manifest has something else where a block locator must be")
    bare = ["+".join(block.split("+", 2)[:2]) for block in blocks]
    if bare != blocks:
        line = f"{stream} {' '.join(bare)} {tokens}"
    if "\\" in line and _NEEDLESS_ESCAPE.search(line):
        stream, tokens = _with_needed_escapes(stream), _with_needed_escapes(tokens)
    if not _STREAM.fullmatch(stream):
        raise invalid(f"line {number} of the manifest has an illegal stream name: {stream[:80]!r}")
    locators.update(blocks)
    length = sum(int(locator[33:]) for locator in bare)
    return line, _read_files(number, stream, tokens, length, streams)


def _with_needed_escapes(text: str) -> str:
    return _ESCAPE.sub(lambda match: escape(chr(int(match[1], 8))), text)


def _read_files(number: int, stream: str, tokens: str, length: int, streams: dict[str, set[str]]) -> int:
    """Check the file tokens of a line over `length` bytes of blocks; returns the bytes of its files."""
    found = _FILE.findall(tokens)
    if len(found) != tokens.count(" ") + 1:
        raise invalid(f"line {number} of the manifest has a file token that is not position:size:name")
    sizes = list(map(int, map(itemgetter(1), found)))
    if max(map(add, map(int, map(itemgetter(0), found)), sizes)) > length:
        raise invalid(f"line {number} of the manifest has a file that goes past the end of its blocks")
    files = set(map(itemgetter(2), found))
    if "/" in tokens or not files.isdisjoint((".", "..")):
        _add_paths(number, stream, set(zip(map(itemgetter(2), found), sizes, strict=True)), streams)
    else:
        streams.setdefault(stream, set()).update(files)
    return sum(sizes)


def _add_paths(number: int, stream: str, files: set[tuple[str, int]], streams: dict[str, set[str]]) -> None:
    """Add files whose names have slashes or are the mark of an empty directory (`.`, no bytes)."""
    streams.setdefault(stream, set())
    for path, size in files:
        directory, slash, name = path.rpartition("/")
        bad = slash and _BAD_PART.search(directory)
        if bad or not name or name == ".." or (name == "." and size):
            raise invalid(f"line {number} of the manifest has an illegal file name: {path[:80]!r}")
        found = streams.setdefault(f"{stream}/{directory}" if directory else stream, set())
        if name != ".":
            found.add(name)


def _check_conflicts(streams: dict[str, set[str]]) -> None:
    """A name is a file or a directory, not both."""
    for stream in streams:
        parent, _, name = stream.rpartition("/")
        while parent:
            if name in streams.get(parent, ()):
                raise invalid(
                    f"the manifest has a file and a directory called {unescape(parent + '/' + name)[:200]!r}"
                )
            parent, _, name = parent.rpartition("/")
