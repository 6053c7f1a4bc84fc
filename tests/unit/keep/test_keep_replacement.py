"""The order of eviction: scans pass, what is used again stays, readers' blocks go last."""

from hypothesis import given
from hypothesis import strategies as st

from arvados_fuse.keep.replacement import Replacement


def insert(order: Replacement, key: str) -> list[str]:
    """Add a block of size 1 and evict to the limit; returns what went."""
    order.add(key, 1)
    gone = []
    for cold in order.coldest():
        if order.total <= order.limit:
            break
        order.drop(cold)
        gone.append(cold)
    order.check()
    return gone


def test_a_scan_does_not_push_out_what_was_used_twice() -> None:
    order = Replacement(10)
    for number in range(6):
        insert(order, f"genome{number}")
        order.protect(f"genome{number}")
    for number in range(1000):
        insert(order, f"scan{number}")
    assert all(f"genome{number}" in order for number in range(6))
    assert order.total == 10


def test_blocks_used_once_go_in_their_order_of_use() -> None:
    order = Replacement(3)
    for key in "abc":
        insert(order, key)
    order.touch("a")
    assert insert(order, "d") == ["b"]
    assert insert(order, "e") == ["c"]


def test_a_block_that_comes_back_is_protected() -> None:
    order = Replacement(2)
    for key in "abc":
        insert(order, key)
    assert "a" not in order
    insert(order, "a")
    insert(order, "d")
    insert(order, "e")
    assert "a" in order


def test_what_is_no_longer_used_leaves_the_protected_part() -> None:
    order = Replacement(10)
    for key in "abcdefgh":
        insert(order, key)
        order.protect(key)
    for key in "ijklmnop":
        insert(order, key)
        order.protect(key)
    assert not any(key in order for key in "abcdef")


def test_readers_blocks_go_last() -> None:
    order = Replacement(3)
    for key in "abc":
        insert(order, key)
    order.hold("a")
    order.hold("a")
    order.release("a")
    assert order.coldest() == ["b", "c", "a"]
    order.release("a")
    assert order.coldest() == ["a", "b", "c"]


def test_found_blocks_are_colder_than_used_ones() -> None:
    order = Replacement(10)
    order.add("used", 1)
    order.add("newer", 1, cold=True)
    order.add("older", 1, cold=True)
    assert order.coldest() == ["older", "newer", "used"]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "cold", "again", "touch", "drop", "remove", "hold", "release"]),
        st.sampled_from("abcdefgh"),
        st.integers(0, 9),
    ),
    max_size=60,
)


@given(STEPS)
def test_invariants_hold_after_any_steps(steps: list[tuple[str, str, int]]) -> None:
    order = Replacement(20)
    sizes: dict[str, int] = {}
    for step, key, size in steps:
        if step in ("add", "cold"):
            order.add(key, size, cold=step == "cold", protected=size % 2 == 0)
            sizes[key] = size
        elif step in ("drop", "remove"):
            (order.drop if step == "drop" else order.remove)(key)
            sizes.pop(key, None)
        else:
            {"again": order.protect, "touch": order.touch, "hold": order.hold, "release": order.release}[
                step
            ](key)
        order.check()
        assert sorted(order.coldest()) == sorted(sizes)
        assert order.total == sum(sizes.values())
        assert len(order) == len(sizes)
