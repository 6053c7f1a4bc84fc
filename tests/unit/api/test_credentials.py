"""A token that is refused, and the settings where another may be."""

import threading
from pathlib import Path

import pytest

from arvados_fuse.api import ApiSettings, credentials
from arvados_fuse.api.credentials import Credentials


def write(home: Path, token: str, host: str = "a.example") -> None:
    path = home / ".config/arvados/settings.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"ARVADOS_API_HOST={host}\nARVADOS_API_TOKEN={token}\n")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Credentials:
    monkeypatch.setattr(credentials, "PAUSE", 0.0)
    write(tmp_path, "old")
    return Credentials(ApiSettings.load({"HOME": str(tmp_path)}))


def test_a_new_token_is_taken(made: Credentials, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert made.token == "old"
    write(tmp_path, "new")
    assert made.token == "old", "nobody refused it"
    assert made.renew("old")
    assert made.token == "new"
    assert "new one in the settings" in caplog.text
    assert "old" not in caplog.text.replace("token; going", "")
    write(tmp_path, "newest")
    assert made.renew("old"), "for one who was slow: there is a new one already"
    assert made.token == "new"


def test_the_same_is_none(made: Credentials, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        assert not made.renew("old")
    assert len(caplog.records) == 1
    assert "a new one there" in caplog.text


@pytest.mark.parametrize("text", ["", "ARVADOS_API_HOST=a.example\n", "\x00\xff"])
def test_half_a_file(made: Credentials, tmp_path: Path, text: str) -> None:
    (tmp_path / ".config/arvados/settings.conf").write_text(text)
    assert not made.renew("old")
    write(tmp_path, "new")
    assert made.renew("old")


def test_a_file_that_is_gone(made: Credentials, tmp_path: Path) -> None:
    (tmp_path / ".config/arvados/settings.conf").unlink()
    assert not made.renew("old")


def test_another_cluster_does_not_get_in(made: Credentials, tmp_path: Path) -> None:
    write(tmp_path, "new", host="b.example")
    assert not made.renew("old")
    assert made.token == "old"


def test_the_environment_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "new")
    given = {"HOME": str(tmp_path), "ARVADOS_API_TOKEN": "old", "ARVADOS_API_HOST": "a.example"}
    made = Credentials(ApiSettings.load(given))
    assert not made.renew("old")
    assert "mount again" in caplog.text


def test_a_file_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes before what the environment says itself, and is read again."""
    monkeypatch.setattr(credentials, "PAUSE", 0.0)
    path = tmp_path / "service.env"
    path.write_text("ARVADOS_API_TOKEN=old\n")
    given = {
        "ARVADOS_API_HOST": "a.example",
        "ARVADOS_API_TOKEN": "other",
        "ARVADOS_MOUNT_SETTINGS": str(path),
    }
    made = Credentials(ApiSettings.load(given))
    assert made.token == "old"
    told: list[str] = []
    made.tell = told.append
    assert not made.renew("old")
    path.write_text("ARVADOS_API_TOKEN=new\n")
    assert made.renew("old")
    assert made.token == "new"
    assert told == ["new"]


def test_a_named_file_that_may_not_be_read(tmp_path: Path) -> None:
    given = {
        "ARVADOS_API_HOST": "a.example",
        "ARVADOS_API_TOKEN": "other",
        "ARVADOS_MOUNT_SETTINGS": str(tmp_path / "missing"),
    }
    settings = ApiSettings.load(given)
    assert settings.token == "other"
    assert not settings.is_renewable


def test_not_at_every_refusal(tmp_path: Path) -> None:
    write(tmp_path, "old")
    made = Credentials(ApiSettings.load({"HOME": str(tmp_path)}))
    assert not made.renew("old")
    write(tmp_path, "new")
    assert not made.renew("old"), "it was just looked at"


def test_many_at_once(made: Credentials, tmp_path: Path) -> None:
    write(tmp_path, "new")
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(made.renew("old"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 20


def test_settings_hide_what_they_were_made_from(tmp_path: Path) -> None:
    settings = ApiSettings.load({"ARVADOS_API_TOKEN": "secret", "ARVADOS_API_HOST": "a.example"})
    assert "secret" not in repr(settings)
