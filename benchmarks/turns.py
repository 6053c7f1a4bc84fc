"""Who has a turn in which round, and what stands for a mount that has none any more.

Used by the driver, one `Turns` for each workload. Patience once is enough: a mount that was given up, or that
needed long, has no second turn; its figures count in all later rounds, so that ratios can still be made
within each.
"""

from benchmarks.rows import Measured

PATIENCE = 60.0
"""Seconds that a turn may take before it is the mount's last one in this workload."""
TRIES = 2
"""How often a turn is tried: what fails once must not cost a mount its place in the table."""


class Turns:
    """What was measured, round by round, by subject."""

    def __init__(self) -> None:
        self.rounds: list[dict[str, Measured]] = []
        self._last: dict[str, Measured | None] = {}

    def new_round(self) -> None:
        """Those that had their last turn keep what they had."""
        self.rounds.append({name: figures for name, figures in self._last.items() if figures is not None})

    def has_turn(self, subject: str) -> bool:
        """Whether it is to be measured in this round."""
        return subject not in self._last

    def took(self, subject: str, figures: Measured, seconds: float) -> None:
        """It had its turn in this round, which took so long."""
        self.rounds[-1][subject] = figures
        if seconds > PATIENCE or any(value.bound for value in figures.values()):
            self._last[subject] = figures

    def failed(self, subject: str) -> None:
        """It could not be measured, and won't be."""
        self._last[subject] = None

    def once(self) -> list[str]:
        """Those that had one turn because it took too long, in order of their turns."""
        return [name for name, figures in self._last.items() if figures is not None]
