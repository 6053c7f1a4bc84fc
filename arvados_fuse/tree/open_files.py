"""Open files of collections: reading through a reader that reads ahead, writing into the working copy.

Made by `CollectionFile`; used through the handles of `FileSystem`.
"""

import time
from typing import TYPE_CHECKING

from arvados_fuse.collection import File
from arvados_fuse.collection.content import Content
from arvados_fuse.errors import NotFoundError, SignatureRefused
from arvados_fuse.keep import Reader
from arvados_fuse.tree.writer import Writer

if TYPE_CHECKING:
    from arvados_fuse.tree.collection_nodes import CollectionFile
    from arvados_fuse.tree.collection_state import CollectionState
    from arvados_fuse.tree.version import Version

RENEWALS = 2
"""Times that a read fetches new signatures before it believes the refusal."""


class OpenFile:
    """A file as it was when opened; reads go straight to the blocks, through a reader that reads ahead."""

    __slots__ = ("_content", "_file", "_reader", "_version")

    def __init__(self, file: File, version: "Version", reader: Reader) -> None:
        self._file = file
        self._content: Content | None = None
        self._version = version
        self._reader = reader

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """See Content. New signatures are fetched when the old ones are refused."""
        reader, renewals = self._reader, 0
        content = self._content
        if content is None:
            content = self._content = self._file.content()
        while True:
            version = self._where()
            version.renew_when_due()
            try:
                part = content.in_one_block(offset, size)
                data = reader.read(*part) if part is not None else content.read(offset, size, reader)
                break
            except SignatureRefused as refusal:
                if renewals == RENEWALS:
                    raise
                renewals += 1
                try:
                    signatures = version.renew()
                except NotFoundError:  # neither its content nor the collection is there: nobody signs for it
                    raise refusal from None
                # What was written or moved here has signatures of its own.
                content.sign(signatures)
        ahead = reader.after(offset, len(data))
        if ahead is not None:
            reader.announce(ahead, _blocks(self._file, ahead.begin, ahead.size))
        return data

    def _where(self) -> "Version":
        """The collection that signs for the file."""
        return self._version

    def close(self) -> None:
        """See Content."""
        self._reader.close()


class OpenWriting(OpenFile):
    """A file that may be written. Its writer knows the collection that it lies in, also after a rename."""

    __slots__ = ("_node", "_writer")

    _content: Content

    def __init__(
        self, node: "CollectionFile", file: File, version: "Version", reader: Reader, writer: Writer
    ) -> None:
        super().__init__(file, version, reader)
        self._node = node
        self._content = file.content()
        self._writer = writer

    def write(self, offset: int, data: bytes) -> int:
        """Put bytes at `offset`; gives their number. May wait while too much is unsaved."""
        written = self._content.write(offset, data)
        self._changed()
        writeback = self._node.context.writeback
        if writeback is not None:
            writeback.relieve(self._content, self._writer.working.collection.storage_classes_desired())
        return written

    def truncate(self, size: int) -> None:
        """Make it `size` bytes long."""
        self._content.truncate(size)
        self._changed()

    def set_mtime(self, moment_ns: int) -> None:
        """The time it was modified, ns since 1970."""
        self._writer.mtime_ns = moment_ns

    def flush(self) -> None:
        """A descriptor was closed: the file as it is now is in the journal, or with `sync_on_close` saved.

        Raises what keeps earlier changes from the server, if it refused them.
        """
        state = self._record()
        if self._node.context.sync_on_close and self._content.linked:
            state.save_closed()
        else:
            state.raise_refusal()

    def sync(self) -> None:
        """What was written is on the server after this."""
        state = self._record()
        if self._content.linked:
            state.save_closed()

    def close(self) -> None:
        """See Content."""
        with self._writer.held() as working:
            try:
                working.flush(self._content)
            finally:
                working.close_writer(self._content, self._writer)
                super().close()

    def _where(self) -> "Version":
        return self._writer.working.version

    def _record(self) -> "CollectionState":
        """Record the file as it is now; gives the collection that it lies in."""
        with self._writer.held() as working:
            working.flush(self._content)
            return working.state

    def _changed(self) -> None:
        self._writer.mtime_ns = time.time_ns()
        self._node.has_seen(self._content)


def _blocks(file: File, begin: int, size: int) -> list[str]:
    """The locators of the blocks that hold a range of the file, in its order; there may be none."""
    return [
        segment.locator
        for segment in file.segments()
        if segment.range_start < begin + size
        and segment.range_start + segment.range_size > begin
        and isinstance(segment.locator, str)
    ]
