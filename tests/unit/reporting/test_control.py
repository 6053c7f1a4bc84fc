"""The control socket without a mount: requests, errors, ends, and who may ask."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from arvados_fuse.errors import BlockNotFound, NotSupported, SetupError, Unreachable
from arvados_fuse.reporting import control, sockets
from arvados_fuse.reporting.asking import NobodyListens, ask
from arvados_fuse.reporting.control import ControlServer

MINOR = 4242
ME = os.geteuid()
DEADLINE = 20.0


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.01)


class Place:
    """A short directory (the paths of sockets are bounded) and a server that listens there."""

    def __init__(self, base: Path) -> None:
        self.here = base / "run"
        self.server = ControlServer(self.directories)

    def directories(self, _user: int) -> list[Path]:
        return [self.here / "missing" / "sub", self.here]

    def ask(self, name: str, arguments: Mapping[str, Any] | None = None, **options: Any) -> list[Any]:
        return list(ask(MINOR, ME, name, arguments, directories=self.directories, **options))

    @property
    def socket(self) -> Path:
        return sockets.socket_path(self.here, MINOR)


@pytest.fixture
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="ctl") as base:
        place = Place(Path(base))
        yield place
        place.server.close()


def test_answers_come_one_by_one_while_the_work_goes_on(place: Place) -> None:
    go_on = threading.Event()

    def work(arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        yield {"first": arguments["text"]}
        assert go_on.wait(DEADLINE)
        yield {"second": [1, None]}

    place.server.register("work", work)
    place.server.start(MINOR)
    answers = ask(MINOR, ME, "work", {"text": "\udcff\u00e9\n"}, directories=place.directories)
    assert next(answers) == {"first": "\udcff\u00e9\n"}
    go_on.set()
    assert list(answers) == [{"second": [1, None]}]


def test_the_socket_and_its_directory_are_private_and_go_with_the_server(place: Place) -> None:
    place.server.start(MINOR)
    assert place.server.path == place.socket
    assert place.socket.stat().st_mode & 0o777 == 0o600
    assert place.here.stat().st_mode & 0o777 == 0o700
    place.server.close()
    assert list(place.here.iterdir()) == []
    place.server.close()


def test_an_error_comes_out_as_the_kind_it_was(place: Place) -> None:
    def work(_: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        yield {}
        raise BlockNotFound("no block", subject="acb+3", server="k:1", request_id="req-1")

    place.server.register("work", work)
    place.server.start(MINOR)
    with pytest.raises(BlockNotFound, match="no block") as caught:
        place.ask("work")
    assert (caught.value.subject, caught.value.server, caught.value.request_id) == ("acb+3", "k:1", "req-1")
    with pytest.raises(NotSupported, match="'play'"):
        place.ask("play")


def test_a_mistake_in_a_handler_is_logged_and_told(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.server.register("work", lambda arguments: [{"is": arguments["missing"]}])
    place.server.start(MINOR)
    with pytest.raises(Exception, match="KeyError"):
        place.ask("work")
    assert "Traceback" in caplog.text
    with pytest.raises(NotSupported):
        place.ask("still there?")


def test_work_ends_when_the_asker_goes_away(place: Place) -> None:
    ended = threading.Event()

    def work(_: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        try:
            while True:
                time.sleep(0.001)
                yield {"filling": "x" * 1000}
        finally:
            ended.set()

    place.server.register("work", work)
    place.server.start(MINOR)
    answers = ask(MINOR, ME, "work", directories=place.directories)
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert ended.wait(DEADLINE)


def test_closing_waits_for_nobody(place: Place) -> None:
    never, begun = threading.Event(), threading.Event()

    def work(_: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        begun.set()
        never.wait(DEADLINE)
        yield {}

    place.server.register("work", work)
    place.server.start(MINOR)
    told: list[BaseException] = []

    def asks() -> None:
        try:
            place.ask("work", silence=DEADLINE)
        except Unreachable as error:
            told.append(error)

    thread = threading.Thread(target=asks)
    thread.start()
    assert begun.wait(DEADLINE)
    before = time.monotonic()
    place.server.close()
    assert time.monotonic() - before < 5
    thread.join(DEADLINE)
    never.set()
    assert "ended" in str(told[0])


def test_the_asker_has_a_deadline(place: Place) -> None:
    never = threading.Event()

    def work(_: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        while not never.wait(0.02):
            yield {}

    def stuck(_: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        never.wait(DEADLINE)
        yield {}

    place.server.register("work", work)
    place.server.register("stuck", stuck)
    place.server.start(MINOR)
    with pytest.raises(Unreachable, match="in time"):
        place.ask("work", deadline=0.2)
    with pytest.raises(Unreachable, match="in time"):
        place.ask("stuck", silence=0.1)
    never.set()


def test_nobody_listens(place: Place) -> None:
    with pytest.raises(NobodyListens):
        place.ask("work")
    place.server.start(MINOR)
    leftover = dead_socket(place.here, MINOR + 1)
    with pytest.raises(NobodyListens):
        list(ask(MINOR + 1, ME, "work", directories=place.directories))
    assert leftover.exists()


def test_dead_sockets_are_cleared_away_and_taken_over(place: Place) -> None:
    sockets.make_private(place.here)
    mine, other = dead_socket(place.here, MINOR), dead_socket(place.here, MINOR + 1)
    place.server.register("hello", lambda _: [{"hello": 1}])
    place.server.start(MINOR)
    assert place.ask("hello") == [{"hello": 1}]
    assert mine.exists()
    assert not other.exists()


def test_a_live_neighbour_stays(place: Place) -> None:
    place.server.register("hello", lambda _: [{"hello": 1}])
    place.server.start(MINOR)
    second = ControlServer(place.directories)
    second.start(MINOR + 1)
    assert place.ask("hello") == [{"hello": 1}]
    second.close()
    assert place.ask("hello") == [{"hello": 1}]


def test_the_successor_keeps_the_socket_when_the_old_one_closes(place: Place) -> None:
    place.server.start(MINOR)
    second = ControlServer(place.directories)
    second.register("hello", lambda _: [{"hello": 2}])
    second.start(MINOR)
    place.server.close()
    assert place.ask("hello") == [{"hello": 2}]
    second.close()


def test_a_socket_that_was_removed_comes_back(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "LOOK_EVERY", 0.05)
    place.server.register("hello", lambda _: [{"hello": 1}])
    place.server.start(MINOR)
    place.socket.unlink()
    place.here.rmdir()
    wait_for(place.socket.exists, "the socket to come back")
    assert place.ask("hello") == [{"hello": 1}]


def test_directories_that_others_may_enter_are_not_used(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.here.mkdir(mode=0o755)
    place.here.chmod(0o755)
    place.server.start(MINOR)
    assert place.server.path is None
    assert "--status" in caplog.text
    elsewhere = place.here.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    place.here.rmdir()
    place.here.symlink_to(elsewhere)
    assert not sockets.belongs_to(place.here, ME)


def test_nonsense_is_answered_and_harms_nobody(place: Place) -> None:
    place.server.register("hello", lambda _: [{"hello": 1}])
    place.server.start(MINOR)
    for nonsense in (b"nonsense\n", b"[]\n", b'{"request": 1}\n', b'{"request": "hello", "arguments": 3}\n'):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(DEADLINE)
            raw.connect(str(place.socket))
            raw.sendall(nonsense)
            assert json.loads(raw.makefile("rb").readline())["error"]["kind"] == "InvalidArgument"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(place.socket))
        assert place.ask("hello") == [{"hello": 1}]


LISTEN = """
import os, sys
from arvados_fuse.reporting import sockets
from arvados_fuse.reporting.control import ControlServer
os.setgroups([])
os.setuid(int(sys.argv[1]))
server = ControlServer()
server.register("who", lambda _: [{"user": os.geteuid()}])
server.start(int(sys.argv[2]))
print(server.path, flush=True)
sys.stdin.read()
server.close()
"""


@pytest.mark.skipif(ME != 0, reason="only root can play another user")
def test_root_may_ask_the_mounts_of_others() -> None:
    user, minor = 65533, 1048575  # no mount has such numbers
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN, str(user), str(minor)],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        try:
            assert path.stat().st_uid == user
            assert list(ask(minor, user, "who")) == [{"user": user}]
            # Somebody who sits in the place of another is not believed.
            with pytest.raises(SetupError, match="not safe"):
                list(ask(minor, user + 1, "who", directories=lambda _: [path.parent]))
        finally:
            process.stdin.close()
            process.wait(DEADLINE)
    assert not path.exists()
    path.parent.rmdir()


def test_places_follow_from_the_user_alone() -> None:
    assert [str(path) for path in sockets.directories(0)] == ["/run/arv-mount", "/tmp/arv-mount-0"]
    assert str(sockets.directories(1000)[0]) == "/run/user/1000/arv-mount"
    for user in (0, 4294967294):
        for directory in sockets.directories(user):
            assert len(bytes(sockets.socket_path(directory, 1048575))) < sockets.LONGEST


def dead_socket(directory: Path, minor: int) -> Path:
    path = sockets.socket_path(directory, minor)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
    return path
