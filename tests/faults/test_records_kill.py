"""A process that writes records is killed at a moment of no choice: whatever it acknowledged is there."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from records_world import World

from arvados_fuse.local.records import Records
from arvados_fuse.local.site import SiteConfig

WRITER = """
import sys
from pathlib import Path
from arvados_fuse.local.records import Records
from arvados_fuse.local.site import SiteConfig

directory, token, first = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
records = Records.open(directory / "records.sqlite", SiteConfig.load(directory / "site.json"))
locator = records.signer.sign("acbd18db4cc2f85cedef654fccc4a4d8+3", token)
for number in range(first, first + 100_000):
    body = {"name": f"c{number}", "manifest_text": f". {locator} 0:3:file{number}\\n"}
    made = records.call(token, "collections", "create", {"collection": body})
    changed = records.call(token, "collections", "update", {
        "uuid": made["uuid"],
        "collection": {"preserve_version": True, "name": f"d{number}"},
        "replace_files": {"/copy": f"current/file{number}"},
    })
    print(changed["uuid"], changed["name"], changed["portable_data_hash"], flush=True)
"""


@pytest.mark.parametrize("seed", range(4))
def test_every_acknowledged_record_survives_a_kill(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path)
    world.site.save(tmp_path / "site.json")
    ann = world.person("ann")
    world.close()
    acknowledged: list[list[str]] = []
    choice = random.Random(seed)
    for _ in range(3):
        wanted = len(acknowledged) + choice.randrange(5, 60)
        arguments = [sys.executable, "-c", WRITER, str(tmp_path), ann.token, str(len(acknowledged) * 1000)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for line in writer.stdout:
                acknowledged.append(line.split())
                if len(acknowledged) == wanted:
                    writer.send_signal(signal.SIGKILL)
            # Lines that were in the pipe when it was killed are acknowledged, too; a torn one is not.
            acknowledged = [words for words in acknowledged if len(words) == 3 and "+" in words[2]]
        assert writer.returncode == -signal.SIGKILL
    records = Records.open(tmp_path / "records.sqlite", SiteConfig.load(tmp_path / "site.json"))
    try:
        assert records.check() == []
        assert len(acknowledged) >= 15
        for uuid, name, portable_data_hash in acknowledged:
            found = records.call(ann.token, "collections", "get", {"uuid": uuid})
            assert (found["name"], found["portable_data_hash"]) == (name, portable_data_hash)
            assert found["file_count"] == 2
            assert records.call(ann.token, "collections", "get", {"uuid": portable_data_hash})
        events = [row for row in records.events_after(0, 100_000) if row.event_type == "update"]
        assert {row.object_uuid for row in events} >= {words[0] for words in acknowledged}
    finally:
        records.close()
