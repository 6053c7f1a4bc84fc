"""Extended attributes: what Arvados knows of an object, readable without loading its content.

Used by `FileSystem`. A directory or file has those of the collection or project that it is in (a file of a
collection has its collection's). Most come with the listing; for the others one small request is made, and
remembered as long as all that is shown. Any thread may call.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from arvados_fuse.errors import AttributeMissing

PREFIX = "user.arvados."


class Described(Protocol):
    """Something with a record in Arvados."""

    @property
    def described_by(self) -> Sequence[str]:
        """The fields of its record that it may have; asks nobody."""

    def field(self, name: str) -> Any:
        """One of these fields; None when it has none. May ask the server."""


def _text(value: object) -> bytes | None:
    return str(value).encode("utf-8", "replace") if isinstance(value, str) and value else None


def _json(value: object) -> bytes | None:
    if not isinstance(value, dict):
        return None
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode("utf-8", "replace")


def _comma_separated(value: object) -> bytes | None:
    return ",".join(map(str, value)).encode("utf-8", "replace") if isinstance(value, list) and value else None


class _Form:
    """Which field of a record an attribute shows, and how."""

    __slots__ = ("field", "shown")

    def __init__(self, field: str, shown: Callable[[object], bytes | None]) -> None:
        self.field = field
        self.shown = shown


FORMS: Mapping[str, _Form] = {
    "uuid": _Form("uuid", _text),
    "portable_data_hash": _Form("portable_data_hash", _text),
    "owner_uuid": _Form("owner_uuid", _text),
    "modified_at": _Form("modified_at", _text),
    "properties": _Form("properties", _json),
    "storage_classes": _Form("storage_classes_desired", _comma_separated),
}
"""By the name after PREFIX. `properties` is JSON with sorted keys; `storage_classes` has commas between, as
the option `--storage-classes` takes them; the others are as the API gives them."""
COLLECTION_FIELDS = tuple(form.field for form in FORMS.values())
USER_FIELDS = ("uuid", "owner_uuid", "modified_at")
PROJECT_FIELDS = (*USER_FIELDS, "properties")


def names(described: Described | None) -> list[bytes]:
    """The names of all attributes; asks nobody."""
    if described is None:
        return []
    has = described.described_by
    return [f"{PREFIX}{name}".encode() for name, form in FORMS.items() if form.field in has]


def value(described: Described | None, name: bytes) -> bytes:
    """The value of one attribute. Raises AttributeMissing, and what the API answers."""
    prefix, _, last = name.decode("ascii", "replace").rpartition(".")
    form = FORMS.get(last) if f"{prefix}." == PREFIX else None
    if form is not None and described is not None and form.field in described.described_by:
        shown = form.shown(described.field(form.field))
        if shown is not None:
            return shown
    raise AttributeMissing(f"no attribute {name!r}")
