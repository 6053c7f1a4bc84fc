"""Where the settings come from."""

from pathlib import Path

import pytest

from arvados_fuse.api import ApiSettings
from arvados_fuse.errors import SetupError

TOKEN = "v2/zzzzz-gj3su-000000000000000/secretsecretsecret"


def conf(directory: Path, text: str) -> None:
    directory.mkdir(parents=True)
    (directory / "settings.conf").write_text(text)


def test_from_the_environment(tmp_path: Path) -> None:
    settings = ApiSettings.load(
        {
            "HOME": str(tmp_path),
            "ARVADOS_API_HOST": "https://cluster.example:8443/",
            "ARVADOS_API_TOKEN": TOKEN,
            "ARVADOS_API_HOST_INSECURE": "Yes",
            "ARVADOS_KEEP_SERVICES": "http://keep0:25107 https://keep1/",
        }
    )
    assert settings.host == "cluster.example:8443"
    assert settings.token == TOKEN
    assert settings.insecure
    assert settings.keep_services == ("http://keep0:25107", "https://keep1/")


def test_from_the_users_file(tmp_path: Path) -> None:
    conf(
        tmp_path / ".config/arvados",
        f"# mine\nARVADOS_API_HOST=cluster.example\n\nARVADOS_API_TOKEN={TOKEN}=x=y\n",
    )
    settings = ApiSettings.load({"HOME": str(tmp_path)})
    assert settings.host == "cluster.example"
    assert settings.token == f"{TOKEN}=x=y"
    assert not settings.insecure


def test_the_environment_comes_first(tmp_path: Path) -> None:
    conf(tmp_path / "arvados", f"ARVADOS_API_HOST=file.example\nARVADOS_API_TOKEN={TOKEN}\n")
    environment = {"HOME": "/nowhere", "XDG_CONFIG_HOME": str(tmp_path), "ARVADOS_API_HOST": "env.example"}
    settings = ApiSettings.load(environment)
    assert (settings.host, settings.token) == ("env.example", TOKEN)


def test_systemd_comes_before_the_user(tmp_path: Path) -> None:
    conf(tmp_path / "service", f"ARVADOS_API_HOST=service.example\nARVADOS_API_TOKEN={TOKEN}\n")
    conf(tmp_path / ".config/arvados", f"ARVADOS_API_HOST=user.example\nARVADOS_API_TOKEN={TOKEN}\n")
    environment = {"HOME": str(tmp_path), "CONFIGURATION_DIRECTORY": str(tmp_path / "service")}
    assert ApiSettings.load(environment).host == "service.example"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    empty = {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path)}
    with pytest.raises(SetupError, match="ARVADOS_API_HOST and ARVADOS_API_TOKEN not set"):
        ApiSettings.load(empty)
    with pytest.raises(SetupError, match=r"^ARVADOS_API_TOKEN not set"):
        ApiSettings.load({**empty, "ARVADOS_API_HOST": "x"})


def test_the_token_is_not_shown() -> None:
    assert "secret" not in repr(ApiSettings(host="x", token=TOKEN))


def test_the_certificates(tmp_path: Path) -> None:
    mine = tmp_path / "ca.pem"
    mine.touch()
    base = {"HOME": str(tmp_path), "ARVADOS_API_HOST": "x", "ARVADOS_API_TOKEN": TOKEN}
    assert ApiSettings.load({**base, "SSL_CERT_FILE": str(mine)}).ca_file == str(mine)
    assert ApiSettings.load({**base, "SSL_CERT_FILE": str(mine)}).ca_file_missing == ""
    assert ApiSettings.load({**base, "SSL_CERT_FILE": "/nowhere"}).ca_file != "/nowhere"
    assert ApiSettings.load({**base, "SSL_CERT_FILE": "/nowhere"}).ca_file_missing == "/nowhere"
