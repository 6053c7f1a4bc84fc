"""The Arvados API as this project uses it: one method per call, plain dict records out.

Used by the tree, the block cache (services and token) and the committer. Any thread may call.
Every method raises NotFoundError, AccessDenied, RequestRefused, Unreachable or BadAnswer, with server and
request id.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import arvados.api  # noqa: F401  (its import teaches googleapiclient to send objects as JSON)
import googleapiclient.discovery
from googleapiclient.http import HttpRequest

from arvados_fuse.api.arguments import is_last, selected, with_trash
from arvados_fuse.api.pages import FetchPage, Page, one_by_one, several_at_once
from arvados_fuse.api.settings import ApiSettings
from arvados_fuse.api.transport import SILENCE, Transport
from arvados_fuse.errors import BadAnswer
from arvados_fuse.keep.services import KeepService

Record = dict[str, Any]
Filters = Sequence[Sequence[Any]]

PAGE = 1000
"""The most records an Arvados API server puts into one answer."""
DISCOVERY_PATH = "/discovery/v1/apis/arvados/v1/rest"
DEFAULT_SIGNATURE_TTL = 14 * 86400
"""Seconds; Arvados's own default, where the discovery document does not say."""
DEFAULT_REPLICATION = 2
"""Arvados's own default, likewise."""
LATELY = 7200.0
"""Seconds back that a question for the newest log record reaches."""
MANIFEST_SILENCE = 120.0
"""Seconds to wait for the first byte where manifests are carried: for 100 MB the server thinks long."""


class ApiClient:
    """One cluster, one token. Make it with `connect`."""

    def __init__(self, settings: ApiSettings, transport: Transport, discovery: Record) -> None:
        self._settings = settings
        self._transport = transport
        self._discovery = discovery
        # No HTTP happens in here: the description is in `discovery`, and each call brings its own connection.
        service = googleapiclient.discovery.build_from_document(discovery, http=_NoHttp())
        self._collections = service.collections()
        self._groups = service.groups()
        self._users = service.users()
        self._links = service.links()
        self._configs = service.configs()
        self._keep_services = service.keep_services()
        self._logs = service.logs()

    @classmethod
    def connect(cls, settings: ApiSettings, *, retries: int) -> "ApiClient":
        """Fetch the cluster's description of its API; `retries`: attempts after the first, for every call."""
        transport = Transport(settings, retries=retries)
        url = f"https://{settings.host}{DISCOVERY_PATH}"
        try:
            return cls(settings, transport, transport.fetch_json(url, subject=settings.host))
        except BaseException:
            transport.close()
            raise

    @property
    def host(self) -> str:
        return self._settings.host

    @property
    def deadline(self) -> float:
        """Seconds after which a call gives up."""
        return self._settings.deadline

    @property
    def blob_signature_ttl(self) -> float:
        """Seconds that a block's permission signature lives (`blobSignatureTtl` of the discovery
        document)."""
        value = self._discovery.get("blobSignatureTtl", DEFAULT_SIGNATURE_TTL)
        return float(value) if isinstance(value, (int, float)) else float(DEFAULT_SIGNATURE_TTL)

    def server_time(self) -> float:
        """What time it is at the server, by which signatures end, in seconds since 1970."""
        return self._transport.clock.now()

    @property
    def knows_replace_files(self) -> bool:
        """Whether the discovery document describes `replace_files` for collection updates."""
        at: Any = self._discovery
        for name in ("resources", "collections", "methods", "update", "parameters"):
            at = at.get(name) if isinstance(at, dict) else None
        return isinstance(at, dict) and "replace_files" in at

    @property
    def default_replication(self) -> int:
        """Copies of a block that the cluster wants (`defaultCollectionReplication` of the discovery
        document)."""
        value = self._discovery.get("defaultCollectionReplication")
        return value if isinstance(value, int) and value > 0 else DEFAULT_REPLICATION

    @property
    def cluster_id(self) -> str:
        """How uuids of this cluster begin, or "" when it does not say (`uuidPrefix` of the discovery
        document)."""
        return str(self._discovery.get("uuidPrefix") or "")

    @property
    def websocket_url(self) -> str:
        """Where events come from, or "" when the cluster announces none."""
        return str(self._discovery.get("websocketUrl") or "")

    def token(self) -> str:
        """The token in use; another one once the server has refused it and the settings have a new one."""
        return self._transport.credentials.token

    def tell_new_tokens(self, tell: Callable[[str], None]) -> None:
        """`tell` gets each new token before it is used."""
        self._transport.credentials.tell = tell

    def close(self) -> None:
        """Close all connections; requests under way fail."""
        self._transport.close()

    # Reading

    def current_user(self) -> Record:
        return self._send(self._users.current(), "the current user")

    def get_user(self, uuid: str) -> Record:
        return self._send(self._users.get(uuid=uuid), uuid)

    def get_group(
        self, uuid: str, *, select: Sequence[str] | None = None, include_trash: bool = False
    ) -> Record:
        return self._send(self._groups.get(uuid=uuid, **selected(select), **with_trash(include_trash)), uuid)

    def get_collection(
        self, uuid_or_pdh: str, *, select: Sequence[str] | None = None, include_trash: bool = False
    ) -> Record:
        """All fields with a manifest signed for this token, or only those in `select`."""
        request = self._collections.get(uuid=uuid_or_pdh, **selected(select), **with_trash(include_trash))
        if select is None or "manifest_text" in select:
            return self._send(request, uuid_or_pdh, silence=MANIFEST_SILENCE)
        return self._send(request, uuid_or_pdh)

    def versions_of(self, uuid: str, *, number: int | None = None, select: Sequence[str]) -> Iterator[Record]:
        """The versions of a collection that the server has kept, the present one among them; with `number`
        that one. (By a list, where past versions are documented to be found; `select` may name
        `manifest_text`.)"""
        chosen = [] if number is None else [["version", "=", number]]
        call = partial(self._collections.list, include_old_versions=True)
        filters: Filters = [["current_version_uuid", "=", uuid], *chosen]
        return one_by_one(self._pages(call, uuid, filters, select, silence=MANIFEST_SILENCE))

    def config(self) -> Record:
        """The public part of the cluster's configuration."""
        return self._send(self._configs.get(), "the cluster's configuration")

    def keep_services(self) -> list[KeepService]:
        """The services to use, from the settings or else from the cluster."""
        if self._settings.keep_services:
            return [
                KeepService.from_url(url, number)
                for number, url in enumerate(self._settings.keep_services, start=1)
            ]
        answer = self._send(self._keep_services.accessible(), "the list of Keep services")
        return [
            KeepService.from_record(record) for record in self._items(answer, "the list of Keep services")
        ]

    def project_contents(
        self,
        owner_uuid: str,
        *,
        kind: str,
        filters: Filters = (),
        select: Sequence[str] | None = None,
        include_trash: bool = False,
    ) -> Iterator[Record]:
        """What the project, filter group or user `owner_uuid` owns, of one kind (`arvados#collection`, ...),
        in any order.

        One kind at a time: the server gives kinds one after another, so uuids ascend within a kind only.
        """
        call = partial(self._groups.contents, uuid=owner_uuid, **with_trash(include_trash))
        chosen = [["uuid", "is_a", kind], *filters]
        return several_at_once(self._pages(call, owner_uuid, chosen, select))

    def named_in_project(
        self, owner_uuid: str, name_filter: Sequence[Any], *, filters: Filters = (), select: Sequence[str]
    ) -> list[Record]:
        """The subprojects and collections of `owner_uuid` whose name satisfies `name_filter`: one request."""
        kinds = ["uuid", "is_a", ["arvados#group", "arvados#collection"]]
        request = self._groups.contents(
            uuid=owner_uuid,
            filters=[kinds, ["name", *name_filter], *filters],
            select=list(select),
            limit=PAGE,
            count="none",
        )
        return self._items(self._send(request, owner_uuid), owner_uuid)

    def list_groups(self, filters: Filters, *, select: Sequence[str] | None = None) -> Iterator[Record]:
        return self._list(self._groups, "groups", filters, select)

    def count_groups(self, filters: Filters) -> int:
        """How many groups there are that we may read; a question that costs no records."""
        request = self._groups.list(filters=list(filters), limit=0, count="exact")
        number = self._send(request, "groups").get("items_available")
        if not isinstance(number, int):
            raise BadAnswer(f"API server {self.host} did not count", subject="groups", server=self.host)
        return number

    def list_collections(self, filters: Filters, *, select: Sequence[str] | None = None) -> Iterator[Record]:
        return self._list(self._collections, "collections", filters, select)

    def list_links(self, filters: Filters, *, select: Sequence[str] | None = None) -> Iterator[Record]:
        return self._list(self._links, "links", filters, select)

    def list_users(self, filters: Filters, *, select: Sequence[str] | None = None) -> Iterator[Record]:
        return self._list(self._users, "users", filters, select)

    def shared_groups(self, *, filters: Filters = ()) -> tuple[list[Record], list[Record]]:
        """The top-level groups shared with us, and the records of their owners that we may read."""
        groups: list[Record] = []
        owners: dict[str, Record] = {}
        last = ""
        while True:
            request = self._groups.shared(
                filters=[*filters, ["uuid", ">", last]] if last else list(filters),
                order=["uuid asc"],
                include="owner_uuid",
                limit=PAGE,
                count="none",
            )
            answer = self._send(request, "shared projects")
            page = self._items(answer, "shared projects")
            groups += page
            included = answer.get("included") or []
            if not isinstance(included, list):
                text = f"API server {self.host} gave no list of owners"
                raise BadAnswer(text, subject="shared projects", server=self.host)
            owners.update(
                (str(record.get("uuid")), record) for record in included if isinstance(record, dict)
            )
            if is_last(answer, page):
                return groups, list(owners.values())
            last = self._next_key(page, last, "shared projects")

    def logs_after(self, log_id: int, *, filters: Filters = ()) -> list[Record]:
        """At most a page of the log records with ids above `log_id`, oldest first.

        With `log_id` 0: those of the last hours (a question for all that ever happened would take long).
        """
        after = ["id", ">", str(log_id)] if log_id else self._lately()
        return self._log_page([after, *filters], "id asc", PAGE)

    def newest_log(self, *, filters: Filters = ()) -> int:
        """The id of the newest log record; 0 when there was none in the last hours."""
        page = self._log_page([self._lately(), *filters], "id desc", 1)
        number = page[0].get("id") if page else 0
        return number if isinstance(number, int) else 0

    def _log_page(self, filters: Filters, order: str, limit: int) -> list[Record]:
        request = self._logs.list(filters=filters, order=[order], limit=limit, count="none")
        return self._items(self._send(request, "logs"), "logs")

    # Changing

    def create_collection(self, body: Mapping[str, Any], *, ensure_unique_name: bool = False) -> Record:
        """Make a collection from `body` (name, owner_uuid, manifest_text, ...).

        Sent again only when the server is known not to have taken it, so that one call makes one collection.
        """
        request = self._collections.create(
            body={"collection": dict(body)}, ensure_unique_name=ensure_unique_name
        )
        return self._send(request, str(body.get("name", "")), repeatable=False, silence=MANIFEST_SILENCE)

    def update_collection(
        self,
        uuid: str,
        body: Mapping[str, Any],
        *,
        replace_files: Mapping[str, str] | None = None,
        select: Sequence[str] | None = None,
    ) -> Record:
        """Change fields, and with `replace_files` single paths (target path to source).

        The answer has all fields with a manifest signed for this token, or (a server may ignore that) only
        those in `select`.

        With `replace_files` sent again only when the server is known not to have taken it: `current` means
        something else the second time. Whoever gets Unreachable looks what the collection is now.
        """
        sent: Record = {"collection": dict(body)}
        if replace_files is not None:
            sent["replace_files"] = dict(replace_files)
        if select is not None:
            sent["select"] = list(select)
        request = self._collections.update(uuid=uuid, body=sent)
        return self._send(request, uuid, repeatable=not replace_files, silence=MANIFEST_SILENCE)

    def untrash(self, uuid: str) -> Record:
        """Bring a collection or group back from the trash; the server chooses another name if its own is
        taken now. Raises RequestRefused when it is not in the trash."""
        request = self._kind_of(uuid).untrash(uuid=uuid)
        # Arvados takes this argument here; its description of the API does not name it.
        request.uri += "&ensure_unique_name=true"
        return self._send(request, uuid, repeatable=False)

    def trash(self, uuid: str) -> Record:
        """Put a collection or group into the trash."""
        return self._send(self._kind_of(uuid).delete(uuid=uuid), uuid)

    def rename(self, uuid: str, *, name: str, owner_uuid: str) -> Record:
        """Give a collection or group another name or owner. Raises RequestRefused when the name is taken."""
        single = "collection" if "-4zz18-" in uuid else "group"
        body = {single: {"name": name, "owner_uuid": owner_uuid}}
        return self._send(self._kind_of(uuid).update(uuid=uuid, body=body), uuid)

    def _kind_of(self, uuid: str) -> Any:
        return self._collections if "-4zz18-" in uuid else self._groups

    def _send(
        self, request: HttpRequest, subject: str, *, repeatable: bool = True, silence: float = SILENCE
    ) -> Record:
        return self._transport.send(request, subject=subject, repeatable=repeatable, silence=silence)

    def _list(self, kind: Any, name: str, filters: Filters, select: Sequence[str] | None) -> Iterator[Record]:
        return one_by_one(self._pages(kind.list, name, filters, select))

    def _pages(
        self,
        call: Any,
        subject: str,
        filters: Filters,
        select: Sequence[str] | None,
        silence: float = SILENCE,
    ) -> FetchPage:
        """How a page of a list call is asked for."""

        def fetch(after: str, until: str) -> Page:
            bounds = [["uuid", ">", after]] if after else []
            if until:
                bounds.append(["uuid", "<=", until])
            arguments: Record = {
                "filters": [*filters, *bounds],
                "order": ["uuid asc"],
                "limit": PAGE,
                "count": "none",
                **selected(select),
            }
            answer = self._send(call(**arguments), subject, silence=silence)
            page = self._items(answer, subject)
            return Page(page, "" if is_last(answer, page) else self._next_key(page, after, subject))

        return fetch

    def _lately(self) -> list[str]:
        """A filter on `created_at`."""
        begin = time.gmtime(self.server_time() - LATELY)
        return ["created_at", ">=", time.strftime("%Y-%m-%dT%H:%M:%SZ", begin)]

    def _items(self, answer: Record, subject: str) -> list[Record]:
        items = answer.get("items")
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise BadAnswer(
                f"API server {self.host} gave a list without items", subject=subject, server=self.host
            )
        return items

    def _next_key(self, page: Sequence[Record], last: str, subject: str) -> str:
        """The key to go on from; a server that does not advance must not keep us here for ever."""
        key = max(str(item.get("uuid", "")) for item in page)
        if key <= last:
            raise BadAnswer(
                f"API server {self.host} gave the same page again", subject=subject, server=self.host
            )
        return key


class _NoHttp:
    """Stands where googleapiclient wants a connection that is never used: every call brings its own."""

    def close(self) -> None:
        """Nothing is open."""
