"""Keep services and the order in which to ask them for a block.

Used by `keep.fetch` and `keep.upload`; the API floor makes the values.
Threads: values and pure functions; `ServiceTable` may be called from any thread.
"""

import contextlib
import hashlib
import logging
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from arvados_fuse.errors import ArvadosFuseError, BadAnswer, SetupError, Unreachable
from arvados_fuse.keep.locator import Locator

logger = logging.getLogger("arvados.keep")

REFRESH_SECONDS = 300.0
"""A list of services older than this is asked for again before the next request."""

FAILED_REFRESH_SECONDS = 5.0
"""After a failed round the list is asked for again, but not more often than this."""

REFRESH_PATIENCE = 1.0
"""After a failed round a request waits so long for the new list, then goes on with the one it has: the API
server may be down as well."""

FIRST_PATIENCE = 60.0
"""Without any list so far, so long."""

CLOSE_PATIENCE = 1.0
"""Closing waits so long for an answer under way."""


CLUSTER_ID = 5
"""Characters."""


@dataclass(frozen=True)
class KeepService:
    """One Keep service: `service_type` is `disk`, `proxy` or `gateway:...`; `prefix` its path up to `/`."""

    uuid: str
    host: str
    port: int
    tls: bool = False
    service_type: str = "disk"
    read_only: bool = False
    prefix: str = "/"

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "KeepService":
        """From an item of the API's `keep_services.accessible`. Raises BadAnswer when a field is wrong."""
        try:
            return cls(
                uuid=str(record["uuid"]),
                host=str(record["service_host"]).strip("[]"),
                port=int(record["service_port"]),
                tls=bool(record["service_ssl_flag"]),
                service_type=str(record.get("service_type") or "disk"),
                read_only=bool(record.get("read_only")),
            )
        except (KeyError, TypeError, ValueError) as error:
            name = f"the Keep service {record.get('uuid') or 'without uuid'}"
            text = f"the API server's record of {name} can't be used: {error!r}"
            raise BadAnswer(text, subject=name) from error

    @classmethod
    def from_url(cls, url: str, number: int) -> "KeepService":
        """From the `number`th URL of ARVADOS_KEEP_SERVICES, used like a Keep proxy. Raises SetupError."""
        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise SetupError(f"ARVADOS_KEEP_SERVICES: {url!r} is not a URL ({error})") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SetupError(f"ARVADOS_KEEP_SERVICES: {url!r} is not an http or https URL")
        prefix = parts.path if parts.path.endswith("/") else parts.path + "/"
        uuid = f"00000-bi6l4-{number:015d}"
        return cls(uuid, parts.hostname, port, parts.scheme == "https", "proxy", prefix=prefix)

    @property
    def address(self) -> str:
        """`host:port`, for people."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_gateway(self) -> bool:
        """A gateway is asked only when a locator names it."""
        return self.service_type.startswith("gateway:")


class ServiceDirectory(Protocol):
    """What `keep` needs from the API floor."""

    def keep_services(self) -> Sequence[KeepService]:
        """All services this token may use; may ask the API server."""

    def token(self) -> str:
        """The token for `Authorization: Bearer`."""


def rendezvous(md5: str, services: Iterable[KeepService]) -> list[KeepService]:
    """Services by descending md5(block md5 + last 15 characters of uuid): Arvados' order for a block."""
    return sorted(
        services,
        key=lambda service: hashlib.md5((md5 + service.uuid[-15:]).encode(), usedforsecurity=False).digest(),
        reverse=True,
    )


def reading_order(locator: Locator, services: Sequence[KeepService]) -> list[KeepService]:
    """The services to ask for a block: those its `+K@` hints name, then the others in rendezvous order.

    A hint orders the services that the API server named; it never adds one. A manifest is data, and whoever
    wrote it must not choose a host that is sent our token. A hint of 5 characters is a cluster's id: services
    of that cluster have uuids that begin with it.
    """
    order: list[KeepService] = []
    for hint in locator.service_hints:
        if len(hint) == CLUSTER_ID:
            of_cluster = [one for one in services if one.uuid.startswith(f"{hint}-") and not one.is_gateway]
            order.extend(rendezvous(locator.md5, of_cluster))
        else:
            order.extend(service for service in services if service.uuid == hint)
    order.extend(service for service in rendezvous(locator.md5, services) if not service.is_gateway)
    return list(dict.fromkeys(order))


def writing_order(md5: str, services: Sequence[KeepService]) -> list[KeepService]:
    """The services to offer a new block to, in rendezvous order."""
    return rendezvous(
        md5, (service for service in services if not service.is_gateway and not service.read_only)
    )


class _Question:
    """One question for the list, and its answer."""

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.services: Sequence[KeepService] = ()
        self.error: ArvadosFuseError | None = None


class ServiceTable:
    """Remembers the directory's answer, asks again when it is old or a round of requests failed.

    The directory is asked by a thread of its own, one at a time, so that nobody waits longer than it can: an
    API server that hangs must not hold up those whose blocks are elsewhere. `learned` is told of the first
    list, by that thread.
    """

    def __init__(
        self,
        directory: ServiceDirectory,
        learned: Callable[[Sequence[KeepService]], None] = lambda services: None,
    ) -> None:
        self._directory = directory
        self._learned = learned
        self._lock = threading.Lock()
        self._services: Sequence[KeepService] = ()
        self._asked = 0.0
        self._question: _Question | None = None
        self._thread: threading.Thread | None = None

    def token(self) -> str:
        """The token for `Authorization: Bearer`."""
        return self._directory.token()

    def has_another_token(self, refused: str) -> bool:
        """A service refused this token: whether there is a new one, which the API server's answer to any
        question brings out."""
        if self.token() == refused:
            with contextlib.suppress(Unreachable):
                self.services(failed=True)
        return self.token() != refused

    def learn(self) -> None:
        """Begin to ask for the first list; who needs it will wait for the answer."""
        with self._lock:
            self._ask()

    def close(self) -> None:
        """Wait a moment for an answer under way."""
        if self._thread is not None:
            self._thread.join(CLOSE_PATIENCE)

    def services(self, *, failed: bool = False, patience: float = FIRST_PATIENCE) -> Sequence[KeepService]:
        """The services to use now; `failed` says that the last ones all failed. patience: seconds.

        Raises Unreachable when there is no answer and never was one.
        """
        with self._lock:
            known = self._services
            age = time.monotonic() - self._asked
            if known and age < (FAILED_REFRESH_SECONDS if failed else REFRESH_SECONDS):
                return known
            question = self._ask()
            if known and not failed:
                return known  # old, but so far it has served
        question.answered.wait(min(patience, REFRESH_PATIENCE) if known else patience)
        if question.services or known:
            return question.services or known
        if question.error is not None:
            raise question.error
        text = (
            "gave no list of Keep services in time"
            if not question.answered.is_set()
            else "names no Keep services"
        )
        raise Unreachable(f"the API server {text}")

    def _ask(self) -> _Question:
        """The question under way, asked now if there is none; caller holds the lock."""
        if self._question is None:
            self._asked = time.monotonic()
            self._question = _Question()
            self._thread = threading.Thread(
                target=self._run, args=(self._question,), name="keep-services", daemon=True
            )
            self._thread.start()
        return self._question

    def _run(self, question: _Question) -> None:
        try:
            question.services = tuple(self._directory.keep_services())
        except ArvadosFuseError as error:
            question.error = error
            logger.info("the list of Keep services can't be had just now: %s", error)
        except Exception as error:
            question.error = Unreachable(f"the list of Keep services: unexpected failure: {error!r}")
            logger.exception("unexpected failure while asking for the list of Keep services")
        with self._lock:
            first = not self._services
            self._services = question.services or self._services
            self._question = None
        question.answered.set()
        if first and question.services:
            self._learned(question.services)
