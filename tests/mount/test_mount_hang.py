"""One object's API calls hang for as long as they may; everything else answers as usual, on a real mount."""

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mounting import Mounted, mounted, needs_fuse
from servers import LocalServer, wait_for
from worlds import Maker, environment

pytestmark = needs_fuse

HANG = float(os.environ.get("HANG_SECONDS", "10"))
"""Seconds after which a call to the API gives up; 60 in real life."""
USUAL = 3.0
"""Seconds within which everything else answers: one look by id may wait a second behind another."""

LAUNCHER = """
import dataclasses, sys
from arvados_fuse.api import ApiSettings
from arvados_fuse.api.transport import _Connection
from arvados_fuse.cli.main import main
hung, hole, deadline = sys.argv[1], sys.argv[2], float(sys.argv[3])
del sys.argv[1:4]
real_load, real_request = ApiSettings.load, _Connection.request
def load(environment):
    return dataclasses.replace(real_load(environment), deadline=deadline)
def request(self, uri, *args, **kwargs):
    # What is asked about this object goes to a server that accepts connections and says nothing.
    if hung in uri:
        uri = uri.replace(uri.split('/')[2], hole, 1)
    return real_request(self, uri, *args, **kwargs)
ApiSettings.load, _Connection.request = load, request
sys.exit(main())
"""


@pytest.fixture
def hole() -> Iterator[str]:
    """The address of a server that never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(100)
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def own(fresh_server: LocalServer) -> Maker:
    return Maker(fresh_server, fresh_server.settings.token)


class Attempt:
    """A look that may take long, in a thread of its own."""

    def __init__(self, look: Callable[[], object]) -> None:
        self.error: OSError | None = None
        self.took = 0.0
        self._look = look
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        begun = time.monotonic()
        try:
            self._look()
        except OSError as error:
            self.error = error
        self.took = time.monotonic() - begun

    def wait(self) -> None:
        self._thread.join(HANG + 30)
        assert not self._thread.is_alive()

    @property
    def under_way(self) -> bool:
        return self._thread.is_alive()


def timed(look: Callable[[], object]) -> float:
    begun = time.monotonic()
    look()
    return time.monotonic() - begun


def test_one_hanging_object_hangs_alone(own: Maker, hole: str, tmp_path: Path) -> None:
    project = own.project("p")
    known = own.collection("known", {"d/f": b"known"}, owner_uuid=project)
    others = [own.collection(f"o{number}", {"f": b"%d" % number})["uuid"] for number in range(12)]
    hung = own.collection("hung", {"f": b"hung"}, owner_uuid=project)["uuid"]
    options = ("--all", "--refresh-time", "1", "--debug")
    program = ("-c", LAUNCHER, hung, hole, str(HANG))
    with mounted(tmp_path, environment(own.server, own.token), *options, program=program) as mount:
        root = mount.root
        assert (root / "home/p/known/d/f").read_bytes() == b"known"
        begun = time.monotonic()
        looks = [
            Attempt(lambda: os.listdir(root / "by_id" / hung)),
            Attempt(lambda: (root / "by_id" / hung / "f").read_bytes()),
            Attempt(lambda: os.listdir(root / "home/p/hung")),
            Attempt(lambda: (root / "home/p/hung/f").read_bytes()),
        ]
        _everything_else(mount, project, str(known["uuid"]), others, hung, looks, begun)
        for look in looks:
            look.wait()
            assert look.error is not None
            assert look.error.errno == errno.EIO
            assert HANG - 3 < look.took < HANG + 8, "at its deadline"
        assert any(hung in line and "ERROR" in line for line in mount.log.splitlines()), "the log names it"
        assert (root / "home/p/known/d/f").read_bytes() == b"known"


def _everything_else(
    mount: Mounted, project: str, known: str, others: list[str], hung: str, looks: list[Attempt], begun: float
) -> None:
    """As long as the calls hang."""
    root = mount.root
    slowest = 0.0
    waiting = list(others)
    rounds = 0
    while time.monotonic() - begun < HANG - 2:
        rounds += 1
        each: dict[str, Callable[[], object]] = {
            "the project": lambda: os.listdir(root / "home/p"),
            "its attributes": lambda: [entry.stat() for entry in os.scandir(root / "home/p")],
            "a known file": lambda: (root / "home/p/known/d/f").read_bytes(),
            "a name that is not there": (root / f"home/p/known/no {rounds}").exists,
            "by id": lambda: (root / f"by_id/{known}/d/f").read_bytes(),
            "a project by id": lambda: os.listdir(root / f"by_id/{project}"),
            "shared": lambda: os.listdir(root / "shared"),
            "tags": lambda: os.listdir(root / "by_tag"),
        }
        if waiting:
            each["a first look by id"] = (root / f"by_id/{waiting.pop()}/f").read_bytes
        for what, look in each.items():
            took = timed(look)
            slowest = max(slowest, took)
            assert took < USUAL, f"{what} took {took:.1f} s"
        assert all(look.under_way for look in looks)
    assert not waiting, "the test was too slow to look at all"
    print(f"{rounds} rounds, slowest {slowest:.2f} s")


def test_what_came_provisionally_is_right_later(own: Maker, hole: str, tmp_path: Path) -> None:
    """An id that hangs at first and is nothing at last: the name is given out, what is in it is an error."""
    nothing = "zzzzz-4zz18-000000000000000"
    program = ("-c", LAUNCHER, nothing, hole, "3")
    with mounted(
        tmp_path, environment(own.server, own.token), "--by-id", "--debug", program=program
    ) as mount:
        assert (mount.root / nothing).is_dir()
        with pytest.raises(OSError, match="Input/output"):
            os.listdir(mount.root / nothing)
        assert nothing not in os.listdir(mount.root)
        wait_for(lambda: nothing in mount.log, "the log names it")
