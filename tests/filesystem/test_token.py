"""Writing blocks goes on with a new token, as reading does."""

import secrets
from pathlib import Path

from servers import LocalServer, wait_for
from worlds import environment

from arvados_fuse.api import ApiSettings
from arvados_fuse.cli.build import build
from arvados_fuse.errors import ArvadosFuseError
from arvados_fuse.options import MountOptions


def new_token(server: LocalServer, user: str, home: Path) -> str:
    admin = server.settings.admin_token
    made = server.call(
        "POST", "api_client_authorizations", {"api_client_authorization": {"owner_uuid": user}}, token=admin
    ).body
    token = f"v2/{made['uuid']}/{made['api_token']}"
    path = home / ".config/arvados/settings.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"ARVADOS_API_HOST={server.settings.host}\nARVADOS_API_TOKEN={token}\n")
    return token


def test_blocks_are_written_with_the_new_token(local_server: LocalServer, tmp_path: Path) -> None:
    user, _ = local_server.new_user(f"user{secrets.token_hex(4)}")
    old = new_token(local_server, user, tmp_path)
    variables = {**environment(local_server, ""), "ARVADOS_API_HOST": "", "HOME": str(tmp_path)}
    built = build(
        MountOptions(mount_dir=tmp_path, disk_cache_dir=tmp_path / "cache", listen_events=False),
        ApiSettings.load(variables),
    )
    try:
        built.start()
        blocks = built.filesystem.context.blocks
        assert blocks.put(b"before")
        path = f"api_client_authorizations/{old.split('/')[1]}"
        assert local_server.call("DELETE", path, token=local_server.settings.admin_token).status == 200

        def stored() -> bool:
            try:
                return bool(blocks.put(secrets.token_bytes(100)))
            except ArvadosFuseError:
                return False

        wait_for(lambda: not stored(), "Keep has heard that the token has ended")
        new_token(local_server, user, tmp_path)
        wait_for(stored, "the new token is used", 20)
    finally:
        built.close()
