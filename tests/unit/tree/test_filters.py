"""--filters, sorted by what they are about."""

from arvados_fuse.tree.filters import ListFilters


def test_plain_fields_are_for_all() -> None:
    parsed = ListFilters.parse([["name", "like", "a%"]])
    assert parsed.collections == parsed.groups == parsed.links == parsed.users == (["name", "like", "a%"],)


def test_a_kind_has_its_own() -> None:
    parsed = ListFilters.parse([["collections.name", "=", "x"], ["groups.properties.type", "=", "y"]])
    assert parsed.collections == (["name", "=", "x"],)
    assert parsed.groups == (["properties.type", "=", "y"],)
    assert parsed.links == ()


def test_a_dot_alone_is_no_kind() -> None:
    parsed = ListFilters.parse([["properties.a", "exists", True]])
    assert parsed.users == (["properties.a", "exists", True],)
