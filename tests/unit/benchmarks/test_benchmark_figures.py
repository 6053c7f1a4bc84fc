"""What the measurements make of their figures: turns, ratios, costs, exponents. No mount, no server."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import costs, growth, plots, report
from benchmarks.costs import Meter, Spent
from benchmarks.growth_kinds import Cost, Kind
from benchmarks.rows import Row, Summary, Value, summarise
from benchmarks.runs import Done, Failed
from benchmarks.turns import PATIENCE, Turns

ROW = Row("walk", "find", "s", aim=2, most=1)


def three_rounds(stock: Value, stock_seconds: float) -> Turns:
    """Ours has a turn in each round and is faster each time; stock as long as it has turns."""
    turns = Turns()
    for number in (1.0, 2.0, 4.0):
        turns.new_round()
        turns.took("ours", {"walk": Value(number)}, number)
        if turns.has_turn("stock"):
            turns.took("stock", {"walk": stock}, stock_seconds)
    return turns


@pytest.mark.parametrize(
    ("stock", "seconds"),
    [(Value(8.0, bound=True), 8.0), (Value(8.0), PATIENCE + 1)],
    ids=["given up", "slow"],
)
def test_a_mount_that_takes_too_long_has_one_turn_that_counts_in_all_rounds(
    stock: Value, seconds: float
) -> None:
    turns = three_rounds(stock, seconds)
    assert turns.once() == ["stock"]
    summary = summarise(ROW, turns.rounds)
    assert summary.values["stock"] == [8.0, 8.0, 8.0]
    assert summary.ahead == 4.0, "the median of 8, 4 and 2"
    assert summary.bounds == ({"stock"} if stock.bound else set())


def test_a_mount_in_time_has_a_turn_in_each_round() -> None:
    turns = three_rounds(Value(8.0), PATIENCE)
    assert turns.once() == []
    assert turns.has_turn("stock")


def test_a_mount_that_failed_has_no_turn_and_no_figures() -> None:
    turns = Turns()
    for _ in range(2):
        turns.new_round()
        turns.took("ours", {"walk": Value(1.0)}, 1.0)
        if turns.has_turn("stock"):
            turns.failed("stock")
    assert not turns.has_turn("stock")
    assert turns.once() == []
    assert summarise(ROW, turns.rounds).ahead is None
    assert [set(figures) for figures in turns.rounds] == [{"ours"}, {"ours"}]


@pytest.mark.parametrize(("unit", "ahead"), [("s", 0.5), ("MB/s", 2.0)])
def test_better_is_less_of_a_cost_and_more_of_a_rate(unit: str, ahead: float) -> None:
    row = Row("key", "title", unit, ceiling=True)
    figures = {"ours": {"key": Value(20.0)}, "stock": {"key": Value(10.0)}, "null": {"key": Value(40.0)}}
    summary = summarise(row, [figures])
    assert summary.ahead == ahead
    assert summary.over == {"s": 0.5, "MB/s": 2.0}[unit], "what null costs, times so much"


@pytest.mark.parametrize(
    ("figures", "exponent", "grows"),
    [
        ([0.1, 1, 10], 1.0, False),
        ([0.1, 10, 1000], 2.0, True),
        ([3, 3, 3], 0.0, False),
        ([0, 0, 0], 0.0, False),
    ],
    ids=["steady", "grows", "constant", "too small to be seen"],
)
def test_the_exponent_tells_whether_a_cost_grows(
    figures: Sequence[float], exponent: float, grows: bool
) -> None:
    sizes = (10, 100, 1000)
    measured = [Cost(size, 1.0, cpu, 7.0) for size, cpu in zip(sizes, figures, strict=True)]
    found = growth.Growth(Kind("find", "files", lambda _bench, size: measured[size], sizes), measured)
    assert found.exponent == pytest.approx(exponent)
    assert found.grows is grows
    assert found.as_json()["grows"] is grows


def store(directory: Path, md5: str, data: bytes, kind: str = "") -> None:
    """As servers and mounts do it: a new file takes the place of an older one."""
    target = directory / md5[:3] / (md5 + kind)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_suffix(".tmp")
    beside.write_bytes(data)
    beside.rename(target)


def test_a_meter_counts_blocks_that_came_since_it_was_made(tmp_path: Path) -> None:
    cache, keep = tmp_path / "cache", tmp_path / "keep"
    old, fetched, stored = (digit * 32 for digit in "abc")
    store(keep, old, b"old")
    store(keep, fetched, b"1234")
    store(cache, old, b"old", ".keepcacheblock")
    meter = Meter(lambda: 5, cache, keep)
    store(cache, fetched, b"1234", ".keepcacheblock")
    store(cache, stored, b"123456", ".keepcacheblock")
    store(keep, stored, b"123456")
    (cache / "journal").mkdir()
    (cache / "journal" / "notes").write_bytes(b"no block")
    spent = meter.read(pid=1)
    assert (spent.requests, spent.fetched, spent.stored) == (5, 1, 1)
    assert spent.fetched_mb == pytest.approx(4e-6)
    assert spent.stored_mb == pytest.approx(6e-6)
    store(keep, old, b"old")
    assert meter.read(pid=1).stored == 2, "stored again"


def test_a_turn_costs_what_its_mounts_cost_and_the_most_memory_of_any() -> None:
    first, second = Spent(cpu=1, memory=90, requests=3), Spent(cpu=2, memory=70, stored=4)
    assert first + second == Spent(cpu=3, memory=90, requests=3, stored=4)
    assert costs.median([first, second, Spent(cpu=9)]) == Spent(cpu=2, memory=70)


def write(folder: Path, bound: bool, ours: float = 2.0) -> str:
    """The table and the picture of a run of one row; the picture."""
    figures = {"ours": {"walk": Value(ours)}, "stock": {"walk": Value(60.0, bound)}}
    summaries: list[Summary] = [summarise(ROW, [figures])]
    about = {**report.facts("python -m benchmarks", 1), "load_after": 0.0, "minutes": 1}
    sections = [report.Section("walk-1", "Walks", summaries, {"ours": Spent(cpu=1)}, 1.0)]
    report.write(sections, about, [], folder, "mounts")
    (drawn,) = plots.draw(folder)
    return drawn.read_text()


@pytest.mark.parametrize(
    ("ours", "bound", "aims"),
    [
        (2.0, False, "2 met, ≤ 1 missed"),
        (1.0, True, "2 met, ≤ 1 met"),
        (40.0, False, "2 missed, ≤ 1 missed"),
        (40.0, True, "2 open, ≤ 1 missed"),
    ],
)
def test_a_table_says_which_aims_were_met(tmp_path: Path, ours: float, bound: bool, aims: str) -> None:
    write(tmp_path, bound, ours)
    assert aims in (tmp_path / "mounts.txt").read_text()


@pytest.mark.parametrize(("ours", "said"), [(13.0, "1.3, ≤ 1.3 met"), (14.0, "1.4, ≤ 1.3 missed")])
def test_a_table_says_whether_ours_is_near_the_null_file_system(
    tmp_path: Path, ours: float, said: str
) -> None:
    row = Row("stat", "stat", "s", ceiling=True, near=1.3)
    summary = summarise(row, [{"ours": {"stat": Value(ours)}, "null": {"stat": Value(10.0)}}])
    about = {**report.facts("python -m benchmarks", 1), "load_after": 0.0, "minutes": 1}
    report.write([report.Section("files", "Files", [summary], {}, 1.0)], about, [], tmp_path, "mounts")
    assert said in (tmp_path / "mounts.txt").read_text()


def test_results_have_what_a_turn_cost(tmp_path: Path) -> None:
    write(tmp_path, bound=False)
    assert "ours | stock" in (tmp_path / "mounts.txt").read_text()
    assert json.loads((tmp_path / "mounts.json").read_text())["costs"]["walk-1"]["ours"]["cpu"] == 1


def test_a_picture_is_the_same_for_the_same_figures_and_marks_bounds(tmp_path: Path) -> None:
    finished = write(tmp_path / "finished", bound=False)
    assert "30 (2, 60 s)" in finished
    assert "&gt; 30 (2, &gt; 60 s)" in write(tmp_path / "bound", bound=True)
    again = tmp_path / "finished" / "mounts.svg"
    again.unlink()
    plots.draw(again.parent)
    assert again.read_text() == finished


def test_growth_is_drawn_from_what_was_written(tmp_path: Path) -> None:
    costs_of = {"steady": 1, "dear": 2}
    found = [
        growth.Growth(
            Kind(title, "files", lambda _bench, _size: Cost(1, 1, 1, 1), (1, 2)),
            [Cost(size, 1.0, 0.1 * size**power, 0.0) for size in (10, 100, 1000)],
        )
        for title, power in costs_of.items()
    ]
    about = {**report.facts("python -m benchmarks", 1), "load_after": 0.0, "minutes": 1}
    growth.write(found, about, tmp_path)
    lines = (tmp_path / "growth.txt").read_text().splitlines()
    assert ["grows" in line for line in lines if "(files)" in line] == [False, True]
    (drawn,) = plots.draw(tmp_path)
    picture = drawn.read_text()
    assert all(words in picture for words in ("steady", "exponent 1.00", "dear", "exponent 2.00"))


def test_the_engine_is_drawn_though_a_row_is_missing(tmp_path: Path) -> None:
    result = {"files": 10_000, "layout": "deep", "ours": {"load": 0.5}, "sdk": {"load": 20.0}}
    (tmp_path / "collection.json").write_text(json.dumps({"results": [result]}))
    (drawn,) = plots.draw(tmp_path)
    picture = drawn.read_text()
    assert "10,000 files, deep" in picture
    assert "40 (0.5 s, 20 s)" in picture
    assert "portable data hash" not in picture


def test_a_program_that_was_given_up_has_no_whole_figures() -> None:
    assert Done(True, {"seconds": 2.0, "count": 7}).whole["count"] == 7
    with pytest.raises(Failed, match="given up after 180 s, at 1,700"):
        _ = Done(False, {"seconds": 180.0, "count": 1_700}).whole
