"""Half a minute of the soak run (benchmarks/soak.py): a verified load under faults dealt from a seed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mounting import needs_fuse
from servers import PROJECT

pytestmark = needs_fuse

SEED = os.environ.get("ARVADOS_FUSE_SEED", "4")
MINUTES = os.environ.get("ARVADOS_FUSE_SOAK", "0.5")


@pytest.mark.timeout(600)
def test_half_a_minute_of_faults(tmp_path: Path) -> None:
    """Nothing is lost, wrong, stuck or left; the report says what was done."""
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", MINUTES, "--seed", SEED]
    command += ["--output", str(tmp_path), "--scratch", str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    report = json.loads((tmp_path / "soak.json").read_text())
    assert report["problems"] == []
    assert sum(fault["count"] for fault in report["faults"].values()) >= 3
    assert all(report["load"]["steps"].values()), "each program did something"
    assert set(report["verified"]) == {"mount", "API"}
    assert report["verified"]["mount"] == report["verified"]["API"]
    assert report["verified"]["mount"]["files"] > 70
    assert "clean" in (tmp_path / "soak.txt").read_text()
    assert not list(tmp_path.glob("soak-*")), "nothing is left"
