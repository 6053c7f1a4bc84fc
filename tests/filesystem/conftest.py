"""Fixtures of the in-process rung."""

from worlds import world

__all__ = ["world"]
