"""`--filters`: which objects listings show, by kind of object.

Used by the sources of listings. Values only. A plain field (`name`) is for every kind, `collections.name` for
one.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

Filter = Sequence[Any]
KINDS = ("collections", "groups", "links", "users")


class ListFilters(NamedTuple):
    """API filters for each kind of object."""

    collections: tuple[Filter, ...] = ()
    groups: tuple[Filter, ...] = ()
    links: tuple[Filter, ...] = ()
    users: tuple[Filter, ...] = ()

    @classmethod
    def parse(cls, filters: Sequence[Filter]) -> "ListFilters":
        """Sort filters of the form `[field, operator, operand]` by the kind that the field names, if it
        does."""
        by_kind: dict[str, list[Filter]] = {kind: [] for kind in KINDS}
        for field, operator, operand in filters:
            kind, dot, attribute = str(field).partition(".")
            if dot and kind in by_kind:
                by_kind[kind].append([attribute, operator, operand])
            else:
                for each in by_kind.values():
                    each.append([field, operator, operand])
        return cls(**{kind: tuple(each) for kind, each in by_kind.items()})
