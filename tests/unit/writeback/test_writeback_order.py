"""What is moved to another collection stays where it is until that one has it."""

import threading
from collections.abc import Callable, Mapping

from servers import wait_for

from arvados_fuse.collection.segments import Segment
from arvados_fuse.writeback import DIRECTORY, State
from arvados_fuse.writeback.order import Leaving, Neighbours, held_back, leaving
from arvados_fuse.writeback.pending import Row
from arvados_fuse.writeback.states import blocks_of

A, B, C = ((Segment(f"{letter * 32}+4+A{'0' * 40}@77777777", 0, 4),) for letter in "abc")


def rows(changes: Mapping[str, tuple[State, State]]) -> dict[str, Row]:
    return {path: Row(before, after, (), 0.0, None) for path, (before, after) in changes.items()}


def neighbours(
    waiting: frozenset[str] = frozenset(), **others: Mapping[str, tuple[State, State]]
) -> Neighbours:
    return Neighbours(lambda: [(uuid, rows(changes)) for uuid, changes in others.items()], waiting)


def test_only_what_another_collection_still_lacks_waits() -> None:
    ours = rows({"moved": (A, None), "removed": (B, None), "replaced": (C, A), "new": (None, C)})
    assert held_back(ours, neighbours()) == {}
    assert held_back(ours, neighbours(other={"x": (A, None)})) == {}
    # A stays here under another name, and C came to lie under a new one.
    assert held_back(ours, neighbours(other={"x": (None, A), "z": (None, C)})) == {}
    assert held_back(ours, neighbours(other={"y": (None, B)})) == {"removed": "other"}


def test_paths_above_and_below_wait_too() -> None:
    ours = rows(
        {
            "d/f": (A, None),
            "d": (None, DIRECTORY),
            "d/g": (None, C),
            "d/f/inside": (None, C),
            "e": (DIRECTORY, None),
        }
    )
    assert held_back(ours, neighbours(other={"x": (None, A)})).keys() == {"d/f", "d", "d/f/inside"}


def test_two_that_exchange_files_do_not_wait_for_each_other() -> None:
    ours = rows({"x": (A, B)})
    there = {"y": (B, A)}
    assert held_back(ours, neighbours(other=there)) == {"x": "other"}
    assert held_back(ours, neighbours(frozenset({"other"}), other=there)) == {}


def test_what_is_moved_both_ways_waits_on_both_sides() -> None:
    """A file went each way: each collection can save what it got before it gives up what it had, though each
    waits for the other. Else a block would be in no collection when the token is replaced just then."""
    ours = rows({"x": (A, None), "y": (None, B)})
    there = {"x": (None, A), "y": (B, None)}
    assert held_back(ours, neighbours(frozenset({"other"}), other=there)) == {"x": "other"}
    assert held_back(rows(there), neighbours(frozenset({"ours"}), ours={"x": (A, None)})) == {}


def test_what_would_wait_for_ever_goes_on_and_nothing_else() -> None:
    """A directory in the place of a file, and the other way round: what is to come lies below what waits."""
    ours = rows({"x": (A, None), "x/y": (None, B), "z": (C, None)})
    there: dict[str, tuple[State, State]] = {"p": (B, None), "p/q": (None, A), "r": (None, C)}
    assert held_back(ours, neighbours(other=there)).keys() == {"x", "x/y", "z"}
    assert held_back(ours, neighbours(frozenset({"other"}), other=there)) == {"z": "other"}


def test_three_that_pass_files_round_do_not_wait_for_each_other() -> None:
    """Whoever waits for one that waits for ours is told to be waiting, too (see the committer)."""
    ours = rows({"x": (A, C)})
    others: dict[str, dict[str, tuple[State, State]]] = {"second": {"y": (B, A)}, "third": {"z": (C, B)}}
    assert held_back(ours, neighbours(frozenset({"third"}), **others)) == {}


def test_who_has_a_block_is_found() -> None:
    found = neighbours(one={"x": (A, None)}, two={"y": (None, A)}, three={"z": (B, C)})
    block = str(A[0].source)[:34]
    assert found.having({block}) == ["one"]


def test_what_a_request_may_have_taken_away_is_lacking() -> None:
    """It was moved there, taken away again and moved back; nobody knows yet what became of the second."""
    ours = rows({"x": (A, None)})
    there = Row(A, A, (None,), 0.0, None)
    assert held_back(ours, Neighbours(lambda: [("other", {"y": there})])) == {"x": "other"}
    assert held_back(ours, Neighbours(lambda: [("other", {"y": there._replace(attempted=(A, B))})])) == {
        "x": "other"
    }
    assert held_back(ours, Neighbours(lambda: [("other", {"y": there._replace(attempted=(A,))})])) == {}


def test_what_a_collection_loses() -> None:
    assert leaving(rows({"x": (A, None), "y": (B, C), "z": (C, B), "new": (None, C)})) == blocks_of(A)
    assert leaving(rows({"new": (None, C), "same": (A, A)})) == set()


def test_two_do_not_give_up_a_block_at_once() -> None:
    """The second decides when the first has ended, by what is so then; who loses other blocks need not
    wait."""
    books = Leaving()
    asked: list[str] = []

    def decide(blocks: State) -> Callable[[], tuple[str, set[str]]]:
        def answer() -> tuple[str, set[str]]:
            asked.append("decide")
            return f"{len(asked)}", blocks_of(blocks)

        return answer

    assert books.begin("one", decide(A)) == "1"
    assert books.begin("two", decide(B)) == "2"
    found: list[str] = []
    waiting = threading.Thread(target=lambda: found.append(books.begin("three", decide((*A, *C)))))
    waiting.start()
    wait_for(lambda: len(asked) == 3, "it is decided for the third")
    books.end("two")
    wait_for(lambda: len(asked) == 4, "it is decided anew")
    assert found == []
    books.end("one")
    waiting.join(10)
    assert found == ["5"]
    books.end("three")
