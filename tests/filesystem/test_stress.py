"""Many threads, changes elsewhere, little memory: no error, no deadlock, consistent tables."""

import errno
import faulthandler
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from drivers import TreeDriver, read, walk
from servers import wait_for
from worlds import Maker, World, session

from arvados_fuse.errors import ArvadosFuseError
from arvados_fuse.tree import FileSystem
from arvados_fuse.tree.follow import LONG

THREADS = 32
SECONDS = 6.0
WATCHDOG = 60.0
"""Seconds after which the threads' stacks are shown and the test run ends: nothing here may wait so long."""


def run_all(works: list[Callable[[random.Random], None]], seconds: float) -> None:
    """Every work again and again in a thread of its own, until the time is over; raises what any raised."""
    ends = time.monotonic() + seconds
    failures: list[BaseException] = []

    def repeat(work: Callable[[random.Random], None], seed: int) -> None:
        chance = random.Random(seed)
        try:
            while time.monotonic() < ends and not failures:
                work(chance)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [
        threading.Thread(target=repeat, args=(work, seed), daemon=True) for seed, work in enumerate(works)
    ]
    faulthandler.dump_traceback_later(WATCHDOG, exit=True)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        faulthandler.cancel_dump_traceback_later()
    if failures:
        raise failures[0]


def test_reading_everything_at_once(world: World, tmp_path: Path) -> None:
    """32 threads over all of a tree whose memory is too small for it and which is never fresh."""
    with session(
        world.server, world.token, tmp_path, mode="all", refresh_time=0.5, directory_cache=5_000
    ) as built:
        root = TreeDriver(built.filesystem)
        tops = [f"home/{name}" for name in ("plain", "project", "filtered", "odd names", "blocks")]
        tops += ["shared", "by_tag"]
        tops += [f"by_id/{world.ids[key]}" for key in ("plain", "plain_pdh", "project", "blocks_pdh")]

        def look(chance: random.Random) -> None:
            for path, told in walk(root, chance.choice(tops)):
                if not told.is_dir and told.size < 1 << 20:
                    assert len(read(root, path)) == told.size

        run_all([look] * THREADS, SECONDS)
        built.filesystem.check()
        assert len(built.filesystem.inodes) == 1


def test_while_others_change_it(mine: Maker, tmp_path: Path) -> None:
    """Every read gives one of the contents that were ever saved, whole."""
    project = mine.project("changing")
    sizes = range(1, 2000, 97)
    texts = {size: mine.manifest({"d/f": b"%d" % (size % 10) * size, "d/g": b"g"}) for size in sizes}
    uuid = mine.make("collections", name="c", manifest_text=texts[1], owner_uuid=project)["uuid"]
    with session(
        mine.server, mine.token, tmp_path, mode="project", target=project, refresh_time=0.05
    ) as built:
        fs = built.filesystem
        directory = [fs.lookup(1, b"c")]
        directory.append(fs.lookup(directory[0].ino, b"d"))

        def change(chance: random.Random) -> None:
            mine.update("collections", uuid, manifest_text=texts[chance.choice(sizes)])

        def look(chance: random.Random) -> None:
            found = fs.lookup(directory[1].ino, b"f")
            try:
                fh = fs.open(found.ino, os.O_RDONLY)
                time.sleep(chance.random() * 0.01)
                data = bytes(fs.read(fh, 0, 10_000))
                fs.release(fh)
            finally:
                fs.forget([(found.ino, 1)])
            assert len(data) in sizes
            assert data == b"%d" % (len(data) % 10) * len(data)
            assert len(data) == found.size, "content of another version under one inode"

        def list_it(_: random.Random) -> None:
            fh = fs.opendir(directory[1].ino)
            assert [entry.name for entry in fs.readdir(fh, 2)] == [b"f", b"g"]
            fs.releasedir(fh)

        run_all([change] * 2 + [look] * 20 + [list_it] * 4, SECONDS)
        check_and_empty(fs, [each.ino for each in directory])


def test_everything_at_once_with_events(
    mine: Maker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """32 threads over all modes while changes of every kind pour in and events tell of them."""
    project = mine.project("busy")
    texts = [mine.manifest({"d/f": b"%d" % number * 100, f"n{number}": b"n"}) for number in range(5)]
    uuids = [
        mine.make("collections", name=f"c{number}", manifest_text=texts[0], owner_uuid=project)["uuid"]
        for number in range(6)
    ]
    tag = f"tag {uuids[0]}"
    mine.make("links", link_class="tag", name=tag, head_uuid=uuids[0])
    with session(
        mine.server,
        mine.token,
        tmp_path,
        mode="all",
        refresh_time=0.5,
        listen_events=True,
        directory_cache=20_000,
    ) as built:
        fs = built.filesystem
        root = TreeDriver(fs)
        tops = ["home", "home/busy", "shared", f"by_tag/{tag}", f"by_id/{project}", "home/.trash"]
        tops += [f"by_id/{uuid}" for uuid in uuids[:4]] + ["home/busy/.trash", f"by_id/{uuids[0]}/.versions"]

        def look(chance: random.Random) -> None:
            """What is gone between two steps is no failure; anything else is."""
            try:
                for path, told in walk(root, chance.choice(tops)):
                    if not told.is_dir:
                        read(root, path)
                    with root.at(path) as found:
                        for name in fs.listxattr(found.ino):
                            fs.getxattr(found.ino, name)
            except FileNotFoundError:
                pass
            except ArvadosFuseError as error:
                if error.errno not in (errno.ENOENT, errno.ENODATA):
                    raise

        def change(chance: random.Random) -> None:
            number = chance.randrange(len(uuids))
            kind = chance.choice(["content", "name", "move", "trash", "project", "tag"])
            server, token, uuid = mine.server, mine.token, uuids[number]
            if kind == "content":
                attributes = {"manifest_text": chance.choice(texts), "preserve_version": True}
                server.call("PUT", f"collections/{uuid}", {"collection": attributes}, token=token)
            elif kind == "name":
                new = {"name": f"c{number} {chance.randrange(3)}"}
                server.call("PUT", f"collections/{uuid}", {"collection": new}, token=token)
            elif kind == "move":
                owner = chance.choice(
                    [project, server.call("GET", "users/current", token=token).body["uuid"]]
                )
                new = {"owner_uuid": owner}
                server.call("PUT", f"collections/{uuid}", {"collection": new}, token=token)
            elif kind == "trash":
                server.call("DELETE", f"collections/{uuid}", token=token)
                server.call("POST", f"collections/{uuid}/untrash", {}, token=token)
            elif kind == "project":
                made = server.call("POST", "groups", {"group": {"name": f"p{chance.random()}"}}, token=token)
                server.call("DELETE", f"groups/{made.body.get('uuid')}", token=token)
            else:
                link = {"link_class": "tag", "name": tag, "head_uuid": uuid}
                server.call("POST", "links", {"link": link}, token=token)

        wait_for(lambda: fs.context.policy.max_age >= LONG, "events arrive")
        run_all([*[change] * 4, *[look] * (THREADS - 4)], SECONDS)
        check_and_empty(fs, [])
        assert fs.context.policy.max_age >= LONG, "events arrive still"
        assert not [record for record in caplog.records if record.exc_info], caplog.text


def check_and_empty(fs: FileSystem, held: list[int]) -> None:
    """The tables are consistent, and empty once the kernel has forgotten what it held."""
    fs.check()
    fs.forget([(number, 1) for number in held])
    assert len(fs.inodes) == 1
