"""From the query and the body of an API request to one dictionary of decoded parameters.

Used by `api`, in worker threads because bodies can be large. Pure functions. Arvados takes parameters from
the query, a form-encoded body or a JSON object; arrays and objects are JSON texts where the transport has
only text. What can't be read is refused here with BadParameters; what the values may be is for the records
to say.
"""

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl

from arvados_fuse.local.server.routing import Target

MAX_VALUES = 5_000_000
"""Most values in a JSON text: bounds the memory that `[[],[],...]` unfolds to; no manifest comes near."""

MAX_FORM_FIELDS = 1000

_TRANSPORT_ONLY = frozenset(
    {"api_token", "reader_tokens", "alt", "fields", "key", "oauth_token", "_method", "_profile"}
)


class BadParameters(Exception):
    """The parameters can't be read; `status` is the HTTP status, the text is for the client."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def merge_parameters(
    query: Iterable[tuple[str, str]], body: dict[str, Any], target: Target
) -> dict[str, Any]:
    """Return all parameters decoded; the path wins over the body, the body over the query. Raises
    BadParameters.
    """
    kinds: dict[str, str] = {each.name: each.type for each in target.method.parameters}
    kinds[target.resource.singular] = "Hash"
    merged: dict[str, Any] = {**dict(query), **body, **target.path_values}
    return {
        name: _decode(value, kinds.get(name, "")) if isinstance(value, str) else value
        for name, value in merged.items()
        if name not in _TRANSPORT_ONLY and value is not None
    }


def parse_body(content_type: str, body: bytes) -> dict[str, Any]:
    """Return what a request body holds, form-encoded or JSON. Raises BadParameters."""
    if not body.strip():
        return {}
    if content_type == "application/x-www-form-urlencoded":
        return dict(_parse_form(body))
    if content_type in ("application/json", "application/octet-stream", "text/plain", ""):
        value = _parse_json(body)
        if not isinstance(value, dict):
            raise BadParameters(422, "the body must be a JSON object")
        return value
    raise BadParameters(415, f"can't read a body of type {content_type[:100]}")


def _parse_form(body: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=MAX_FORM_FIELDS,
        )
    except ValueError as error:
        raise BadParameters(400, f"the form can't be read: {error}") from None


def _parse_json(text: bytes) -> Any:
    if text.count(b",") + text.count(b"[") + text.count(b"{") > MAX_VALUES:
        raise BadParameters(413, "the JSON has too many values")
    try:
        return json.loads(text.decode("utf-8"))
    except RecursionError:
        raise BadParameters(400, "the JSON is nested too deeply") from None
    except ValueError as error:
        raise BadParameters(400, f"not valid JSON: {error}") from None


def _decode(text: str, kind: str) -> Any:
    """Return the value of a parameter that came as text, from a query, a form or a careless client."""
    if kind not in ("Array", "Hash"):
        return text
    if kind == "Hash" or text.lstrip()[:1] in ("[", "{", '"'):
        # Half a UTF-16 pair can't be encoded; the JSON then does not decode, which is the right answer.
        return _parse_json(text.encode("utf-8", "surrogatepass"))
    # `order=name desc`, `include=owner_uuid`, `select=uuid,name`: one or more plain words.
    return [word.strip() for word in text.split(",") if word.strip()]
