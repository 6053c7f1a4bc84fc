"""Objects that are known only as long as somebody keeps them."""

from arvados_fuse.tree.weak_table import LEAST, WeakTable


class Thing:
    """Something that can be referred to weakly."""


def test_what_nobody_keeps_is_gone() -> None:
    table: WeakTable[Thing] = WeakTable()
    kept = Thing()
    table.put("kept", kept)
    table.put("lost", Thing())
    assert table.get("kept") is kept
    assert table.get("lost") is None
    assert table.get("never") is None
    assert table.values() == [kept]


def test_a_key_can_be_given_to_another() -> None:
    table: WeakTable[Thing] = WeakTable()
    first, second = Thing(), Thing()
    table.put("a", first)
    table.put("a", second)
    assert table.get("a") is second
    assert table.values() == [second]


def test_it_does_not_grow_with_what_is_gone() -> None:
    table: WeakTable[Thing] = WeakTable()
    kept = [Thing() for _ in range(2 * LEAST)]
    for number, thing in enumerate(kept):
        table.put(f"kept{number}", thing)
    for number in range(20 * LEAST):
        table.put(f"lost{number}", Thing())
    assert len(table._references) <= 2 * len(kept) + 1
    assert len(table.values()) == len(kept)
    del kept[:]
    for number in range(20 * LEAST):
        table.put(f"lost{number}", Thing())
    assert len(table._references) <= LEAST + 1
