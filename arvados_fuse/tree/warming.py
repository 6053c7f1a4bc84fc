"""`--warm`, `--pin` and `--unpin`: what a path of the mount is made of, and having all of it in the cache.

Made by `cli/build.py`, which answers requests of the control socket with it. Walks nodes of its own, which
the kernel does not know of, so it disturbs nobody's names. Any thread may call; each call is one run.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

from arvados_fuse.collection import Directory, File, portable_data_hash
from arvados_fuse.collection.manifest.tokens import strip_hints
from arvados_fuse.collection.segments import ZERO_BLOCK
from arvados_fuse.errors import ArvadosFuseError, NotFoundError, NotSupported, SignatureRefused
from arvados_fuse.keep import Failure, Locator, Pin, Wanted, Warming
from arvados_fuse.tree.collection_nodes import CollectionDirectory
from arvados_fuse.tree.context import Context
from arvados_fuse.tree.nodes import DirectoryNode
from arvados_fuse.tree.version import Version, manifest_of

TELL_SECONDS = 0.5
"""How often the number of files found so far is told."""
TOLD_FAILURES = 100
"""So many files that failed are named; the others are counted."""

Answer = dict[str, Any]
"""`looking` (files found so far); `files`, `all_files`, `bytes`, `all_bytes`, `seconds_left` (see
`keep.Progress`); `failure` (`path`, `message`); and at the end `done` (`files`, `bytes`, `failures`)."""


class Part(NamedTuple):
    """What of one collection is wanted. within: its path in the collection, "" for all."""

    key: str
    version: Version
    within: str
    files: Sequence[tuple[str, File]]
    """Path in the mount, and the file."""

    def wanted(self) -> list[Wanted]:
        """With the locators that are signed now."""
        return [Wanted(path, _locators(file)) for path, file in self.files]


class WarmingRun:
    """Answers requests about paths below `root`."""

    def __init__(self, context: Context, root: DirectoryNode) -> None:
        self._context = context
        self._root = root

    def warm(self, paths: Sequence[str], *, pin: bool) -> Generator[Answer, None, None]:
        """Have everything below `paths` (relative to the root of the mount) in the cache; tell how far it is.

        pin: and never evict it. Raises NotFoundError, NotSupported, NoSpaceError before the first block.
        """
        parts: list[Part] = []
        failures: list[Failure] = []
        for path in paths:
            yield from self._find(path, parts, failures)
        blocks = self._context.blocks
        if pin:
            for part in parts:
                blocks.pin(self._pin(part), self._manifest(part.version))
        wanted = [one for part in parts for one in part.wanted()]
        warming = Warming(blocks, wanted)
        if not pin:
            blocks.room_for(warming.blocks)
        yield from _told(warming)
        if any(isinstance(one.error, SignatureRefused) for one in warming.failures):
            # Signatures had ended, or there were none (content that was pinned is read without asking).
            for part in parts:
                part.version.renew()
            warming = Warming(blocks, [one for part in parts for one in part.wanted()])
            yield from _told(warming)
        failures += warming.failures
        for failure in failures[:TOLD_FAILURES]:
            yield {"failure": {"path": failure.path, "message": str(failure.error)}}
        total = sum(int(block.partition("+")[2]) for block in warming.blocks)
        yield {"done": {"files": len(wanted), "bytes": total, "failures": len(failures)}}

    def unpin(self, paths: Sequence[str]) -> Iterator[Answer]:
        """Let go of what was pinned at or below `paths`; an empty sequence: of everything."""
        pins = self._context.blocks.pins
        count = 0
        if pins is not None and not paths:
            count = sum(pins.remove(pin.key, pin.path) for pin in pins.all())
        for path in paths:
            for key, within in self._places(path):
                count += pins.remove(key, within) if pins is not None else 0
        yield {"done": {"unpinned": count}}

    # What is at a path

    def _find(self, path: str, parts: list[Part], failures: list[Failure]) -> Generator[Answer, None, None]:
        """Collect what is at and below `path`."""
        node, file = self._resolve(path)
        if isinstance(node, CollectionDirectory) and file:
            version = node.state.current()
            parent = node.directory(version)
            entry = parent.get(file)
            assert isinstance(entry, File)
            parts.append(Part(node.state.key, version, _below(parent, file), [(path, entry)]))
            return
        found, tell_at = 0, time.monotonic()
        for part in self._below(path, node, failures):
            parts.append(part)
            found += len(part.files)
            if time.monotonic() >= tell_at:
                tell_at = time.monotonic() + TELL_SECONDS
                yield {"looking": found}

    def _resolve(self, path: str) -> tuple[DirectoryNode, str]:
        """The directory at a path; or, for a file in a collection, its directory and its name."""
        node, names = self._root, [name for name in path.split("/") if name and name != "."]
        for number, name in enumerate(names):
            content = self._found(node, name, path)
            if (
                isinstance(node, CollectionDirectory)
                and isinstance(content, tuple)
                and isinstance(content[1], File)
            ):
                if number + 1 < len(names):
                    raise NotFoundError(f"{name!r} in {path!r} is a file", subject=path)
                return node, name
            node = self._child(node, name, content, path)
        return node, ""

    @staticmethod
    def _found(node: DirectoryNode, name: str, path: str) -> Any:
        try:
            return node.find(name)[0]
        except NotFoundError as error:
            raise NotFoundError(f"{path!r} does not exist", subject=path) from error

    @staticmethod
    def _child(node: DirectoryNode, name: str, content: Any, path: str) -> DirectoryNode:
        """A node that only this run knows."""
        child = node.make(name, content)
        if not isinstance(child, DirectoryNode):
            raise NotSupported(f"{path!r} is no data in Keep", subject=path)
        child.parent, child.name = node, name
        return child

    def _below(self, path: str, node: DirectoryNode, failures: list[Failure]) -> Iterator[Part]:
        if isinstance(node, CollectionDirectory):
            version = node.state.current()
            directory = node.directory(version)
            files = list(_files(directory, path))
            yield Part(node.state.key, version, directory.stream_name()[2:], files)
            return
        snapshot = node.snapshot()
        for name, entry in snapshot.entries:
            if not snapshot.is_directory(entry):
                continue
            below = f"{path}/{name}".lstrip("/")
            try:
                child = self._child(node, name, node.find(name)[0], below)
                yield from self._below(below, child, failures)
            except ArvadosFuseError as error:
                failures.append(Failure(below, error))

    def _places(self, path: str) -> Iterator[tuple[str, str]]:
        """Keys of collections at and below `path`, and the paths in them."""
        node, file = self._resolve(path)
        yield from self._keys(node, file)

    def _keys(self, node: DirectoryNode, file: str = "") -> Iterator[tuple[str, str]]:
        if isinstance(node, CollectionDirectory):
            names = [file] if file else []
            at: DirectoryNode | None = node
            while isinstance(at, CollectionDirectory) and isinstance(at.parent, CollectionDirectory):
                names.insert(0, at.name)
                at = at.parent
            yield node.state.key, "/".join(names)
            return
        snapshot = node.snapshot()
        for name, entry in snapshot.entries:
            if snapshot.is_directory(entry):
                yield from self._keys(self._child(node, name, node.find(name)[0], name))

    # Pins

    @staticmethod
    def _pin(part: Part) -> Pin:
        texts = {text for _, file in part.files for text in _locators(file)}
        blocks = sorted({Locator.parse(text).stripped for text in texts})
        return Pin(part.version.pdh, part.key, part.within, blocks)

    @staticmethod
    def _manifest(version: Version) -> str:
        """Without signatures. What is changed here and not saved can't be pinned."""
        text = version.collection.manifest_text(strip=True, only_committed=True)
        if portable_data_hash(text) == version.pdh:
            return text
        record = version.state.fetch_content(version.pdh)
        manifest = manifest_of(record, version.pdh)
        return strip_hints(manifest.encode()).decode()


def _told(warming: Warming) -> Generator[Answer, None, None]:
    steps = warming.run()
    try:
        for progress in steps:
            yield progress._asdict()
    finally:
        steps.close()


def _files(directory: Directory, path: str) -> Iterator[tuple[str, File]]:
    waiting = [(directory, path)]
    while waiting:
        here, way = waiting.pop()
        for name, entry in here.entries():
            below = f"{way}/{name}".lstrip("/")
            if isinstance(entry, File):
                yield below, entry
            else:
                waiting.append((entry, below))


def _locators(file: File) -> list[str]:
    """Of the blocks that have to be fetched to read it; there may be none."""
    return [
        segment.locator
        for segment in file.segments()
        if isinstance(segment.locator, str) and not segment.locator.startswith(ZERO_BLOCK)
    ]


def _below(directory: Directory, name: str) -> str:
    above = directory.stream_name()[2:]
    return f"{above}/{name}" if above else name
