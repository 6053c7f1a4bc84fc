"""A state machine over one collection: names, bytes, open files, saves and other people's saves, against
dictionaries."""

import hashlib
from typing import Any

import pytest
from collection_support import Blocks, Records, tree
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, precondition, rule

from arvados_fuse.collection import Collection, Directory, File

NAMES = st.sampled_from(["a", "b", "c d", "e:\\", "ü"])
DATA = st.binary(max_size=12)
START = {"a": b"one", "b/a": b"two", "b/b": b"", "b/c d/a": b"three", "ü/b": b"four", "e:\\/e:\\/a": b"five"}


class ModelFile:
    """A file, wherever it is, or nowhere."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)


class ModelDirectory:
    def __init__(self) -> None:
        self.entries: dict[str, ModelFile | ModelDirectory] = {}

    def walk(self, prefix: str = "") -> dict[str, bytes | None]:
        found: dict[str, bytes | None] = {}
        for name, entry in self.entries.items():
            if isinstance(entry, ModelFile):
                found[prefix + name] = bytes(entry.data)
            else:
                found[prefix + name] = None
                found |= entry.walk(f"{prefix}{name}/")
        return found


class Machine(RuleBasedStateMachine):
    files = Bundle("files")
    """Pairs of a `File` that somebody holds, possibly since long ago, and its model."""

    directories = Bundle("directories")

    def __init__(self) -> None:
        super().__init__()
        self.blocks = Blocks()
        self.records = Records()
        first = Collection(None, self.records, self.blocks)
        self.model = ModelDirectory()
        for path, data in START.items():
            with first.open(path, "wb") as file:
                file.write(data)
            *way, name = path.split("/")
            at = self.model
            for part in way:
                below = at.entries.setdefault(part, ModelDirectory())
                assert isinstance(below, ModelDirectory)
                at = below
            at.entries[name] = ModelFile(data)
        first.save_new()
        self.collection = Collection(first.manifest_locator(), self.records, self.blocks)

    # Finding.

    @rule(target=directories)
    def root(self) -> Any:
        return self.collection.root, self.model

    @rule(target=directories, directory=directories, name=NAMES)
    def enter(self, directory: Any, name: str) -> Any:
        real, model = directory
        found, expected = real.get(name), model.entries.get(name)
        assert isinstance(found, Directory) == isinstance(expected, ModelDirectory)
        return (found, expected) if isinstance(expected, ModelDirectory) else multiple()

    @rule(target=files, directory=directories, name=NAMES)
    def look(self, directory: Any, name: str) -> Any:
        """Get a file without opening it; it may be used much later."""
        real, model = directory
        found, expected = real.get(name), model.entries.get(name)
        assert isinstance(found, File) == isinstance(expected, ModelFile)
        return (found, expected) if isinstance(expected, ModelFile) else multiple()

    @rule(directory=directories)
    def list(self, directory: Any) -> None:
        real, model = directory
        entries = real.entries()
        assert [name for name, _ in entries] == sorted(model.entries) == real.names()
        for name, entry in entries:
            if isinstance(entry, File):
                assert entry.size() == len(model.entries[name].data)
                assert entry.name == name
                assert entry.parent is real
        assert real.is_empty() == (not model.entries)

    # Names.

    @rule(target=files, directory=directories, name=NAMES)
    def create(self, directory: Any, name: str) -> Any:
        real, model = directory
        if name in model.entries:
            with pytest.raises(FileExistsError):
                real.create(name)
            return multiple()
        made = model.entries[name] = ModelFile()
        return real.create(name), made

    @rule(target=directories, directory=directories, name=NAMES)
    def make_directory(self, directory: Any, name: str) -> Any:
        real, model = directory
        if name in model.entries:
            with pytest.raises(FileExistsError):
                real.make_directory(name)
            return multiple()
        made = model.entries[name] = ModelDirectory()
        return real.make_directory(name), made

    @rule(directory=directories, name=NAMES, recursive=st.booleans())
    def unlink(self, directory: Any, name: str, recursive: bool) -> None:
        real, model = directory
        entry = model.entries.get(name)
        try:
            real.unlink(name, recursive=recursive)
        except FileNotFoundError:
            assert entry is None
        except OSError:
            assert isinstance(entry, ModelDirectory)
            assert entry.entries
            assert not recursive
        else:
            del model.entries[name]

    @rule(source=directories, name=NAMES, goal=directories, new_name=NAMES)
    def move(self, source: Any, name: str, goal: Any, new_name: str) -> None:
        (real, model), (real_target, model_target) = source, goal
        entry, previous = model.entries.get(name), model_target.entries.get(new_name)
        try:
            real.move(name, real_target, new_name)
        except FileNotFoundError:
            assert entry is None
        except (IsADirectoryError, NotADirectoryError):
            assert isinstance(entry, ModelDirectory) != isinstance(previous, ModelDirectory)
        except ValueError:
            assert isinstance(entry, ModelDirectory)
            assert contains(entry, model_target)
        except OSError:
            assert isinstance(previous, ModelDirectory)
            assert previous.entries
        else:
            assert entry is not None
            del model.entries[name]
            model_target.entries[new_name] = entry

    @rule(source=directories, name=NAMES, goal=directories, new_name=NAMES)
    def copy(self, source: Any, name: str, goal: Any, new_name: str) -> None:
        (real, model), (real_target, model_target) = source, goal
        entry = model.entries.get(name)
        if entry is None or new_name in model_target.entries:
            return
        real_target.add(real.get(name), new_name)
        model_target.entries[new_name] = copied(entry)

    # Bytes.

    @rule(file=files, offset=st.integers(0, 20), data=DATA)
    def write(self, file: Any, offset: int, data: bytes) -> None:
        real, model = file
        real.write(offset, data)
        if data:
            model.data.extend(bytes(max(0, offset - len(model.data))))
            model.data[offset : offset + len(data)] = data

    @rule(file=files, size=st.integers(0, 20))
    def truncate(self, file: Any, size: int) -> None:
        real, model = file
        real.truncate(size)
        del model.data[size:]
        model.data.extend(bytes(size - len(model.data)))

    @rule(file=files)
    def read(self, file: Any) -> None:
        real, model = file
        assert real.size() == len(model.data)
        assert bytes(real.read(0, 100)) == model.data

    # The whole.

    @rule()
    def drop_parsed(self) -> None:
        self.collection.drop_parsed()

    @rule()
    def flush(self) -> None:
        self.collection.flush()

    @rule()
    def save(self) -> None:
        self.collection.save()
        assert self.collection.committed()
        record = self.records.get_collection(self.collection.manifest_locator() or "")
        saved = Collection.from_record(record, blocks=self.blocks)
        assert tree(saved) == self.model.walk()
        assert saved.portable_data_hash() == self.collection.portable_data_hash()

    @rule(name=NAMES, data=DATA)
    def others_save(self, name: str, data: bytes) -> None:
        """Somebody else changes what nobody here does, and we hear of it."""
        other = Collection(self.collection.manifest_locator(), self.records, self.blocks)
        with other.open(f"others {name}", "wb") as file:
            file.write(data)
        other.save()
        self.collection.update()
        entry = self.model.entries.setdefault(f"others {name}", ModelFile())
        assert isinstance(entry, ModelFile)
        entry.data[:] = data

    @precondition(lambda self: self.collection.committed())
    @rule()
    def new_signatures(self) -> None:
        self.records.resign()
        text = self.records.get_collection(self.collection.manifest_locator() or "")["manifest_text"]
        assert self.collection.replace_signatures(text)
        assert self.collection.manifest_text() == text

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        self.collection.root.check()
        assert tree(self.collection) == self.model.walk()

    def teardown(self) -> None:
        text = self.collection.manifest_text()
        assert tree(Collection(text, keep_client=self.blocks)) == self.model.walk()
        normalized = self.collection.manifest_text(normalize=True, strip=True)
        digest = hashlib.md5(normalized.encode()).hexdigest()
        if not self.collection.committed():
            assert self.collection.portable_data_hash() == f"{digest}+{len(normalized.encode())}"


def contains(directory: ModelDirectory, other: ModelDirectory) -> bool:
    return directory is other or any(
        contains(entry, other) for entry in directory.entries.values() if isinstance(entry, ModelDirectory)
    )


def copied(entry: "ModelFile | ModelDirectory") -> "ModelFile | ModelDirectory":
    if isinstance(entry, ModelFile):
        return ModelFile(bytes(entry.data))
    made = ModelDirectory()
    made.entries = {name: copied(below) for name, below in entry.entries.items()}
    return made


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
