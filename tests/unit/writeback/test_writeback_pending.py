"""Coalescing: whatever is recorded, saved and lost meanwhile, the rows bring the server to what we have."""

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from arvados_fuse.collection.segments import ZERO_BLOCK, ZEROS, Segment
from arvados_fuse.collection.spool import MemorySpool
from arvados_fuse.writeback.journal import Journal, Owner
from arvados_fuse.writeback.pending import Batch, Pending
from arvados_fuse.writeback.spool import Spools
from arvados_fuse.writeback.states import DIRECTORY, PathChange, State, decode, encode, same

FOO = "acbd18db4cc2f85cedef654fccc4a4d8+3"
BAR = "37b51d194a7513e45b56f6524f2d51f2+3"
SIGNED = "+A" + "0" * 40 + "@77777777"
C = "zzzzz-4zz18-000000000000000"


def file(*locators: str) -> State:
    return tuple(Segment(locator, 0, 3) for locator in locators)


def only(state: State) -> Segment:
    """The one segment of a file."""
    assert isinstance(state, tuple)
    (segment,) = state
    return segment


class Room:
    """Pending changes in a directory, which can be opened again."""

    def __init__(self, directory: Path) -> None:
        (directory / "spool").mkdir()
        self.directory = directory
        self.pending = self._open(Journal.create(directory / "journal", Owner("h", "u"), 1.0))

    def _open(self, journal: Journal | None) -> Pending:
        assert journal is not None
        made = Pending(journal, Spools(self.directory / "spool"))
        made.load()
        return made

    def reopen(self) -> None:
        """As after the end of the process."""
        self.pending.close()
        self.pending = self._open(Journal.open(self.directory / "journal"))


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def test_states_are_the_same_whatever_their_signatures() -> None:
    assert same(file(FOO), file(FOO + SIGNED))
    assert same((Segment(FOO, 0, 1), Segment(FOO, 1, 2)), file(FOO + SIGNED))
    assert same((Segment(ZEROS, 0, 5),), (Segment(ZERO_BLOCK + SIGNED, 0, 5),))
    different: list[State] = [None, DIRECTORY, (), file(FOO), file(BAR), file(FOO, BAR)]
    assert not any(same(one, other) for one in different for other in different if one is not other)


@pytest.mark.parametrize(
    "state", [None, DIRECTORY, (), file(FOO + SIGNED), (Segment(ZEROS, 7, 1 << 40), Segment(BAR, 1, 2))]
)
def test_states_come_back_from_the_journal(state: State) -> None:
    assert decode(encode(state), lambda name: MemorySpool()) == state


def test_a_row_keeps_the_first_before_and_the_last_after(room: Room) -> None:
    room.pending.record(C, [PathChange("a", file(FOO), ())])
    room.pending.record(C, [PathChange("a", None, file(BAR))])
    assert room.pending.states(C) == {"a": file(BAR)}
    assert room.pending.rows(C)["a"].before == file(FOO)
    room.pending.record(C, [PathChange("a", (), file(FOO + SIGNED))])
    assert not room.pending.has(C)
    room.pending.check()


def test_a_path_may_come_several_times_in_one_record(room: Room) -> None:
    room.pending.record(C, [PathChange("a", None, ()), PathChange("a", (), file(FOO))])
    assert room.pending.states(C) == {"a": file(FOO)}
    room.pending.record(C, [PathChange("a", file(FOO), ()), PathChange("a", (), None)])
    assert not room.pending.has(C)


def test_bytes_survive_and_spools_go_with_their_row(room: Room) -> None:
    spool = room.pending.spools.new()
    spool.append(b"0123456789")
    room.pending.record(C, [PathChange("a", None, (Segment(spool, 2, 3),))])
    del spool
    room.pending.spools.sweep()
    room.reopen()
    segment = only(room.pending.states(C)["a"])
    assert segment.source.read(segment.offset, segment.size) == b"234"  # type: ignore[union-attr]
    assert room.pending.amount(C) == (1, 3)
    del segment
    room.pending.record(C, [PathChange("a", None, None)])
    room.pending.spools.sweep()
    assert list((room.directory / "spool").iterdir()) == []


def test_bytes_of_another_spool_are_copied(room: Room) -> None:
    elsewhere = MemorySpool()
    elsewhere.append(b"xyz")
    room.pending.record(C, [PathChange("a", None, (Segment(elsewhere, 1, 2),))])
    room.reopen()
    segment = only(room.pending.states(C)["a"])
    assert segment.source.read(segment.offset, segment.size) == b"yz"  # type: ignore[union-attr]


def test_what_is_in_a_block_already_is_recorded_as_that(room: Room) -> None:
    spool = room.pending.spools.new()
    spool.append(b"foo")
    spool.note_stored(0, Segment(FOO, 0, 3))
    room.pending.record(C, [PathChange("a", None, (Segment(spool, 0, 3),))])
    assert room.pending.states(C) == {"a": file(FOO)}
    assert room.pending.amount(C) == (1, 0)


def test_settling_reaches_every_row_of_a_spool(room: Room) -> None:
    spool = room.pending.spools.new()
    spool.append(b"foo")
    unsaved = (Segment(spool, 0, 3),)
    room.pending.record(C, [PathChange("a", None, unsaved), PathChange("b", None, unsaved)])
    spool.note_stored(0, Segment(FOO, 0, 3))
    room.pending.settle([spool])
    assert room.pending.states(C) == {"a": file(FOO), "b": file(FOO)}
    room.reopen()
    assert room.pending.states(C) == {"a": file(FOO), "b": file(FOO)}
    room.pending.check()


def test_a_caller_who_has_not_heard_of_a_save_is_understood(room: Room) -> None:
    room.pending.record(C, [PathChange("a", None, file(FOO))])
    room.pending.finish(room.pending.take(C))
    assert not room.pending.has(C)
    room.pending.record(C, [PathChange("a", None, file(BAR))])
    assert room.pending.rows(C)["a"].attempted == (file(FOO),)
    room.pending.record(C, [PathChange("a", None, None)])
    assert room.pending.has(C), "the server has it, whatever the caller thinks"
    room.pending.record(C, [PathChange("a", None, file(FOO))])
    room.pending.finish(room.pending.take(C))
    assert not room.pending.has(C)


states = st.sampled_from([None, DIRECTORY, (), file(FOO), file(BAR + SIGNED), file(FOO, BAR)])
names = st.sampled_from(["a", "b", "c"])


@dataclasses.dataclass
class Flight:
    """A commit under way."""

    batch: Batch
    marked: bool = False


class Coalescing(RuleBasedStateMachine):
    """A mount changes paths, a committer commits, answers get lost, the process dies; others change nothing.

    At any time the rows say how to get from what the server has to what the mount has.
    """

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.room = Room(Path(self.directory.name))
        self.mine: dict[str, State] = {}
        self.server: dict[str, State] = {}
        self.heard: dict[str, State] = {}
        self.flight: Flight | None = None

    @rule(changes=st.lists(st.tuples(names, states), max_size=3))
    def change(self, changes: list[tuple[str, State]]) -> None:
        self.room.pending.record(
            C, [PathChange(name, self.heard.get(name), after) for name, after in changes]
        )
        self.mine.update(changes)

    @rule()
    def take(self) -> None:
        if self.flight is None:
            self.flight = Flight(self.room.pending.take(C))

    @rule()
    def ask(self) -> None:
        """The request goes out and is done; whether we hear of it is another thing."""
        if self.flight is not None and not self.flight.marked:
            self.room.pending.mark_attempted(self.flight.batch)
            self.flight.marked = True
            for path, row in self.flight.batch.rows.items():
                there = self.server.get(path)
                known = (row.before, *row.attempted, row.after)
                assert any(same(there, state) for state in known), "would be taken for somebody else's change"
                self.server[path] = row.after

    @rule()
    def answered(self) -> None:
        if self.flight is not None and self.flight.marked:
            self.room.pending.finish(self.flight.batch)
            self.flight = None

    @rule()
    def lost(self) -> None:
        """Refused, or the answer is lost."""
        self.flight = None

    @rule()
    def hear(self) -> None:
        """The mount takes over what the server has, where it has nothing unsaved."""
        self.heard = dict(self.server)

    @rule()
    def die(self) -> None:
        self.flight = None
        self.room.reopen()
        self.heard = dict(self.server)

    @invariant()
    def rows_lead_from_the_server_to_the_mount(self) -> None:
        rows = self.room.pending.rows(C)
        self.room.pending.check()
        for name in {*self.mine, *self.server}:
            row = rows.get(name)
            there, wanted = self.server.get(name), self.mine.get(name)
            if row is None:
                flying = self.flight is not None and name in self.flight.batch.rows
                assert flying or same(there, wanted)
            else:
                assert same(row.after, wanted)
                assert any(same(there, state) for state in (row.before, *row.attempted))

    def teardown(self) -> None:
        self.room.pending.close()
        self.directory.cleanup()


TestCoalescing = Coalescing.TestCase
TestCoalescing.settings = settings(
    max_examples=120,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def test_nothing_of_the_model_is_hidden() -> None:
    """The machine above would be empty talk if it could not reach a lost answer with a change after it."""
    machine = Coalescing()
    changes: list[Any] = [("a", file(FOO))]
    machine.change(changes)
    machine.take()
    machine.ask()
    machine.change([("a", None)])
    machine.lost()
    machine.die()
    machine.rows_lead_from_the_server_to_the_mount()
    assert machine.room.pending.rows(C)["a"].attempted == (file(FOO),)
    machine.teardown()


def test_what_is_remembered_of_saves_is_bounded(room: Room) -> None:
    scattered = tuple(Segment(FOO if n % 2 else BAR, 0, 1) for n in range(20_000))
    for number in range(5):
        room.pending.record(C, [PathChange(f"f{number}", None, scattered)])
        room.pending.finish(room.pending.take(C))
    for number, attempted in ((0, ()), (4, (scattered,))):
        room.pending.record(C, [PathChange(f"f{number}", None, file(FOO))])
        assert room.pending.rows(C)[f"f{number}"].attempted == attempted
