"""What is kept in memory."""

from arvados_fuse.tree.inode_cache import InodeCache


class Thing:
    """Holds `size` bytes, in two parts that it gives back one after the other."""

    def __init__(self, size: int) -> None:
        self.size = size

    def footprint(self) -> int:
        return self.size

    def shrink(self) -> bool:
        self.size = self.size // 2 if self.size > 10 else 0
        return self.size > 0


class Stubborn(Thing):
    """Gives nothing back."""

    def shrink(self) -> bool:
        return False


def test_the_oldest_goes_first() -> None:
    cache = InodeCache(100)
    things = [Thing(30) for _ in range(3)]
    for thing in things:
        cache.touch(thing)
    cache.touch(things[0])
    more = Thing(30)
    cache.touch(more)
    assert [thing.size for thing in things] == [30, 7, 30]
    assert more.size == 30
    assert cache.total == 97
    cache.check()


def test_the_cap_holds() -> None:
    cache = InodeCache(100)
    things = [Thing(40) for _ in range(50)]
    for thing in things:
        cache.touch(thing)
        assert cache.total <= 100
    assert sum(thing.size for thing in things) == cache.total
    assert things[-1].size == 40
    cache.check()


def test_growth_counts() -> None:
    cache = InodeCache(100)
    first, second = Thing(10), Thing(10)
    cache.touch(first)
    cache.touch(second)
    second.size = 500
    cache.resize(second)
    assert first.size == 0, "the others go before the one in use"
    assert cache.total == second.size
    cache.check()


def test_what_gives_nothing_does_not_keep_us() -> None:
    cache = InodeCache(100)
    stubborn = [Stubborn(80), Stubborn(80)]
    thing = Thing(40)
    for holder in [*stubborn, thing]:
        cache.touch(holder)
    assert cache.total >= 160
    cache.forget(stubborn[0])
    cache.forget(stubborn[0])
    assert cache.total == 80 + thing.size
    cache.check()


def test_touching_the_latest_again_costs_nothing() -> None:
    cache = InodeCache(100)
    thing = Thing(10)
    cache.touch(thing)
    thing.size = 20
    cache.touch(thing)
    assert cache.total == 10
    cache.touch(Thing(1))
    cache.touch(thing)
    assert cache.total == 21
    assert len(cache) == 2


def test_what_holds_nothing_is_not_kept() -> None:
    cache = InodeCache(100)
    for _ in range(10):
        cache.touch(Thing(0))
    assert len(cache) == 0
    thing = Thing(90)
    cache.touch(thing)
    cache.touch(Thing(95))
    assert thing.size == 5
    cache.touch(Thing(95))
    assert len(cache) < 3
    cache.check()
