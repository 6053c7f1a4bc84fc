"""The tree of a manifest's files, with the stock SDK as the oracle for what it must become."""

from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from records_world import sdk_collection

from arvados_fuse.local.records import manifest, replacing
from arvados_fuse.local.records.apierror import ApiError
from arvados_fuse.local.records.content import Content, is_normalized, joined, parse, write

A, B, C = (f"{letter * 32}+{size}" for letter, size in zip("abc", (5, 7, 64), strict=True))
EMPTY = "d41d8cd98f00b204e9800998ecf8427e+0"

NAMES = ("a", "b", "a-b", "b c", "x:y", "é", "back\\slash", "1:2:3")
DIRECTORIES = (".", "./a-d", "./d", "./d/e f", "./d/g/h", "./z")


@st.composite
def manifests(draw: st.DrawFn) -> str:
    """Legal manifests, most of them not normalized: streams twice, slashes in names, blocks out of order."""
    lines = []
    for _ in range(draw(st.integers(0, 5))):
        stream = draw(st.sampled_from(DIRECTORIES))
        blocks = draw(st.lists(st.sampled_from((A, B, C)), min_size=1, max_size=4))
        length = sum(int(block.partition("+")[2]) for block in blocks)
        tokens = []
        for _ in range(draw(st.integers(1, 4))):
            name = draw(st.sampled_from(NAMES))
            below = draw(st.sampled_from(("", "", "", "sub/", "sub/deep/")))
            begin = draw(st.integers(0, length))
            size = draw(st.integers(0, length - begin))
            tokens.append(f"{begin if size else 0}:{size}:{below}{manifest.escape(name)}")
        if draw(st.booleans()):
            tokens.append("0:0:\\056")
        lines.append(f"{manifest.escape(stream)} {' '.join(blocks)} {' '.join(tokens)}\n")
    if draw(st.booleans()):
        lines.append(f"./hollow/in\\040side {EMPTY} 0:0:\\056\n")
    return "".join(lines)


def loaded(text: str) -> Content:
    return Content.load(manifest.read(text, lambda locator: None).text)


@settings(max_examples=150, deadline=None)
@given(manifests())
def test_a_manifest_is_normalized_as_the_sdk_does_it(text: str) -> None:
    content = loaded(text)
    wanted = sdk_collection(text).portable_manifest_text()
    assert content.text() == wanted
    checked = manifest.read(wanted, lambda locator: None)
    assert content.totals() == (checked.file_count, checked.file_size_total)
    assert checked.file_count == manifest.read(text, lambda locator: None).file_count
    assert Content.load(wanted, content.totals()).text() == wanted
    assert Content.load(wanted).text() == wanted


@settings(max_examples=150, deadline=None)
@given(manifests())
def test_a_line_said_to_be_normalized_is(text: str) -> None:
    for line in text.splitlines():
        rest = line.partition(" ")[2]
        if is_normalized(rest):
            assert write(parse(rest)) == rest


def test_the_usual_line_is_recognized_as_normalized() -> None:
    assert is_normalized(f"{A} {B} 0:3:a 3:9:b")
    assert is_normalized(f"{A} 0:0:a 0:3:b\\040c 0:0:d")
    assert is_normalized(f"{EMPTY} 0:0:a 0:0:b")
    for rest in (
        f"{A} {B} 0:3:b 3:9:a",
        f"{A} {B} 0:3:a",
        f"{A} {A} 0:10:a",
        f"{A} 0:3:a 0:1:a",
        f"{A} 0:3:a 0:2:b",
        f"{A} 0:03:a",
        f"{A} 0:3:a:b",
        f"{A} 0:3:\\141",
        f"{A} 0:3:a/b",
        f"{A} 0:0:a",
        f"{A} {EMPTY} {B} 0:12:a",
        f"{EMPTY} 0:0:\\056",
    ):
        assert not is_normalized(rest), rest


def sdk_replaced(text: str, wanted: dict[str, str]) -> str:
    """What replace_files must give, done by the SDK's own operations."""
    before: Any = sdk_collection(text)
    after: Any = sdk_collection(text)

    def remove(path: str) -> None:
        if path:
            if after.find("./" + path) is not None:
                after.remove("./" + path, recursive=True)
        else:
            for name in list(after.keys()):
                after.remove(name, recursive=True)

    for target in sorted(target for target, source in wanted.items() if not source):
        remove(target[1:])
    for target, source in sorted(wanted.items()):
        if source:
            path = source.partition("/")[2]
            remove(target[1:])
            copied = before.find("./" + path) if path else before
            if hasattr(copied, "keys"):
                if target != "/":
                    after.find_or_create("." + target, "collection")
                for name in copied:
                    after.copy(copied[name], f".{target}/{name}".replace("//", "/"))
            else:
                after.copy(copied, "." + target)
    return str(after.portable_manifest_text())


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_replacing_files_agrees_with_the_sdk(data: st.DataObject) -> None:
    text = data.draw(manifests())
    there = list_paths(text)
    sources = st.sampled_from(["", *(f"current/{path}" for path in there)])
    names = st.sampled_from(("new", "d", "d/e f", "d/new/deep", "a", "z/b", "hollow", "d/a", "x:y"))
    wanted = data.draw(
        st.dictionaries(st.one_of(st.just("/"), names.map("/{}".format)), sources, min_size=1, max_size=3)
    )
    content = loaded(text)
    try:
        replacing.check_files(wanted, with_manifest=False)
        replacing.replace_files(content, wanted, lambda name: content)
    except ApiError:
        event("refused")
        return
    event("replaced")
    wanted_text = sdk_replaced(text, wanted)
    assert content.text() == wanted_text
    checked = manifest.read(wanted_text, lambda locator: None)
    assert content.totals() == (checked.file_count, checked.file_size_total)


def list_paths(text: str) -> list[str]:
    """Every path of a manifest, directories too, "" being the root."""
    paths = [""]

    def walk(directory: Any, prefix: str) -> None:
        for name in directory:
            paths.append(prefix + name)
            if hasattr(directory[name], "keys"):
                walk(directory[name], f"{prefix}{name}/")

    walk(sdk_collection(text), "")
    return paths


def changed(text: str, wanted: dict[str, str]) -> str:
    content = loaded(text)
    replacing.replace_files(content, replacing.check_files(wanted, with_manifest=False), lambda name: content)
    return content.text()


TEXT = f". {A} 0:5:f\n./d {B} 0:3:x 3:4:y\n./d/e {C} 0:9:z\n"


@pytest.mark.parametrize(
    ("wanted", "result"),
    [
        ({}, TEXT),
        ({"/f": ""}, "".join(TEXT.splitlines(True)[1:])),
        ({"/g": "current/f", "/f": ""}, TEXT.replace(":f", ":g")),
        (
            {"/d/x": "current/d/y", "/d/y": "current/d/x"},
            f". {A} 0:5:f\n./d {B} 3:4:x 0:3:y\n./d/e {C} 0:9:z\n",
        ),
        ({"/": ""}, ""),
        ({"/": "current/d"}, f". {B} 0:3:x 3:4:y\n./e {C} 0:9:z\n"),
        ({"/": "", "/copy": "current/d/e"}, f"./copy {C} 0:9:z\n"),
        ({"/d": "", "/d/e": "current/d/e"}, f". {A} 0:5:f\n./d/e {C} 0:9:z\n"),
        ({"/d/e/z": ""}, f". {A} 0:5:f\n./d {B} 0:3:x 3:4:y\n./d/e {EMPTY} 0:0:\\056\n"),
        ({"/d": "current/f"}, f". {A} 0:5:d 0:5:f\n"),
        ({"/f": "current/d/e"}, f"./d {B} 0:3:x 3:4:y\n./d/e {C} 0:9:z\n./f {C} 0:9:z\n"),
        ({"/not/there": ""}, TEXT),
        ({"/new/deep er/g": "current/f"}, TEXT + f"./new/deep\\040er {A} 0:5:g\n"),
    ],
)
def test_files_are_replaced_as_documented(wanted: dict[str, str], result: str) -> None:
    assert changed(TEXT, wanted) == result


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"f": ""}, "must begin with '/'"),
        ({"": ""}, "must begin with '/'"),
        ({"/f/": ""}, "canonical"),
        ({"//f": ""}, "canonical"),
        ({"/./f": ""}, "canonical"),
        ({"/../f": ""}, "canonical"),
        ({"/d/..": ""}, "canonical"),
        ({"/g": "current/../f"}, "canonical"),
        ({"/g": "current//f"}, "canonical"),
        ({"/g": "current/d/"}, "canonical"),
        ({"/g": "f"}, "must begin with current/"),
        ({"/g": "/f"}, "must begin with current/"),
        ({"/g": "current"}, "must begin with current/"),
        ({"/g": "ztest-4zz18-000000000000000/f"}, "must begin with current/"),
        ({"/g": 3}, "must be a string"),
        ({"/g": None}, "must be a string"),
        ({"/d": "current/d", "/d/x": ""}, "inside the target '/d'"),
        ({"/": "current/", "/x": "current/f"}, "inside the target '/'"),
        ({"/d": "current/d", "/d/e/z": "current/f"}, "inside the target '/d'"),
        ({"/g": "current/nothing"}, "there is no 'current/nothing'"),
        ({"/g": "current/f/x"}, "there is no 'current/f/x'"),
        ({"/f/x": "current/d"}, "'f' is a file"),
        ({"/f/x/y": "current/f"}, "'f' is a file"),
        ({"/": "current/f"}, "the whole collection"),
        (["/f"], "must be an object"),
        ("x", "must be an object"),
    ],
)
def test_replacements_that_make_no_sense_are_refused(wanted: Any, words: str) -> None:
    with pytest.raises(ApiError, match=words) as caught:
        changed(TEXT, wanted)
    assert caught.value.status == 422


def test_a_manifest_that_nothing_uses_is_refused() -> None:
    with pytest.raises(ApiError, match="nothing uses"):
        replacing.check_files({"/g": "current/f"}, with_manifest=True)
    assert replacing.check_files({"/g": "manifest_text/f"}, with_manifest=True)
    assert replacing.check_files({}, with_manifest=True) == {}


def repacked(text: str, wanted: dict[str, str]) -> str:
    content = loaded(text)
    replacing.replace_segments(content, replacing.check_segments(wanted, lambda locator: None))
    return content.text()


def test_segments_are_replaced_as_documented() -> None:
    text = f". {A} {B} 0:12:file\n./d {A} 0:5:x 2:3:y\n"
    wanted = {f"{A} 0 5": f"{C} 0 5", f"{B} 0 7": f"{C} 5 7"}
    assert repacked(text, wanted) == f". {C} 0:12:file\n./d {C} {A} 0:5:x 66:3:y\n"


def test_a_set_that_no_longer_matches_is_passed_over_whole() -> None:
    text = f". {A} 0:5:a\n./d {B} 0:7:b\n"
    other = "d" * 32 + "+64"
    wanted = {f"{A} 0 5": f"{C} 0 5", f"{B} 1 2": f"{C} 5 2", f"{B} 0 7": f"{other} 3 7"}
    assert repacked(text, wanted) == f". {A} 0:5:a\n./d {other} 3:7:b\n"


@pytest.mark.parametrize(
    "wanted",
    [
        {f"{A} 0 5": f"{C} 0 4"},
        {f"{A} 0 6": f"{C} 0 6"},
        {f"{A} 0 5": f"{C} 60 5"},
        {f"{A} 0 0": f"{C} 0 0"},
        {A: C},
        {f"{A} 0 5": 5},
        {f"{A} 0 5": None},
        {f"{A} -1 5": f"{C} 0 5"},
        {f"{A} 0 5 ": f"{C} 0 5"},
        {f"{A} 0 5": f"{C} 0 5", f"{A}+K@zzzzz 0 5": f"{C} 5 5"},
        [f"{A} 0 5"],
    ],
)
def test_segments_that_make_no_sense_are_refused(wanted: Any) -> None:
    with pytest.raises(ApiError) as caught:
        replacing.check_segments(wanted, lambda locator: None)
    assert caught.value.status == 422


def test_segments_that_continue_each_other_are_one() -> None:
    assert joined([(A, 0, 2), (A, 2, 3), (B, 0, 1), (A, 0, 1)]) == ((A, 0, 5), (B, 0, 1), (A, 0, 1))
