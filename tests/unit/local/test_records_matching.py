"""SQL `like` as Arvados has it."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_fuse.local.records.matching import like


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("", "", True),
        ("", "a", False),
        ("%", "", True),
        ("%", "anything\nat all", True),
        ("a%", "abc", True),
        ("%c", "abc", True),
        ("%b%", "abc", True),
        ("a%c", "abc", True),
        ("a%b", "abc", False),
        ("ab%bc", "abc", False),
        ("a_c", "abc", True),
        ("a_c", "ac", False),
        ("_", "é", True),
        ("%_", "", False),
        ("a\\%", "a%", True),
        ("a\\%", "ab", False),
        ("a\\_c", "abc", False),
        ("A%", "abc", False),
        ("[a]%", "abc", False),
        ("a.c", "abc", False),
    ],
)
def test_a_pattern_matches_the_whole_text(pattern: str, text: str, matches: bool) -> None:
    assert like(pattern, text) is matches


def test_case_counts_unless_it_is_to_be_ignored() -> None:
    assert not like("%FOO%", "a foo b")
    assert like("%FOO_B", "a foo b", ignore_case=True)
    assert like("%ÉTÉ%", "l'été", ignore_case=True)


@given(st.text("ab%_", max_size=12), st.text("ab", max_size=20))
def test_it_agrees_with_a_regular_expression(pattern: str, text: str) -> None:
    expression = re.compile(pattern.replace("%", ".*").replace("_", "."), re.DOTALL)
    assert like(pattern, text) == bool(expression.fullmatch(text))


def test_no_pattern_is_slow() -> None:
    begin = time.process_time()
    assert not like("%a" * 200 + "b", "a" * 20_000)
    assert not like("%_a_" * 100 + "b", "a" * 20_000)
    assert time.process_time() - begin < 2
