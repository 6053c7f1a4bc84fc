"""The form of messages, where they go, and what never gets into them."""

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from arvados_fuse.cli import logs
from arvados_fuse.errors import SetupError

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger(logs.ROOT)
    before = (list(root.handlers), root.level, root.propagate)
    yield
    for handler in root.handlers:
        if handler not in before[0]:
            handler.close()
    root.handlers[:], root.propagate = before[0], before[2]
    root.setLevel(before[1])


def test_the_form_is_that_of_3_2_1(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(None, debug=False)
    logging.getLogger("arvados.keep").error("Block not found error: %s", "x")
    logging.getLogger("arvados.keep").debug("not shown")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d arvados\.keep\[\d+\] ERROR: Block not found error: x\n",
        capsys.readouterr().err,
    )


def test_debug_shows_more(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(None, debug=True).debug("here")
    assert "arvados.arv-mount[" in capsys.readouterr().err


def test_a_log_file_takes_everything_and_is_appended_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "log"
    logs.configure(file, debug=False).info("one")
    logs.configure(file, debug=False).info("two")
    assert [line.rpartition(" ")[2] for line in file.read_text().splitlines()] == ["one", "two"]
    assert capsys.readouterr().err == ""


def test_a_handler_that_a_library_left_does_not_repeat_messages(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger(logs.ROOT).addHandler(logging.StreamHandler())
    logs.configure(None, debug=False).info("once")
    assert capsys.readouterr().err.count("once") == 1


def test_a_log_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"the log file .*/no/log can't be opened .*--logfile"):
        logs.configure(tmp_path / "no" / "log", debug=False)


def test_secrets_are_blanked_even_in_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logs.configure(None, debug=False, secrets=["v2/zzzzz-gj3su-0/s3cret", "s3cret", ""])
    try:
        raise ValueError("refused s3cret")
    except ValueError:
        logger.exception("with %s", "v2/zzzzz-gj3su-0/s3cret")
    text = capsys.readouterr().err
    assert "s3cret" not in text
    assert "with [token]" in text
    assert "ValueError: refused [token]" in text


class TestOneSentence:
    def logged(self, debug: bool, patience: float, fails: bool) -> str:
        program = (
            "import logging, sys\n"
            "from arvados_fuse.cli import logs\n"
            f"logs.configure(None, {debug})\n"
            "try:\n"
            f"    with logs.one_sentence({patience}):\n"
            "        logging.getLogger('arvados.keep').warning('inside')\n"
            f"        if {fails}: raise ValueError\n"
            "except ValueError: pass\n"
            "logging.getLogger('arvados.keep').warning('after')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return " ".join(line.rpartition(": ")[2] for line in done.stderr.splitlines())

    @pytest.mark.parametrize(
        ("debug", "patience", "fails", "seen"),
        [
            (False, 60.0, True, "after"),
            (False, 60.0, False, "inside after"),
            (False, 0.0, True, "inside after"),
            (True, 60.0, True, "inside after"),
        ],
    )
    def test_what_is_seen(self, debug: bool, patience: float, fails: bool, seen: str) -> None:
        assert self.logged(debug, patience, fails) == seen
