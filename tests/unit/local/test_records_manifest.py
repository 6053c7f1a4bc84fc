"""Manifest texts: what is legal, what they hold, signing."""

import hashlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_world import stripped

from arvados_fuse.local.records.apierror import ApiError
from arvados_fuse.local.records.manifest import escape, file_names, read, sign, unescape
from arvados_fuse.local.signature import Signer

FOO = "acbd18db4cc2f85cedef654fccc4a4d8+3"
BAR = "37b51d194a7513e45b56f6524f2d51f2+3"
EMPTY = "d41d8cd98f00b204e9800998ecf8427e+0"
SIGNER = Signer(b"k" * 32, 1000)


def anything(locator: str) -> None:
    """Accepts every locator."""


LEGAL = [
    ("", 0, 0),
    (f". {FOO} 0:3:foo\n", 1, 3),
    (f". {FOO} {BAR} 0:3:foo 3:3:bar 0:0:empty\n", 3, 6),
    (f"./a/b {FOO} 0:3:foo\n. {FOO} 0:3:foo\n", 2, 6),
    (f"./a {FOO} 0:2:x\n./a {BAR} 0:3:x\n", 1, 5),
    (f". {FOO} {BAR} 0:1:x 4:2:x 0:6:y\n", 2, 9),
    (f". {FOO} 0:3:a/b/c 0:1:d\n", 2, 4),
    (f"./a {EMPTY} 0:0:\\056\n", 0, 0),
    (f"./a {EMPTY} 0:0:.\n", 0, 0),
    (f". {EMPTY} 0:0:sub/.\n", 0, 0),
    (f"./with\\040space {FOO} 0:3:a\\072b\\134c\\011\n", 1, 3),
    (f". {FOO} 0:3:\\141 0:1:a\n", 1, 4),
    (f". {FOO} 0:3:.hidden 0:3:... 0:3:a.\n", 3, 9),
    (f". {FOO} 0:3:a:b:c\n", 1, 3),
    (f". {FOO} 0:3:Träume\u200b\n", 1, 3),
    (f". {FOO}+K@zzzzz+A{'0' * 40}@12345678 0:3:foo\n", 1, 3),
]


@pytest.mark.parametrize(("text", "count", "size"), LEGAL)
def test_a_legal_manifest_is_read(text: str, count: int, size: int) -> None:
    manifest = read(text, anything)
    assert (manifest.file_count, manifest.file_size_total) == (count, size)
    bare = re.sub(r"\+[KA][^ +]*", "", text)
    assert manifest.text == bare
    digest = hashlib.md5(bare.encode()).hexdigest()
    assert manifest.portable_data_hash == f"{digest}+{len(bare.encode())}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f". {FOO} 0:3:foo", "end with a line end"),
        ("\n", "line 1 .* no file"),
        (f". {FOO} 0:3:foo\n\n", "line 2 .* no file"),
        (f". {FOO}\n", "no file"),
        (". 0:0:foo\n", "block locator"),
        (f"{FOO} 0:3:foo\n", "block locator"),
        (f"a {FOO} 0:3:foo\n", "stream name"),
        (f"/a {FOO} 0:3:foo\n", "stream name"),
        (f"./ {FOO} 0:3:foo\n", "stream name"),
        (f"./a/ {FOO} 0:3:foo\n", "stream name"),
        (f"./a//b {FOO} 0:3:foo\n", "stream name"),
        (f"./../etc {FOO} 0:3:passwd\n", "stream name"),
        (f"./a/.. {FOO} 0:3:foo\n", "stream name"),
        (f"./a/./b {FOO} 0:3:foo\n", "stream name"),
        (f"./\\056\\056/b {FOO} 0:3:foo\n", "stream name"),
        (f".. {FOO} 0:3:foo\n", "stream name"),
        (f". {FOO} 0:3:..\n", "file name"),
        (f". {FOO} 0:3:.\n", "file name"),
        (f". {FOO} 0:0:. 0:3:.\n", "file name"),
        (f". {FOO} 0:3:../../etc/passwd\n", "file name"),
        (f". {FOO} 0:3:a/\\056\\056/b\n", "file name"),
        (f". {FOO} 0:3:/a\n", "file name"),
        (f". {FOO} 0:3:a/\n", "file name"),
        (f". {FOO} 0:3:a//b\n", "file name"),
        (f". {FOO} 0:3:a\\057\\057b\n", "file name"),
        (f". {FOO} 0:4:foo\n", "past the end"),
        (f". {FOO} 3:1:foo\n", "past the end"),
        (f". {FOO} 0:{'9' * 18}:foo\n", "past the end"),
        (f". {FOO} 0:{'9' * 19}:foo\n", "no file"),
        (f". {FOO} -1:3:foo\n", "no file"),
        (f". {FOO} 0:3:foo 0:3\n", "file token"),
        (f". {FOO} 0:3:foo  0:3:bar\n", "file token"),
        (f". {FOO} 0:3:foo \n", "file token"),
        (f". {FOO} 0:3:\n", "file"),
        (f". {FOO} 0:3:foo {BAR}\n", "file token"),
        (f".  {FOO} 0:3:foo\n", "block locator"),
        (f". {FOO.upper()} 0:3:foo\n", "block locator"),
        (f". {FOO}+ 0:3:foo\n", "block locator"),
        (f". {FOO[:-2]} 0:3:foo\n", "block locator"),
        (f". {FOO}\t0:3:foo\n", "control character"),
        (f". {FOO} 0:3:foo\r\n", "control character"),
        (f". {FOO} 0:3:f\0o\n", "control character"),
        (f". {FOO} 0:3:f\\000o\n", "escape"),
        (f". {FOO} 0:3:f\\8oo\n", "escape"),
        (f". {FOO} 0:3:f\\\n", "escape"),
        (f". {FOO} 0:3:f\\777\n", "escape"),
        (f". {FOO} 0:3:\ud800\n", "Unicode"),
        (f". {FOO} 0:3:a\n./a {FOO} 0:3:b\n", "a file and a directory"),
        (f"./a/b/c {FOO} 0:3:x\n./a {FOO} 0:3:b\n", "a file and a directory"),
        (f". {FOO} 0:3:a 0:3:a/b\n", "a file and a directory"),
    ],
)
def test_an_illegal_manifest_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(ApiError, match=words) as caught:
        read(text, anything)
    assert caught.value.status == 422


def test_every_locator_is_checked_once() -> None:
    seen: list[str] = []
    read(f". {FOO}+A1 {BAR} 0:3:x\n./a {FOO}+A1 {FOO} 0:3:y\n", seen.append)
    assert sorted(seen) == sorted([f"{FOO}+A1", FOO, BAR])


@pytest.mark.parametrize("text", [text for text, _, _ in LEGAL])
def test_signing_adds_signatures_and_nothing_else(text: str) -> None:
    stored = read(text, anything).text
    signed = sign(stored, SIGNER, "token")
    assert stripped(signed) == stored
    read(signed, lambda locator: SIGNER.verify(locator, "token"))
    assert read(signed, anything).text == stored
    for word in signed.split():
        assert word[32:33] != "+" or "+A" in word


def test_a_file_that_looks_like_a_locator_is_left_alone() -> None:
    text = f"./{FOO} {FOO} 0:3:{BAR}+A1 0:1:x\n"
    stored = read(text, anything).text
    assert stored == text
    assert sign(stored, SIGNER, "t").startswith(f"./{FOO} {FOO}+A")
    assert sign(stored, SIGNER, "t").endswith(f" 0:3:{BAR}+A1 0:1:x\n")


def test_the_names_in_a_manifest_can_be_searched() -> None:
    names = file_names(f". {FOO} 0:3:a\\040b 0:1:c\n./dir/sub {FOO} 0:3:{BAR}\n").split("\n")
    assert {"a b", "c", "dir/sub", BAR} <= set(names)
    assert not any(FOO in name for name in names)


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_a_name_survives_its_escapes(name: str) -> None:
    escaped = escape(name)
    assert unescape(escaped) == name
    assert not set(escaped) & set(" \t\n:")


@settings(max_examples=200)
@given(st.text(f"./ :\\0135{chr(10)}{FOO[:8]}", max_size=60))
def test_nonsense_is_refused_not_crashed_on(text: str) -> None:
    try:
        manifest = read(text, anything)
    except ApiError:
        return
    assert manifest.portable_data_hash.endswith(f"+{len(text)}")
