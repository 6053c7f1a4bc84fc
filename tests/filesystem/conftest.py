"""Fixtures of the in-process rung."""

from worlds import mine, world

__all__ = ["mine", "world"]
