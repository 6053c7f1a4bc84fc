"""Who saves what, and who is woken for it; saving itself is put in by the test."""

import threading
from pathlib import Path

from servers import wait_for

from arvados_fuse.collection.segments import Segment
from arvados_fuse.writeback import PathChange
from arvados_fuse.writeback.commit import Commits
from arvados_fuse.writeback.committer import Committer
from arvados_fuse.writeback.journal import Journal, Owner
from arvados_fuse.writeback.order import Neighbours
from arvados_fuse.writeback.pending import Pending
from arvados_fuse.writeback.spool import Spools
from arvados_fuse.writeback.status import Limits

FILE = (Segment("37b51d194a7513e45b56f6524f2d51f2+3", 0, 3),)


class Slow(Commits):
    """Every save takes until the test says so."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.goes_on = threading.Event()

    def commit(self, pending: Pending, uuid: str, neighbours: Neighbours) -> int:
        self.begun.append(uuid)
        self.goes_on.wait(60)
        batch = pending.take(uuid)
        pending.finish(batch)
        return batch.number

    def sweep(self) -> None:
        """Nothing was kept."""


def test_an_idle_thread_learns_of_a_change_though_others_wait_too(tmp_path: Path) -> None:
    """While one collection is being saved, and programs wait for that, another one is changed."""
    (tmp_path / "spool").mkdir()
    journal = Journal.create(tmp_path / "journal.sqlite3", Owner("host", "user"), 0.0)
    pending, commits = Pending(journal, Spools(tmp_path / "spool")), Slow()
    committer = Committer(commits, Limits(quiet=0.0, commits=2))
    committer.add_room(pending)

    def change(uuid: str) -> None:
        pending.record(uuid, [PathChange("f", None, FILE)])
        committer.changed(pending, uuid)

    def wait_waiting(count: int) -> None:
        waiters = committer._condition._waiters  # type: ignore[attr-defined]
        wait_for(lambda: len(waiters) == count, f"{count} threads wait")

    change("first")
    waiting = [threading.Thread(target=committer.wait, args=("first", 60)) for _ in range(8)]
    for thread in waiting:
        thread.start()
    wait_waiting(8)
    committer.start()
    wait_for(lambda: commits.begun == ["first"], "the first is being saved")
    wait_waiting(9)  # for the same condition, the second saving thread as the last
    change("second")
    wait_for(lambda: commits.begun == ["first", "second"], "the second is being saved")
    commits.goes_on.set()
    for thread in waiting:
        thread.join(20)
        assert not thread.is_alive()
    committer.close(20)
    pending.close()
