"""Objects by key for as long as somebody else keeps them.

Used by `Context`. Python's WeakValueDictionary does the same at three times the price, which is paid for each
of the thousands of collections that a listing shows.
"""

import weakref
from typing import Generic, TypeVar

T = TypeVar("T")

LEAST = 1000
"""Entries below which it is not worth looking for those whose object is gone."""


class WeakTable(Generic[T]):
    """Any thread may `get`; `put` and `values` one thread at a time."""

    def __init__(self) -> None:
        self._references: dict[str, weakref.ref[T]] = {}
        self._sweep_at = LEAST

    def get(self, key: str) -> T | None:
        """The object, if it is still there."""
        reference = self._references.get(key)
        return None if reference is None else reference()

    def put(self, key: str, value: T) -> None:
        """Know `value` as `key`. What is left of objects that are gone is never more than of those that are
        there, but for the least."""
        if len(self._references) >= self._sweep_at:
            self._references = {key: known for key, known in self._references.items() if known() is not None}
            self._sweep_at = max(LEAST, 2 * len(self._references))
        self._references[key] = weakref.ref(value)

    def values(self) -> list[T]:
        """The objects that are there."""
        return [value for known in self._references.values() if (value := known()) is not None]
