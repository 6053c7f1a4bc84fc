"""What tests of writing compare: a tree as its mount shows it, as a later mount does, as the server has it.

`Bench` is what one test works with: a collection of its own on a tree that can be changed.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from collection_oracle import sdk_collection, sdk_tree
from drivers import WritingDriver, read, walk, write
from worlds import Maker

Tree = Mapping[str, bytes | None]
"""Paths and what is in the files; None for a directory, which need not be named when it holds something."""


def with_directories(tree: Tree) -> dict[str, bytes | None]:
    """The same with every directory named."""
    result: dict[str, bytes | None] = dict(tree)
    for path in tree:
        while path := path.rpartition("/")[0]:
            result.setdefault(path, None)
    return result


def shown(driver: WritingDriver, path: str) -> dict[str, bytes | None]:
    """What a tree shows below `path`; each size that is told is looked at."""
    found: dict[str, bytes | None] = {}
    prefix = f"{path}/" if path else ""
    for below, told in walk(driver, path):
        data = None if told.is_dir else read(driver, below)
        assert data is None or len(data) == told.size, f"{below}: {told.size} told, {len(data)} read"
        found[below.removeprefix(prefix)] = data
    return found


class _Keep:
    """For the SDK's collection: blocks of the server, asked for with the signatures of the manifest."""

    num_prefetch_threads = 0

    def __init__(self, user: Maker) -> None:
        self._user = user
        self._had: dict[str, bytes] = {}

    def get(self, locator: str, **_: Any) -> bytes:
        if locator not in self._had:
            self._had[locator] = self._ask(locator)
        return self._had[locator]

    def _ask(self, locator: str) -> bytes:
        server, token = self._user.server, self._user.token
        for service in range(len(server.settings.keep_services)):
            answer = server.keep("GET", f"/{locator}", token=token, service=service)
            if answer.status == 200:
                break
        assert answer.status == 200, (locator, answer)
        return bytes(answer.body)

    get_from_cache = get

    def block_prefetch(self, *_: Any, **__: Any) -> None:
        """Nothing to be gained."""


def sdk_reads(user: Maker, manifest: str) -> dict[str, bytes | None]:
    """What the SDK finds in a manifest."""
    return sdk_tree(sdk_collection(manifest, _Keep(user)))  # type: ignore[arg-type]


def record_of(user: Maker, uuid: str) -> dict[str, Any]:
    """A collection's record."""
    answer = user.server.call("GET", f"collections/{uuid}", token=user.token)
    assert answer.status == 200, answer
    return dict(answer.body)


def compare(found: Tree, expected: Tree, where: str) -> None:
    """Assert that two trees are equal; long contents are not shown."""
    wanted = with_directories(expected)
    assert sorted(found) == sorted(wanted), (
        f"{where}: missing {sorted(wanted.keys() - found)}, too much {sorted(found.keys() - wanted)}"
    )
    for path, data in wanted.items():
        if found[path] != data:
            got = found[path]
            sizes = [None if one is None else len(one) for one in (got, data)]
            raise AssertionError(f"{where}: {path!r} is {sizes[0]} bytes, expected {sizes[1]}: {got!r:.80}")


class Target(NamedTuple):
    """One way to get at a tree.

    user: whose tree it is; it has the default layout. forget: drops what can be had again. check: invariants.
    anew: looks at a collection with another mount. resting: no working copies while the context lasts.
    """

    user: Maker
    driver: WritingDriver
    forget: Callable[["Bench"], None]
    check: Callable[[], None]
    anew: Callable[["Bench", Tree], None]
    resting: Callable[[], Any]


class Bench:
    """A collection of one test."""

    def __init__(self, target: Target, files: Mapping[str, bytes] | None = None) -> None:
        self.target = target
        self.user = target.user
        self.driver = target.driver
        self.uuid = str(self.user.collection(secrets.token_hex(8), files or {})["uuid"])

    def project(self, **attributes: Any) -> tuple[str, str]:
        """A new project of the same user: its uuid, and where it is on the tree."""
        uuid = self.user.project(secrets.token_hex(8), **attributes)
        return uuid, f"by_id/{uuid}"

    def __truediv__(self, path: str) -> str:
        """Where a path of the collection is on the tree."""
        return f"by_id/{self.uuid}/{path}" if path else f"by_id/{self.uuid}"

    def write(self, path: str, data: bytes) -> None:
        write(self.driver, self / path, data)

    def read(self, path: str) -> bytes:
        return read(self.driver, self / path)

    def save(self) -> dict[str, Any]:
        """Everything as it is now is on the server; the record, as the mount tells it."""
        told: dict[str, Any] = json.loads(read(self.driver, self / ".arvados#collection"))
        return told

    def expect(self, tree: Tree, *, sdk: bool = True) -> None:
        """This is in the collection, however one looks; `sdk`: by the SDK too."""
        self.expect_here(tree)
        told = self.save()
        if sdk:
            self.expect_saved(tree)
        assert told["portable_data_hash"] == record_of(self.user, self.uuid)["portable_data_hash"]
        compare(shown(self.driver, self / ""), tree, "after it was saved")
        with self.target.resting():
            compare(shown(self.driver, self / ""), tree, "as the server has it")
        self.target.check()
        self.target.anew(self, tree)

    def expect_here(self, tree: Tree) -> None:
        """The mount shows this, also when it had to forget."""
        compare(shown(self.driver, self / ""), tree, "at once")
        self.target.check()
        self.target.forget(self)
        compare(shown(self.driver, self / ""), tree, "after dropped caches")
        self.target.check()

    def expect_saved(self, tree: Tree) -> None:
        """The SDK reads this from the server's manifest."""
        manifest = str(record_of(self.user, self.uuid)["manifest_text"])
        compare(sdk_reads(self.user, manifest), tree, "the SDK, from the server")
