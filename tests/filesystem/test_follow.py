"""From news to marks, and to what the kernel is told: a follower on a real tree, driven by hand."""

import dataclasses
import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from drivers import TreeDriver, exists
from event_peers import event, uuid_of
from servers import wait_for
from worlds import Maker, World, session

from arvados_fuse.api import Lost, News, Status
from arvados_fuse.api.changes import change_of
from arvados_fuse.tree import follow
from arvados_fuse.tree.attributes import FOREVER, Attributes, Invalidation, Missing
from arvados_fuse.tree.follow import BRIEF, LONG, Follower
from arvados_fuse.tree.inodes import ROOT
from arvados_fuse.tree.looks import MOMENT

REFRESH = 3600.0
NAMES = ("a", "d/b", "d/e/c")


class Followed(NamedTuple):
    """A mount of one project with one collection in it, whose files the kernel knows."""

    tree: TreeDriver
    follower: Follower
    news: "queue.SimpleQueue[News]"
    told: "queue.SimpleQueue[Invalidation]"
    mine: Maker
    project: str
    uuid: str
    pdh: str
    files: dict[str, tuple[int, bytes]]
    """By path in the collection: the directory's number and the name."""

    def own_name(self) -> list[tuple[int, bytes]]:
        """The name of the collection, and the attributes of its top directory."""
        return [(ROOT, b"c"), (self.files["a"][0], b"")]

    def take_told(self) -> list[tuple[int, bytes]]:
        """What the kernel was told until now."""
        taken = []
        while not self.told.empty():
            one = self.told.get()
            taken.append((one.inode, one.name))
        return taken

    def change(self, **properties: Any) -> None:
        """An event on the collection."""
        self.take(object_uuid=self.uuid, object_owner_uuid=self.project, **properties)

    def take(self, **fields: Any) -> None:
        change = change_of(event(1) | fields)
        assert change is not None
        self.follower.take(change)

    def lookup(self, path: str) -> Attributes:
        found = self.tree.fs.getattr(ROOT)
        for name in path.split("/"):
            found = self.tree.fs.lookup(found.ino, name.encode())
        return found


@contextmanager
def following(mine: Maker, base: Path, *, expires_names: bool) -> Iterator[Followed]:
    """expires_names: whether the kernel can be told to ask again for the name of a directory."""
    project = mine.project("for a test")
    made = mine.collection("c", {name: name.encode() for name in NAMES}, owner_uuid=project)
    with session(
        mine.server, mine.token, base, mode="project", target=project, refresh_time=REFRESH
    ) as built:
        fs = built.filesystem
        fs.context.expires_names = expires_names
        news: queue.SimpleQueue[News] = queue.SimpleQueue()
        told: queue.SimpleQueue[Invalidation] = queue.SimpleQueue()
        follower = Follower(fs.context, fs.inodes, news, told, refresh_time=REFRESH)
        result = Followed(
            TreeDriver(fs), follower, news, told, mine, project, made["uuid"], made["portable_data_hash"], {}
        )
        for name in NAMES:
            directory, _, last = f"c/{name}".rpartition("/")
            result.files[name] = result.lookup(directory).ino, last.encode()
            result.lookup(f"c/{name}")
        yield result
        follower.stop()


@pytest.fixture
def followed(mine: Maker, tmp_path: Path) -> Iterator[Followed]:
    with following(mine, tmp_path, expires_names=False) as result:
        yield result


@pytest.fixture
def expiring(mine: Maker, tmp_path: Path) -> Iterator[Followed]:
    with following(mine, tmp_path, expires_names=True) as result:
        yield result


def both(pdh_before: str, pdh_after: str, **more: Any) -> dict[str, Any]:
    return {
        "properties": {
            "old_attributes": {"portable_data_hash": pdh_before, "is_trashed": False},
            "new_attributes": {"portable_data_hash": pdh_after, "is_trashed": False} | more,
        }
    }


OTHER = "fffffffffffffffffffffffffffffff0+4711"


def test_new_content_is_told_for_every_file_and_nothing_else(followed: Followed) -> None:
    followed.change(**both(followed.pdh, OTHER))
    assert sorted(followed.take_told()) == sorted(followed.files.values())


def test_the_same_content_is_not_told(followed: Followed) -> None:
    followed.change(**both(followed.pdh, followed.pdh, name="another"))
    assert followed.take_told() == []


def test_an_event_that_does_not_say_the_content_is_told(followed: Followed) -> None:
    followed.change(properties={})
    assert len(followed.take_told()) == len(NAMES)


def test_after_news_that_can_not_be_followed_all_is_told(
    followed: Followed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(follow, "GRACE", 0.1)
    change = change_of(event(1))
    assert change is not None
    followed.follower.start()
    followed.news.put(dataclasses.replace(change, owner_uuid=["no", "uuid"]))  # type: ignore[arg-type]
    wait_for(lambda: set(followed.files.values()) <= set(followed.take_told()), "all files are told")
    assert "could not be followed" in caplog.text


@pytest.mark.parametrize("kind", ["trash", "untrash", "delete"])
def test_what_goes_and_comes_back_is_told(followed: Followed, kind: str) -> None:
    followed.change(event_type=kind, **both(followed.pdh, followed.pdh))
    assert len(followed.take_told()) == len(NAMES)


def test_other_collections_are_left_alone(followed: Followed) -> None:
    followed.take(object_uuid=uuid_of(77))
    assert followed.take_told() == []


def test_a_file_that_the_kernel_has_forgotten_is_not_told(followed: Followed) -> None:
    found = followed.lookup("c/a")
    followed.tree.fs.forget([(found.ino, 2)])
    followed.change(**both(followed.pdh, OTHER))
    assert sorted(followed.take_told()) == sorted(
        place for name, place in followed.files.items() if name != "a"
    )


def test_content_by_hash_is_never_told(mine: Maker, tmp_path: Path) -> None:
    pdh = mine.collection("c", {"a": b"a"})["portable_data_hash"]
    with session(mine.server, mine.token, tmp_path, mode="by_id", refresh_time=REFRESH) as built:
        fs = built.filesystem
        told: queue.SimpleQueue[Invalidation] = queue.SimpleQueue()
        follower = Follower(fs.context, fs.inodes, queue.SimpleQueue(), told, refresh_time=REFRESH)
        follower.take(Status("connected", 0.0))
        directory = fs.lookup(ROOT, pdh.encode())
        file = fs.lookup(directory.ino, b"a")
        assert min(directory.timeout, file.timeout) > FOREVER / 2
        follower.take(Lost(time.monotonic(), "test"))
        assert told.empty()
        assert fs.lookup(directory.ino, b"a").timeout > FOREVER / 2
        assert fs.lookup(directory.ino, b"a").ino == file.ino


def test_told_again_soon_and_changes_meanwhile_together(followed: Followed) -> None:
    followed.follower.start()
    heard: list[float] = []
    for _ in range(20):
        change = change_of(event(1, object_uuid=followed.uuid) | both(followed.pdh, OTHER))
        assert change is not None
        followed.news.put(change)
    begun = time.monotonic()
    while time.monotonic() - begun < 4 * follow.AGAIN_AFTER:
        heard += [time.monotonic() - begun] * len(followed.take_told())
        time.sleep(0.01)  # time itself is what is tested
    passes = len(heard) / len(NAMES)
    assert passes == 3, "at once, for those that came meanwhile, and once more for these"
    assert heard[0] < follow.AGAIN_AFTER
    assert heard[-1] > 1.8 * follow.AGAIN_AFTER


def test_how_long_the_kernel_remembers_while_events_arrive(followed: Followed) -> None:
    before = followed.lookup("c/a")
    assert before.timeout > LONG, "the refresh time"
    followed.follower.take(Status("connected", 0.0))
    assert LONG < REFRESH
    assert followed.lookup("c/a").timeout > BRIEF
    assert followed.lookup("c").timeout == MOMENT, "it is not known to be ours"
    assert followed.lookup("c/d").timeout > MOMENT, "for what is below it the kernel asks for that too"
    followed.tree.fs.context.note_ours(followed.project)
    assert followed.lookup("c").timeout == BRIEF
    assert followed.lookup("c/d").timeout == BRIEF
    assert followed.tree.fs.getattr(followed.lookup("c/d").ino).timeout == BRIEF
    with pytest.raises(Missing) as missing:
        followed.lookup("c/nothing")
    assert missing.value.timeout == BRIEF
    followed.follower.take(Status("disconnected", 0.0))
    assert followed.lookup("c").timeout > BRIEF


def test_a_short_refresh_time_is_made_long_by_events_and_back(mine: Maker, tmp_path: Path) -> None:
    """For what is ours. Others may take a permission away, of which no event tells."""
    project = mine.project("p")
    uuid = mine.collection("c", {"a": b"a"}, owner_uuid=project)["uuid"]
    with session(mine.server, mine.token, tmp_path, mode="all", refresh_time=2.0) as built:
        fs = built.filesystem
        followed = Follower(fs.context, fs.inodes, queue.SimpleQueue(), queue.SimpleQueue(), refresh_time=2.0)
        root = TreeDriver(fs)
        root.names("home")

        def timeout(path: str) -> float:
            with root.at(path) as found:
                return found.timeout

        assert timeout("home/p/c/a") <= 2.0
        followed.take(Status("connected", 0.0))
        assert 2.0 < timeout("home/p/c/a") <= LONG
        assert 2.0 < timeout(f"by_id/{uuid}/a") <= LONG
        followed.take(Status("polling", 0.0))
        assert timeout("home/p/c/a") <= 2.0, "the log does not tell everything"
    with session(mine.server, mine.token, tmp_path, mode="by_id", refresh_time=2.0) as built:
        fs = built.filesystem
        root = TreeDriver(fs)
        followed = Follower(fs.context, fs.inodes, queue.SimpleQueue(), queue.SimpleQueue(), refresh_time=2.0)
        followed.take(Status("connected", 0.0))
        assert timeout(f"{uuid}/a") <= 2.0, "whose it is is not known"


def test_lost_marks_what_was_learned_before_and_only_that(followed: Followed) -> None:
    context = followed.tree.fs.context
    state = context.known_collection(followed.uuid)
    assert state is not None
    assert state.timeout() > 0
    followed.follower.take(Lost(time.monotonic() - 1000.0, "long ago"))
    assert state.timeout() > 0
    followed.follower.take(Lost(time.monotonic(), "now"))
    assert state.timeout() == 0
    assert sorted(set(followed.take_told())) == sorted(followed.files.values())
    assert followed.lookup("c/a").timeout > 0, "asked for again"


def test_without_events_for_a_while_the_kernel_must_forget(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "GRACE", 0.2)
    followed.follower.start()
    followed.news.put(Status("disconnected", 0.0))
    followed.news.put(Status("connected", 0.0))
    followed.news.put(Status("disconnected", 0.0))
    assert followed.take_told() == []
    wait_for(lambda: followed.told.qsize() >= len(NAMES), "the kernel is told")
    assert sorted(followed.take_told()[: len(NAMES)]) == sorted(followed.files.values())


def test_a_short_break_costs_nothing(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "GRACE", 0.2)
    followed.follower.start()
    followed.news.put(Status("disconnected", 0.0))
    followed.news.put(Status("connected", 0.0))
    time.sleep(0.4)  # time itself is what is tested
    assert followed.take_told() == []


GROUP = uuid_of(5, "j7d0g")
LINK = uuid_of(5, "o0j2j")


@pytest.mark.parametrize(
    ("fields", "everything"),
    [
        ({"object_uuid": GROUP, "event_type": "trash"}, True),
        ({"object_uuid": GROUP, "event_type": "delete"}, True),
        ({"object_uuid": GROUP, "event_type": "create"}, False),
        ({"object_uuid": GROUP}, False),
        (
            {
                "object_uuid": GROUP,
                "properties": {
                    "old_attributes": {"owner_uuid": uuid_of(1, "j7d0g")},
                    "new_attributes": {"owner_uuid": uuid_of(2, "j7d0g")},
                },
            },
            True,
        ),
        (
            {
                "object_uuid": LINK,
                "event_type": "delete",
                "properties": {"old_attributes": {"name": "can_read"}},
            },
            True,
        ),
        ({"object_uuid": LINK, "properties": {"new_attributes": {"name": "can_write"}}}, True),
        ({"object_uuid": LINK, "properties": {"new_attributes": {"name": "my tag"}}}, False),
        ({"object_uuid": uuid_of(5, "tpzed")}, False),
    ],
)
def test_what_may_change_everything(followed: Followed, fields: dict[str, Any], everything: bool) -> None:
    state = followed.tree.fs.context.known_collection(followed.uuid)
    assert state is not None
    followed.take(**fields)
    assert (state.timeout() == 0) is everything
    assert bool(followed.take_told()) is everything


# Where the kernel can be told to ask again for the name of a directory


def test_directories_last_where_their_names_expire(expiring: Followed) -> None:
    expiring.tree.fs.context.note_ours(expiring.project)
    expiring.follower.take(Status("connected", 0.0))
    for path in ("c", "c/d", "c/d/e"):
        assert expiring.lookup(path).timeout > BRIEF
        assert expiring.tree.fs.getattr(expiring.lookup(path).ino).timeout > BRIEF
    with pytest.raises(Missing) as missing:
        expiring.lookup("c/nothing")
    assert missing.value.timeout == BRIEF, "nothing is told of names that are missing"


def test_the_name_and_attributes_of_a_collection_are_told(expiring: Followed) -> None:
    expiring.change(**both(expiring.pdh, expiring.pdh, name="c"))
    assert set(expiring.take_told()) == set(expiring.own_name()), "what is inside is the same"


def test_new_content_is_told_for_directories_too(expiring: Followed) -> None:
    expiring.change(**both(expiring.pdh, OTHER, name="c"))
    top, d, e = (expiring.files[name][0] for name in NAMES)
    inside = [*expiring.files.values(), (top, b"d"), (d, b""), (d, b"e"), (e, b"")]
    assert set(expiring.take_told()) == {*expiring.own_name(), *inside}


def test_who_takes_a_name_is_told_to_those_who_had_it(expiring: Followed) -> None:
    project = expiring.project
    newcomer = {"object_uuid": uuid_of(77), "object_owner_uuid": project, "event_type": "create"}
    expiring.take(**newcomer, properties={"new_attributes": {"name": "c", "owner_uuid": project}})
    assert set(expiring.take_told()) == set(expiring.own_name())
    expiring.take(**newcomer, properties={"new_attributes": {"name": "other", "owner_uuid": project}})
    assert expiring.take_told() == []


def test_an_event_without_a_name_is_told_for_everything(expiring: Followed) -> None:
    expiring.take(object_uuid=uuid_of(77), object_owner_uuid=expiring.project, properties={})
    assert {*expiring.files.values(), *expiring.own_name()} < set(expiring.take_told())


def test_everything_is_told_when_events_were_lost(expiring: Followed) -> None:
    expiring.follower.take(Lost(time.monotonic(), "test"))
    assert {*expiring.files.values(), *expiring.own_name()} < set(expiring.take_told())


def test_the_root_is_asked_for_and_never_told(expiring: Followed) -> None:
    """The kernel would leave an answer aside that crosses with it: at first, with the permissions in it."""
    expiring.tree.fs.context.note_ours(expiring.project)
    expiring.follower.take(Status("connected", 0.0))
    assert expiring.tree.fs.getattr(ROOT).timeout == BRIEF
    expiring.follower.take(Lost(time.monotonic(), "test"))
    expiring.take(object_uuid=expiring.project, object_owner_uuid=expiring.project, properties={})
    told = expiring.take_told()
    assert (ROOT, b"c") in told
    assert (ROOT, b"") not in told


def test_subprojects_and_what_was_kept_apart_are_told(mine: Maker, tmp_path: Path) -> None:
    project = mine.project("for a test")
    below = mine.project("same/name", owner_uuid=project)
    apart = mine.collection("same_name", {"a": b"a"}, owner_uuid=project)["uuid"]
    with session(
        mine.server, mine.token, tmp_path, mode="project", target=project, refresh_time=REFRESH
    ) as built:
        fs = built.filesystem
        fs.context.expires_names = True
        told: queue.SimpleQueue[Invalidation] = queue.SimpleQueue()
        follower = Follower(fs.context, fs.inodes, queue.SimpleQueue(), told, refresh_time=REFRESH)
        names = {name.encode(): fs.lookup(ROOT, name.encode()).ino for name in TreeDriver(fs).names("")}
        assert len(names) == 2
        attributes = {"name": "same/name", "owner_uuid": project}
        change = change_of(
            event(1, object_uuid=below, object_owner_uuid=project)
            | {"properties": {"old_attributes": attributes, "new_attributes": attributes}}
        )
        assert change is not None
        follower.take(change)
        heard = [told.get() for _ in range(told.qsize())]
        assert {one.name for one in heard if one.name} == set(names)
        assert {one.inode for one in heard if not one.name} == set(names.values())
        assert apart[-15:].encode() in max(names) or below[-15:].encode() in max(names)


@pytest.mark.parametrize(("where", "lasts"), [("by_tag", False), ("shared", False), ("home", True)])
def test_names_that_may_change_without_an_event_on_the_object(
    world: World, tmp_path: Path, where: str, lasts: bool
) -> None:
    with session(world.server, world.token, tmp_path, mode="all", refresh_time=REFRESH) as built:
        fs = built.filesystem
        fs.context.expires_names = True
        Follower(fs.context, fs.inodes, queue.SimpleQueue(), queue.SimpleQueue(), refresh_time=REFRESH).take(
            Status("connected", 0.0)
        )
        path = f"by_tag/{world.ids['tag']}" if where == "by_tag" else where
        root = TreeDriver(fs)
        entries = [name for name in root.names(path) if not name.startswith(".")]
        timeouts = []
        for name in entries:
            with root.at(f"{path}/{name}") as found:
                if found.is_directory:
                    timeouts.append(found.timeout)
        assert timeouts
        assert all((timeout > BRIEF) is lasts for timeout in timeouts), timeouts


def test_a_mount_that_can_be_changed_asks_for_directories(mine: Maker, tmp_path: Path) -> None:
    with session(mine.server, mine.token, tmp_path, mode="all", read_write=True) as built:
        assert not built.filesystem.context.expires_names


def test_a_failure_is_logged_and_the_next_news_is_followed(
    followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    class Bad:
        def changed(self, change: Any) -> None:
            raise ZeroDivisionError("a bug")

    bad = Bad()
    followed.tree.fs.context.watch(bad)
    followed.follower.start()
    change = change_of(event(1, object_uuid=uuid_of(9)))
    assert change is not None
    followed.news.put(change)
    wait_for(lambda: "ZeroDivisionError" in caplog.text, "the failure is logged")
    state = followed.tree.fs.context.known_collection(followed.uuid)
    assert state is not None
    assert state.timeout() == 0, "after a failure nothing is believed"
    followed.news.put(Lost(time.monotonic(), "next"))
    wait_for(lambda: followed.told.qsize() >= len(NAMES), "the next news is followed")


def test_nothing_is_fetched_until_somebody_looks(followed: Followed) -> None:
    log = followed.mine.server.data_dir / "server.log"
    size = log.stat().st_size
    for _ in range(50):
        followed.change(**both(followed.pdh, OTHER))
        followed.take(object_uuid=GROUP, event_type="trash")
    with open(log) as text:
        text.seek(size)
        assert "arvados.local.api" not in text.read()


def test_changes_while_others_look(followed: Followed) -> None:
    """Marks, invalidations and lookups from many threads: the books stay right."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def look() -> None:
        try:
            while not stop.is_set():
                for name in NAMES:
                    assert exists(followed.tree, f"c/{name}")
                assert not exists(followed.tree, f"c/{os.urandom(2).hex()}")
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(8)]
    followed.follower.start()
    for thread in threads:
        thread.start()
    begun = time.monotonic()
    while time.monotonic() - begun < 2 and not failures:
        for fields in (
            {"object_uuid": followed.uuid, "object_owner_uuid": followed.project},
            {"object_uuid": GROUP, "event_type": "trash"},
            {"object_uuid": uuid_of(3), "object_owner_uuid": followed.project},
        ):
            change = change_of(event(1) | fields)
            assert change is not None
            followed.news.put(change)
        time.sleep(0.001)  # a rate of events
    stop.set()
    for thread in threads:
        thread.join(30)
    assert failures == []
    followed.tree.fs.check()
