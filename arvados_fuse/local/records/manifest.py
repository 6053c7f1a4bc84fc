"""Manifest texts: are they legal, what do they hold, with and without signatures.

Used by `collections` for every save and read. Works on whole lines and whole texts with compiled patterns,
never
token by token: a manifest can have a million files. Pure functions, any thread.
Format: Arvados manifest format, as `docs` of Arvados give it. Stored texts have no hints but the size, so the
portable data hash of a text is simply its md5 and its length.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from operator import add

from arvados_fuse.local.records.apierror import forbidden, invalid
from arvados_fuse.local.signature import SignatureError, Signer

_FIRST_FILE = re.compile(r" (?=[0-9]{1,18}:[0-9]{1,18}:)")
_FILE = re.compile(r"(?:^| )([0-9]{1,18}):([0-9]{1,18}):([^ ]+)(?= |$)")
_LOCATOR = re.compile(r"[0-9a-f]{32}\+[0-9]{1,18}(?:\+[A-Z][A-Za-z0-9@_-]*)*")
_HINTED = re.compile(r"(?<= )([0-9a-f]{32}\+[0-9]{1,18})\+[A-Z][^ \n]*")
_BARE = re.compile(r"(?<= )([0-9a-f]{32})\+([0-9]{1,18})(?=[ \n])")
_STREAM = re.compile(r"\.(?:/(?!\.{1,2}(?:/|$))[^/ ]+)*")
_ESCAPE = re.compile(r"\\([0-7]{3})")
_BAD_ESCAPE = re.compile(r"\\(?![0-3][0-7][0-7])|\\000")
# Escapes that nobody needs: all but control characters, space, colon and backslash.
_NEEDLESS_ESCAPE = re.compile(r"\\(?!0[0-3]|040|072|134)")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_BAD_PART = re.compile(r"(?:^|/)\.{0,2}(?:/|$)")
_NOT_A_NAME = re.compile(r" (?:[0-9a-f]{32}\+[^ ]*|[0-9]+:[0-9]+:)|(?:^|(?<=\n))\./?")
_NEEDS_ESCAPE = re.compile(r"[\x00-\x20:\\]")


@dataclass(frozen=True)
class Manifest:
    """text: without hints but sizes. file_size_total: bytes. normalized: `content` wrote it."""

    text: str
    portable_data_hash: str
    file_count: int
    file_size_total: int
    normalized: bool = False


def strip(text: str) -> str:
    """`text` with every locator reduced to hash and size."""
    return _HINTED.sub(r"\1", text) if "+" in text else text


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

    return _BARE.sub(one, text)


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
    _check_text(text)
    streams: dict[str, set[str]] = {}
    locators: set[str] = set()
    file_size_total = 0
    for number, line in enumerate(text.split("\n")[:-1], 1):
        file_size_total += _read_line(number, line, streams, locators)
    for locator in locators:
        check(locator)
    _check_conflicts(streams)
    bare = strip(text)
    return Manifest(
        text=bare,
        portable_data_hash=portable_data_hash(bare),
        file_count=sum(map(len, streams.values())),
        file_size_total=file_size_total,
    )


def of_text(text: str, file_count: int, file_size_total: int) -> Manifest:
    """A manifest that `content` wrote, with what it counted."""
    return Manifest(text, portable_data_hash(text), file_count, file_size_total, normalized=True)


def portable_data_hash(text: str) -> str:
    """The portable data hash of a text without hints but sizes."""
    encoded = text.encode()
    return f"{hashlib.md5(encoded, usedforsecurity=False).hexdigest()}+{len(encoded)}"


def file_names(text: str) -> str:
    """The names of directories and files in a legal manifest, for searches; one to a line."""
    return unescape(_NOT_A_NAME.sub("\n", text))


def signature_check(signer: Signer, token: str) -> Callable[[str], None]:
    """A check for `read`: the locator is signed for `token`. It raises ApiError 403 otherwise."""

    def check(locator: str) -> None:
        try:
            signer.verify(locator, token)
        except SignatureError as error:
            raise forbidden(f"this manifest can't be saved: {error}") from None

    return check


def _check_text(text: str) -> None:
    if text and not text.endswith("\n"):
        raise invalid("a manifest must end with a line end")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise invalid("the manifest has text that is not Unicode") from None
    for pattern, what in ((_CONTROL, "a control character"), (_BAD_ESCAPE, "an illegal escape")):
        if found := pattern.search(text):
            line = text.count("\n", 0, found.start()) + 1
            raise invalid(f"line {line} of the manifest has {what}")


def _read_line(number: int, line: str, streams: dict[str, set[str]], locators: set[str]) -> int:
    """Check one line, add what it holds to `streams` and `locators`; returns the bytes of its files."""
    if "\\" in line and _NEEDLESS_ESCAPE.search(line):
        line = _ESCAPE.sub(lambda match: escape(chr(int(match[1], 8))), line)
    first = _FIRST_FILE.search(line)
    if first is None:
        raise invalid(f"line {number} of the manifest has no file")
    stream, *blocks = line[: first.start()].split(" ")
    if not _STREAM.fullmatch(stream):
        raise invalid(f"line {number} of the manifest has an illegal stream name: {stream[:80]!r}")
    if not blocks or not all(map(_LOCATOR.fullmatch, blocks)):
        raise invalid(f"line {number} of the manifest has something else where a block locator must be")
    locators.update(blocks)
    length = sum(int(block.split("+", 2)[1]) for block in blocks)
    tokens = line[first.end() :]
    found = _FILE.findall(tokens)
    if len(found) != tokens.count(" ") + 1:
        raise invalid(f"line {number} of the manifest has a file token that is not position:size:name")
    positions, sizes, names = zip(*found, strict=True)
    lengths = list(map(int, sizes))
    if max(map(add, map(int, positions), lengths)) > length:
        raise invalid(f"line {number} of the manifest has a file that goes past the end of its blocks")
    files = set(names)
    if "/" in tokens or not files.isdisjoint((".", "..")):
        _add_paths(number, stream, dict(zip(names, sizes, strict=True)), streams)
    else:
        streams.setdefault(stream, set()).update(files)
    return sum(lengths)


def _add_paths(number: int, stream: str, files: dict[str, str], streams: dict[str, set[str]]) -> None:
    """Add files whose names have slashes or are the mark of an empty directory (`.`, no bytes)."""
    streams.setdefault(stream, set())
    for path, size in files.items():
        directory, _, name = path.rpartition("/")
        if (
            (name == "." and size != "0")
            or name == ".."
            or not name
            or (directory and _BAD_PART.search(directory))
        ):
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
