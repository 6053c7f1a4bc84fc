"""Fixtures of the mount rung."""

from worlds import mine, world

__all__ = ["mine", "world"]
