"""Uuids, portable data hashes and times, as they are written in records.

Used by every module of the package. Pure functions, any thread.
"""

import re
import secrets
import time
from datetime import datetime, timedelta, timezone

UUID = re.compile(r"([a-z0-9]{5})-([a-z0-9]{5})-([a-z0-9]{15})")
PORTABLE_DATA_HASH = re.compile(r"[0-9a-f]{32}\+[0-9]{1,18}")

USER = "tpzed"
GROUP = "j7d0g"
COLLECTION = "4zz18"
LINK = "o0j2j"
LOG = "57u5n"
TOKEN = "gj3su"
KEEP_SERVICE = "bi6l4"

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?\s*(Z|UTC|[+-]\d\d:?\d\d)?",
    re.IGNORECASE,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def new_uuid(cluster_id: str, kind: str) -> str:
    """A fresh uuid of the kind that the five letters `kind` stand for."""
    return f"{cluster_id}-{kind}-{''.join(secrets.choice(_ALPHABET) for _ in range(15))}"


def uuid_kind(uuid: str) -> str:
    """The five letters in the middle of a uuid, or "" when the text is none."""
    match = UUID.fullmatch(uuid)
    return match[2] if match else ""


def format_time(unix_time: float) -> str:
    """A unix time in seconds as `YYYY-MM-DDTHH:MM:SS.nnnnnnnnnZ`; such texts sort as the times do."""
    moment = _EPOCH + timedelta(microseconds=int(unix_time * 1_000_000))
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}000Z".rjust(30, "0")


def now() -> str:
    """The present time, to the microsecond, as records hold it."""
    return format_time(time.time_ns() / 1_000_000_000)


def later(moment: str, seconds: float) -> str:
    """`moment` (as records hold it) plus `seconds`."""
    return format_time(unix_time(moment) + seconds)


def unix_time(moment: str) -> float:
    """Seconds since 1970 of a time as records hold it."""
    parsed = datetime.strptime(moment[:26], "%Y-%m-%dT%H:%M:%S.%f").replace(tzinfo=timezone.utc)
    return (parsed - _EPOCH).total_seconds()


def parse_time(text: str) -> str | None:
    """A time in ISO 8601 (any offset, UTC when it names none) as records hold it; None when it is no time."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    fraction = (match[7] or "").ljust(6, "0")[:6]
    try:
        moment = datetime(year, month, day, hour, minute, second, int(fraction), tzinfo=timezone.utc)
        if match[8] and match[8][0] in "+-":
            digits = match[8][1:].replace(":", "")
            shift = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
            moment = moment - shift if match[8][0] == "+" else moment + shift
    except (ValueError, OverflowError):
        return None
    return f"{moment.year:04d}-{moment:%m-%dT%H:%M:%S}.{moment.microsecond:06d}000Z"
