"""What an event says, as a value.

Made by the event listener from websocket messages and from records of `logs`, which have the same fields;
read by the tree. Pure; nothing in a message is believed before it is checked.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UUID = re.compile(r"[0-9a-z]{5}-([0-9a-z]{5})-[0-9a-z]{15}")
PDH = re.compile(r"[0-9a-f]{32}\+[0-9]{1,10}")
KINDS = {
    "4zz18": "arvados#collection",
    "j7d0g": "arvados#group",
    "o0j2j": "arvados#link",
    "tpzed": "arvados#user",
}
"""What a mount shows, by the type code in a uuid. The code decides, not the message's own `object_kind`."""
EVENTS = ("create", "update", "delete", "trash", "untrash")
"""The types of event that change what a mount shows."""
LARGEST_ID = (1 << 63) - 1
"""Log ids are 64-bit integers of the database."""


@dataclass(frozen=True)
class Change:
    """One event on a collection, group, link or user.

    log_id: number of the log record, from 1. uuid, kind: of the object (`arvados#collection`, ...).
    event: one of EVENTS. owner_uuid: its owner now (or last), "" if the event does not say. Before and after:
    None where the event does not say.
    """

    log_id: int
    uuid: str
    kind: str
    event: str
    owner_uuid: str = ""
    old_owner_uuid: str | None = None
    new_owner_uuid: str | None = None
    old_name: str | None = None
    new_name: str | None = None
    old_portable_data_hash: str | None = None
    new_portable_data_hash: str | None = None
    was_trashed: bool | None = None
    is_trashed: bool | None = None

    @property
    def owners(self) -> frozenset[str]:
        """The uuids of all owners named, before and after."""
        named = (self.owner_uuid, self.old_owner_uuid, self.new_owner_uuid)
        return frozenset(owner for owner in named if owner)

    @property
    def is_gone(self) -> bool:
        """Whether the object was deleted or is in the trash."""
        return self.event in ("delete", "trash") or self.is_trashed is True

    @property
    def moves(self) -> bool:
        """Whether the object has changed its owner, or gone into the trash or come back from there."""
        owners = {self.old_owner_uuid, self.new_owner_uuid} - {None}
        return (
            self.event in ("delete", "trash", "untrash")
            or len(owners) > 1
            or (self.was_trashed is not None and self.was_trashed != self.is_trashed)
        )


def log_id_of(message: Mapping[str, Any]) -> int | None:
    """The number of the log record that a message or record is about; None when it has none."""
    value = message.get("id")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= LARGEST_ID:
        return None
    return value


def change_of(message: Mapping[str, Any]) -> Change | None:
    """The change that a message or record tells of; None when that is nothing a mount shows, or nonsense."""
    log_id = log_id_of(message)
    uuid, event = message.get("object_uuid"), message.get("event_type")
    if log_id is None or not isinstance(uuid, str) or event not in EVENTS:
        return None
    match = UUID.fullmatch(uuid)
    kind = KINDS.get(match[1]) if match else None
    if kind is None:
        return None
    properties = _object(message.get("properties"))
    old, new = _object(properties.get("old_attributes")), _object(properties.get("new_attributes"))
    return Change(
        log_id,
        uuid,
        kind,
        event,
        owner_uuid=_matching(UUID, message.get("object_owner_uuid")) or "",
        old_owner_uuid=_matching(UUID, old.get("owner_uuid")),
        new_owner_uuid=_matching(UUID, new.get("owner_uuid")),
        old_name=_text(old.get("name")),
        new_name=_text(new.get("name")),
        old_portable_data_hash=_matching(PDH, old.get("portable_data_hash")),
        new_portable_data_hash=_matching(PDH, new.get("portable_data_hash")),
        was_trashed=_truth(old.get("is_trashed")),
        is_trashed=_truth(new.get("is_trashed")),
    )


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _truth(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _matching(form: re.Pattern[str], value: object) -> str | None:
    return value if isinstance(value, str) and form.fullmatch(value) else None
