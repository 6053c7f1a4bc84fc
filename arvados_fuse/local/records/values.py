"""Checks of what clients send, and the way of each attribute's value into SQLite and back.

Used by every module that reads parameters or rows. Pure functions, any thread. Everything wrong ends as
ApiError 422 that names the argument and says what was expected.
"""

import json
import math
from typing import Any

from arvados_fuse.local.records.apierror import invalid
from arvados_fuse.local.records.attributes import Attribute
from arvados_fuse.local.records.identifiers import parse_time

MAX_DEPTH = 32
"""Levels of nesting in a request: far more than clients use, far less than the interpreter's limit."""
MAX_INTEGER = 2**63 - 1
MAX_STRING = 2**16
"""Characters of a `string` attribute."""

_EXPECTED = {
    "string": "a string",
    "text": "a string",
    "integer": "an integer",
    "float": "a number",
    "boolean": "true or false",
    "datetime": "a time (YYYY-MM-DDTHH:MM:SSZ)",
    "Hash": "an object",
    "Array": "an array",
}


def check_json(value: Any, name: str, depth: int = MAX_DEPTH) -> None:
    """Refuse what no record can hold: nesting too deep, NaN, huge integers, broken Unicode, NUL."""
    if depth == 0:
        raise invalid(f"{name} is nested too deeply")
    if isinstance(value, str):
        _check_text(value, name)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise invalid(f"{name} has a key that is not a string")
            _check_text(key, name)
            check_json(item, name, depth - 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            check_json(item, name, depth - 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise invalid(f"{name} has a number that is not finite")
    elif isinstance(value, int):
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise invalid(f"{name} has a number that is too large")
    elif value is not None:
        raise invalid(f"{name} has a value that is not JSON")


def encode(attribute: Attribute, value: Any) -> str | int | float | None:
    """`value` (JSON) as SQLite keeps it. Raises ApiError 422 when it is not of the attribute's type."""
    name = attribute.name
    kind = attribute.type
    if value is None:
        if kind in ("Hash", "Array"):
            return "{}" if kind == "Hash" else "[]"
        return 0 if kind == "boolean" else None
    if kind in ("string", "text") and isinstance(value, str):
        if kind == "string" and len(value) > MAX_STRING:
            raise invalid(f"{name} is too long: at most {MAX_STRING} characters")
        return value
    if kind == "boolean" and isinstance(value, bool):
        return int(value)
    if kind == "integer" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind == "float" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind == "datetime" and isinstance(value, str) and (moment := parse_time(value)) is not None:
        return moment
    if (kind == "Hash" and isinstance(value, dict)) or (kind == "Array" and isinstance(value, list)):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    raise invalid(f"{name} must be {_EXPECTED[kind]}")


def decode(attribute: Attribute, value: Any) -> Any:
    """What `encode` made, as JSON again."""
    if attribute.type in ("Hash", "Array"):
        return json.loads(value)
    if attribute.type == "boolean":
        return bool(value)
    return value


def text(parameters: dict[str, Any], name: str) -> str:
    """The string argument `name`. Raises ApiError 422 when it is missing or no string."""
    value = parameters.get(name)
    if not isinstance(value, str):
        raise invalid(f"{name} must be a string")
    return value


def flag(parameters: dict[str, Any], name: str) -> bool:
    """The boolean argument `name`, False without it; `"true"`, `"1"`, 1 and the like count."""
    value = parameters.get(name)
    if value in (None, "", False, 0, "0", "false"):
        return False
    if value in (True, 1, "1", "true"):
        return True
    raise invalid(f"{name} must be true or false")


def whole(parameters: dict[str, Any], name: str, default: int) -> int:
    """The argument `name`, an integer of at least 0 (also as decimal text, as query strings have it)."""
    value = parameters.get(name)
    if value is None or value == "":
        return default
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise invalid(f"{name} must be an integer of at least 0")
    return value


def array(parameters: dict[str, Any], name: str) -> list[Any]:
    """The array argument `name`, empty without it. Raises ApiError 422 when it is something else."""
    value = parameters.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise invalid(f"{name} must be an array")
    return value


def _check_text(value: str, name: str) -> None:
    if "\0" in value:
        raise invalid(f"{name} has a NUL character")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise invalid(f"{name} has text that is not Unicode") from None
