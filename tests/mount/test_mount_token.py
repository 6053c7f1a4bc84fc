"""A token ends while the mount lives, and another one is written into settings.conf."""

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from mounting import Mounted, drop_kernel_caches, mounted, needs_fuse
from servers import LocalServer, wait_for
from worlds import Maker, environment

pytestmark = needs_fuse


class Account:
    """A user, whose token is in a settings.conf."""

    def __init__(self, server: LocalServer, home: Path) -> None:
        self.server = server
        self.home = home
        self.uuid, token = server.new_user(f"user{secrets.token_hex(4)}")
        self.maker = Maker(server, token)
        self.token = self.new_token()

    def new_token(self) -> str:
        body = {"api_client_authorization": {"owner_uuid": self.uuid}}
        made = self.server.call(
            "POST", "api_client_authorizations", body, token=self.server.settings.admin_token
        ).body
        token = f"v2/{made['uuid']}/{made['api_token']}"
        path = self.home / ".config/arvados/settings.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"ARVADOS_API_HOST={self.server.settings.host}\nARVADOS_API_TOKEN={token}\n")
        return token

    def revoke(self) -> None:
        path = f"api_client_authorizations/{self.token.split('/')[1]}"
        assert self.server.call("DELETE", path, token=self.server.settings.admin_token).status == 200

    def environment(self) -> dict[str, str]:
        variables = environment(self.server, "")
        for name in ("ARVADOS_API_TOKEN", "ARVADOS_API_HOST"):
            variables.pop(name, None)
        return {**variables, "HOME": str(self.home), "XDG_CONFIG_HOME": "", "CONFIGURATION_DIRECTORY": ""}


@pytest.fixture
def account(local_server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Account:
    for name in ("ARVADOS_API_TOKEN", "ARVADOS_API_HOST"):
        monkeypatch.delenv(name, raising=False)
    return Account(local_server, tmp_path / "home")


def answers(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except OSError:
        return False


def refused(mount: Mounted) -> bool:
    """Whether what is not cached is refused now."""
    try:
        (mount.root / f"no such {secrets.token_hex(4)}").stat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def test_a_new_token_is_taken_everywhere(account: Account, tmp_path: Path) -> None:
    """API, blocks under new signatures, events; also for a file that stays open."""
    mine = account.maker
    data = {f"f{number}": secrets.token_bytes(300_000) for number in range(3)}
    uuid = mine.collection("c", data)["uuid"]
    with mounted(tmp_path, account.environment(), "--home", "--debug", "--refresh-time", "3600") as mount:
        wait_for(lambda: "Events: connected" in mount.log, "events arrive")
        opened = open(mount.root / "c/f0", "rb")  # noqa: SIM115
        with opened:
            assert opened.read(10) == data["f0"][:10]
            account.revoke()
            wait_for(lambda: refused(mount), "the old token is refused")
            account.token = account.new_token()
            wait_for(
                lambda: answers(lambda: (mount.root / "c/f1").read_bytes() == data["f1"]), "a new file", 20
            )
            drop_kernel_caches()
            assert opened.seek(0) == 0
            assert opened.read() == data["f0"]
        wait_for(lambda: mount.log.count("Events: connected") >= 2, "events arrive again", 40)
        mine.update("collections", uuid, manifest_text=mine.manifest({"added": b"x"}))
        wait_for(lambda: answers((mount.root / "c/added").exists), "changes show again", 5)
        secret = account.token.rpartition("/")[2]
        assert secret not in mount.log
        assert "new one in the settings" in mount.log
