"""What is made from the options says the same as the parser: manual page, docs/options.md, completion."""

import importlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from arvados_fuse.cli.described import Option, options
from arvados_fuse.cli.parser import make_parser

ROOT = Path(__file__).parents[3]
VISIBLE = [option for option in options() if not option.hidden]


@pytest.fixture
def documents(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("documents")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_they_are_up_to_date(documents: Any) -> None:
    assert documents.stale() == [], "run: make docs"


def test_the_parser_has_no_other_options() -> None:
    described = {name for option in options() for name in option.names}
    assert described == {name for action in make_parser()._actions for name in action.option_strings}
    assert {"--fsns", "--enable-write"} <= described - {name for option in VISIBLE for name in option.names}


@pytest.mark.parametrize("option", VISIBLE, ids=lambda option: option.name)
def test_every_option_and_default_is_everywhere(option: Option) -> None:
    manual = text("docs/arv-mount.1").replace("\\-", "-").replace("\\fB", "").replace("\\fR", "")
    name = option.names[-1]
    assert re.search(rf"^(-\w, )?{re.escape(name)}( |$)", manual, re.MULTILINE)
    (row,) = [line for line in text("docs/options.md").splitlines() if f"`{name}`" in line.split(" | ")[0]]
    text_, default = row.removesuffix(" |").split(" | ")[1:]
    assert default.startswith(option.default)
    assert "(default" not in text_
    for completion in ("completion/arv-mount", "completion/_arv-mount"):
        assert re.search(rf"{re.escape(name)}\b", text(completion))
    assert f" -l {option.name}" in text("completion/arv-mount.fish")
    if option.default not in ("", "0") or option.name in ("file-cache", "crunchstat-interval"):
        assert f"default {option.default}" in option.help


def test_groff_has_nothing_against_the_manual_page() -> None:
    if not shutil.which("groff"):
        pytest.skip("no groff")
    command = ["groff", "-man", "-Tascii", "-ww", "-z", str(ROOT / "docs/arv-mount.1")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def completed(*words: str, directory: Path) -> list[str]:
    """What bash would offer for the last word."""
    line = " ".join(f"'{word}'" for word in words)
    script = (
        f"source '{ROOT}/completion/arv-mount'; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
        '_arv_mount; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=directory, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_completion_in_bash(tmp_path: Path) -> None:
    if not shutil.which("bash"):
        pytest.skip("no bash")
    (tmp_path / "mnt").mkdir()
    (tmp_path / "log").write_text("")
    assert completed("arv-mount", "--by-", directory=tmp_path) == ["--by-id", "--by-pdh", "--by-tag"]
    assert completed("arv-mount", "--home", "", directory=tmp_path) == ["mnt"]
    assert completed("arv-mount", "--logfile", "l", directory=tmp_path) == ["log"]
    assert completed("arv-mount", "--logfile", "=", "l", directory=tmp_path) == ["log"]
    assert completed("arv-mount", "--disk-cache-dir", "", directory=tmp_path) == ["mnt"]
    assert completed("arv-mount", "--retries", "", directory=tmp_path) == []
    assert "true" in completed("arv-mount", "mnt", "--exec", "tru", directory=tmp_path)
    assert completed("arv-mount", "mnt", "--exec", "cat", "l", directory=tmp_path) == ["log"]


@pytest.mark.parametrize(
    ("shell", "name"),
    [("bash", "arv-mount"), ("zsh", "_arv-mount"), ("fish", "arv-mount.fish")],
)
def test_shells_can_read_their_completion(shell: str, name: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"no {shell}")
    command = [shell, "-n", str(ROOT / "completion" / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
