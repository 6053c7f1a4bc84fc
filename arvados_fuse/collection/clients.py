"""Where a `Collection` that a program made gets its blocks and records from.

Used by `Collection`. Accepts our own clients and, by their methods, those of the Arvados SDK; with neither it
connects with the user's settings when something is first needed.
"""

from collections.abc import Callable, Mapping, Sequence
from os import environ
from typing import Any

from arvados_fuse.collection.failures import BadArgument, ReadFailed
from arvados_fuse.collection.stores import BlockStore, RecordStore


class SdkRecords:
    """Collection records through an API client of the Arvados SDK."""

    def __init__(self, client: Any, retries: int) -> None:
        self._client = client
        self._retries = retries

    def get_collection(self, uuid_or_pdh: str, *, select: Sequence[str] | None = None) -> dict[str, Any]:
        """See `RecordStore`."""
        more = {} if select is None else {"select": list(select)}
        return self._send(self._client.collections().get(uuid=uuid_or_pdh, **more))

    def create_collection(
        self, body: Mapping[str, Any], *, ensure_unique_name: bool = False
    ) -> dict[str, Any]:
        """See `RecordStore`."""
        return self._send(
            self._client.collections().create(body=dict(body), ensure_unique_name=ensure_unique_name)
        )

    def update_collection(
        self,
        uuid: str,
        body: Mapping[str, Any],
        *,
        replace_files: Mapping[str, str] | None = None,
        select: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """See `RecordStore`."""
        sent: dict[str, Any] = dict(body)
        if replace_files is not None or select is not None:
            sent = {"collection": sent}
        if replace_files is not None:
            sent["replace_files"] = dict(replace_files)
        if select is not None:
            sent["select"] = list(select)
        return self._send(self._client.collections().update(uuid=uuid, body=sent))

    def config(self) -> Any:
        """The cluster's configuration."""
        return self._client.config()

    def _send(self, request: Any) -> dict[str, Any]:
        answer: dict[str, Any] = request.execute(num_retries=self._retries)
        return answer


class SdkBlocks:
    """Blocks through a Keep client of the Arvados SDK."""

    def __init__(self, client: Any, retries: int, copies: int | None) -> None:
        self._client = client
        self._retries = retries
        self._copies = copies

    def read(self, locator: str, offset: int, size: int) -> memoryview:
        """See `BlockStore`."""
        block = self._client.get(locator, num_retries=self._retries)
        if block is None:
            raise ReadFailed("the Keep client gave nothing", subject=locator[:32])
        return memoryview(block)[offset : offset + size]

    def put(
        self, data: bytes | memoryview, *, storage_classes: Sequence[str] = (), file: str | None = None
    ) -> str:
        """See `BlockStore`."""
        more = {} if self._copies is None else {"copies": self._copies}
        locator: str = self._client.put(
            bytes(data), num_retries=self._retries, classes=list(storage_classes), **more
        )
        return locator

    def refresh_signature(self, locator: str) -> str:
        """Copy a remote cluster's block to this one; gives its locator here."""
        fresh: str = self._client.refresh_signature(locator)
        return fresh


class Clients:
    """The stores of one collection, made when they are first asked for."""

    def __init__(
        self,
        api_client: Any = None,
        keep_client: Any = None,
        *,
        retries: int = 10,
        copies: int | None = None,
        settings: Mapping[str, str] | None = None,
        connect: bool = True,
    ) -> None:
        """api_client, keep_client: ours or the SDK's; settings: take the place of the environment.

        connect: whether to make what is not given.
        """
        self._may_connect = connect
        self.settings = settings
        self._retries = retries
        self._started: list[Callable[[], None]] = []
        self._made_records: RecordStore | None = None
        self._made_blocks: BlockStore | None = None
        if keep_client is None and hasattr(api_client, "keep"):
            keep_client = api_client.keep
        self._records: RecordStore | None = None
        self._blocks: BlockStore | None = None
        if api_client is not None:
            ours = hasattr(api_client, "get_collection")
            self._records = api_client if ours else SdkRecords(api_client, retries)
        if keep_client is not None:
            ours = hasattr(keep_client, "read")
            self._blocks = keep_client if ours else SdkBlocks(keep_client, retries, copies)

    def records(self) -> RecordStore:
        """Where collection records are. Raises SetupError when there are no settings."""
        if self._records is None:
            self._connect()
        assert self._records is not None
        return self._records

    def blocks(self) -> BlockStore:
        """Where blocks are. Raises SetupError when there are no settings."""
        if self._blocks is None:
            self._connect()
        assert self._blocks is not None
        return self._blocks

    def _connect(self) -> None:
        if not self._may_connect:
            raise BadArgument("the collection was made without a place for its records and blocks")
        # Late, so that a collection of a manifest text needs neither a server nor the SDK.
        from arvados_fuse.api import ApiClient, ApiSettings
        from arvados_fuse.keep import BlockCache, RamStore

        settings = ApiSettings.load({**environ, **(self.settings or {})})
        client = ApiClient.connect(settings, retries=self._retries)
        self._started.append(client.close)
        if self._records is None:
            self._records = self._made_records = client
        if self._blocks is None:
            store: Any = RamStore()
            cache = BlockCache(
                client,
                store,
                insecure=settings.insecure,
                ca_file=settings.ca_file or None,
                retries=self._retries,
            )
            cache.start()
            self._started.append(cache.close)
            self._blocks = self._made_blocks = cache

    def close(self) -> None:
        """End what was started here; it is started again when it is needed again."""
        for end in reversed(self._started):
            end()
        self._started = []
        if self._records is self._made_records:
            self._records = None
        if self._blocks is self._made_blocks:
            self._blocks = None
        self._made_records = self._made_blocks = None
