"""Calls and imports go down: the floors of the package, held by reading every import statement."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "arvados_fuse"

GROUND = {"errors", "options", "reporting", "version"}
MAY_IMPORT = {
    "cli": GROUND | {"fuse", "tree", "collection", "writeback", "api", "keep", "local"},
    "fuse": GROUND | {"tree", "collection", "writeback", "api", "keep"},
    "tree": GROUND | {"writeback", "collection", "api", "keep"},
    "writeback": GROUND | {"collection", "api", "keep"},
    "collection": GROUND | {"api", "keep"},
    "api": GROUND | {"keep"},
    "keep": GROUND | {"api"},
    "local": GROUND,
    "reporting": GROUND,
    "errors": set(),
    "options": GROUND,
    "version": set(),
}
"""For each room, the rooms it may import besides itself."""

WITHOUT_CIRCLES = ["collection"]
"""Rooms whose modules stand on floors of their own; imports for types, and inside of functions, count too."""

ONLY_IN = {"llfuse": {"fuse"}, "arvados": {"api", "keep"}}
"""Outside packages that one floor alone may know."""


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Full names of the modules that a file imports anywhere, relative imports resolved."""
    here = ("arvados_fuse", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else ()
            stem = ".".join((*base, *([node.module] if node.module else [])))
            yield stem, node.lineno
            if PACKAGE.parent.joinpath(*stem.split(".")).is_dir():
                yield from ((f"{stem}.{alias.name}", node.lineno) for alias in node.names)


def test_every_room_has_its_floor() -> None:
    assert {room_of(path) for path in modules()} <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    room = room_of(path)
    wrong = []
    for name, line in imported(path):
        parts = name.split(".")
        if parts[0] == "arvados_fuse" and len(parts) > 1 and parts[1] in MAY_IMPORT:
            if parts[1] != room and parts[1] not in MAY_IMPORT[room]:
                wrong.append(f"line {line}: {room} may not import {name}")
        elif room not in ONLY_IN.get(parts[0], {room}):
            wrong.append(f"line {line}: only {sorted(ONLY_IN[parts[0]])} may import {name}")
    assert wrong == []


@pytest.mark.parametrize("room", WITHOUT_CIRCLES)
def test_no_module_of_the_room_needs_one_that_needs_it(room: str) -> None:
    inside = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (PACKAGE / room).rglob("*.py")
        if path != PACKAGE / room / "__init__.py"
    }
    needs = {name: {each for each, _ in imported(path)} & set(inside) for name, path in inside.items()}
    assert sum(map(len, needs.values())) > len(inside)
    graphlib.TopologicalSorter(needs).prepare()


def test_manifests_know_nothing_of_trees() -> None:
    needs = {
        name.split(".")[2]
        for path in (PACKAGE / "collection" / "manifest").glob("*.py")
        for name, _ in imported(path)
        if name.startswith("arvados_fuse.collection.")
    }
    assert needs == {"manifest", "segments"}


def test_the_package_itself_loads_nothing_but_its_version() -> None:
    allowed = {"importlib", "typing", "arvados_fuse.version"}
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    loaded = {
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert loaded <= allowed
