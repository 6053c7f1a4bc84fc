"""The listener on the embedded Arvados: every kind of event, broken lines, restarts, no websocket."""

import itertools
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from event_peers import Ear, TcpProxy, listening, tcp_proxy
from servers import LocalServer, wait_for
from worlds import Maker, environment

from arvados_fuse.api import ApiClient, ApiSettings, Change, Pace
from arvados_fuse.errors import Unreachable

QUICK = Pace(connect_within=5.0, first_pause=0.05, longest_pause=1.0, cut_pause=0.2, poll_every=0.3)
CUTS = 20


@contextmanager
def connected(server: LocalServer, token: str) -> Iterator[ApiClient]:
    client = ApiClient.connect(settings_for(server, token), retries=1)
    try:
        yield client
    finally:
        client.close()


def settings_for(server: LocalServer, token: str) -> ApiSettings:
    return ApiSettings.load(environment(server, token))


@contextmanager
def hearing(
    server: LocalServer,
    token: str,
    *,
    proxy: TcpProxy | None = None,
    pace: Pace = QUICK,
    url: str | None = None,
) -> Iterator[tuple[Ear, ApiClient]]:
    """A listener as a mount has it; with `proxy`, its websocket goes through that."""
    with connected(server, token) as client:
        address = client.websocket_url if url is None else url
        assert url is not None or address.startswith("wss://")
        if proxy is not None:
            address = f"wss://127.0.0.1:{proxy.port}/websocket"
        with listening(
            address, client, settings=settings_for(server, token), token=client.token, pace=pace
        ) as ear:
            yield ear, client


def on(ear: Ear, uuid: str) -> list[Change]:
    return [change for change in ear.changes if change.uuid == uuid]


def wait_event(ear: Ear, uuid: str, event: str) -> Change:
    def found() -> Change | None:
        return next((change for change in on(ear, uuid) if change.event == event), None)

    change = wait_for(found, f"{event} of {uuid}", 20)
    assert change is not None
    return change


@pytest.fixture
def mine(local_server: LocalServer) -> Maker:
    number = next(NUMBERS)
    _, token = local_server.new_user(f"listener{time.time_ns()}x{number}")
    return Maker(local_server, token)


NUMBERS = itertools.count()


def test_the_life_of_a_collection(mine: Maker) -> None:
    with hearing(mine.server, mine.token) as (ear, _):
        ear.wait_state("connected")
        home = mine.server.call("GET", "users/current", token=mine.token).body["uuid"]
        project = mine.project("p")
        made = mine.collection("one", {"a": b"a"})
        uuid, pdh = made["uuid"], made["portable_data_hash"]
        created = wait_event(ear, uuid, "create")
        assert (created.kind, created.owner_uuid) == ("arvados#collection", home)
        assert (created.new_name, created.new_portable_data_hash, created.is_trashed) == ("one", pdh, False)
        mine.update("collections", uuid, name="two", owner_uuid=project)
        moved = wait_event(ear, uuid, "update")
        assert (moved.old_name, moved.new_name) == ("one", "two")
        assert (moved.old_owner_uuid, moved.new_owner_uuid) == (home, project)
        assert moved.owners == {home, project}
        assert moved.old_portable_data_hash == moved.new_portable_data_hash == pdh
        other = mine.update("collections", uuid, manifest_text=mine.manifest({"b": b"b"}))
        content = wait_for(lambda: on(ear, uuid)[2:], "the new content")[0]
        assert content.old_portable_data_hash == pdh
        assert content.new_portable_data_hash == other["portable_data_hash"] != pdh
        assert mine.server.call("DELETE", f"collections/{uuid}", token=mine.token).status == 200
        trashed = wait_for(lambda: on(ear, uuid)[3:], "the trash")[0]
        assert (trashed.was_trashed, trashed.is_trashed) == (False, True)
        mine.server.call("POST", f"collections/{uuid}/untrash", {}, token=mine.token)
        back = wait_for(lambda: on(ear, uuid)[4:], "the return")[0]
        assert (back.was_trashed, back.is_trashed) == (True, False)
        assert on(ear, project)[0].kind == "arvados#group"


def test_projects_and_links(mine: Maker) -> None:
    with hearing(mine.server, mine.token) as (ear, _):
        ear.wait_state("connected")
        project = mine.project("p")
        mine.update("groups", project, name="q")
        renamed = wait_event(ear, project, "update")
        assert (renamed.old_name, renamed.new_name) == ("p", "q")
        link = mine.make("links", link_class="tag", name="t", head_uuid=project)["uuid"]
        assert wait_event(ear, link, "create").kind == "arvados#link"
        mine.update("links", link, name="u")
        assert wait_event(ear, link, "update").new_name == "u"
        mine.server.call("DELETE", f"links/{link}", token=mine.token)
        assert wait_event(ear, link, "delete").old_name == "u"
        mine.server.call("DELETE", f"groups/{project}", token=mine.token)
        wait_for(lambda: on(ear, project)[-1].event in ("trash", "delete"), "the project goes")


def test_others_and_their_things_stay_unheard(mine: Maker, local_server: LocalServer) -> None:
    _, token = local_server.new_user(f"other{time.time_ns()}")
    other = Maker(local_server, token)
    with hearing(mine.server, mine.token) as (ear, _):
        ear.wait_state("connected")
        theirs = other.collection("theirs", {})["uuid"]
        ours = mine.collection("ours", {})["uuid"]
        wait_event(ear, ours, "create")
        assert on(ear, theirs) == []


class Load:
    """Makes and renames collections as fast as it goes; knows every event that this makes."""

    def __init__(self, maker: Maker) -> None:
        self.maker = maker
        self.made = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.uuids: list[str] = []

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self._stop.set()
        self._thread.join(60)

    def _work(self) -> None:
        while not self._stop.is_set():
            uuid = self.maker.make("collections", name=f"load {self.made}")["uuid"]
            self.uuids.append(uuid)
            self.maker.update("collections", uuid, name=f"load {self.made} again")
            self.made += 1

    @property
    def expected(self) -> list[tuple[str, str]]:
        return sorted((uuid, event) for uuid in self.uuids for event in ("create", "update"))


def told(ear: Ear) -> list[tuple[str, str]]:
    return sorted(
        (change.uuid, change.event) for change in ear.changes if change.kind == "arvados#collection"
    )


def test_cut_twenty_times_under_load_nothing_missed_nothing_twice(mine: Maker) -> None:
    with (
        tcp_proxy(mine.server.settings.host) as proxy,
        hearing(mine.server, mine.token, proxy=proxy) as (ear, _),
        Load(mine) as load,
    ):
        for number in range(CUTS):
            ear.wait_state("connected")
            wait_for(lambda number=number: load.made > 4 * number and ear.read(), "some events")  # type: ignore[misc]
            assert wait_for(proxy.cut, "a connection to cut", 20)
        load.end()
        wait_for(lambda: len(told(ear)) >= len(load.expected), "all events", 30)
        assert told(ear) == load.expected
        assert len(load.expected) > 4 * CUTS
        ids = ear.ids
        assert len(ids) == len(set(ids))
        assert len(ear.losses) == 1, "the first one, before anything was known"
        # Each of the cuts hit a connection; how many of those the listener had called connected is chance.
        assert ear.states.count("connected") > 1


def test_cut_in_the_middle_of_replays(mine: Maker) -> None:
    """The proxy dies after so many bytes, which falls anywhere: in handshakes, answers, replays."""
    with (
        tcp_proxy(mine.server.settings.host) as proxy,
        hearing(mine.server, mine.token, proxy=proxy) as (ear, _),
    ):
        ear.wait_state("connected")
        stop = threading.Event()

        def cut() -> None:
            for pause in itertools.cycle([0.001, 0.01, 0.03, 0.08, 0.2, 0.4]):
                if stop.wait(pause):
                    return
                proxy.cut()

        cutter = threading.Thread(target=cut)
        with Load(mine) as load:
            cutter.start()
            wait_for(lambda: load.made >= 150, "a load")
        stop.set()
        cutter.join()
        wait_for(lambda: len(told(ear)) >= len(load.expected), "all events", 30)
        assert told(ear) == load.expected
        assert len(ear.ids) == len(set(ear.ids))


def test_the_server_is_killed_and_comes_back(fresh_server: LocalServer) -> None:
    server = fresh_server
    maker = Maker(server, server.settings.token)
    with (
        tcp_proxy(server.settings.host) as proxy,
        hearing(server, server.settings.token, proxy=proxy) as (ear, _),
    ):
        ear.wait_state("connected")
        first = maker.collection("before", {})["uuid"]
        wait_event(ear, first, "create")
        server.kill()
        ear.wait_state("disconnected")
        assert ear.listener.status().reason
        server.start()
        while_away = maker.collection("while away", {})["uuid"]
        name, _, port = server.settings.host.rpartition(":")
        proxy.upstream = (name, int(port))
        wait_event(ear, while_away, "create")
        ear.wait_state("connected")
        after = maker.collection("after", {})["uuid"]
        wait_event(ear, after, "create")
        assert len(ear.ids) == len(set(ear.ids))
        assert len(ear.losses) == 1


def test_no_websocket_means_polling(mine: Maker) -> None:
    with hearing(mine.server, mine.token, url="") as (ear, _):
        ear.wait_state("polling")
        uuid = mine.collection("polled", {})["uuid"]
        assert wait_event(ear, uuid, "create").new_name == "polled"
        mine.update("collections", uuid, name="polled again")
        assert wait_event(ear, uuid, "update").new_name == "polled again"
        assert len(on(ear, uuid)) == 2


def test_a_websocket_that_is_down_is_bridged_by_polling(mine: Maker) -> None:
    with (
        tcp_proxy(mine.server.settings.host) as proxy,
        hearing(mine.server, mine.token, proxy=proxy) as (ear, _),
    ):
        ear.wait_state("connected")
        proxy.refusing = True
        proxy.cut()
        ear.wait_state("polling")
        bridged = mine.collection("bridged", {})["uuid"]
        wait_event(ear, bridged, "create")
        proxy.refusing = False
        ear.wait_state("connected")
        after = mine.collection("after", {})["uuid"]
        wait_event(ear, after, "create")
        assert len(on(ear, bridged)) == 1
        assert len(ear.losses) == 1


def test_a_wrong_token(mine: Maker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = mine.token[:-4] + "zzzz"
    token = [wrong]
    with connected(mine.server, mine.token) as client:
        settings = replace(settings_for(mine.server, mine.token), token=wrong)

        class Refused:
            def logs_after(self, log_id: int, *, filters: Any = ()) -> list[dict[str, Any]]:
                raise Unreachable("not asked here")

            def newest_log(self, *, filters: Any = ()) -> int:
                raise Unreachable("not asked here")

        with listening(
            client.websocket_url, Refused(), settings=settings, token=lambda: token[0], pace=QUICK
        ) as ear:
            wait_for(lambda: "401" in ear.listener.status().reason, "the refusal")
            assert ear.listener.status().state == "disconnected"
            token[0] = mine.token
            ear.wait_state("connected")
    for text in (caplog.text, json.dumps([str(one) for one in ear.read()])):
        assert wrong.rpartition("/")[2] not in text
        assert mine.token.rpartition("/")[2] not in text


def test_an_authority_that_is_not_trusted(mine: Maker) -> None:
    with connected(mine.server, mine.token) as client:
        strict = replace(settings_for(mine.server, mine.token), ca_file="/etc/ssl/certs/ca-certificates.crt")
        pace = replace(QUICK, poll_every=60.0)
        with listening(client.websocket_url, client, settings=strict, token=client.token, pace=pace) as ear:
            wait_for(lambda: "certificate" in ear.listener.status().reason.lower(), "the refusal")
            assert "connected" not in ear.states
        insecure = replace(strict, insecure=True)
        with listening(client.websocket_url, client, settings=insecure, token=client.token) as ear:
            ear.wait_state("connected")


def test_a_subscription_does_not_tell_what_was_before(mine: Maker) -> None:
    before = mine.collection("before", {})["uuid"]
    with hearing(mine.server, mine.token) as (ear, client):
        ear.wait_state("connected")
        after = mine.collection("after", {})["uuid"]
        wait_event(ear, after, "create")
        assert on(ear, before) == []
        newest = client.newest_log()
        assert on(ear, after)[0].log_id <= newest
        assert [record["object_uuid"] for record in client.logs_after(newest - 1)][-1:] != []
