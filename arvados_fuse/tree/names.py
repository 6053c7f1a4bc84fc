"""From names in Arvados to names in a directory, and back.

An Arvados name may be empty, hold `/` or NUL, or be taken twice (by a project and a collection, or after `/`
was replaced); a file name may not. Used by all listings. Values and pure functions.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

from arvados_fuse.errors import IllegalName

SUFFIX = re.compile(r"^(?P<name>.+)~(?P<uuid>[0-9a-z]{5}-[0-9a-z]{5}-[0-9a-z]{15}|[0-9a-z]{15})$", re.DOTALL)
"""A shown name that was kept apart from another by (the end of) its uuid."""
UNSHOWABLE = re.compile("[\x00\ud800-\udfff]")
"""NUL can't stand in a file name, lone surrogates (JSON allows them) can't be encoded."""
SHORT_NAMES = ["".join(letters) for length in range(3) for letters in product("_/.", repeat=length)]
"""All names that could be shown as `_` or `__`, whatever stands for `/`."""
KERNEL_NAME_MAX = 1024
"""Bytes; FUSE_NAME_MAX: one longer name would make the kernel refuse the whole listing."""

Record = Mapping[str, Any]


class Names:
    """The rules of one mount: what stands for `/`, and the encoding of file names."""

    def __init__(self, slash: str = "", encoding: str = "utf-8") -> None:
        """slash: the cluster's `Collections.ForwardSlashNameSubstitution`; `_` where it is not set or is
        `/`."""
        self._slash = UNSHOWABLE.sub("_", slash).replace("/", "_") or "_"
        self._encoding = encoding

    def shown(self, name: str) -> str:
        """The file name for an Arvados name. Several Arvados names can have the same."""
        shown = UNSHOWABLE.sub("_", name).replace("/", self._slash)
        if shown in ("", "."):
            return "_"
        if shown == "..":
            return "__"
        return shown

    def filter_for(self, shown: str) -> list[Any]:
        """Operator and operand of an API filter on `name` that finds at least all objects shown so.

        `_` stands for any one character in `like` and `%` for any number; what such a pattern finds too much
        is sorted out by comparing with `shown`.
        """
        if shown in ("_", "__"):
            return ["in", SHORT_NAMES]
        if self._slash not in shown:
            return ["=", shown]
        any_slash = "_" if len(self._slash) == 1 else "%"
        return ["like", any_slash.join(re.sub(r"[%\\]", "_", part) for part in shown.split(self._slash))]

    def encode(self, name: str) -> bytes | None:
        """The bytes of a file name; None when it can't be shown (encoding, or longer than the kernel
        takes)."""
        try:
            raw = name.encode(self._encoding)
        except UnicodeEncodeError:
            return None
        return raw if 0 < len(raw) <= KERNEL_NAME_MAX else None

    def decode(self, raw: bytes) -> str:
        """The file name in bytes that a program gave. Raises IllegalName."""
        try:
            return raw.decode(self._encoding)
        except UnicodeDecodeError as error:
            raise IllegalName(f"the name {raw!r} is not {self._encoding}") from error

    def keep_apart(self, records: Iterable[Record]) -> dict[str, Record]:
        """A file name of its own for every record (fields `name` and `uuid`).

        The bare name goes to an object really called so, before one whose name was changed to be shown; then
        to a project before a collection; then to the lower uuid. The others get `~` and the end of their
        uuid.
        """
        same: dict[str, list[Record]] = {}
        for record in records:
            same.setdefault(self.shown(str(record.get("name") or "")), []).append(record)
        result: dict[str, Record] = {}
        late: list[tuple[str, Record]] = []
        for shown, group in same.items():
            if len(group) > 1:
                group.sort(key=lambda record: self._precedence(shown, record))
                late += [(shown, record) for record in group[1:]]
            result[shown] = group[0]
        for shown, record in late:
            uuid = str(record.get("uuid") or "")
            name = f"{shown}~{uuid[-15:]}"
            result[name if name not in result else f"{shown}~{uuid}"] = record
        return result

    def of_objects(self, records: Iterable[Record]) -> dict[str, Record]:
        """The same for objects. What has no uuid, because a server is out of order, can't be asked for, and
        has no name."""
        return self.keep_apart(record for record in records if record.get("uuid"))

    def _precedence(self, shown: str, record: Record) -> tuple[bool, bool, str]:
        uuid = str(record.get("uuid") or "")
        return record.get("name") != shown, "-j7d0g-" not in uuid, uuid
