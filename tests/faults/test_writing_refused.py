"""The server refuses to save: who asks gets an errno, others go on, the data waits until it is allowed."""

import errno
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults.gate import Ask, Deed
from faults.writing_world import WritingMount, WritingWorld, attempt, rooms, write, writing
from mounting import needs_fuse
from servers import wait_for
from worlds import Maker

__all__ = ["writing"]
pytestmark = needs_fuse


class Shared:
    """A collection of another user, in which ours may write as long as there is a link."""

    def __init__(self, writing: WritingWorld) -> None:
        self.writing = writing
        _, token = writing.server.new_user(f"owner{secrets.token_hex(4)}")
        self.owner = Maker(writing.server, token)
        self.uuid = str(self.owner.collection("shared", {"old": b"old"})["uuid"])
        self.link = ""
        self.allow("can_write")

    def allow(self, name: str) -> None:
        """can_read, can_write, or "" for neither."""
        if self.link:
            path = f"links/{self.link}"
            assert self.writing.server.call("DELETE", path, token=self.owner.token).status == 200
        self.link = ""
        if name:
            self.link = str(
                self.owner.make(
                    "links",
                    link_class="permission",
                    name=name,
                    tail_uuid=self.writing.user,
                    head_uuid=self.uuid,
                )["uuid"]
            )


def synced(path: Path, data: bytes) -> int:
    """The errno of writing a file and syncing it."""
    return attempt(lambda: write(path, data, sync=True))


def refused_and_allowed(
    writing: WritingWorld,
    mount: WritingMount,
    uuid: str,
    *,
    refuse: Callable[[], None],
    allow: Callable[[], None],
    expected: int,
    others: bool = True,
) -> None:
    """Every rule of the game; `others`: whether other collections can be saved meanwhile."""
    other = writing.site.collection({"o": b"o"})
    top, beside = mount.root / uuid, mount.root / other
    assert synced(top / "before", b"before") == 0
    assert (beside / "o").read_bytes() == b"o"
    assert len(os.listdir(top)) == 2
    refuse()
    write(top / "closed", b"closed")
    assert synced(top / "synced", b"synced") == expected
    assert synced(top / "again", b"again") == expected
    assert "not saved" in mount.log
    # Who closes learns it, too; what was written is there all the same.
    assert attempt(lambda: write(top / "later", b"later")) == expected
    for name in ("closed", "synced", "again", "later"):
        assert (top / name).read_bytes() == name.encode()
    assert (top / "before").read_bytes() == b"before"
    if others:
        assert synced(beside / "mine", b"mine") == 0
        assert writing.tree(other) == {"o": b"o", "mine": b"mine"}
    else:
        assert (beside / "o").read_bytes() == b"o"
    assert len(mount.unsaved()) == 1
    allow()
    wanted = {name: name.encode() for name in ("before", "closed", "synced", "again", "later", "old")}
    writing.wait_saved(uuid, wanted, 20)
    assert synced(top / "last", b"last") == 0
    wait_for(lambda: "is saved now" in mount.log, "the log says so")
    assert attempt(lambda: write(top / "last", b"last")) == 0


@pytest.mark.parametrize(("left", "expected"), [("can_read", errno.EACCES), ("", errno.EIO)])
def test_permission_is_taken_and_given_back(writing: WritingWorld, left: str, expected: int) -> None:
    shared = Shared(writing)
    with writing.mount() as mount:
        refused_and_allowed(
            writing,
            mount,
            shared.uuid,
            refuse=lambda: shared.allow(left),
            allow=lambda: shared.allow("can_write"),
            expected=expected,
        )


def test_updates_are_found_invalid(writing: WritingWorld) -> None:
    uuid = writing.site.collection({"old": b"old"})

    def refuse() -> None:
        invalid = Deed(status=422, text="as the administrator wants it")
        writing.gates.api.rule = lambda ask: invalid if ask.changes(uuid) else Deed()

    with writing.mount() as mount:
        refused_and_allowed(
            writing, mount, uuid, refuse=refuse, allow=writing.gates.clear, expected=errno.EIO
        )
        assert "as the administrator wants it" in mount.log


@pytest.mark.parametrize("status", [403, 507])
def test_keep_takes_no_more(writing: WritingWorld, status: int) -> None:
    """Not from this user (403), or from nobody: its disks are full (507)."""
    uuid = writing.site.collection({"old": b"old"})

    def refuse() -> None:
        writing.gates.keep_rule(lambda ask: Deed(status=status if ask.method == "PUT" else 0))

    with writing.mount() as mount:
        refused_and_allowed(
            writing,
            mount,
            uuid,
            refuse=refuse,
            allow=writing.gates.clear,
            expected=errno.EDQUOT if status == 507 else errno.EACCES,
            others=False,
        )
        assert "Keep write error" in mount.log


class Account:
    """The user's token in settings.conf; it can end, and there can be another one."""

    def __init__(self, writing: WritingWorld) -> None:
        self.writing = writing
        self._settings = writing.base / "home/.config/arvados/settings.conf"
        self._settings.parent.mkdir(parents=True)
        self._admin = writing.server.settings.admin_token
        self._last = ""
        self.renew()
        self.environment = {
            **writing.gates.environment(""),
            "ARVADOS_API_HOST": "",
            "HOME": str(writing.base / "home"),
            "XDG_CONFIG_HOME": "",
            "CONFIGURATION_DIRECTORY": "",
        }

    def renew(self) -> None:
        """Write a new one."""
        body = {"api_client_authorization": {"owner_uuid": self.writing.user}}
        made = self.writing.server.call("POST", "api_client_authorizations", body, token=self._admin).body
        self._last = made["uuid"]
        host, token = self.writing.gates.api.host, f"v2/{made['uuid']}/{made['api_token']}"
        self._settings.write_text(f"ARVADOS_API_HOST={host}\nARVADOS_API_TOKEN={token}\n")

    def revoke(self) -> None:
        """The server refuses it from now on."""
        path = f"api_client_authorizations/{self._last}"
        assert self.writing.server.call("DELETE", path, token=self._admin).status == 200


def empty_cache(mount: WritingMount) -> None:
    """Remove all cached blocks."""
    blocks = list(mount.cache.glob("*/*.keepcacheblock"))
    assert blocks
    for path in blocks:
        path.unlink()


@contextmanager
def moving(writing: WritingWorld) -> Iterator[tuple[Account, WritingMount, str, str]]:
    """A mount of one's own account, and two collections: `moved`, which nobody has read, is in the first."""
    account = Account(writing)
    source = writing.site.collection({"moved": b"never read"})
    target = writing.site.collection({"old": b"old"})
    with writing.mount(environment=account.environment) as mount:
        yield account, mount, source, target


def test_the_token_ends_and_there_is_a_new_one(writing: WritingWorld) -> None:
    account = Account(writing)
    uuid = writing.site.collection({"old": b"old"})
    with writing.mount(environment=account.environment) as mount:
        refused_and_allowed(
            writing,
            mount,
            uuid,
            refuse=account.revoke,
            allow=account.renew,
            expected=errno.EACCES,
            others=False,
        )


def test_the_token_ends_while_blocks_are_in_no_cache(writing: WritingWorld) -> None:
    """What was moved is still where it was, and what was written is still where it was written: with the new
    token all is saved, though no block that was stored with the old one can be read any more."""
    account = Account(writing)
    source = writing.site.collection({"moved": b"never read", "d/whole": b"a directory", "stays": b"stays"})
    target = writing.site.collection({"old": b"old"})
    elsewhere = writing.site.collection({})

    def rule(ask: Ask) -> Deed:
        return Deed(status=422, text="not now") if ask.changes(target) else Deed()

    with writing.mount(environment=account.environment) as mount:
        here, there = mount.root / source, mount.root / target
        assert sorted(os.listdir(here)) == ["d", "moved", "stays"]
        writing.gates.api.rule = rule
        with open(there / "open", "wb") as opened:
            opened.write(b"op" * (40 << 20))
            write(there / "written", b"written")
            (here / "moved").rename(there / "moved")
            (here / "d").rename(there / "d")
            write(here / "new", b"new")
            assert attempt(lambda: os.fsync(opened.fileno())) == errno.EIO
            wait_for(lambda: writing.tree(source).get("new") == b"new", "other changes are saved")
            assert writing.tree(source).keys() == {"d/whole", "moved", "new", "stays"}
            assert sorted(os.listdir(here)) == ["new", "stays"]
            assert synced(here / "new", b"newer") == errno.EIO
            account.revoke()
            wait_for(
                lambda: attempt((mount.root / elsewhere).stat) == errno.EACCES, "the old token is refused"
            )
            assert sorted(os.listdir(here)) == ["new", "stays"]
            empty_cache(mount)
            account.renew()
            writing.gates.clear()
            wanted = {
                "d/whole": b"a directory",
                "moved": b"never read",
                "old": b"old",
                "open": b"op" * (40 << 20),
                "written": b"written",
            }
            writing.wait_saved(target, wanted)
            writing.wait_saved(source, {"new": b"newer", "stays": b"stays"})
        assert synced(there / "last", b"last") == 0
        assert (there / "moved").read_bytes() == b"never read"


def test_the_token_ends_while_files_are_moved_both_ways(writing: WritingWorld) -> None:
    """Each of two collections waits until the other has what was moved there; what is moved meanwhile is in
    one of them all the time, too."""
    account = Account(writing)
    source = writing.site.collection({"moved": b"never read"})
    target = writing.site.collection({"back": b"never read either"})
    with writing.mount(environment=account.environment) as mount:
        here, there = mount.root / source, mount.root / target
        writing.gates.api.rule = lambda ask: Deed(status=422 if ask.changes(source) else 0)
        (there / "back").rename(here / "back")
        assert synced(there / "waits", b"for the other") == errno.EIO
        writing.gates.api.rule = lambda ask: Deed(hold=ask.changes(target))
        (here / "moved").rename(there / "moved")
        writing.gates.api.wait_held()
        wait_for(lambda: "back" in writing.tree(source), "what can be saved is saved", 20)
        assert writing.tree(source).keys() == {"back", "moved"}
        account.revoke()
        empty_cache(mount)
        writing.gates.api.drop()
        account.renew()
        writing.gates.clear()
        writing.wait_saved(target, {"moved": b"never read", "waits": b"for the other"}, 20)
        writing.wait_saved(source, {"back": b"never read either"}, 20)


def test_a_file_is_moved_back_while_its_move_is_refused(writing: WritingWorld) -> None:
    """What is asked for with the old token can't be had with the new one, and is not wanted any more: nobody
    is told of a refusal."""
    with moving(writing) as (account, mount, source, target):
        here, there = mount.root / source, mount.root / target
        writing.gates.api.rule = lambda ask: Deed(hold=ask.changes(target))
        (here / "moved").rename(there / "moved")
        write(there / "new", b"new")
        writing.gates.api.wait_held()
        (there / "moved").rename(here / "moved")
        account.revoke()
        empty_cache(mount)
        account.renew()
        writing.gates.clear()
        writing.wait_saved(target, {"old": b"old", "new": b"new"}, 20)
        writing.wait_saved(source, {"moved": b"never read"}, 20)
    assert "it was changed while it was being saved" in mount.log
    assert "can't be saved" not in mount.log


def test_what_was_stored_again_counts_though_the_save_came_to_nothing(writing: WritingWorld) -> None:
    """By the next time its bytes may be gone, as when they made room on a full disk."""
    gate = writing.gates.api
    with moving(writing) as (account, mount, source, target):
        here, there = mount.root / source, mount.root / target
        gate.rule = lambda ask: Deed(status=422 if ask.changes(target) else 0)
        assert synced(there / "a", b"new") == errno.EIO
        gate.rule = lambda ask: Deed(hold=ask.changes(target))
        (here / "moved").rename(there / "moved")  # so its signature is asked for last
        gate.wait_held()
        (there / "moved").rename(here / "moved")
        account.revoke()
        empty_cache(mount)
        account.renew()
        gate.held.pop(0).over.set()
        gate.wait_held()  # the same with the new token
        gate.held.pop(0).over.set()
        wait_for(lambda: "it was changed while it was being saved" in mount.log, "it came to nothing")
        gate.wait_held()
        for spool in mount.cache.rglob("*.spool"):
            os.truncate(spool, 0)
        empty_cache(mount)
        writing.gates.clear()
        writing.wait_saved(target, {"old": b"old", "a": b"new"}, 20)
        writing.wait_saved(source, {"moved": b"never read"}, 20)
    assert "can't be stored again" not in mount.log


def test_a_file_is_moved_back_while_it_is_taken_away(writing: WritingWorld) -> None:
    """It was moved, the other collection has it, and the first one is being told to give it up. Then it is
    moved back: the other one keeps it until the first has it again, for when the token is replaced then."""
    with moving(writing) as (account, mount, source, target):
        here, there = mount.root / source, mount.root / target
        writing.gates.api.rule = lambda ask: Deed(hold=ask.changes(source))
        (here / "moved").rename(there / "moved")
        writing.gates.api.wait_held()
        assert writing.tree(target).keys() == {"old", "moved"}
        (there / "moved").rename(here / "moved")
        saving = threading.Thread(target=synced, args=(there / "new", b"new"))
        saving.start()
        saving.join(2)  # time enough to give it up there too
        writing.gates.api.held.pop(0).over.set()
        writing.gates.api.wait_held()  # the first collection is to get it again
        wait_for(lambda: "new" in writing.tree(target), "what can be saved is saved", 20)
        assert writing.tree(source) == {}
        assert writing.tree(target).keys() == {"old", "new", "moved"}
        account.revoke()
        empty_cache(mount)
        account.renew()
        writing.gates.clear()
        writing.wait_saved(source, {"moved": b"never read"}, 20)
        writing.wait_saved(target, {"old": b"old", "new": b"new"}, 20)
        saving.join(20)
        assert not saving.is_alive()


@pytest.mark.parametrize("is_cached", [True, False])
def test_a_dead_mount_had_another_token(writing: WritingWorld, is_cached: bool) -> None:
    """What it stored was signed for that one, which is refused now; the next mount of the same user saves it
    all the same, also when the block is in no cache."""
    account = Account(writing)
    uuid = writing.site.collection({"old": b"old"})
    writing.gates.api.rule = lambda ask: Deed(hold=ask.changes(uuid))
    mount = writing.begin(environment=account.environment)
    write(mount.root / uuid / "new", b"new")
    writing.gates.api.wait_held()
    mount.kill()
    writing.gates.api.drop()
    if not is_cached:
        empty_cache(mount)
    account.revoke()
    account.renew()
    with writing.mount(environment=account.environment):
        writing.wait_saved(uuid, {"old": b"old", "new": b"new"}, 20)
    assert rooms(mount.cache) == []


def test_a_mount_that_ends_meanwhile_keeps_the_data(writing: WritingWorld) -> None:
    """It says so and ends with an error; the next one saves it once that is allowed."""
    shared = Shared(writing)
    with writing.mount(code=1) as mount:
        assert synced(mount.root / shared.uuid / "new", b"new") == 0
        shared.allow("can_read")
        assert synced(mount.root / shared.uuid / "new", b"newer") == errno.EACCES
    assert "not saved" in mount.log
    assert str(mount.cache) in mount.log
    assert len(rooms(mount.cache)) == 1
    other = writing.site.collection({})
    with writing.mount() as again:
        # What is refused holds up nobody else.
        assert synced(again.root / other / "mine", b"mine") == 0
        assert len(rooms(mount.cache)) == 2
        shared.allow("can_write")
        writing.wait_saved(shared.uuid, {"old": b"old", "new": b"newer"})
