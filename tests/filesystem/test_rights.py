"""Permissions that others give and take show within a moment; asking for them costs little, and nothing when
nobody looks."""

import os
import queue
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from counting import Requests, request_counter
from drivers import TreeDriver, exists, read
from servers import LocalServer, wait_for
from sharing import Sharing
from worlds import Maker, session

from arvados_fuse.api import ApiClient
from arvados_fuse.api.changes import change_of
from arvados_fuse.errors import Unreachable
from arvados_fuse.tree import FileSystem
from arvados_fuse.tree.follow import Follower
from arvados_fuse.tree.rights import EVERY, LONGEST_PAUSE, PAUSE_AFTER_FAILURE, RightsChanged, RightsWatch

ROUNDS = int(os.environ.get("EVENT_ROUNDS", "5"))
REFRESH = 3600.0
"""Seconds, longer than any test: what shows does so because it was asked for."""


@pytest.fixture
def listening(mine: Maker, tmp_path: Path) -> Iterator[TreeDriver]:
    """A mount of everything, while events arrive."""
    with session(
        mine.server, mine.token, tmp_path, mode="all", refresh_time=REFRESH, listen_events=True
    ) as built:
        wait_for(lambda: built.filesystem.context.looks.on, "events arrive")
        yield TreeDriver(built.filesystem)


@pytest.fixture
def requests(mine: Maker) -> Requests:
    """What the server was asked since the last call."""
    return request_counter(mine.server)


def shows(root: TreeDriver, sharing: Sharing) -> bool:
    return all(exists(root, place) for place in sharing.places) and sharing.name in root.names("shared")


def hides(root: TreeDriver, sharing: Sharing) -> bool:
    return not any(exists(root, place) for place in sharing.places) and sharing.name not in root.names(
        "shared"
    )


@pytest.mark.parametrize("role", [False, True], ids=["own links", "role"])
def test_what_is_given_and_taken_shows_soon(
    listening: TreeDriver, mine: Maker, role: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three questions at most: two things are shared, and one question can come between them."""
    questions, real = 0, RightsWatch.ask

    def counted(watch: RightsWatch) -> float:
        nonlocal questions
        questions += 1
        return real(watch)

    monkeypatch.setattr(RightsWatch, "ask", counted)
    sharing = Sharing(mine, role=role)
    assert hides(listening, sharing)
    for _ in range(ROUNDS):
        before = questions
        sharing.give()
        wait_for(lambda: shows(listening, sharing), "what is given shows")
        assert questions - before <= 3
        opened = listening.open(sharing.places[0])
        before = questions
        sharing.take()
        wait_for(lambda: hides(listening, sharing), "what is taken is gone")
        assert questions - before <= 3
        assert opened.read(0, 10) == b"f", "what is open stays"
        opened.close()


def test_nobody_looks_nothing_is_asked(listening: TreeDriver, mine: Maker, requests: Requests) -> None:
    sharing = given(listening, mine, requests)
    assert shows(listening, sharing)
    settle(requests)
    time.sleep(4 * EVERY)  # time itself is what is tested
    assert requests() == []


def given(root: TreeDriver, reader: Maker, requests: Requests) -> Sharing:
    """Something that is shared and known to the mount, with nothing left to ask."""
    sharing = Sharing(reader)
    sharing.give()
    for _ in range(2):  # the first question about names makes them be listed once more
        wait_for(lambda: shows(root, sharing), "it is shared")
        settle(requests)
    return sharing


def settle(requests: Requests) -> None:
    """Wait until a whole pause has passed without a question."""

    def quiet() -> bool:
        time.sleep(2 * EVERY)  # time itself is what is tested
        return requests() == []

    wait_for(quiet, "what was looked at is asked for", 20)


def test_looking_without_end_costs_one_small_request_at_a_time(
    listening: TreeDriver, mine: Maker, requests: Requests
) -> None:
    sharing = given(listening, mine, requests)
    begun, looks = time.monotonic(), 0
    while time.monotonic() - begun < 6 * EVERY:
        assert read(listening, f"shared/{sharing.name}/shared/c/d/f") == b"f"
        looks += 1
    lines = requests()
    assert 1 <= len(lines) <= 8, f"{looks} looks"
    assert all("/groups" in line and "contents" not in line and "shared" not in line for line in lines), lines


def test_our_own_costs_nothing_by_whatever_way(
    listening: TreeDriver, mine: Maker, requests: Requests
) -> None:
    outer = mine.project("outer")
    inner = mine.project("inner", owner_uuid=outer)
    uuid = mine.collection("c", {"f": b"f"}, owner_uuid=inner)["uuid"]
    places = [f"by_id/{uuid}/f", f"by_id/{inner}/c/f", "home/outer/inner/c/f"]

    def look() -> None:
        assert [read(listening, place) for place in places] == [b"f"] * 3
        assert listening.names("home/outer") == ["inner"]

    for _ in range(4):  # a step towards home each time
        look()
        settle(requests)
    for _ in range(3):
        look()
        time.sleep(2 * EVERY)  # time itself is what is tested
    assert requests() == []


def test_a_server_that_hangs_is_not_asked_twice_and_stops_nobody(
    fresh_server: LocalServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reader = Maker(fresh_server, fresh_server.new_user("reader")[1])
    asked = request_counter(fresh_server)
    with session(
        fresh_server, reader.token, tmp_path, mode="all", refresh_time=REFRESH, listen_events=True
    ) as built:
        root = TreeDriver(built.filesystem)
        wait_for(lambda: built.filesystem.context.looks.on, "events arrive")
        sharing = given(root, reader, asked)
        os.kill(fresh_server.pid, signal.SIGSTOP)
        try:
            begun, looks = time.monotonic(), 0
            while time.monotonic() - begun < 6 * EVERY:
                assert shows(root, sharing), "what was known goes on being shown"
                looks += 1
            assert looks > 100, "nobody waits"
        finally:
            os.kill(fresh_server.pid, signal.SIGCONT)
        assert len(asked()) <= 4, "the questions did not pile up"
        assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
        sharing.take()
        wait_for(lambda: hides(root, sharing), "it is asked again", 30)


def test_a_mount_ends_while_a_question_hangs(fresh_server: LocalServer, tmp_path: Path) -> None:
    reader = Maker(fresh_server, fresh_server.new_user("reader")[1])
    requests = request_counter(fresh_server)
    try:
        with session(
            fresh_server, reader.token, tmp_path, mode="all", refresh_time=REFRESH, listen_events=True
        ) as built:
            root = TreeDriver(built.filesystem)
            wait_for(lambda: built.filesystem.context.looks.on, "events arrive")
            sharing = given(root, reader, requests)
            os.kill(fresh_server.pid, signal.SIGSTOP)
            begun = time.monotonic()
            while time.monotonic() - begun < 2 * EVERY:
                assert shows(root, sharing)
            begun = time.monotonic()
        assert time.monotonic() - begun < 10
    finally:
        os.kill(fresh_server.pid, signal.SIGCONT)


# One question after another, without the thread


class Asked:
    """A mount whose questions the test asks itself."""

    def __init__(self, fs: FileSystem) -> None:
        self.root = TreeDriver(fs)
        self.looks = fs.context.looks
        self.looks.on = True
        self.news: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.watch = RightsWatch(fs.context, self.news)
        self.follower = Follower(
            fs.context, fs.inodes, queue.SimpleQueue(), queue.SimpleQueue(), refresh_time=REFRESH
        )

    def looked_at(self, *paths: str) -> dict[str, bool]:
        """What is noted when a program looks at these."""
        self.looks.take()
        for path in paths:
            exists(self.root, path)
        return self.looks.take().objects

    def ask(self) -> list[RightsChanged]:
        """One question about what was looked at since the last; what it told, after it was followed."""
        self.watch.ask()
        told = []
        while not self.news.empty():
            told.append(self.news.get())
            self.follower.take(told[-1])
        return told


@pytest.fixture
def asked(mine: Maker, tmp_path: Path) -> Iterator[Asked]:
    with session(mine.server, mine.token, tmp_path, mode="all", refresh_time=REFRESH) as built:
        yield Asked(built.filesystem)


def test_a_project_vouches_for_all_that_it_owns(asked: Asked, mine: Maker) -> None:
    sharing = Sharing(mine)
    inner = sharing.owner.project("inner", owner_uuid=sharing.project)
    sharing.owner.collection("c", {"d/f": b"f"}, owner_uuid=inner)
    sharing.give()
    by_owner = f"shared/{sharing.name}"
    below = [f"{by_owner}/shared/c/d/f", f"{by_owner}/shared/inner/c/d/f", f"{by_owner}/shared/nothing"]
    assert asked.looked_at(*below) == {sharing.project: True}
    assert asked.looked_at(f"by_id/{sharing.project}/inner/c/d/f") == {sharing.project: True}
    assert asked.looked_at(f"{by_owner}/beside/d/f") == {sharing.beside: True}
    assert asked.looked_at(f"by_id/{sharing.inside}/d/f") == {sharing.inside: True}
    assert asked.looked_at(f"by_id/{sharing.inside}/.versions/1") == {sharing.inside: True}


def test_what_is_in_a_filter_group_or_has_a_tag_vouches_for_itself(asked: Asked, mine: Maker) -> None:
    sharing = Sharing(mine)
    sharing.give()
    filters = {"filters": [["collections.uuid", "=", sharing.inside]]}
    mine.make("groups", name="filtered", group_class="filter", properties=filters)
    mine.make("links", link_class="tag", name=sharing.name, head_uuid=sharing.inside)
    assert asked.looked_at("home/filtered/c/d/f") == {sharing.inside: True}
    assert asked.looked_at(f"by_tag/{sharing.name}/{sharing.inside}/d/f") == {sharing.inside: True}


def test_what_nobody_can_take_away_is_not_asked_for(asked: Asked, mine: Maker) -> None:
    made = mine.collection("c", {"d/f": b"f"}, owner_uuid=mine.project("p"))
    own = ["home/p/c/d/f", "home/p/nothing", "home/nothing", "README", "nothing", "by_id/nothing"]
    assert asked.looked_at(*own, f"by_id/{made['portable_data_hash']}/d/f") == {}
    assert not asked.looks.take().names
    asked.root.names("home")
    asked.root.names("by_id")
    assert not asked.looks.take().names


def test_what_is_found_to_be_ours_is_not_asked_for_again(
    asked: Asked, mine: Maker, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = mine.project("p")
    api, place = asked.root.fs.context.api, f"by_id/{project}"
    real = api.list_groups

    def looked_at_meanwhile(*arguments: Any, **more: Any) -> Any:
        assert exists(asked.root, place)
        return real(*arguments, **more)

    monkeypatch.setattr(api, "list_groups", looked_at_meanwhile)
    assert exists(asked.root, place)
    assert asked.ask() == []
    assert asked.looks._objects == {project: True}
    requests()
    assert asked.ask() == []
    assert requests() == []


def test_what_is_missing_is_asked_for_too(asked: Asked, mine: Maker) -> None:
    sharing = Sharing(mine, role=True)
    assert asked.looked_at(*sharing.places[:3]) == dict.fromkeys(
        (sharing.project, sharing.inside, sharing.beside), False
    )
    exists(asked.root, f"shared/{sharing.name}")
    assert asked.looks.take().names
    asked.root.names("shared")
    assert asked.looks.take().names


def test_a_change_is_told_once(asked: Asked, mine: Maker) -> None:
    sharing = Sharing(mine)
    sharing.give()
    place = sharing.places[1]
    assert exists(asked.root, place)
    assert asked.ask() == []
    sharing.take()
    assert exists(asked.root, place)
    assert [told.everything for told in asked.ask()] == [True]
    assert not exists(asked.root, place)
    assert asked.ask() == []
    sharing.give()
    assert not exists(asked.root, place)
    assert [told.everything for told in asked.ask()] == [False]
    assert exists(asked.root, place)
    assert asked.ask() == []
    sharing.take()
    assert exists(asked.root, place)
    assert len(asked.ask()) == 1
    assert not exists(asked.root, place)


def test_what_no_list_has_is_told_once_and_stays(asked: Asked, mine: Maker) -> None:
    """A past version has a uuid of its own, by which it can be had, but it is in no list."""
    uuid = mine.collection("c", {"f": b"1"}, preserve_version=True)["uuid"]
    mine.update("collections", uuid, manifest_text=mine.manifest({"f": b"2"}))
    arguments = {"include_old_versions": True, "filters": [["current_version_uuid", "=", uuid]]}
    listed = mine.server.call("GET", "collections", arguments, token=mine.token).body["items"]
    past = next(each["uuid"] for each in listed if each["uuid"] != uuid)
    told = 0
    for _ in range(5):
        assert read(asked.root, f"by_id/{past}/f") == b"1"
        told += len(asked.ask())
    assert told == 1


def test_names_are_listed_anew_when_the_number_of_projects_changes(asked: Asked, mine: Maker) -> None:
    sharing = Sharing(mine, role=True)
    assert sharing.name not in asked.root.names("shared")
    assert [told.everything for told in asked.ask()] == [False], "what was listed before the first question"
    assert sharing.name not in asked.root.names("shared")
    assert asked.ask() == []
    sharing.give()
    assert sharing.name not in asked.root.names("shared")
    assert [told.everything for told in asked.ask()] == [False]
    assert sharing.name in asked.root.names("shared")


def test_another_cluster_is_not_asked_about(asked: Asked, mine: Maker, requests: Requests) -> None:
    """One list can't have objects of several clusters, and a refusal would be one for all."""
    sharing = Sharing(mine)
    remote = "other-4zz18-000000000000000"
    assert asked.looked_at(f"by_id/{remote}", f"by_id/{sharing.beside}").keys() == {remote, sharing.beside}
    sharing.give()
    assert not exists(asked.root, f"by_id/{remote}")
    assert not exists(asked.root, f"by_id/{sharing.beside}")
    assert len(asked.ask()) == 1
    assert exists(asked.root, f"by_id/{sharing.beside}")
    assert not exists(asked.root, f"by_id/{remote}")
    asked.ask()
    assert not exists(asked.root, f"by_id/{remote}")
    requests()
    assert asked.ask() == []
    assert requests() == []


def test_a_refused_or_slow_question_makes_the_next_ones_rarer(
    asked: Asked, mine: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_and_ask() -> float:
        exists(asked.root, f"by_id/{sharing.beside}")
        return asked.watch.ask()

    sharing = Sharing(mine)
    sharing.give()
    look_and_ask()

    def down(client: ApiClient, *arguments: Any, **options: Any) -> Any:
        raise Unreachable("down")

    with monkeypatch.context() as patch:
        patch.setattr(ApiClient, "list_collections", down)
        pauses = [look_and_ask() for _ in range(2000)]
    assert pauses[:3] == [PAUSE_AFTER_FAILURE, 2 * PAUSE_AFTER_FAILURE, 4 * PAUSE_AFTER_FAILURE]
    assert set(pauses[3:]) == {LONGEST_PAUSE}, "hours of it, too"
    assert asked.news.empty()
    look_and_ask()
    with monkeypatch.context() as patch:
        patch.setattr(ApiClient, "list_collections", down)
        assert look_and_ask() == PAUSE_AFTER_FAILURE, "it begins anew"


def test_what_moves_may_not_be_ours_any_more(asked: Asked, mine: Maker) -> None:
    outer = mine.project("outer")
    inner = mine.project("inner", owner_uuid=outer)
    context = asked.root.fs.context
    assert exists(asked.root, "home/outer/inner")
    assert context.is_ours(inner)
    moved = {"old_attributes": {"owner_uuid": "x" * 5 + "-tpzed-" + "0" * 15}}
    moved["new_attributes"] = {"owner_uuid": "x" * 5 + "-tpzed-" + "1" * 15}
    change = change_of({"id": 1, "object_uuid": outer, "event_type": "update", "properties": moved})
    assert change is not None
    asked.follower.take(change)
    assert not context.is_ours(inner)
    assert not context.is_ours(outer)
    assert exists(asked.root, "home/outer/inner")
    assert context.is_ours(inner), "found out again"
