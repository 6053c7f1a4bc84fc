"""A data directory of another build: what can't be read is told when the server starts, in one sentence."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from servers import PROJECT, LocalServer, wait_for

from arvados_fuse.errors import SetupError
from arvados_fuse.local.control import ensure_running


def change(data: Path, script: str) -> None:
    connection = sqlite3.connect(data / "records.sqlite")
    try:
        connection.executescript(script)
    finally:
        connection.close()


def test_a_directory_that_is_too_old(fresh_server: LocalServer) -> None:
    fresh_server.stop()
    change(fresh_server.data_dir, "ALTER TABLE links DROP COLUMN properties;")
    with pytest.raises(SetupError, match=r"an older version made them.*\(links has no column properties\)"):
        ensure_running(fresh_server.data_dir)
    command = [sys.executable, "-m", "arvados_fuse.local", "serve", "--data-dir", str(fresh_server.data_dir)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "use another --data-dir, or move this one away" in done.stderr


def test_a_running_server_removes_old_events_at_its_start(fresh_server: LocalServer) -> None:
    for name in ("a", "b"):
        fresh_server.call("POST", "collections", {"collection": {"name": name, "manifest_text": ""}})
    fresh_server.stop()
    change(fresh_server.data_dir, "UPDATE logs SET created_at = '2001-01-01T00:00:00.000000Z'")
    fresh_server.start()

    def kept() -> int:
        token = fresh_server.settings.admin_token
        answer = fresh_server.call("GET", "logs?count=none&limit=1000", token=token)
        return sum(item["created_at"] < "2002" for item in answer.body["items"])

    # Registering services may have written newer ones; of the old ones the newest may be the newest of all.
    wait_for(lambda: kept() <= 1, "old events are gone")
