"""One commit: the rows of one collection as they are now, brought to the server with one update.

Used by the committer, which sees to it that a collection has one commit at a time. Order: store bytes, look
at the record, ask only for what differs, note that it was asked for, ask, hand out the answer, drop the rows.
Whatever breaks in between, the rows stay, and the next commit finds out what the server has.

Threads: those of the committer. No lock is held while the server is asked.
"""

import logging
import time

from arvados_fuse.collection.commit import CommitRequest, commit_request
from arvados_fuse.collection.manifest import ManifestIndex, stripped
from arvados_fuse.collection.manifest.changes import Finder
from arvados_fuse.collection.segments import ZERO_BLOCK, Zeros
from arvados_fuse.collection.stores import BlockStore, RecordStore
from arvados_fuse.errors import (
    AccessDenied,
    ArvadosFuseError,
    BlockNotFound,
    NotFoundError,
    RequestRefused,
    SignatureRefused,
    Unreachable,
)
from arvados_fuse.reporting.counters import Counters
from arvados_fuse.writeback.failures import NO_ANSWER
from arvados_fuse.writeback.latest import Known, Latest
from arvados_fuse.writeback.locators import Renewal, Restored, signed_by
from arvados_fuse.writeback.order import Leaving, MovedAway, Neighbours, held_back, leaving, overtaken
from arvados_fuse.writeback.overtaken import Company, replaced, to_keep
from arvados_fuse.writeback.partial import manifest_of, of_one_moment, state_at
from arvados_fuse.writeback.pending import Batch, Pending, settled
from arvados_fuse.writeback.states import State, blocks_of, same, unsaved
from arvados_fuse.writeback.status import Saved, Sink
from arvados_fuse.writeback.uploads import Uploads

logger = logging.getLogger("arvados.writeback")


class Commits:
    """Makes commits. Any thread may call; for one collection one at a time."""

    def __init__(
        self, records: RecordStore, blocks: BlockStore, uploads: Uploads, saved: Sink, counters: Counters
    ) -> None:
        self._records = records
        self._blocks = blocks
        self._uploads = uploads
        self._saved = saved
        self._counters = counters
        self._latest = Latest(records)
        self._restored = Restored(self._latest.token)
        self._keeps_versions = hasattr(records, "versions_of")
        self._company = Company()
        self._leaving = Leaving()

    def commit(self, pending: Pending, uuid: str, neighbours: Neighbours) -> int:
        """Save what is unsaved in a collection; gives the number of the last record that is part of it.

        Raises what the servers answer, ManifestError for a record that can't be read, NoSpaceError for the
        journal, and MovedAway when all is saved but what has to wait for other collections.
        """

        def decide() -> tuple[tuple[Batch, dict[str, str]], set[str]]:
            batch = pending.take(uuid)
            held = held_back(batch.rows, neighbours)
            ready = {path: row for path, row in batch.rows.items() if path not in held}
            return (batch._replace(rows=ready), held), leaving(ready)

        batch, held = self._leaving.begin(uuid, decide)
        try:
            if batch.rows:
                self._save(pending, batch, neighbours)
        finally:
            self._leaving.end(uuid)
        if held:
            raise MovedAway(uuid, held.values())
        return batch.number

    def sweep(self) -> None:
        """Let go of bytes that were kept for changes which are saved or gone."""
        self._uploads.kept.sweep()

    def _save(self, pending: Pending, batch: Batch, neighbours: Neighbours) -> None:
        uuid = batch.uuid
        self._counters.add("writeback.commits")
        batch, zero_block = self._stored(batch)
        batch = self._renewed(pending, batch)
        theirs = self._latest.look(uuid)
        request = self._request(batch, theirs, zero_block)
        if not request.replace_files:
            # It is there already. The tree gets an answer of now, with signatures of now.
            answer = self._latest.fetch(uuid)
        else:
            pending.mark_attempted(batch)
            try:
                answer = self._ask(uuid, request, theirs)
            except (AccessDenied, RequestRefused, NotFoundError):
                again = self._signed_anew(pending, batch, zero_block, neighbours)
                if again is None:
                    raise
                (batch, zero_block), theirs = again, self._latest.look(uuid)
                request = self._request(batch, theirs, zero_block)
                answer = self._ask(uuid, request, theirs)
            self._counters.add("writeback.updates")
            answer = self._with_what_was_overtaken(batch, zero_block, theirs, answer, request.conflicts)
            self._company.saved(uuid, answer.pdh)
        if request.conflicts:
            self._counters.add("writeback.conflicts", len(request.conflicts))
            logger.warning(
                "%s: others changed the same paths; their versions are kept as %s",
                uuid,
                ", ".join(request.conflicts[:10]),
            )
        committed = {path: row.after for path, row in batch.rows.items()}
        try:
            self._saved.put(Saved(uuid, answer.whole_record(), request.conflicts, committed))
        finally:
            # Whatever becomes of the news, the server has it.
            pending.finish(batch)
            self._uploads.kept.saved(_blocks(batch))
        for older in neighbours.older:
            older.rename(uuid, overtaken(older.rows(uuid), committed, time.time()))
        logger.debug("%s: %d changed paths saved", uuid, len(batch.rows))

    def _stored(self, batch: Batch) -> tuple[Batch, str]:
        """The batch with all bytes in blocks, and the block of zeros if it is needed."""
        files = [row.after for row in batch.rows.values() if isinstance(row.after, tuple)]
        waiting = [part for part in map(unsaved, files) if part]
        zero_block = ZERO_BLOCK
        if waiting:
            self._uploads.store(waiting, self._latest.classes(batch.uuid))
        if any(isinstance(segment.source, Zeros) for segments in files for segment in segments):
            zero_block = self._uploads.zeros(self._latest.classes(batch.uuid))
        rows = {path: row._replace(after=settled(row.after)) for path, row in batch.rows.items()}
        return batch._replace(rows=rows), zero_block

    def _renewed(self, pending: Pending, batch: Batch) -> Batch:
        """The batch with locators that will be taken: signed by the collection where it has the block."""
        life = getattr(self._records, "blob_signature_ttl", float("inf"))
        kept, now = self._uploads.kept, self._server_time()
        renewal = Renewal(self._blocks, lambda: self._latest.classes(batch.uuid), life, kept=kept, now=now)
        if not any(renewal.is_needed(row.after) for row in batch.rows.values()):
            return batch
        manifest = self._latest.fetch(batch.uuid).manifest
        rows = {
            path: row._replace(after=renewal.renewed(signed_by(manifest, row.after)))
            for path, row in batch.rows.items()
        }
        batch = batch._replace(rows=rows)
        pending.refine(batch)
        return batch

    def _request(self, batch: Batch, theirs: Known, zero_block: str) -> CommitRequest:
        """What has to be asked for. What the server may have from us by earlier requests is no conflict."""
        base, ours = self._sides(batch, theirs.manifest, zero_block)
        return commit_request(base, ours, theirs.manifest)

    @staticmethod
    def _sides(batch: Batch, theirs: ManifestIndex, zero_block: str) -> tuple[ManifestIndex, ManifestIndex]:
        """What the server had as far as we know, and what it shall have; only the paths of the batch."""
        finder = Finder(theirs)
        before: dict[str, State] = {}
        after: dict[str, State] = {}
        for path, row in batch.rows.items():
            before[path], after[path] = row.before, row.after
            if row.attempted:
                there = state_at(finder, path)
                if any(same(there, state) for state in row.attempted):
                    before[path] = there
        before = of_one_moment(before, finder)
        return ManifestIndex(manifest_of(before)), ManifestIndex(manifest_of(after, zero_block))

    def _with_what_was_overtaken(
        self, batch: Batch, zero_block: str, theirs: Known, answer: Known, conflicts: list[str]
    ) -> Known:
        """Keep what somebody saved after our look and before our update; gives the newest answer."""
        if not self._keeps_versions:
            return answer
        uuid = batch.uuid
        try:
            text = replaced(self._records, uuid, theirs.record, answer.record)
            if text is None:
                return answer
            self._company.met(uuid)
            kept = to_keep(*self._sides(batch, ManifestIndex(text), zero_block), text)
            if not kept:
                return answer
            request = CommitRequest(
                {f"/{path}": f"manifest_text/{path}" for path in kept}, manifest_of(kept), list(kept)
            )
            answer = self._ask(uuid, request, answer)
            conflicts += kept
        except ArvadosFuseError as error:
            logger.warning(
                "%s: what somebody else saved at the same moment is only in version %s: %s",
                uuid,
                int(answer.record.get("version") or 1) - 1,
                error,
            )
        return answer

    def _ask(self, uuid: str, request: CommitRequest, theirs: Known) -> Known:
        """Send the update; gives the collection as it is then."""
        preserve = self._keeps_versions and self._company.expected(uuid, theirs.pdh)
        return self._latest.ask(uuid, request, theirs, preserve=preserve)

    def _signed_anew(
        self, pending: Pending, batch: Batch, zero_block: str, neighbours: Neighbours
    ) -> tuple[Batch, str] | None:
        """The batch and the block of zeros with new signatures; None if that changes nothing.

        A change can wait longer than the signatures live that its blocks were read with, and longer than the
        token that they are for. What the collection has is signed there; what was moved here from another
        one, there (`order`). Blocks that neither has are stored again.
        """
        token = self._latest.token()
        signers = [self._latest.fetch(batch.uuid).manifest]
        foreign = {block for block in _blocks(batch) if signers[0].signed(block) == block}
        unanswered: ArvadosFuseError | None = None
        for uuid in neighbours.having(foreign):
            try:
                signers.append(self._latest.fetch(uuid).manifest)
            except NO_ANSWER as error:
                unanswered = error
            except ArvadosFuseError as error:
                logger.debug("%s: %s gives no signatures: %s", batch.uuid, uuid, error)

        def is_refused(locator: str) -> bool:
            bare = stripped(locator)
            return all(one.signed(bare) == bare for one in signers) and not self._restored.has(locator)

        def signed(state: State) -> State:
            state = signed_by(self._restored, state)
            for manifest in signers:
                state = signed_by(manifest, state)
            return state

        kept, now = self._uploads.kept, self._server_time()
        renewal = Renewal(
            self._blocks,
            lambda: self._latest.classes(batch.uuid),
            is_refused=is_refused,
            kept=kept,
            now=now,
        )
        zeros = zero_block
        try:
            rows = {
                path: row._replace(after=renewal.renewed(signed(row.after)))
                for path, row in batch.rows.items()
            }
            if zero_block != ZERO_BLOCK and not self._restored.has(zero_block):
                zeros = self._uploads.zeros(self._latest.classes(batch.uuid), anew=True)
                self._restored.add([zeros], token)
        except NO_ANSWER:
            raise
        except ArvadosFuseError as error:
            is_of_block = isinstance(error, SignatureRefused | BlockNotFound)
            if is_of_block and error.subject not in pending.blocks(batch.uuid):
                # As of a file that was moved on meanwhile. What is to be saved now is not refused.
                raise Unreachable("it was changed while it was being saved", subject=batch.uuid) from error
            logger.info("%s: a block can't be stored again: %s", batch.uuid, error)
            if unanswered is not None:
                raise unanswered from error  # who did not answer may well sign later
            return None
        finally:
            # Whatever comes of it: the next time their bytes may be gone.
            self._restored.add(renewal.fresh(), token)
        if rows == batch.rows and zeros == zero_block:
            return None
        fresh = batch._replace(rows=rows)
        pending.refine(fresh)
        return fresh, zeros

    def _server_time(self) -> float:
        """Seconds since 1970 by the server's clock, by which signatures end."""
        told = getattr(self._records, "server_time", time.time)
        return float(told())


def _blocks(batch: Batch) -> set[str]:
    """The blocks of what is to be saved, without hints."""
    return set().union(*(blocks_of(row.after) for row in batch.rows.values()))
