"""Counters add up from any number of threads."""

from concurrent.futures import ThreadPoolExecutor

from arvados_fuse.reporting.counters import Counters


def test_counts_from_many_threads() -> None:
    counters = Counters()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: counters.add("a", number), range(1000)))
        list(pool.map(lambda _: counters.add("b"), range(1000)))
    assert counters.snapshot() == {"a": 499500, "b": 1000}
    assert counters.get("never") == 0
