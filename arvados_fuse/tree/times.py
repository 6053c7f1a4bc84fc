"""Modification times of what was changed through this mount, kept for its life: Arvados stores none.

Used by `Working`. Tools that compare times (`make`, `rsync`, git) need two things: what they set stays, and
what nobody touched does not change because a neighbour was saved.
"""

import threading


class Times:
    """Nanoseconds since 1970 by path (`a/b`, "" for the root) of one collection. Any thread may call."""

    def __init__(self, default_ns: int) -> None:
        """default_ns: for everything that was never changed: the collection's time when the first change
        came."""
        self.default_ns = default_ns
        self._lock = threading.Lock()
        self._set: dict[str, int] = {}

    def get(self, path: str) -> int:
        """The time of what is at `path`."""
        return self._set.get(path, self.default_ns)

    def set(self, path: str, moment_ns: int) -> None:
        """What is at `path` has this time from now on."""
        with self._lock:
            self._set[path] = moment_ns

    def drop(self, path: str) -> None:
        """Nothing is at `path` any more."""
        with self._lock:
            self._set.pop(path, None)

    def move(self, path: str, target: "Times", new_path: str, *, is_directory: bool) -> None:
        """What was at `path` is at `new_path` of `target`, with everything below it."""
        moment = self.get(path)
        below: dict[str, int] = {}
        with self._lock:
            self._set.pop(path, None)
            if is_directory:
                prefix = f"{path}/"
                below = {name: self._set.pop(name) for name in list(self._set) if name.startswith(prefix)}
        with target._lock:
            target._set[new_path] = moment
            for name, value in below.items():
                target._set[new_path + name[len(path) :]] = value
