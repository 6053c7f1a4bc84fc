"""Keep services: their order for a block, how they are listed, when the list is asked for again."""

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from arvados_fuse.errors import BadAnswer, SetupError, Unreachable
from arvados_fuse.keep import KeepService, Locator, rendezvous
from arvados_fuse.keep.services import ServiceTable, reading_order, writing_order

MD5 = "acbd18db4cc2f85cedef654fccc4a4d8"
SERVICES = [KeepService(f"zzzzz-bi6l4-{number:015x}", f"keep{number}", 25107) for number in range(5)]


def test_rendezvous_is_the_order_of_the_sdk() -> None:
    # Written down from KeepClient.weighted_service_roots of arvados-python-client 3.2.1 for these uuids.
    order = [service.host for service in rendezvous(MD5, SERVICES)]
    assert order == ["keep3", "keep0", "keep4", "keep2", "keep1"]
    assert [service.host for service in rendezvous(MD5, reversed(SERVICES))] == order


def test_hints_go_first_and_gateways_only_when_named() -> None:
    gateway = KeepService("zzzzz-bi6l4-00000000000000g", "gate", 25107, service_type="gateway:test")
    services = [*SERVICES, gateway]
    plain = reading_order(Locator.parse(f"{MD5}+3"), services)
    assert plain == rendezvous(MD5, SERVICES)
    named = reading_order(Locator.parse(f"{MD5}+3+K@{gateway.uuid}+K@{plain[3].uuid}"), services)
    assert named == [gateway, plain[3], plain[0], plain[1], plain[2], plain[4]]
    unknown = reading_order(Locator.parse(f"{MD5}+3+K@zzzzz-bi6l4-zzzzzzzzzzzzzzz"), services)
    assert unknown == plain


def test_a_hint_never_adds_a_service_that_the_api_server_did_not_name() -> None:
    # Whoever writes a manifest would else choose who gets our token.
    other = KeepService("abcde-bi6l4-000000000000000", "proxy", 443, tls=True, service_type="proxy")
    plain = rendezvous(MD5, SERVICES)
    assert reading_order(Locator.parse(f"{MD5}+3+K@abcde"), SERVICES) == plain
    with_other = reading_order(Locator.parse(f"{MD5}+3+K@abcde"), [*SERVICES, other])
    assert with_other == [other, *plain]
    assert reading_order(Locator.parse(f"{MD5}+3+K@zzzzz"), SERVICES) == plain


def test_writing_leaves_out_read_only_services() -> None:
    closed = KeepService("zzzzz-bi6l4-00000000000000r", "closed", 25107, read_only=True)
    assert closed not in writing_order(MD5, [*SERVICES, closed])
    assert closed in reading_order(Locator.parse(f"{MD5}+3"), [*SERVICES, closed])


def test_from_record() -> None:
    record: dict[str, Any] = {
        "uuid": "zzzzz-bi6l4-000000000000001",
        "service_host": "[::1]",
        "service_port": 25107,
        "service_ssl_flag": True,
        "service_type": "proxy",
        "read_only": True,
    }
    service = KeepService.from_record(record)
    assert service == KeepService(record["uuid"], "::1", 25107, True, "proxy", True)
    assert service.address == "[::1]:25107"
    with pytest.raises(BadAnswer) as caught:
        KeepService.from_record({**record, "service_port": "x"})
    assert str(record["uuid"]) in caught.value.subject
    with pytest.raises(BadAnswer, match="without uuid") as caught:
        KeepService.from_record({})
    assert caught.value.subject


def test_from_url() -> None:
    assert KeepService.from_url("http://127.0.0.1:4567", 1).address == "127.0.0.1:4567"
    tls = KeepService.from_url("https://keep.example.com/below", 2)
    assert (tls.port, tls.tls, tls.prefix, tls.service_type) == (443, True, "/below/", "proxy")
    for wrong in ("keep:25107", "ftp://keep/", "http://", "http://keep:x/", "http://[::1/"):
        with pytest.raises(SetupError):
            KeepService.from_url(wrong, 1)


class Directory:
    """Counts how often it is asked; fails on demand."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: Sequence[KeepService] = SERVICES[:1]
        self.fails = False

    def keep_services(self) -> Sequence[KeepService]:
        self.asked += 1
        if self.fails:
            raise Unreachable("no API server")
        return self.answer

    def token(self) -> str:
        return "token"


def test_the_list_is_kept_and_asked_for_again_after_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    directory, now = Directory(), 1000.0
    monkeypatch.setattr("arvados_fuse.keep.services.time.monotonic", lambda: now)
    table = ServiceTable(directory)
    assert list(table.services()) == SERVICES[:1]
    assert table.services() == table.services(failed=True)
    assert directory.asked == 1
    now, directory.answer = now + 6, SERVICES[:2]
    assert list(table.services()) == SERVICES[:1]
    assert list(table.services(failed=True)) == SERVICES[:2]
    now, directory.fails = now + 400, True
    assert list(table.services()) == SERVICES[:2]
    assert directory.asked == 3


def test_no_list_at_all_is_an_error() -> None:
    directory = Directory()
    directory.fails = True
    with pytest.raises(Unreachable):
        ServiceTable(directory).services()
    directory.fails, directory.answer = False, ()
    with pytest.raises(Unreachable):
        ServiceTable(directory).services()


def test_an_api_server_that_hangs_holds_nobody_up_for_long() -> None:
    class Hanging:
        def __init__(self) -> None:
            self.released = threading.Event()

        def keep_services(self) -> Sequence[KeepService]:
            self.released.wait(60)
            return SERVICES

        def token(self) -> str:
            return "t"

    directory = Hanging()
    table = ServiceTable(directory)
    with pytest.raises(Unreachable, match="in time"):
        table.services(patience=0.05)
    directory.released.set()
    assert table.services() == tuple(SERVICES)
    directory.released.clear()
    assert table.services() == tuple(SERVICES)
    directory.released.set()
    table.close()
