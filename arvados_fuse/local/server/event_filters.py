"""Filters of event subscriptions, checked against one event in memory.

Used by `events`. Pure. The form is that of list filters, `[[attribute, operator, operand], ...]`; all must
hold.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

from arvados_fuse.local.records.logs import LogRow
from arvados_fuse.local.records.matching import like

MAX_CONDITIONS = 100

_ATTRIBUTES = frozenset(
    {
        "id",
        "uuid",
        "owner_uuid",
        "event_type",
        "event_at",
        "created_at",
        "object_uuid",
        "object_owner_uuid",
        "object_kind",
        "summary",
    }
)
_ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

Condition = Callable[[LogRow], bool]


class EventFilter:
    """One subscription: `matches` an event or not. Keeps `filters` as given, to find it again at
    unsubscribe.
    """

    def __init__(self, filters: Sequence[Any], conditions: Sequence[Condition]) -> None:
        self.filters = filters
        self._conditions = conditions

    def matches(self, row: LogRow) -> bool:
        """Return whether all conditions hold for an event."""
        return all(condition(row) for condition in self._conditions)


def parse_filter(filters: Any) -> EventFilter:
    """Return the filter for the `filters` of a subscription. Raises ValueError when it makes no sense."""
    filters = [] if filters is None else filters
    if not isinstance(filters, list) or len(filters) > MAX_CONDITIONS:
        raise ValueError("filters must be a list of conditions")
    return EventFilter(filters, [_condition(each) for each in filters])


def _condition(condition: Any) -> Condition:
    if not isinstance(condition, list) or len(condition) != 3:
        raise ValueError("a condition is [attribute, operator, operand]")
    attribute, name, operand = condition
    if not isinstance(attribute, str) or attribute not in _ATTRIBUTES or not isinstance(name, str):
        raise ValueError(f"no such attribute of events: {attribute!r:.100}")
    # The time of an event is the time its row was made.
    attribute = "event_at" if attribute == "created_at" else attribute
    test = _test(name.lower(), operand)
    return lambda row: test(getattr(row, attribute))


def _test(name: str, operand: Any) -> Callable[[Any], bool]:
    if name in ("=", "!="):
        return lambda value: (value == operand) == (name == "=")
    if name in ("in", "not in"):
        if not isinstance(operand, list):
            raise ValueError(f"{name} takes a list")
        return lambda value: (value in operand) == (name == "in")
    if name in _ORDERINGS:
        compare = _ORDERINGS[name]
        return lambda value: _same_type(value, operand) and compare(value, _as_type(value, operand))
    if name in ("like", "ilike"):
        if not isinstance(operand, str):
            raise ValueError(f"{name} takes a string")
        return lambda value: value is not None and like(operand, str(value), ignore_case=name == "ilike")
    if name == "is_a":
        return _is_a(operand)
    raise ValueError(f"no such operator: {name!r:.100}")


def _same_type(value: Any, operand: Any) -> bool:
    return isinstance(operand, type(value)) or (isinstance(value, int) and str(operand).isdigit())


def _as_type(value: Any, operand: Any) -> Any:
    # arvados.events sends ids as text.
    return int(operand) if isinstance(value, int) else operand


def _is_a(operand: Any) -> Callable[[Any], bool]:
    """Compare kinds: `arvados#collection` against the kind that the type code in a uuid stands for."""
    from arvados_fuse.local.records.store import kind_of

    kinds = operand if isinstance(operand, list) else [operand]
    return lambda value: isinstance(value, str) and kind_of(value) in kinds
