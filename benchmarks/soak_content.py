"""Content that says what it is, and what may be found where after a fault: for the soak run's programs.

A text is named by label, version and size, and anybody can make it again from its own first line. A `State`
says which text a file may hold, and how much of its beginning. No I/O; not for several threads at once.
"""

import functools
import random
from collections.abc import Iterable
from typing import NamedTuple

LEAST = 64
"""Bytes: the first line is whole in every text."""


class Wrong(Exception):
    """The mount gave something that was never stored, or lost what it had promised to keep."""


@functools.lru_cache(maxsize=32)
def text(label: str, version: int, size: int) -> bytes:
    """The text of a name. size: bytes, at least LEAST."""
    head = b"%s %d %d\n" % (label.encode(), version, size)
    return head + random.Random(f"{label} {version}").randbytes(size - len(head))


class State(NamedTuple):
    """The first bytes of a text: at least `low`, at most `high`."""

    label: str
    version: int
    size: int
    low: int
    high: int

    def holds(self, data: bytes) -> bool:
        """Whether a file with this content is in this state."""
        return self.low <= len(data) <= self.high and text(*self[:3])[: len(data)] == data


Maybe = State | None
"""None: there is no such file."""


def whole(label: str, version: int, size: int) -> State:
    """All of a text."""
    return State(label, version, size, size, size)


def begun(label: str, version: int, size: int) -> State:
    """Any part of it, from nothing on: a file that is being written."""
    return State(label, version, size, 0, size)


def recognise(data: bytes) -> State | None:
    """What a file holds, by its own first line; None when that is not whole or not such a text."""
    line, newline, _ = data[:200].partition(b"\n")
    words = line.split(b" ")
    if not newline or len(words) != 3 or not (words[1] + words[2]).isdigit():
        return None
    found = State(words[0].decode("ascii", "replace"), int(words[1]), int(words[2]), 0, int(words[2]))
    return found._replace(low=len(data), high=len(data)) if found.holds(data) else None


class Known:
    """What may be at each name of a directory. A name that was never told of must not be there."""

    def __init__(self) -> None:
        self.may: dict[str, list[Maybe]] = {}

    def sure(self, name: str, state: Maybe) -> None:
        """It is so: closed, synced, or looked at."""
        self.may[name] = [state]

    def perhaps(self, name: str, *states: Maybe) -> None:
        """Or so, as well as what it may be already."""
        self.may[name] = [*self.get(name), *states]

    def get(self, name: str) -> list[Maybe]:
        """What may be there."""
        return self.may.get(name, [None])

    def only(self, name: str) -> State:
        """The one state of a name that is there."""
        (state,) = self.may[name]
        assert state is not None
        return state

    def present(self) -> list[str]:
        """Names that are there for sure, in one state."""
        return [name for name, states in self.may.items() if len(states) == 1 and states[0] is not None]

    def found(self, name: str, data: bytes | None) -> None:
        """This is what is there: remember it. Raises Wrong."""
        for state in self.get(name):
            if (state is None) if data is None else (state is not None and state.holds(data)):
                if data is None or state is None:
                    self.sure(name, None)
                else:
                    self.sure(name, state._replace(low=len(data), high=len(data)))
                return
        raise Wrong(f"{name} is {described(data)}, and may be {', '.join(map(told, self.get(name)))}")

    def found_all(self, names: Iterable[str]) -> None:
        """These and no others are listed. Raises Wrong."""
        strange = sorted(set(names) - set(self.may))
        if strange:
            raise Wrong(f"nobody made {', '.join(strange)}")


def told(state: Maybe) -> str:
    """For a message."""
    if state is None:
        return "missing"
    length = f"{state.low}" if state.low == state.high else f"{state.low} to {state.high}"
    return f"{state.label} version {state.version} ({length} of {state.size} bytes)"


def described(data: bytes | None) -> str:
    """What was found, for a message."""
    if data is None:
        return "missing"
    found = recognise(data)
    return told(found) if found else f"{len(data)} bytes that begin with {data[:40]!r}"
