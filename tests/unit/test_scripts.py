"""The programs of `scripts/`: what they need, how they fail, and that the sample is always the same."""

import ast
import hashlib
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
FIRST = [SCRIPTS / name for name in ("bootstrap.py", "setup", "test", "try")]


@pytest.fixture
def bootstrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    module = importlib.import_module("bootstrap")
    monkeypatch.setattr(module, "LOG", tmp_path / "log")
    return module


@pytest.mark.parametrize("path", FIRST, ids=lambda path: path.name)
def test_what_runs_first_needs_the_standard_library_only(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    assert {name.partition(".")[0] for name in imported} <= {*sys.stdlib_module_names, "bootstrap"}


@pytest.mark.parametrize("name", ["test", "try"])
def test_help(name: str) -> None:
    result = subprocess.run([str(SCRIPTS / name), "--help"], capture_output=True, text=True, check=True)
    assert f"usage: scripts/{name}" in result.stdout


def test_try_refuses_a_directory_with_files_before_it_installs_anything(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place, words in ((tmp_path, "is not empty"), (tmp_path / "file", "is a file")):
        result = subprocess.run(
            [str(SCRIPTS / "try"), str(place)], capture_output=True, text=True, check=False, timeout=60
        )
        assert (result.returncode, result.stdout) == (1, "")
        assert words in result.stderr
        assert "Traceback" not in result.stderr


def test_an_old_python_is_told_so(
    bootstrap: Any, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 9, 2))
    assert bootstrap.main(lambda: 0) == 1
    assert "Python 3.10 or later" in capsys.readouterr().err


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_a_step_that_works_says_what_it_does(bootstrap: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bootstrap.run("Making tea", shell("echo boiling"))
    assert capsys.readouterr().out == "==> Making tea\n"
    assert "boiling" in bootstrap.LOG.read_text()


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("E: Temporary failure resolving 'deb.debian.org'", "No network, it seems: Making tea failed"),
        ("Failed to establish a new connection: [Errno 111]", "No network, it seems: Making tea failed"),
        (
            "E: Could not get lock /var/lib/dpkg/lock-frontend",
            "Another program is installing Debian packages",
        ),
        ("OSError: [Errno 28] No space left on device", "The disk is full"),
        ("something else", "Making tea failed (exit code 3)"),
    ],
)
def test_a_step_that_fails_is_one_sentence(
    bootstrap: Any, capsys: pytest.CaptureFixture[str], output: str, sentence: str
) -> None:
    def work() -> int:
        bootstrap.run("Making tea", shell(f'echo "{output}"; exit 3'))
        return 0

    before = os.getcwd()
    try:
        assert bootstrap.main(work) == 1
    finally:
        os.chdir(before)
    shown = capsys.readouterr().err
    assert shown.splitlines()[-1].startswith(sentence)
    assert output in shown


def test_packages_are_asked_for_by_what_is_missing(bootstrap: Any, monkeypatch: Any, tmp_path: Path) -> None:
    # A machine on which no program is found.
    monkeypatch.setattr(bootstrap.shutil, "which", lambda _: None)
    wanted = bootstrap.missing_packages(optional=[("samtools", "samtools")])
    assert {"gcc", "pkg-config", "samtools"} <= set(wanted)
    # One on which every program is found, fusermount3 among them.
    monkeypatch.setattr(
        bootstrap.shutil, "which", lambda name: None if name == "fusermount" else f"/bin/{name}"
    )
    wanted = bootstrap.missing_packages(optional=[("samtools", "samtools")])
    assert not {"gcc", "pkg-config", "samtools", "fuse"} & set(wanted)


def test_without_root_and_sudo_the_command_to_run_is_named(bootstrap: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None if name == "sudo" else f"/bin/{name}")
    with pytest.raises(bootstrap.Failure, match="run this once as root: apt-get install gcc fuse"):
        bootstrap._apt_install(["gcc", "fuse"])


def test_the_genomics_sample_is_the_same_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    genomics: Any = importlib.import_module("genomics")
    monkeypatch.setattr(genomics, "READS", 500)
    monkeypatch.setattr(genomics.shutil, "which", lambda _: None)
    (tmp_path / "a").mkdir()
    assert genomics.make(tmp_path / "a") == ["README.txt", "reads.sam", "reference.fa", "variants.vcf"]
    digests = {
        name: hashlib.md5((tmp_path / "a" / name).read_bytes()).hexdigest()
        for name in ("reference.fa", "variants.vcf")
    }
    assert digests == {
        "reference.fa": "f970f5b03dbe477aa50b9677cfd9933b",
        "variants.vcf": "42e1e74a66da3f58553b2a73f8f7d555",
    }
    lines = (tmp_path / "a" / "reads.sam").read_text().splitlines()
    assert len([line for line in lines if not line.startswith("@")]) == 500
