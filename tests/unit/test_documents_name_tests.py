"""docs/semantics.md says which test proves what: those tests are there, and every paragraph has one."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "semantics.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`([\w/]+\.py(?:::\w+)?)`", PAGE)))


def names(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}


@pytest.mark.parametrize("named", NAMED)
def test_what_is_named_is_there(named: str) -> None:
    file, _, name = named.partition("::")
    path = ROOT / "tests" / file
    assert path.is_file()
    assert not name or name in names(path)


def test_every_promise_names_its_proof() -> None:
    promises = PAGE.strip().split("\n\n")[2:]
    bare = [
        text
        for text in promises
        if not text.startswith(("#", "| errno", "With `--read-write`"))
        and not re.search(r"`[\w/]+\.py", text)
    ]
    assert bare == []
    assert len(NAMED) > 80
