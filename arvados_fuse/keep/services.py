"""Keep services and the order in which to ask them for a block.

Used by `keep.fetch` and `keep.upload`; the API floor makes the values.
Threads: values and pure functions; `ServiceTable` may be called from any thread.
"""

import hashlib
import logging
import threading
import time
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from arvados_fuse.errors import ArvadosFuseError, BadAnswer, SetupError, Unreachable
from arvados_fuse.keep.locator import Locator

logger = logging.getLogger("arvados.keep")

REFRESH_SECONDS = 300.0
"""A list of services older than this is asked for again before the next request."""

FAILED_REFRESH_SECONDS = 5.0
"""After a failed round the list is asked for again, but not more often than this."""


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
            raise BadAnswer(f"a Keep service's record is not complete: {error!r}") from error

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
    """The services to ask for a block: those its `+K@` hints name, then the others in rendezvous order."""
    order: list[KeepService] = []
    for hint in locator.service_hints:
        if len(hint) == 5:  # a cluster id: Arvados' convention for the name of its public Keep proxy
            order.append(
                KeepService(
                    f"{hint}-bi6l4-000000000000000", f"keep.{hint}.arvadosapi.com", 443, True, "proxy"
                )
            )
        else:
            order.extend(service for service in services if service.uuid == hint)
    order.extend(service for service in rendezvous(locator.md5, services) if not service.is_gateway)
    return list(dict.fromkeys(order))


def writing_order(md5: str, services: Sequence[KeepService]) -> list[KeepService]:
    """The services to offer a new block to, in rendezvous order."""
    return rendezvous(
        md5, (service for service in services if not service.is_gateway and not service.read_only)
    )


class ServiceTable:
    """Remembers the directory's answer, asks again when it is old or a round of requests failed."""

    def __init__(self, directory: ServiceDirectory) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._services: Sequence[KeepService] = ()
        self._asked = 0.0

    def token(self) -> str:
        """The token for `Authorization: Bearer`."""
        return self._directory.token()

    def services(self, *, failed: bool = False) -> Sequence[KeepService]:
        """The services to use now; `failed` says that the last ones all failed.

        Raises Unreachable when there is no answer and never was one.
        """
        with self._lock:
            known = self._services
            age = time.monotonic() - self._asked
            if known and age < (FAILED_REFRESH_SECONDS if failed else REFRESH_SECONDS):
                return known
            self._asked = time.monotonic()  # others use the known list while this thread asks
        try:
            fresh = self._directory.keep_services()
        except ArvadosFuseError as error:
            if known:
                logger.warning("Keep services not refreshed, using those known: %s", error)
                return known
            raise
        if not fresh and not known:
            raise Unreachable("the API server names no Keep services")
        with self._lock:
            self._services = tuple(fresh) or known
            return self._services
