"""What the trees of the tests show: two users, their projects, collections, links; the same for every
target."""

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from servers import LocalServer

from arvados_fuse.api import ApiSettings
from arvados_fuse.cli.build import MountSession, build
from arvados_fuse.collection.manifest.names import escape
from arvados_fuse.options import MountOptions

PLAIN: dict[str, bytes] = {
    "README.txt": b"hello\n",
    "empty": b"",
    "data/numbers.bin": bytes(range(256)) * 2000,
    "data/with space.txt": b"space\n",
    "data/deep/er/still/end.txt": b"end\n",
    "names/\u00e9\u4e2d\U0001f600.txt": b"unicode\n",
    "names/back\\slash": b"backslash\n",
    "names/new\nline": b"newline\n",
    "names/:colon: *?[x]": b"shell\n",
    "names/...": b"dots\n",
    "names/" + "x" * 255: b"long\n",
}
"""The files of the collection `plain`."""


class World(NamedTuple):
    """uuids and portable data hashes by the names that tests use."""

    server: LocalServer
    user: str
    token: str
    other: str
    other_token: str
    ids: Mapping[str, str]
    spanning: bytes
    """The content of `spanning/file` in the collection `blocks`: it lies in three blocks and several
    ranges."""


class Maker:
    """Makes objects as one user."""

    def __init__(self, server: LocalServer, token: str) -> None:
        self.server = server
        self.token = token

    def block(self, data: bytes) -> str:
        """Store a block; its signed locator."""
        path = f"/{hashlib.md5(data).hexdigest()}"
        answer = self.server.keep("PUT", path, data, token=self.token)
        assert answer.status == 200, answer
        return str(answer.body.decode().strip())

    def manifest(self, files: Mapping[str, bytes]) -> str:
        """A manifest with one block for each file."""
        directories: dict[str, dict[str, bytes]] = {}
        for path, data in files.items():
            directory, _, name = path.rpartition("/")
            directories.setdefault(directory, {})[name] = data
        lines = []
        for directory, inside in sorted(directories.items()):
            blocks, tokens, position = [], [], 0
            for name, data in sorted(inside.items()):
                blocks.append(self.block(data))
                tokens.append(f"{position}:{len(data)}:{escape(name)}")
                position += len(data)
            stream = escape(f"./{directory}" if directory else ".")
            lines.append(f"{stream} {' '.join(blocks)} {' '.join(tokens)}\n")
        return "".join(lines)

    def make(self, resource: str, **attributes: Any) -> dict[str, Any]:
        """Create an object (`collections`, `groups`, `links`)."""
        answer = self.server.call("POST", resource, {resource[:-1]: attributes}, token=self.token)
        assert answer.status == 200, answer
        return dict(answer.body)

    def update(self, resource: str, uuid: str, **attributes: Any) -> dict[str, Any]:
        """Change an object."""
        answer = self.server.call("PUT", f"{resource}/{uuid}", {resource[:-1]: attributes}, token=self.token)
        assert answer.status == 200, answer
        return dict(answer.body)

    def collection(self, name: str, files: Mapping[str, bytes], **attributes: Any) -> dict[str, Any]:
        """A collection with these files."""
        return self.make("collections", name=name, manifest_text=self.manifest(files), **attributes)

    def project(self, name: str, **attributes: Any) -> str:
        """A project; its uuid."""
        made = self.make("groups", **{"group_class": "project", "name": name, **attributes})
        return str(made["uuid"])


def make_world(server: LocalServer) -> World:
    """Two new users and all that the tests look at."""
    tag = secrets.token_hex(4)
    user, token = server.new_user(f"ada{tag}", first_name="Ada", last_name=f"L{tag}")
    other, other_token = server.new_user(f"bob{tag}", first_name="Bob", last_name=f"B{tag}")
    mine, theirs = Maker(server, token), Maker(server, other_token)
    ids: dict[str, str] = {"tag": f"tag{tag}"}

    plain = mine.collection("plain", PLAIN)
    ids |= {"plain": plain["uuid"], "plain_pdh": plain["portable_data_hash"]}
    spanning = _make_blocks(mine, ids)

    ids["project"] = mine.project("project")
    ids["subproject"] = mine.project("sub", owner_uuid=ids["project"])
    ids["inner"] = mine.collection("inner", {"in.txt": b"in\n"}, owner_uuid=ids["project"])["uuid"]
    ids["innermost"] = mine.collection("innermost", {"a": b"a"}, owner_uuid=ids["subproject"])["uuid"]
    ids["filter"] = mine.make(
        "groups",
        name="filtered",
        group_class="filter",
        properties={
            "filters": [
                ["collections.owner_uuid", "=", ids["project"]],
                ["groups.owner_uuid", "=", ids["project"]],
            ]
        },
    )["uuid"]
    ids["loops"] = mine.project("loops")
    mine.make(
        "groups",
        name="loop",
        group_class="filter",
        owner_uuid=ids["loops"],
        properties={
            "filters": [
                ["groups.owner_uuid", "=", ids["loops"]],
                ["collections.owner_uuid", "=", ids["loops"]],
            ]
        },
    )
    ids["odd"] = mine.project("odd names")
    _make_odd_names(mine, ids)
    _make_shared(theirs, user, ids)
    for name, head in (("plain", ids["plain"]), ("project", ids["project"])):
        ids[f"link_{name}"] = mine.make(
            "links", link_class="tag", name=ids["tag"], head_uuid=head, tail_uuid=user
        )["uuid"]
    return World(server, user, token, other, other_token, ids, spanning)


def _make_blocks(mine: Maker, ids: dict[str, str]) -> bytes:
    """A manifest that is not normalized: a stream twice, ranges across blocks, an empty directory."""
    one, two, three = (secrets.token_bytes(200_000) for _ in range(3))
    locators = [mine.block(data) for data in (one, two, three)]
    text = (
        f"./spanning {locators[0]} {locators[1]} 100000:200000:file 0:5:other\n"
        f"./spanning {locators[2]} 10:150000:file\n"
        "./hollow d41d8cd98f00b204e9800998ecf8427e+0 0:0:\\056\n"
    )
    made = mine.make("collections", name="blocks", manifest_text=text)
    ids |= {"blocks": made["uuid"], "blocks_pdh": made["portable_data_hash"]}
    return (one + two)[100000:300000] + three[10:150010]


def _make_odd_names(mine: Maker, ids: dict[str, str]) -> None:
    """Names that can't be file names, or that are taken twice once they are."""
    for name in ("a/b", "a_b", "..", "."):
        ids[f"odd {name}"] = mine.collection(name, {"name": name.encode()}, owner_uuid=ids["odd"])["uuid"]
    ids["odd twin"] = mine.collection("twin", {"name": b"twin"}, owner_uuid=ids["odd"])["uuid"]
    ids["odd twin project"] = mine.project("twin", owner_uuid=ids["odd"])


def _make_shared(theirs: Maker, user: str, ids: dict[str, str]) -> None:
    """A project of the other user, which he lets the first one read, and a private one."""
    ids["shared"] = theirs.project("shared project")
    ids["secret"] = theirs.project("secret project")
    theirs.collection("gift", {"gift.txt": b"for you\n"}, owner_uuid=ids["shared"])
    private = theirs.collection("private", {"p.txt": b"not for you\n"}, owner_uuid=ids["secret"])
    ids["private"] = private["uuid"]
    ids["private_pdh"] = private["portable_data_hash"]
    theirs.make("links", link_class="permission", name="can_read", tail_uuid=user, head_uuid=ids["shared"])


def environment(server: LocalServer, token: str) -> dict[str, str]:
    """What points our programs at the server as one user."""
    return {**server.settings.environment(), "ARVADOS_API_TOKEN": token}


@contextmanager
def session(
    server: LocalServer, token: str, cache: Path, *, deadline: float = 30.0, **options: Any
) -> Iterator[MountSession]:
    """A mount's floors, wired as the command does it, but without a kernel, and without events unless asked
    for."""
    options = {"listen_events": False, **options}
    settings = ApiSettings.load(environment(server, token))
    settings = ApiSettings(**{**vars(settings), "deadline": deadline})
    built = build(MountOptions(mount_dir=cache, disk_cache_dir=cache, **options), settings)
    try:
        built.start()
        yield built
        built.filesystem.check()
    finally:
        built.close()


@pytest.fixture
def mine(local_server: LocalServer) -> Maker:
    """A user of the test's own, with nothing in the home project."""
    return Maker(local_server, local_server.new_user(f"user{secrets.token_hex(4)}")[1])


@pytest.fixture(scope="session")
def world(local_server: LocalServer) -> World:
    """Made once and not changed: tests that change something do it as `mine`."""
    return make_world(local_server)
