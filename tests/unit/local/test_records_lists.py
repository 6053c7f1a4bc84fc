"""Lists: filters, order, select, distinct, pages; and arguments that make no sense."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_world import Person, World

from arvados_fuse.local.records import ApiError
from arvados_fuse.local.records.schema import RESOURCES


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("lists"))
    yield world
    world.close()


@pytest.fixture(scope="module")
def ann(world: World) -> Person:
    """The owner of four collections; the tests of this module only read."""
    ann = world.person("ann")
    ann.collection("apple", {"foo.txt": b"foo"}, properties={"color": "red", "n": 1, "tags": ["x", "y"]})
    ann.collection("Banana", {"d/bar.txt": b"bar", "d/e": b"e"}, properties={"color": "yellow", "n": 10})
    ann.collection("cherry pie", properties={"color": "red", "n": 2.5, "tags": ["y"], "ok": True, "a.b": 7})
    ann.collection(None, description="50% of_it\\", properties={"color": None, "http://x/y": "z"})
    return ann


ALL = {"apple", "Banana", "cherry pie", None}


def found(person: Person, *filters: Any, **more: Any) -> set[Any]:
    return set(person.names("collections", filters=list(filters), **more))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([], ALL),
        ([["name", "=", "apple"]], {"apple"}),
        ([["collections.name", "=", "apple"]], {"apple"}),
        ([["name", "!=", "apple"]], ALL - {"apple"}),
        ([["name", "=", None]], {None}),
        ([["name", "!=", None]], ALL - {None}),
        ([["name", "<", "a"]], {"Banana"}),
        ([["name", ">=", "apple"], ["name", "<=", "b"]], {"apple"}),
        ([["name", "in", ["apple", "Banana", "zucchini"]]], {"apple", "Banana"}),
        ([["name", "in", ["apple", None]]], {"apple", None}),
        ([["name", "in", []]], set()),
        ([["name", "not in", ["apple"]]], ALL - {"apple"}),
        ([["name", "not in", ["apple", None]]], {"Banana", "cherry pie"}),
        ([["name", "NOT  IN", []]], ALL),
        ([["name", "like", "%an%"]], {"Banana"}),
        ([["name", "like", "b%"]], set()),
        ([["name", "ilike", "b%"]], {"Banana"}),
        ([["name", "not like", "%p%"]], {"Banana", None}),
        ([["name", "not ilike", "B%"]], ALL - {"Banana"}),
        ([["name", "like", "_pple"]], {"apple"}),
        ([["description", "like", "50\\%%"]], {None}),
        ([["file_count", ">", 0]], {"apple", "Banana"}),
        ([["file_count", "=", "2"]], {"Banana"}),
        ([["file_count", "in", [1, 2]]], {"apple", "Banana"}),
        ([["is_trashed", "=", False]], ALL),
        ([["is_trashed", "=", True]], set()),
        ([["preserve_version", "=", "false"]], ALL),
        ([["created_at", ">", "2001-01-01"]], ALL),
        ([["created_at", "<", "2001-01-01T00:00:00+02:00"]], set()),
        ([["trash_at", "=", None]], ALL),
        ([["uuid", "is_a", "arvados#collection"]], ALL),
        ([["uuid", "is_a", ["arvados#group", "arvados#user"]]], set()),
        ([["owner_uuid", "is_a", "arvados#user"]], ALL),
        ([["uuid", "is_a", "arvados#unheardOf"]], set()),
        ([["properties", "exists", "tags"]], {"apple", "cherry pie"}),
        ([["properties.color", "=", "red"]], {"apple", "cherry pie"}),
        ([["collections.properties.color", "=", "red"]], {"apple", "cherry pie"}),
        ([["properties.color", "!=", "red"]], {"Banana", None}),
        ([["properties.color", "=", None]], {None}),
        ([["properties.color", "!=", None]], ALL - {None}),
        ([["properties.n", "<", 3]], {"apple", "cherry pie"}),
        ([["properties.n", "=", 10]], {"Banana"}),
        ([["properties.n", "=", "10"]], set()),
        ([["properties.ok", "=", True]], {"cherry pie"}),
        ([["properties.n", "=", True]], set()),
        ([["properties.color", "like", "r%"]], {"apple", "cherry pie"}),
        ([["properties.color", "ilike", "RE_"]], {"apple", "cherry pie"}),
        ([["properties.color", "in", ["yellow", "blue"]]], {"Banana"}),
        ([["properties.color", "not in", ["yellow", "blue"]]], ALL - {"Banana"}),
        ([["properties.tags", "exists", True]], {"apple", "cherry pie"}),
        ([["properties.tags", "exists", False]], {"Banana", None}),
        ([["properties.tags", "contains", "x"]], {"apple"}),
        ([["properties.color", "contains", "red"]], {"apple", "cherry pie"}),
        ([["properties.<http://x/y>", "=", "z"]], {None}),
        ([["properties.a.b", "=", 7]], {"cherry pie"}),
        ([["storage_classes_desired", "contains", "default"]], ALL),
        ([["storage_classes_desired", "contains", ["default", "other"]]], set()),
        ([["any", "ilike", "%YELLOW%"]], {"Banana"}),
        ([["any", "like", "%bar.txt%"]], {"Banana"}),
        ([["any", "=", "apple"]], {"apple"}),
        ([["any", "in", ["apple", "Banana"]]], {"apple", "Banana"}),
        ([["file_names", "ilike", "%FOO.TXT%"]], {"apple"}),
        ([["file_names", "like", "%d%"]], {"Banana"}),
        ([["file_names", "like", "%acbd18db%"]], set()),
        (["(created_at = modified_at)"], ALL),
        ([["(version < file_count)", "=", True]], {"Banana"}),
        ([["(version < file_count)", "=", False]], ALL - {"Banana"}),
    ],
)
def test_a_filter_finds(ann: Person, given: list[Any], wanted: set[Any]) -> None:
    assert found(ann, *given) == wanted
    counted = ann.call("collections", "list", filters=given, limit=0)
    assert (counted["items"], counted["items_available"]) == ([], len(wanted))


WRONG_FILTERS: list[Any] = [
    ["nothing", "=", 1],
    ["groups.name", "=", "x"],
    ["name.x", "=", "x"],
    ["name", "near", "x"],
    ["name", "=", 7],
    ["name", "=", ["x"]],
    ["name", "=", {"x": 1}],
    ["name", "<", None],
    ["name", "in", "apple"],
    ["name", "in", [1]],
    ["name", "in", ["x"] * 10_001],
    ["name", "like", 7],
    ["name", "like", ["x"]],
    ["name", "contains", "x"],
    ["name", "exists", "x"],
    ["name", "is_a", "arvados#collection"],
    ["uuid", "is_a", 7],
    ["file_count", "=", "many"],
    ["file_count", "=", True],
    ["file_count", ">", 10**30],
    ["is_trashed", "=", "perhaps"],
    ["created_at", ">", "yesterday"],
    ["created_at", ">", "2001-13-41"],
    ["properties", "exists", 7],
    ["properties.color", "exists", "x"],
    ["properties.color", "near", "x"],
    ["properties.color", "=", {"x": 1}],
    ["properties.color", "like", 7],
    ["properties.color", "in", "x"],
    ["properties.color", "contains", [1]],
    ["storage_classes_desired", "contains", ["x"] * 10_001],
    ["storage_classes_desired", "contains", [{}]],
    ["any", "near", "x"],
    ["any", "like", 7],
    ["etag", "=", "x"],
    ["manifest_text", "=", "x"],
    ["can_write", "=", True],
    ["(name < nothing)", "=", True],
    ["(name < created_at)", "=", 1],
    ["(name) < 1; --", "=", True],
    ["name", "=", "\ud800"],
    ["name", "=", "a\0b"],
    ["properties.\0", "=", "b"],
    ["name", "="],
    ["name", "=", "x", "y"],
    [],
    {},
    "name",
    7,
    None,
    [["name"], "=", "x"],
    ["name", ["="], "x"],
    [None, "=", None],
]


@pytest.mark.parametrize("wrong", WRONG_FILTERS, ids=lambda item: str(item)[:60])
def test_a_filter_that_makes_no_sense_is_refused(ann: Person, wrong: Any) -> None:
    assert ann.refused(422, "collections", "list", filters=[wrong])


@pytest.mark.parametrize("wrong", ["x", {"name": "x"}, 7, True, [["name", "=", "x"]] * 201])
def test_filters_must_be_an_array(ann: Person, wrong: Any) -> None:
    ann.refused(422, "collections", "list", filters=wrong)


def test_many_filters_are_no_burden(ann: Person) -> None:
    contains = ["storage_classes_desired", "contains", ["default"] * 1000]
    assert found(ann, *[contains] * 100, *[["any", "like", "%apple%"]] * 100) == {"apple"}


INJECTIONS = (
    "x' OR '1'='1",
    'x" OR 1=1 --',
    "'; DROP TABLE collections; --",
    "%' UNION SELECT * FROM users --",
)


@pytest.mark.parametrize("text", INJECTIONS)
def test_sql_in_a_request_is_only_text(ann: Person, text: str) -> None:
    assert found(ann, ["name", "=", text]) == set()
    assert found(ann, ["name", "in", [text]]) == set()
    assert found(ann, ["name", "like", text]) == set()
    assert found(ann, [f"properties.{text}", "=", text]) == set()
    for params in (
        {"filters": [[text, "=", "x"]]},
        {"filters": [["name", text, "x"]]},
        {"order": [text]},
        {"order": f"name {text}"},
        {"select": [text]},
        {"count": text},
        {"limit": text},
        {"offset": text},
        {"where": {text: "x"}},
        {"include_trash": text},
    ):
        ann.refused(422, "collections", "list", **params)
    ann.refused(404, "collections", "get", uuid=text)
    ann.refused(404, text, "list")
    ann.refused(404, "collections", text)
    assert found(ann) == ALL


def test_a_list_comes_in_order(ann: Person) -> None:
    assert ann.names("collections", order=["name"]) == ["Banana", "apple", "cherry pie", None]
    assert ann.names("collections", order=["name desc"]) == [None, "cherry pie", "apple", "Banana"]
    assert ann.names("collections", order="file_count desc, name asc") == [
        "Banana",
        "apple",
        "cherry pie",
        None,
    ]
    assert ann.names("collections", order=["collections.name ASC"]) == ["Banana", "apple", "cherry pie", None]
    assert ann.names("collections") == [None, "cherry pie", "Banana", "apple"]
    assert ann.names("collections", order=["created_at"]) == ["apple", "Banana", "cherry pie", None]
    mistakes: tuple[Any, ...] = (
        ["nothing"],
        ["name up"],
        ["groups.name"],
        [7],
        7,
        {"name": "asc"},
        ["name"] * 51,
        ["etag"],
        ["name,uuid"],
        ["manifest_text"],
        ["file_names"],
    )
    for wrong in mistakes:
        ann.refused(422, "collections", "list", order=wrong)


def test_a_list_comes_in_pages(ann: Person) -> None:
    first = ann.call("collections", "list", order=["uuid"], limit=3)
    assert (len(first["items"]), first["items_available"], first["limit"], first["offset"]) == (3, 4, 3, 0)
    assert first["kind"] == "arvados#collectionList"
    rest = ann.call(
        "collections", "list", order=["uuid"], filters=[["uuid", ">", first["items"][-1]["uuid"]]]
    )
    same = ann.call("collections", "list", order=["uuid"], offset=3)
    assert rest["items"] == same["items"]
    assert same["items_available"] == 4
    assert "items_available" not in ann.call("collections", "list", count="none")
    assert ann.call("collections", "list", limit=5000)["limit"] == 1000
    assert ann.call("collections", "list", limit="2", offset="1")["limit"] == 2
    numbers: tuple[Any, ...] = (-1, 2**31, 10**100, 1.5, "x", "-1", [], True, "1e3", "²")
    for wrong in numbers:
        ann.refused(422, "collections", "list", limit=wrong)
        ann.refused(422, "collections", "list", offset=wrong)
    counts: tuple[Any, ...] = ("all", 1, ["exact"], True)
    for wrong in counts:
        ann.refused(422, "collections", "list", count=wrong)


def test_a_selection_shows_what_it_names(ann: Person) -> None:
    listed = ann.call("collections", "list", select=["name", "file_count"], order=["name"], limit=1)
    assert listed["items"] == [{"kind": "arvados#collection", "name": "Banana", "file_count": 2}]
    assert "manifest_text" not in ann.call("collections", "list", limit=1)["items"][0]
    signed = ann.call(
        "collections", "list", select=["manifest_text", "unsigned_manifest_text"], order=["name"], limit=1
    )
    item = signed["items"][0]
    ann.records.signer.verify(item["manifest_text"].split()[1], ann.token)
    assert "+A" not in item["unsigned_manifest_text"]
    for wrong in (
        ["nothing"],
        [7],
        "name",
        {"name": 1},
        ["name", None],
        [["name"]],
        ["file_names"],
        ["secret_hash"],
    ):
        ann.refused(422, "collections", "list", select=wrong)


def test_distinct_shows_each_set_of_values_once(ann: Person) -> None:
    listed = ann.call("collections", "list", select=["storage_classes_desired"], distinct=True)
    assert listed["items"] == [{"kind": "arvados#collection", "storage_classes_desired": ["default"]}]
    assert listed["items_available"] == 1
    counts = ann.call("collections", "list", select=["file_count"], distinct=True, order=["file_count desc"])
    assert [item["file_count"] for item in counts["items"]] == [2, 1, 0]
    ann.refused(422, "collections", "list", select=["etag"], distinct=True)


def test_the_older_where_still_works(ann: Person) -> None:
    assert ann.names("collections", where={"name": "apple"}) == ["apple"]
    assert set(ann.names("collections", where={"name": ["apple", "Banana"]})) == {"apple", "Banana"}
    for wrong in (["name"], "x", {"nothing": 1}, {"name": {"x": 1}}):
        ann.refused(422, "collections", "list", where=wrong)


@pytest.mark.parametrize("name", sorted(RESOURCES))
def test_every_resource_has_a_list_with_all_arguments(world: World, ann: Person, name: str) -> None:
    for person in (ann, world.root):
        listed = person.call(
            name,
            "list",
            filters=[["uuid", ">", ""]],
            order=["created_at desc"],
            select=["uuid", "modified_at"],
            limit=1000,
        )
        assert listed["kind"] == f"{RESOURCES[name].record_kind}List"
        assert listed["items_available"] == len(listed["items"])
        person.refused(422, name, "list", filters=[["nothing", "=", 1]])
        person.refused(404, name, "get", uuid="ztest-00000-000000000000000")
    if not RESOURCES[name].served:
        assert listed["items"] == []
        ann.refused(422, name, "create", **{RESOURCES[name].singular: {}})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ATTRIBUTES = st.sampled_from(
    [item.name for item in RESOURCES["collections"].attributes] + ["any", "properties.x"]
)
OPERATORS = st.sampled_from(
    ["=", "!=", "<", ">=", "in", "not in", "like", "ilike", "is_a", "exists", "contains"]
)


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "filters": st.lists(st.tuples(ATTRIBUTES, OPERATORS, JSON).map(list), max_size=3) | JSON,
            "order": st.lists(ATTRIBUTES, max_size=2) | JSON,
            "select": st.lists(ATTRIBUTES, max_size=3) | JSON,
            "limit": JSON,
            "offset": JSON,
            "count": JSON,
            "distinct": JSON,
            "where": JSON,
            "include_trash": JSON,
            "uuid": JSON,
            "recursive": JSON,
            "include": JSON,
        },
    )
)
def test_no_argument_crashes_a_list(ann: Person, params: dict[str, Any]) -> None:
    for resource, method in (
        ("collections", "list"),
        ("groups", "contents"),
        ("groups", "shared"),
        ("links", "list"),
    ):
        try:
            answer = ann.call(resource, method, **params)
        except ApiError as error:
            if error.status not in (404, 422):
                raise
        else:
            assert isinstance(answer["items"], list)
