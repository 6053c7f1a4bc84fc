"""How single option values are read: numbers, sizes, filters, names.

Used by `parser.py` as argparse types and by nothing else. A bad value raises `argparse.ArgumentTypeError`
with a message that says what was expected; argparse turns it into exit code 2.
"""

import argparse
import codecs
import json
import math
import sys
from pathlib import Path
from typing import Any

Filter = list[Any]


def count(text: str) -> int:
    """A whole number, zero or more."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more, not {text!r}")
    return number


def port(text: str) -> int:
    """The number of a TCP port; 0 for any that is free."""
    number = count(text)
    if number > 65535:
        raise argparse.ArgumentTypeError(f"expected a port, 0 to 65535, not {text!r}")
    return number


def seconds(text: str) -> float:
    """A time in seconds, zero or more; fractions are allowed."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not math.isfinite(number) or number < 0:
        raise argparse.ArgumentTypeError(f"expected seconds, 0 or more, not {text!r}")
    return number


def encoding(text: str) -> str:
    """A codec that Python knows, under the name that was given."""
    try:
        codecs.lookup(text)
    except LookupError:
        raise argparse.ArgumentTypeError(f"Python has no encoding named {text!r}") from None
    return text


def storage_classes(text: str) -> tuple[str, ...]:
    """Names separated by commas, blanks around them dropped, order kept."""
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def filters(text: str) -> list[Filter]:
    """API list filters: JSON text, a file that holds it, or `-` for standard input.

    Arvados filters are `[attribute, operator, operand]`; the attribute may carry a kind (`groups.name`).
    """
    if text == "-":
        source, content = "standard input", sys.stdin.read()
    elif text.lstrip().startswith("["):
        source, content = "the argument", text
    else:
        source = text
        try:
            content = Path(text).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else "not text"
            raise argparse.ArgumentTypeError(
                f"{text!r} is neither a JSON list of filters nor a file that can be read ({why})"
            ) from None
    try:
        parsed = json.loads(content)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{source} is not valid JSON: {error}") from None
    return _checked(parsed, source)


def _checked(parsed: Any, source: str) -> list[Filter]:
    if not isinstance(parsed, list):
        raise argparse.ArgumentTypeError(f"{source} holds no JSON list of filters")
    for item in parsed:
        if not (isinstance(item, list) and len(item) == 3 and all(isinstance(s, str) for s in item[:2])):
            raise argparse.ArgumentTypeError(
                f"each filter must be [attribute, operator, operand], and {json.dumps(item)} is not"
            )
    return parsed
