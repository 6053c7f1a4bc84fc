"""One content of a collection, the signatures by which it may be read, and where it is asked for.

Used by `CollectionState`, which makes them, and by nodes and open files, which keep them. Any thread may
call.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from arvados_fuse.api.server_clock import uptime
from arvados_fuse.collection import Collection, portable_data_hash
from arvados_fuse.collection.manifest import ManifestIndex
from arvados_fuse.errors import BadAnswer, NotFoundError
from arvados_fuse.keep import BlockCache
from arvados_fuse.tree.cell import Cell, Policy

if TYPE_CHECKING:
    from arvados_fuse.tree.collection_state import CollectionState

Record = Mapping[str, Any]

SIGNATURE_TIME = re.compile(r"\+A[0-9a-f]{40}@([0-9a-f]{8})")
"""A block's permission signature ends with the Unix time of its expiry, in hex."""
REFRESHED = ["uuid", "portable_data_hash", "modified_at", "name", "owner_uuid", "file_size_total"]
"""What a refresh asks for: small fields only; the manifest is fetched when the hash has changed."""
CONTENT = ["portable_data_hash", "manifest_text"]
RENEW_EARLY = 0.1
"""Part of what is left of a signature's life, at its end, in which new ones are fetched if someone reads."""
RENEW_PAUSE = 1.0
"""Seconds between renewals at least: those of a collection that goes to the trash soon all end then."""


class Origin(NamedTuple):
    """Where a collection that is only to be looked at comes from (a past version, the trash).

    fetch: asks for the fields named, or for all. pdh: its portable data hash, where that can't change.
    """

    fetch: Callable[[Sequence[str] | None], Record]
    pdh: str = ""


class Version:
    """One content of a collection, and the signatures by which its blocks may be read."""

    __slots__ = ("__weakref__", "_renewal", "collection", "pdh", "renew_at", "state")

    def __init__(self, state: "CollectionState", collection: Collection, pdh: str, manifest: str) -> None:
        self.state = state
        self.collection = collection
        self.pdh = pdh
        self.renew_at = self._renewal_time(manifest)
        context = state.context
        self._renewal: Cell[ManifestIndex] = Cell(
            self._renew, Policy(0.0), context.pool, f"signatures of {pdh}"
        )

    def renew(self) -> ManifestIndex:
        """Fetch new signatures and wait for them; gives a manifest that has them.

        Raises what the API answers, Unreachable.
        """
        signatures = self._renewal.start().wait(self.state.context.deadline, self.state.key)
        self._renewal.clear()  # a manifest may be large
        return signatures

    def renew_when_due(self) -> None:
        """Begin to fetch new signatures when the old ones end soon."""
        if uptime() > self.renew_at:
            self.renew_soon()

    def renew_soon(self) -> None:
        """Begin to fetch new signatures; readers go on with those they have."""
        self.renew_at = float("inf")
        self._renewal.start()

    def _renew(self) -> ManifestIndex:
        """By content, not by uuid: what is open here may have been replaced there. Where nobody has that
        content any more, what is there now signs for the blocks that are in both."""
        try:
            record = self.state.fetch_content(self.pdh)
        except NotFoundError:
            record = self.state.fetch_now()
        manifest = manifest_of(record, self.pdh or self.state.key)
        if not self.collection.replace_signatures(manifest):
            return ManifestIndex(manifest)
        self.renew_at = self._renewal_time(manifest)
        return self.collection.baseline

    def _renewal_time(self, manifest: str) -> float:
        """In seconds of uptime; all signatures of one answer expire together, by the server's clock."""
        match = SIGNATURE_TIME.search(manifest)
        if match is None:
            return float("inf")
        left = int(match[1], 16) - self.state.context.api.server_time()
        return uptime() + max(RENEW_PAUSE, (1 - RENEW_EARLY) * left)


def manifest_of(record: Record, subject: str) -> str:
    """The manifest in a record. Raises BadAnswer when there is none."""
    manifest = record.get("manifest_text")
    if not isinstance(manifest, str):
        raise BadAnswer(f"the API server gave no manifest for {subject}", subject=subject)
    return manifest


def pinned_record(blocks: BlockCache, pdh: str) -> Record | None:
    """The content beside the pins, where something of it is pinned.

    A hash stands for one content for ever, so nobody needs to be asked, who may be out of reach. Signatures
    are fetched when one is missed.
    """
    pins = blocks.pins
    manifest = pins.manifest(pdh) if pins is not None else None
    if manifest is None or portable_data_hash(manifest) != pdh:
        return None
    return {"portable_data_hash": pdh, "manifest_text": manifest}
