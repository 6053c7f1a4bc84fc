"""Random edits: the normalized manifest is that of the SDK, the bytes are those of a bytearray."""

import hashlib
import random
import threading
from typing import Any

import arvados.errors
import pytest
from collection_oracle import DictKeep, sdk_collection
from collection_support import Blocks
from hypothesis import given, note, settings
from hypothesis import strategies as st

from arvados_fuse.collection import Collection, File
from arvados_fuse.collection import content as content_module
from arvados_fuse.collection import moves as moves_module

BLOCKS = {
    f"{hashlib.md5(data).hexdigest()}+{len(data)}": data
    for data in (b"0123456789", b"abcdef", bytes(range(50)))
}
START = "".join(
    f"{stream} {' '.join(BLOCKS)} {' '.join(tokens)}\n"
    for stream, tokens in {
        ".": ["0:10:a", "5:20:b", "60:6:b", "0:0:c"],
        "./d": ["3:40:a", "10:6:b"],
        "./d/e": ["0:66:a"],
        "./f": ["0:1:a\\040b", "1:1:a-b"],
    }.items()
)
PATHS = ["a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "d/n", "f", "f/a b", "f/n/m", "n", "n/m", "n/m/o"]


def attempt(collection: Any, step: tuple[Any, ...]) -> Any:
    """What happened, in a form that two models can agree on."""
    try:
        edit(collection, step)
    except OSError as error:
        return error.errno
    except (ValueError, arvados.errors.ArgumentError):
        return "argument"
    except (TypeError, AttributeError) as error:  # the SDK's answer to some paths through a file
        return repr(error)
    return None


def edit(collection: Any, step: tuple[Any, ...]) -> None:
    kind, path, other, number, data = step
    if kind == "mkdirs":
        collection.mkdirs(path)
    elif kind == "remove":
        collection.remove(path, recursive=number % 2 == 0)
    elif kind == "rename":
        collection.rename(path, other, overwrite=number % 2 == 0)
    elif kind == "copy":
        collection.copy(path, other, overwrite=number % 2 == 0)
    elif kind == "truncate":
        found = collection.find(path)
        if found is not None and hasattr(found, "truncate") and found.size():
            found.truncate(number % found.size())
    elif kind == "write":
        with collection.open(path, "wb") as file:
            file.write(data)
    elif kind == "overwrite":
        with collection.open(path, "rb+") as file:
            file.seek(number % (file.size() + 1))
            file.write(data)
    elif kind == "append":
        with collection.open(path, "ab") as file:
            file.write(data)
    if kind == "overwrite" and hasattr(file, "arvadosfile") and hasattr(file.arvadosfile, "set_segments"):
        # The SDK leaves empty segments behind, which come out as tokens of no bytes; otherwise it is right.
        found = file.arvadosfile
        found.set_segments([segment for segment in found.segments() if segment.range_size])
    # One block for each write, so that both have the same: by itself the SDK does so, and ours packs.
    collection.flush()


steps = st.tuples(
    st.sampled_from(["mkdirs", "remove", "rename", "copy", "truncate", "write", "overwrite", "append"]),
    st.sampled_from(PATHS),
    st.sampled_from([*PATHS, "d/", "f/"]),
    st.integers(0, 100),
    st.binary(min_size=1, max_size=20),
)


def inside_itself(step: tuple[Any, ...]) -> bool:
    """The SDK loses a directory that is moved or copied into itself, or ends in an endless recursion."""
    return step[0] in ("rename", "copy") and (step[2].rstrip("/") + "/").startswith(step[1] + "/")


def destroyed_by_the_sdk(collection: Any, step: tuple[Any, ...]) -> bool:
    """With `overwrite` the SDK replaces a directory that the source is in, and loses both."""
    kind, path, other, _, _ = step
    return kind in ("rename", "copy") and (path + "/").startswith(other.rstrip("/") + "/")


@settings(max_examples=150)
@given(st.lists(steps, max_size=12))
def test_edits_give_the_manifest_that_the_sdk_gives(sequence: list[tuple[Any, ...]]) -> None:
    blocks = Blocks()
    blocks.data.update(BLOCKS)
    keep = DictKeep(dict(BLOCKS))
    ours, oracle = Collection(START, keep_client=blocks), sdk_collection(START, keep)
    for step in sequence:
        if inside_itself(step) or destroyed_by_the_sdk(oracle, step):
            continue
        note(str(step))
        mine, theirs = attempt(ours, step), attempt(oracle, step)
        if isinstance(theirs, str) and theirs != "argument":
            assert isinstance(mine, int), f"the SDK crashed with {theirs}"
        else:
            assert mine == theirs
        ours.root.check()
        text = ours.manifest_text(normalize=True, strip=True)
        assert text == oracle.manifest_text(normalize=True, strip=True)
        assert ours.portable_data_hash() == hash_of(text)
    assert oracle.portable_data_hash() == ours.portable_data_hash()
    text = ours.manifest_text(normalize=True, strip=True)
    ours.drop_parsed()
    assert ours.manifest_text(normalize=True, strip=True) == text


def hash_of(text: str) -> str:
    return f"{hashlib.md5(text.encode()).hexdigest()}+{len(text.encode())}"


# Bytes.


class Model:
    """A file as a bytearray."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, offset: int, data: bytes) -> None:
        self.data.extend(bytes(max(0, offset - len(self.data))))
        self.data[offset : offset + len(data)] = data

    def truncate(self, size: int) -> None:
        del self.data[size:]
        self.data.extend(bytes(size - len(self.data)))


@pytest.fixture(params=[64, 1000])
def small_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Blocks of a few bytes, so that every limit is met."""
    size: int = request.param
    for module in (content_module, moves_module):
        monkeypatch.setattr(module, "BLOCK_SIZE", size)
    return size


def exercise(file: File, collection: Collection, chance: random.Random, count: int, limit: int = 600) -> None:
    model = Model()
    for _ in range(count):
        action = chance.randrange(20)
        offset, size = chance.randrange(limit), chance.randrange(limit // 3)
        if action < 9:
            data = chance.randbytes(size)
            offset = chance.choice([offset, len(model.data), max(0, len(model.data) - 3)])
            file.write(offset, data)
            if data:
                model.write(offset, data)
        elif action < 12:
            file.truncate(offset)
            model.truncate(offset)
        elif action < 13:
            data = chance.randbytes(size)
            assert file.append(data) == len(model.data) + len(data)
            model.write(len(model.data), data)
        elif action < 14:
            collection.flush()
        elif action < 15:
            collection.drop_parsed()
        else:
            assert bytes(file.read(offset, size)) == model.data[offset : offset + size]
        assert file.size() == len(model.data)
    assert bytes(file.read(0, 10 * limit)) == model.data
    file.content().check()


@pytest.mark.parametrize("seed", range(50))
def test_bytes_are_what_was_written(small_blocks: int, seed: int) -> None:
    blocks = Blocks()
    blocks.data.update(BLOCKS)
    collection = Collection(keep_client=blocks)
    chance = random.Random(seed)
    file = collection.root.create("f")
    exercise(file, collection, chance, 300)
    expected = bytes(file.read(0, 10**6))
    again = Collection(collection.manifest_text(), keep_client=blocks)
    reread = again.find("f")
    assert isinstance(reread, File)
    assert bytes(reread.read(0, 10**6)) == expected


def test_threads_write_and_read_files_of_one_collection(small_blocks: int) -> None:
    blocks = Blocks()
    collection = Collection(keep_client=blocks)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            chance = random.Random(number)
            directory: Any = collection.root
            if number % 2:
                collection.find_or_create(f"d{number % 4}", "collection")
                directory = directory.get(f"d{number % 4}")
            file = directory.create(f"f{number}")
            exercise(file, collection, chance, 250)
            directory.rename(f"f{number}", f"g{number}")
            assert file.name == f"g{number}"
            exercise_again = bytes(file.read(0, 10**6))
            collection.manifest_text(normalize=True)
            assert bytes(file.read(0, 10**6)) == exercise_again
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert not failures
    collection.root.check()
    again = Collection(collection.manifest_text(), keep_client=blocks)
    names = {path: file for path, _, files in again.walk() for file in files}
    assert names
    for top, _, files in again.walk():
        for name in files:
            mine, saved = collection.find(f"{top}/{name}"), again.find(f"{top}/{name}")
            assert isinstance(mine, File)
            assert isinstance(saved, File)
            assert bytes(mine.read(0, 10**6)) == bytes(saved.read(0, 10**6))
    assert sum(len(files) for _, _, files in again.walk()) == 8
