"""Every message that the command can print is in docs/troubleshooting.md, with what to do."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "arvados_fuse"
FROM = [
    *sorted((PACKAGE / "cli").glob("*.py")),
    PACKAGE / "fuse" / "unmount.py",
    PACKAGE / "fuse" / "session.py",
    PACKAGE / "fuse" / "notify.py",
    PACKAGE / "tree" / "layout.py",
    PACKAGE / "api" / "settings.py",
    PACKAGE / "local" / "control.py",
]
TELLING = {
    "SetupError",
    "UsageError",
    "argparse.ArgumentTypeError",
    "Refused",
    "StillMounted",
    "NotMounted",
    "DoesNotListen",
    "BadAnswer",
    "logger.warning",
    "logger.error",
}
"""Exceptions and calls whose text a person sees."""
TO_PROGRAMS = {
    "there is no … directory",  # only a mistake of ours could bring them up
    "… is not a directory",
}


def told(path: Path) -> Iterator[str]:
    """The texts, with … for what is filled in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Call)
            and node.args
            and (ast.unparse(node.func) in TELLING or complains(node))
        ):
            text = re.sub(r"%[sd]|%\.1f", "…", plain(node.args[0])).removeprefix("arv-mount: ")
            if text.replace("…", "").strip():
                yield text


def complains(call: ast.Call) -> bool:
    """Whether it prints to standard error."""
    to = {word.arg: ast.unparse(word.value) for word in call.keywords}
    return ast.unparse(call.func) == "print" and to.get("file") == "sys.stderr"


def plain(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(plain(value) if isinstance(value, ast.Constant) else "…" for value in node.values)
    return "…"


MESSAGES = sorted({text for path in FROM for text in told(path)} - TO_PROGRAMS)


def form(text: str) -> str:
    """Blanks and marks do not count."""
    return re.sub(r"[\s`…]+", " ", text).strip()


PAGE = form((ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"))


def test_messages_are_found() -> None:
    assert len(MESSAGES) > 50
    assert any("mkdir -p" in message for message in MESSAGES)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_is_explained(message: str) -> None:
    if message == "the option … …":  # its two ends are chosen by a condition
        message = "the option … takes no value"
    parts = [form(part) for part in message.split("…")]
    missing = [part for part in parts if len(part) > 3 and part not in PAGE]
    assert missing == [], "say in docs/troubleshooting.md what it means and what to do"
