"""Many threads in one collection, and between two: nothing is lost, nobody waits for ever."""

import random
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from collection_support import Blocks, Records, tree

from arvados_fuse.collection import Collection, File


@pytest.fixture(autouse=True)
def impatient_interpreter() -> Iterator[None]:
    """Threads change places often, so that more orders of steps are seen."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(*works: Callable[[], None]) -> None:
    """Run all at once; fail with the first failure, or when one does not end."""
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "waits for ever"
    if failures:
        raise failures[0]


def test_files_move_between_two_collections_and_none_is_lost() -> None:
    blocks = Blocks()
    sides = [Collection(keep_client=blocks) for _ in range(2)]
    count = 24
    for number in range(count):
        side = sides[number % 2]
        side.find_or_create(f"d{number % 3}", "collection")
        with side.open(f"d{number % 3}/f{number}", "wb") as file:
            file.write(b"%d" % number)
    for side in sides:
        for number in range(3):
            side.find_or_create(f"d{number}", "collection")
    held = {name: file for side in sides for _, top in side.items() for name, file in top.items()}  # type: ignore[union-attr]

    moved: list[str] = []

    def mover(seed: int) -> Callable[[], None]:
        def work() -> None:
            chance = random.Random(seed)
            for _ in range(2000):
                source, target = chance.choice(sides), chance.choice(sides)
                name = f"f{chance.randrange(count)}"
                here, there = f"d{chance.randrange(3)}/{name}", f"d{chance.randrange(3)}/{name}"
                try:
                    target.rename(here, there, source_collection=source)
                    moved.append(name)
                except OSError:
                    continue

        return work

    def writer() -> None:
        chance = random.Random(99)
        for _ in range(400):
            file = held[f"f{chance.randrange(count)}"]
            assert isinstance(file, File)
            file.append(b".")

    def looker() -> None:
        for _ in range(20):
            for side in sides:
                side.drop_parsed()
                side.manifest_text(normalize=True)
                side.root.check()

    together(*(mover(seed) for seed in range(4)), writer, looker)
    assert len(moved) > 500
    found: dict[str, bytes] = {}
    for side in sides:
        side.root.check()
        for path, data in tree(side).items():
            if data is not None:
                name = path.split("/")[-1]
                assert name not in found, "in two places"
                found[name] = data
    assert sorted(found) == sorted(f"f{number}" for number in range(count))
    for number in range(count):
        assert found[f"f{number}"].startswith(b"%d" % number)
    assert sum(data.count(b".") for data in found.values()) == 400


def test_directories_move_around_in_circles_but_never_into_themselves() -> None:
    collection = Collection(keep_client=Blocks())
    names = ["a", "b", "c", "d"]
    for name in names:
        collection.mkdirs(name)
        with collection.open(f"{name}/file", "wb") as file:
            file.write(name.encode())
    directories = [collection.find(name) for name in names]

    def mover(seed: int) -> Callable[[], None]:
        def work() -> None:
            chance = random.Random(seed)
            for _ in range(2000):
                source, target = chance.choice(directories), chance.choice([*directories, collection])
                try:
                    collection.rename(source, f"{target.stream_name()[2:] or '.'}/{source.name}")  # type: ignore[union-attr,arg-type]
                except (OSError, ValueError):
                    continue

        return work

    together(*(mover(seed) for seed in range(4)))
    collection.root.check()
    assert sorted(data for data in tree(collection).values() if data is not None) == [b"a", b"b", b"c", b"d"]


def test_saving_while_others_write() -> None:
    blocks, records = Blocks(), Records()
    collection = Collection(None, records, blocks)
    with collection.open("start", "wb") as file:
        file.write(b"x")
    collection.save_new()
    uuid = collection.manifest_locator()
    done = threading.Event()
    writing = [4]

    def writer(number: int) -> Callable[[], None]:
        def work() -> None:
            try:
                chance = random.Random(number)
                for turn in range(600):
                    with collection.open(f"d{number}/f{turn % 7}", "wb") as file:
                        file.write(b"%d %d" % (number, turn))
                    if chance.random() < 0.2:
                        collection.rename(f"d{number}/f{turn % 7}", f"d{number}/g{turn}")
                    if chance.random() < 0.1:
                        collection.remove(f"d{number}", recursive=True)
                with collection.open(f"d{number}/last", "wb") as file:
                    file.write(b"%d" % number)
            finally:
                writing[0] -= 1
                if not writing[0]:
                    done.set()

        return work

    def saver() -> None:
        while not done.is_set():
            collection.save()
            again = Collection(uuid, records, blocks)
            for path, data in tree(again).items():
                if data is not None and path.startswith("d"):
                    # A file is there as it was at some moment: empty before its first bytes, or whole.
                    assert data in (b"", path[1:2].encode()) or data.startswith(path[1:2].encode() + b" ")

    def other() -> None:
        turn = 0
        while not done.is_set():
            theirs = Collection(uuid, records, blocks)
            with theirs.open(f"others/{turn}", "wb") as file:
                file.write(b"%d" % turn)
            turn += 1
            # Their tree; the fake server has no `replace_files`, so they save when nobody else does.
            with collection.commit_lock:
                theirs.update()
                theirs.save(merge=False)

    together(*(writer(number) for number in range(4)), saver, other)
    collection.save()
    collection.update()
    final = tree(Collection(uuid, records, blocks))
    assert final == tree(collection)
    assert not [path for path in final if "conflict" in path]
    for number in range(4):
        assert final[f"d{number}/last"] == b"%d" % number
    assert collection.committed()


def test_one_file_written_by_many_at_different_places() -> None:
    blocks = Blocks()
    collection = Collection(keep_client=blocks)
    file = collection.root.create("f")

    def writer(number: int) -> Callable[[], None]:
        def work() -> None:
            with collection.open("f", "rb+") as handle:
                for turn in range(100):
                    handle.seek((turn * 8 + number) * 10)
                    handle.write(b"%05d%05d" % (number, turn))

        return work

    together(*(writer(number) for number in range(8)), *(collection.flush for _ in range(4)))
    expected = b"".join(b"%05d%05d" % (number, turn) for turn in range(100) for number in range(8))
    assert bytes(file.read(0, 10**6)) == expected
    assert tree(Collection(collection.manifest_text(), keep_client=blocks)) == {"f": expected}
