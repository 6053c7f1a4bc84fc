"""Arguments of list and get calls, and what their answers say of pages. Used by `client`. Pure."""

from collections.abc import Sequence
from typing import Any

Record = dict[str, Any]


def selected(select: Sequence[str] | None) -> Record:
    """The fields to be given; None for those that the server gives by itself."""
    return {} if select is None else {"select": list(select)}


def with_trash(included: bool) -> Record:
    """Only where it is wanted, so that other requests are as they always were."""
    return {"include_trash": True} if included else {}


def is_last(answer: Record, page: Sequence[Record]) -> bool:
    """Whether no page follows: `limit` in the answer is what the server really applied, a cut page
    included."""
    limit = answer.get("limit")
    return not page or (isinstance(limit, int) and len(page) < limit)
