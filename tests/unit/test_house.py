"""House rules that a program can see."""

import ast
import re
from pathlib import Path

import pytest

from arvados_fuse.cli.parser import make_parser
from arvados_fuse.version import __version__

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "arvados_fuse"
MODULES = sorted(PACKAGE.rglob("*.py"))
PROGRAMS = sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file())


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_can_be_read_in_one_sitting(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400, "more than 400 lines"
    sizes = {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    long = {function: lines for function, lines in sizes.items() if lines > 70}
    assert long == {}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_opens_with_what_it_is_for(path: Path) -> None:
    docstring = ast.get_docstring(parsed(path))
    assert docstring, "no module docstring"
    assert docstring.count("\n") < 15, "more than 15 lines"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_public_classes_and_functions_are_described(path: Path) -> None:
    tree = parsed(path)
    bare = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert bare == []


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_no_blind_handler_swallows_what_it_catches(path: Path) -> None:
    silent = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ExceptHandler):
            kind = "bare" if node.type is None else ast.unparse(node.type)
            if kind in ("bare", "Exception", "BaseException") and all(
                isinstance(step, ast.Pass | ast.Continue | ast.Return) for step in node.body
            ):
                silent.append(f"line {node.lineno}: except {kind}")
    assert silent == []


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_no_star_imports(path: Path) -> None:
    stars = [
        node.lineno
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
    ]
    assert stars == []


def test_every_option_says_what_it_does() -> None:
    parser = make_parser()
    silent = [action.option_strings or action.dest for action in parser._actions if not action.help]
    assert silent == []
    text = parser.format_help()
    hidden = {"--fsns", "--enable-write"}
    for action in parser._actions:
        for option in action.option_strings:
            assert (option in text) is (option not in hidden), option


def test_help_fits_a_terminal() -> None:
    assert [line for line in make_parser().format_help().splitlines() if len(line) > 110] == []


@pytest.mark.parametrize("path", PROGRAMS, ids=name)
def test_programs_in_scripts_are_executable_and_start_with_nothing_but_python(path: Path) -> None:
    if path.suffix not in ("", ".py"):
        pytest.skip("not a program")
    assert path.stat().st_mode & 0o111 or path.suffix == ".py", "not executable"
    assert ast.get_docstring(parsed(path)), "no description at the top"


def test_the_changelog_opens_with_this_version_or_what_is_coming() -> None:
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert first
    assert first.group(1) in (__version__, "Unreleased")


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{name(page)}: {target}")
    assert broken == []
