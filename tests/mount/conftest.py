"""Fixtures of the mount rung."""

from worlds import world

__all__ = ["world"]
