"""Rows of the table: what is measured, in which unit, how medians and ratios are made of it.

Used by workloads, which name their rows, and by the report. Values only.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

NEAR_NULL = 1.3
"""How many times what it takes in the null file system a cached read or lookup may take."""


@dataclass(frozen=True)
class Row:
    """One line. unit: `s`, `ms`, `µs`, `MB/s`, `1/s`, `MB`, `requests`, `blocks` or `s/GiB`.

    aim: how many times better than stock arv-mount ours shall be, where the project has set itself an aim.
    most: how much ours shall cost at most, in the row's unit, likewise.
    ceiling: whether the null file system was measured too. near: how many times its cost ours shall be at
    most, likewise.
    """

    key: str
    title: str
    unit: str
    aim: float | None = None
    most: float | None = None
    ceiling: bool = False
    near: float | None = None

    @property
    def more_is_better(self) -> bool:
        """Rates; everything else is a cost."""
        return self.unit in ("MB/s", "1/s")


class Value(NamedTuple):
    """One measurement. bound: it was given up, the true value is worse than this one."""

    number: float
    bound: bool = False


Measured = Mapping[str, Value]
"""By key of the row."""


class Summary(NamedTuple):
    """All measurements of one row. Medians by subject; `bounds`: subjects whose figure is only a bound.

    ahead: how many times better ours is than stock, the median of the rounds' ratios. over: how many times
    what the null file system costs, ours costs.
    """

    row: Row
    values: Mapping[str, Sequence[float]]
    medians: Mapping[str, float]
    bounds: frozenset[str]
    ahead: float | None
    over: float | None

    def as_json(self) -> dict[str, Any]:
        """Everything, with few digits."""
        return {
            "row": self.row.key,
            "title": self.row.title,
            "unit": self.row.unit,
            "aim": self.row.aim,
            "at_most": rounded(self.row.most),
            "at_most_null": self.row.near,
            "median": {name: rounded(value) for name, value in self.medians.items()},
            "rounds": {name: [rounded(one) for one in values] for name, values in self.values.items()},
            "given_up": sorted(self.bounds),
            "ours_ahead_of_stock": rounded(self.ahead),
            "ours_over_null": rounded(self.over),
        }


def rounded(number: float | None) -> float | None:
    """Four meaningful digits."""
    return None if number is None else float(f"{number:.4g}")


def summarise(row: Row, rounds: Sequence[Mapping[str, Measured]]) -> Summary:
    """rounds: for each round what was measured, by subject."""
    values: dict[str, list[float]] = {}
    bounds = set()
    for measured in rounds:
        for subject, figures in measured.items():
            if row.key in figures:
                values.setdefault(subject, []).append(figures[row.key].number)
                if figures[row.key].bound:
                    bounds.add(subject)
    return Summary(
        row,
        values,
        {subject: statistics.median(numbers) for subject, numbers in values.items()},
        frozenset(bounds),
        _median_ratio(row, rounds, "ours", "stock"),
        _median_ratio(row, rounds, "null", "ours") if row.ceiling else None,
    )


def _median_ratio(
    row: Row, rounds: Sequence[Mapping[str, Measured]], better: str, worse: str
) -> float | None:
    """How many times better `better` is than `worse`, within each round; the median."""
    ratios = []
    for measured in rounds:
        pair = [measured.get(subject, {}).get(row.key) for subject in (better, worse)]
        one, other = pair
        if one is None or other is None:
            continue
        top, bottom = (one, other) if row.more_is_better else (other, one)
        if bottom.number > 0:
            ratios.append(top.number / bottom.number)
    return statistics.median(ratios) if ratios else None
