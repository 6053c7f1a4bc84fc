"""Block locators: `<32 hex md5>+<size>` and hints, as text and as a value.

Used by the rest of `keep`; the collection floor treats a locator as text.
Threads: pure functions and values.
"""

import re
from typing import NamedTuple

from arvados_fuse.errors import LocatorError

MAX_BLOCK = 64 * 1024 * 1024
"""Largest block in bytes that a Keep service stores (Arvados: 64 MiB)."""

_LOCATOR = re.compile(r"([0-9a-f]{32})\+([0-9]{1,8})((?:\+[A-Z][A-Za-z0-9@_-]*)*)", re.ASCII)


class Locator(NamedTuple):
    """One parsed locator. `size` is in bytes; `hints` are in their order, each without its `+`."""

    md5: str
    size: int
    hints: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Locator":
        """Parse a locator as it stands in a manifest.

        Raises LocatorError when it is not legal or its size is beyond MAX_BLOCK.
        """
        match = _LOCATOR.fullmatch(text)
        if match is None:
            raise LocatorError(f"not a block locator: {text[:80]!r}")
        md5, size, hints = match.groups()
        if int(size) > MAX_BLOCK:
            raise LocatorError(f"block {md5} of {size} bytes is beyond {MAX_BLOCK}", subject=f"{md5}+{size}")
        return cls(md5, int(size), tuple(hints[1:].split("+")) if hints else ())

    @property
    def stripped(self) -> str:
        """`md5+size`: the locator without hints, safe to show."""
        return f"{self.md5}+{self.size}"

    @property
    def is_signed(self) -> bool:
        """Whether it carries a permission signature (`+A`) or a remote cluster's (`+R`)."""
        return any(hint[0] in "AR" for hint in self.hints)

    @property
    def service_hints(self) -> tuple[str, ...]:
        """What stands behind each `K@`: a cluster id of 5 characters or a Keep service's uuid."""
        return tuple(hint[2:] for hint in self.hints if hint.startswith("K@"))
