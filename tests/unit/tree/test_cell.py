"""Values that are loaded once, get old and are refreshed."""

import threading
import time
from collections.abc import Iterator

import pytest
from servers import wait_for

from arvados_fuse.errors import NotFoundError, Unreachable
from arvados_fuse.tree.cell import ALWAYS, PATIENCE, Cell, Policy
from arvados_fuse.tree.pool import Pool


class Server:
    """Answers what it is told, when it is told; counts the questions."""

    def __init__(self) -> None:
        self.answer: object = 1
        self.asked = 0
        self.open = threading.Event()
        self.open.set()

    def load(self) -> object:
        self.asked += 1
        assert self.open.wait(20)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool()
    yield made
    made.close()


def test_loads_once_for_all_who_wait(server: Server, pool: Pool) -> None:
    cell = Cell(server.load, ALWAYS, pool, "x")
    server.open.clear()
    got: list[object] = []
    threads = [threading.Thread(target=lambda: got.append(cell.get(20))) for _ in range(20)]
    for thread in threads:
        thread.start()
    wait_for(lambda: server.asked, "the load begins")
    server.open.set()
    for thread in threads:
        thread.join()
    assert got == [1] * 20
    assert server.asked == 1
    assert cell.get(20) == 1
    assert server.asked == 1


def test_old_values_are_asked_about_again(server: Server, pool: Pool) -> None:
    cell = Cell(server.load, Policy(0.0), pool, "x")
    assert cell.get(20) == 1
    server.answer = 2
    assert cell.get(20) == 2
    assert cell.remaining() == 0


def test_expire_makes_it_ask(server: Server, pool: Pool) -> None:
    cell = Cell(server.load, ALWAYS, pool, "x")
    assert cell.get(20) == 1
    server.answer = 2
    assert cell.get(20) == 1
    cell.expire()
    assert cell.remaining() == 0
    assert cell.get(20) == 2


def test_news_during_a_load_are_not_lost(server: Server, pool: Pool) -> None:
    cell = Cell(server.load, ALWAYS, pool, "x")
    server.open.clear()
    attempt = cell.start()
    wait_for(lambda: server.asked, "the load begins")
    cell.expire()
    server.open.set()
    assert attempt.wait(20, "x") == 1
    assert not cell.is_fresh()


def test_errors_are_raised_and_not_remembered(server: Server, pool: Pool) -> None:
    cell = Cell(server.load, ALWAYS, pool, "x")
    server.answer = NotFoundError("gone")
    for _ in range(2):
        with pytest.raises(NotFoundError):
            cell.get(20)
    server.answer = 3
    assert cell.get(20) == 3


def test_a_server_that_hangs_ends_at_the_deadline(server: Server, pool: Pool) -> None:
    cell = Cell(server.load, ALWAYS, pool, "the object")
    server.open.clear()
    with pytest.raises(Unreachable, match="the object"):
        cell.get(0.2)
    server.open.set()
    # The load went on by itself.
    wait_for(lambda: cell.filled, "the load ends")
    assert server.asked == 1


def test_what_was_known_is_shown_while_the_server_hangs(server: Server, pool: Pool) -> None:
    policy = Policy(1000.0)
    cell = Cell(server.load, policy, pool, "x")
    assert cell.get(20) == 1
    policy.max_age = 0.0
    server.open.clear()
    server.answer = 2
    begun = time.monotonic()
    assert cell.get(20) == 1
    assert cell.get(20) == 1  # waits no second time
    assert time.monotonic() - begun < 2 * PATIENCE
    server.open.set()
    wait_for(lambda: cell.peek() == 2, "the load ends")


def test_what_was_known_is_shown_while_the_server_is_down(
    server: Server, pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    cell = Cell(server.load, Policy(0.0), pool, "my collection")
    assert cell.get(20) == 1
    server.answer = Unreachable("down")
    assert cell.get(20) == 1
    asked = server.asked
    assert cell.get(20) == 1
    assert server.asked == asked, "asks again at once"
    assert "my collection is shown as it was known before: down" in caplog.text


def test_a_refusal_is_not_hidden_by_what_was_known(server: Server, pool: Pool) -> None:
    cell = Cell(server.load, Policy(0.0), pool, "x")
    assert cell.get(20) == 1
    server.answer = NotFoundError("gone")
    with pytest.raises(NotFoundError):
        cell.get(20)


def test_touch_and_put(server: Server, pool: Pool) -> None:
    cell: Cell[object] = Cell(server.load, Policy(1000.0), pool, "x")
    cell.put(5)
    assert not cell.is_fresh()
    cell.touch(time.monotonic())
    assert cell.is_fresh()
    assert cell.look(20)[0] == 5
    cell.expire()
    cell.touch(time.monotonic() - 10)
    assert not cell.is_fresh(), "older news than the expiry"
    cell.replace(6)
    assert (cell.peek(), cell.is_fresh()) == (6, False), "fresh by another form"
    cell.touch(time.monotonic())
    cell.replace(7)
    assert (cell.peek(), cell.is_fresh()) == (7, True), "asked for because of another form"
    cell.clear()
    assert cell.get(20) == 1


def test_many_loads_at_once(pool: Pool) -> None:
    gate = threading.Barrier(40)

    def load() -> int:
        gate.wait(20)
        return 1

    cells = [Cell(load, ALWAYS, pool, str(number)) for number in range(40)]
    attempts = [cell.start() for cell in cells]
    assert [attempt.wait(20, "x") for attempt in attempts] == [1] * 40


def test_a_pool_goes_on_after_a_failure(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    pool = Pool(limit=1)

    def fail() -> None:
        raise ZeroDivisionError

    pool.submit(fail)
    cell = Cell(server.load, ALWAYS, pool, "x")
    assert cell.get(20) == 1
    assert "ZeroDivisionError" in caplog.text
    pool.close()
