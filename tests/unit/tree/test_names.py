"""Names in Arvados and names in a directory."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_fuse.errors import IllegalName
from arvados_fuse.tree.names import KERNEL_NAME_MAX, Names


def matches(condition: list[object], name: str) -> bool:
    """What the API server does with a filter on names."""
    operator, operand = condition
    if operator == "in":
        assert isinstance(operand, list)
        return name in operand
    assert isinstance(operand, str)
    if operator == "=":
        return name == operand
    assert operator == "like"
    parts = {"_": ".", "%": ".*"}
    pattern = "".join(parts.get(character, re.escape(character)) for character in operand)
    return re.fullmatch(pattern, name, re.DOTALL) is not None


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain", "plain"),
        ("", "_"),
        (".", "_"),
        ("..", "__"),
        ("...", "..."),
        ("a/b/c", "a_b_c"),
        ("/", "_"),
        ("a\x00b", "a_b"),
        ("a\ud800b", "a_b"),
        ("\u00e9\U0001f600", "\u00e9\U0001f600"),
        (" ", " "),
    ],
)
def test_what_is_shown(name: str, shown: str) -> None:
    assert Names().shown(name) == shown


@pytest.mark.parametrize(
    ("substitute", "shown"), [("", "a_b"), ("/", "a_b"), ("%2F", "a%2Fb"), ("a/b", "aa_bb"), (".", "a.b")]
)
def test_what_stands_for_a_slash(substitute: str, shown: str) -> None:
    assert Names(substitute).shown("a/b") == shown


@given(st.text(), st.sampled_from(["", "_", "%2F", " ", ".", "__", "\\"]))
def test_every_name_can_be_shown(name: str, substitute: str) -> None:
    shown = Names(substitute).shown(name)
    assert shown not in ("", ".", "..")
    assert "/" not in shown
    assert "\x00" not in shown
    raw = Names(substitute).encode(shown)
    assert raw is None or Names(substitute).decode(raw) == shown


@given(st.text(alphabet="ab_/.%\\~", max_size=6), st.sampled_from(["", "%2F", ".", "__"]))
def test_the_filter_finds_what_is_shown(name: str, substitute: str) -> None:
    names = Names(substitute)
    assert matches(names.filter_for(names.shown(name)), name)


def test_a_plain_name_is_asked_for_as_it_is() -> None:
    assert Names("%2F").filter_for("a_b%") == ["=", "a_b%"]
    assert Names().filter_for("ab") == ["=", "ab"]


def test_names_that_cannot_be_encoded() -> None:
    assert Names(encoding="latin-1").encode("\u4e2d") is None
    assert Names(encoding="latin-1").encode("\u00e9") == b"\xe9"
    assert Names().encode("x" * KERNEL_NAME_MAX) is not None
    assert Names().encode("x" * (KERNEL_NAME_MAX + 1)) is None
    with pytest.raises(IllegalName):
        Names().decode(b"\xff")


def record(name: str, uuid: str) -> dict[str, str]:
    return {"name": name, "uuid": uuid}


def test_the_exact_name_wins() -> None:
    exact = record("a_b", "zzzzz-4zz18-zzzzzzzzzzzzzzz")
    changed = record("a/b", "zzzzz-4zz18-aaaaaaaaaaaaaaa")
    for order in ([exact, changed], [changed, exact]):
        assert Names().keep_apart(order) == {"a_b": exact, "a_b~aaaaaaaaaaaaaaa": changed}


def test_a_project_comes_before_a_collection() -> None:
    project = record("x", "zzzzz-j7d0g-zzzzzzzzzzzzzzz")
    collection = record("x", "zzzzz-4zz18-aaaaaaaaaaaaaaa")
    assert Names().keep_apart([collection, project]) == {"x": project, "x~aaaaaaaaaaaaaaa": collection}


def test_a_suffix_that_is_taken_grows() -> None:
    first, second = record("x", "zzzzz-4zz18-aaaaaaaaaaaaaaa"), record("x", "zzzzz-4zz18-bbbbbbbbbbbbbbb")
    sly = record("x~bbbbbbbbbbbbbbb", "zzzzz-4zz18-ccccccccccccccc")
    assert Names().keep_apart([second, sly, first]) == {
        "x": first,
        "x~bbbbbbbbbbbbbbb": sly,
        "x~zzzzz-4zz18-bbbbbbbbbbbbbbb": second,
    }


@given(st.lists(st.text(alphabet="a_/.", max_size=3), max_size=12))
def test_nothing_is_lost(given_names: list[str]) -> None:
    records = [record(name, f"zzzzz-4zz18-{place:015d}") for place, name in enumerate(given_names)]
    shown = Names().keep_apart(records)
    assert sorted(found["uuid"] for found in shown.values()) == [each["uuid"] for each in records]
