"""Events without a websocket: the records of `logs`, asked for in the order of their ids.

Used by the event listener, in its thread. What came and from where to go on stays with the listener's
`Received`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from arvados_fuse.api.changes import log_id_of
from arvados_fuse.api.received import Received

MOST_BEHIND = 20_000
"""Records that are read one after another; who is further behind begins anew at the end."""

Record = dict[str, Any]
Filters = Sequence[Sequence[Any]]


class LogSource(Protocol):
    """The API client, as far as events need it. Both raise ArvadosFuseError kinds."""

    def logs_after(self, log_id: int, *, filters: Filters = ()) -> list[Record]:
        """At most a page of records with ids above `log_id`, oldest first."""

    def newest_log(self, *, filters: Filters = ()) -> int:
        """The id of the newest record, 0 when there was none lately."""


class TooFarBehind(Exception):
    """There are more records than it makes sense to read."""


class Polling:
    """Reads on from `received.resume`."""

    def __init__(self, logs: LogSource, received: Received, filters: Filters) -> None:
        self._logs = logs
        self._received = received
        self._filters = filters

    def start_at_newest(self) -> None:
        """Count everything until now as come."""
        self._received.start(self._logs.newest_log(filters=self._filters))

    def records(self) -> Iterator[Record]:
        """Records that may not have come yet, oldest first. Raises TooFarBehind."""
        last = self._received.resume or 0
        behind = 0
        while page := self._logs.logs_after(last, filters=self._filters):
            yield from page
            behind += len(page)
            highest = max(log_id_of(record) or 0 for record in page)
            if highest <= last:  # a server that does not advance
                return
            if behind >= MOST_BEHIND:
                raise TooFarBehind
            last = highest
