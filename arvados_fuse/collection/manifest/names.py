"""Names in manifests: escapes, what a path component may be, and what conflicting files are called.

Used when manifests are read, written and merged. Pure functions.

Escapes are `\\` and three octal digits, at most `\\377` (Arvados manifest format). Bytes from 0x80 up are
read as UTF-8, as the Go programs of Arvados write them; where that gives no text, each stands for the
character of that number, which is how the Python SDK reads all of them. A backslash that starts no escape
stands for itself.
"""

import re
import time

NAME_MAX = 255
"""Bytes in a name that Linux can show. Longer ones are legal in a manifest and stay readable here."""

PATH_DEPTH_MAX = 1000
"""Components in a path. The SDK recurses once or more per component and ends at Python's limit of 1000
frames."""

PATH_MAX = 65535
"""Characters in a path. Linux takes 4096 bytes at a time; the bound keeps hostile manifests cheap."""

_OCTAL = re.compile(r"\\([0-3][0-7][0-7])")
_OCTAL_BYTES = re.compile(rb"\\([0-3][0-7][0-7])")
_TO_ESCAPE = re.compile(r"[\\:\x00-\x20]")


def unescape(text: str) -> str:
    """The name or path that an escaped manifest token stands for."""
    if "\\" not in text:
        return text
    plain = _OCTAL_BYTES.sub(lambda match: bytes((int(match[1], 8),)), text.encode())
    try:
        return plain.decode()
    except UnicodeDecodeError:
        return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def escape(text: str) -> str:
    """A name or path as a manifest token: the same characters escaped as the SDK does."""
    return _TO_ESCAPE.sub(lambda match: f"\\{ord(match[0]):03o}", text)


def component_fault(name: str) -> str:
    """Why `name` can't be one component of a path, or "" when it can. Length is not judged."""
    if not name:
        return "empty path component"
    if name in (".", ".."):
        return f"path component {name!r}"
    if "\0" in name:
        return "NUL in a name"
    if "/" in name:
        return "slash in a name"
    if not name.isascii() and any("\ud800" <= char <= "\udfff" for char in name):
        return "a name that is not Unicode text"
    return ""


def path_fault(path: str) -> str:
    """Why `path` can't be a relative path of legal components, or ""."""
    if len(path) > PATH_MAX:
        return f"path longer than {PATH_MAX} characters"
    parts = path.split("/", PATH_DEPTH_MAX)
    if len(parts) > PATH_DEPTH_MAX:
        return f"more than {PATH_DEPTH_MAX} path components"
    for part in parts:
        fault = component_fault(part)
        if fault:
            return fault
    return ""


def conflict_name(path: str, moment: float) -> str:
    """The path under which the other side's version is kept. moment: seconds since 1970."""
    return f"{path}~{time.strftime('%Y%m%d-%H%M%S', time.gmtime(moment))}~conflict~"
