"""The table of inodes."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from arvados_fuse.errors import NotADirectory
from arvados_fuse.tree.attributes import Attributes
from arvados_fuse.tree.context import Context
from arvados_fuse.tree.inodes import ROOT, Inodes, StaleInode, preferred_number
from arvados_fuse.tree.nodes import DirectoryNode, Found, Node, Snapshot

NO_CONTEXT = cast(Context, None)


class Leaf(Node):
    """Shows one content."""

    def __init__(self, content: Any) -> None:
        super().__init__(NO_CONTEXT)
        self.content = content

    def rebind(self, content: Any) -> bool:
        return bool(content == self.content)

    def attributes(self, timeout: float | None = None) -> Attributes:
        raise NotImplementedError


class Folder(DirectoryNode):
    """Shows folders for the content "folder", leaves for other content."""

    def __init__(self) -> None:
        super().__init__(NO_CONTEXT)

    def rebind(self, content: Any) -> bool:
        return bool(content == "folder")

    def make(self, name: str, content: Any) -> Node:
        return Folder() if content == "folder" else Leaf(content)

    def find(self, name: str) -> Found:
        raise NotImplementedError

    def snapshot(self) -> Snapshot:
        raise NotImplementedError


@pytest.fixture
def root() -> Folder:
    return Folder()


@pytest.fixture
def inodes(root: Folder) -> Iterator[Inodes]:
    made = Inodes(root)
    yield made
    made.check()


def test_one_name_has_one_number(inodes: Inodes, root: Folder) -> None:
    first = inodes.adopt(root, "a", 1)
    assert inodes.adopt(root, "a", 1) is first
    assert first.lookups == 2
    assert inodes.get(first.ino) is first
    inodes.forget([(first.ino, 1)])
    assert inodes.get(first.ino) is first
    inodes.forget([(first.ino, 1)])
    with pytest.raises(StaleInode):
        inodes.get(first.ino)
    assert len(inodes) == 1


def test_the_number_comes_back(inodes: Inodes, root: Folder) -> None:
    first = inodes.adopt(root, "a", 1)
    inodes.forget([(first.ino, 1)])
    again = inodes.adopt(root, "a", 2)
    assert again.ino == first.ino == preferred_number(ROOT, "a")
    assert inodes.number_of(root, "a") == inodes.number_of(root, "a")


def test_other_content_gets_another_number(inodes: Inodes, root: Folder) -> None:
    old = inodes.adopt(root, "a", 1)
    new = inodes.adopt(root, "a", 2)
    assert new.ino != old.ino
    assert inodes.get(old.ino) is old
    assert inodes.number_of(root, "a") == new.ino
    inodes.check()
    inodes.forget([(old.ino, 1), (new.ino, 1)])
    assert len(inodes) == 1


def test_a_handle_keeps_a_node(inodes: Inodes, root: Folder) -> None:
    node = inodes.adopt(root, "a", 1)
    inodes.hold(node)
    inodes.forget([(node.ino, 1)])
    assert inodes.get(node.ino) is node
    inodes.release(node)
    assert len(inodes) == 1


def test_a_child_keeps_its_parent(inodes: Inodes, root: Folder) -> None:
    folder = inodes.adopt(root, "d", "folder")
    assert isinstance(folder, Folder)
    leaf = inodes.adopt(folder, "a", 1)
    inodes.forget([(folder.ino, 1)])
    assert inodes.directory(folder.ino) is folder
    inodes.forget([(leaf.ino, 1)])
    assert len(inodes) == 1


def test_numbers_do_not_collide(inodes: Inodes, root: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arvados_fuse.tree.inodes.preferred_number", lambda parent, name: 7)
    nodes = [inodes.adopt(root, str(number), number) for number in range(10)]
    assert len({node.ino for node in nodes}) == 10


def test_wrong_questions(inodes: Inodes, root: Folder) -> None:
    with pytest.raises(StaleInode):
        inodes.get(99)
    leaf = inodes.adopt(root, "a", 1)
    with pytest.raises(NotADirectory):
        inodes.directory(leaf.ino)
    inodes.forget([(99, 1), (ROOT, 5)])
    assert inodes.get(ROOT) is root


def test_check_finds_what_is_wrong(root: Folder) -> None:
    inodes = Inodes(root)
    node = inodes.adopt(root, "a", 1)
    node.lookups = 0
    with pytest.raises(AssertionError, match="not used"):
        inodes.check()
    node.lookups = 1
    del root.children["a"]
    with pytest.raises(AssertionError, match="parent lists another"):
        inodes.check()


class Kernel(RuleBasedStateMachine):
    """Looks up, opens, closes and forgets as a kernel may; a dictionary of references is the model."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Folder()
        self.inodes = Inodes(self.root)
        self.known: dict[int, int] = {}
        self.opened: list[Node] = []

    @rule(pick=st.integers(0, 5), name=st.sampled_from("abc"), content=st.sampled_from(["folder", 1, 2]))
    def lookup(self, pick: int, name: str, content: Any) -> None:
        folders = [node for node in map(self.inodes.get, self.known) if isinstance(node, Folder)]
        parent = [self.root, *folders][pick % (len(folders) + 1)]
        node = self.inodes.adopt(parent, name, content)
        self.known[node.ino] = self.known.get(node.ino, 0) + 1

    @rule(pick=st.integers(0, 20), some=st.booleans())
    def forget(self, pick: int, some: bool) -> None:
        if self.known:
            number = list(self.known)[pick % len(self.known)]
            count = 1 if some else self.known[number]
            self.known[number] -= count
            if not self.known[number]:
                del self.known[number]
            self.inodes.forget([(number, count)])

    @rule(pick=st.integers(0, 20))
    def open(self, pick: int) -> None:
        if self.known:
            node = self.inodes.get(list(self.known)[pick % len(self.known)])
            self.inodes.hold(node)
            self.opened.append(node)

    @rule(pick=st.integers(0, 20))
    def close(self, pick: int) -> None:
        if self.opened:
            self.inodes.release(self.opened.pop(pick % len(self.opened)))

    @invariant()
    def consistent(self) -> None:
        self.inodes.check()
        for number, count in self.known.items():
            assert self.inodes.get(number).lookups == count

    def teardown(self) -> None:
        for node in self.opened:
            self.inodes.release(node)
        self.inodes.forget(self.known.items())
        assert len(self.inodes) == 1


TestKernel = Kernel.TestCase
TestKernel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
