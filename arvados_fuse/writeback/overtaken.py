"""Somebody else saved between our look at a collection and our update: what he had is kept, too.

Used by `commit`. Arvados can't be asked to change a collection only if it is still what we saw. But a cluster
that keeps past versions keeps the one that an update replaces when the update says `preserve_version`
(Arvados, "Using collection versioning"). So an update that may meet another one says so, and if what it
replaced is not what we saw, the conflict copies are made then. Where versions are not kept, the window stays.

Threads: any; one commit of a collection at a time.
"""

import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

from arvados_fuse.collection.commit import commit_request
from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.collection.manifest.changes import Finder
from arvados_fuse.writeback.partial import state_at
from arvados_fuse.writeback.states import State

ALONE_AFTER = 600.0
"""Seconds without a change by others, or since we saved last: a collection that only one mount writes gets
few versions by this, and one that several write gets one for each save."""
FIELDS = ("uuid", "version", "portable_data_hash")


class Versions(Protocol):
    """What is asked of the API."""

    def versions_of(self, uuid: str, *, number: int, select: Any) -> Any: ...


class Company:
    """Which collections others may be writing just now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._saved: dict[str, tuple[float, str]] = {}
        self._others: dict[str, float] = {}

    def expected(self, uuid: str, pdh: str) -> bool:
        """Whether somebody else may save a collection that has this content now."""
        now = time.monotonic()
        with self._lock:
            at, saved = self._saved.get(uuid, (float("-inf"), ""))
            if saved and saved != pdh:
                self._others[uuid] = now
            return now - at > ALONE_AFTER or now - self._others.get(uuid, float("-inf")) < ALONE_AFTER

    def saved(self, uuid: str, pdh: str) -> None:
        """We saved it, and it has this content since."""
        with self._lock:
            self._saved[uuid] = time.monotonic(), pdh

    def met(self, uuid: str) -> None:
        """Somebody else has just saved it."""
        with self._lock:
            self._others[uuid] = time.monotonic()


def replaced(records: Any, uuid: str, seen: Mapping[str, Any], answer: Mapping[str, Any]) -> str | None:
    """The manifest that an update replaced, when it is not the one that we had `seen`; else None.

    Also None where the cluster did not keep it. Raises what the API answers.
    """
    number, before = answer.get("version"), seen.get("version")
    if not isinstance(number, int) or not isinstance(before, int) or number <= before:
        return None
    versions: Versions = records
    for past in versions.versions_of(uuid, number=number - 1, select=[*FIELDS]):
        if past.get("portable_data_hash") == seen.get("portable_data_hash"):
            return None
        for whole in versions.versions_of(uuid, number=number - 1, select=[*FIELDS, "manifest_text"]):
            text = whole.get("manifest_text")
            return text if isinstance(text, str) else None
    return None


def to_keep(base: ManifestIndex, ours: ManifestIndex, theirs: str) -> dict[str, State]:
    """What has to be added, by path, so that `theirs` is not lost after ours took its place.

    base: what the server had as far as we knew. Raises ManifestError.
    """
    index = ManifestIndex(theirs)
    finder = Finder(index)
    request = commit_request(base, ours, index)
    found: dict[str, State] = {}
    for target, source in request.replace_files.items():
        if source.startswith("current/"):
            state = state_at(finder, source.removeprefix("current/"))
            if isinstance(state, tuple):
                found[target[1:]] = state
    return found
