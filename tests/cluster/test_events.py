"""Notices as Events in the cluster: what arrives, what a cluster that refuses them does to us."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyagent.cluster.access import Access
from pyagent.cluster.addresses import Addresses
from pyagent.cluster.backoff import Backoff
from pyagent.cluster.connection import Connection
from pyagent.cluster.event_book import BURST, FIRST_AGAIN, MOST
from pyagent.cluster.event_recorder import EventRecorder
from pyagent.model.notice import Notice
from tests.cluster.conftest import credentials_of
from tests.cluster.support import PATIENCE, service
from tests.fakes.api_server import ApiServer

Record = Callable[..., EventRecorder]
FULL = Notice("Node", "MapFull", "Translate", "map frontends has no room")


def on_service(text: str = "spec.type: unknown", name: str = "web", everywhere: bool = True) -> Notice:
    return Notice("Service", "InvalidField", "Translate", text, "shop", name, everywhere=everywhere)


class Clock:
    """Monotonic time that also passes when told to."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.skipped


def later(clock: Clock, holds: Callable[[], bool]) -> Callable[[], bool]:
    """The recorder notes when it told only after the server has answered: time goes on meanwhile."""

    def asked_again() -> bool:
        clock.skipped += FIRST_AGAIN
        return holds()

    return asked_again


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def record(server: ApiServer, clock: Clock) -> Iterator[Record]:
    started: list[EventRecorder] = []

    def start(node_name: str = "worker-1", **more: Any) -> EventRecorder:
        connection = Connection(Access(lambda: credentials_of(server)), Addresses(None, None, time.monotonic))
        quick = Backoff(lambda: 0.5, 0.01, 0.05)
        made = EventRecorder(connection, node_name, spread=0.0, now=clock, backoff=quick, **more)
        made.start()
        started.append(made)
        return made

    yield start
    for one in started:
        one.stop()


def wait(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come")
        time.sleep(0.01)


def posts(server: ApiServer) -> int:
    return len(server.seen("create", "Event"))


def the_event(server: ApiServer) -> dict[str, Any]:
    wait(lambda: len(server.events) == 1, "an Event")
    return next(iter(server.events.values()))


def test_a_notice_about_this_node_arrives(server: ApiServer, record: Record) -> None:
    record().put(FULL)
    event = the_event(server)
    assert event["regarding"] == {"apiVersion": "v1", "kind": "Node", "name": "worker-1", "uid": "worker-1"}
    assert event["metadata"]["namespace"] == "default"
    assert (event["reason"], event["action"], event["type"]) == ("MapFull", "Translate", "Warning")
    assert event["note"] == FULL.text
    assert (event["reportingController"], event["reportingInstance"]) == ("kubesock", "kubesock-worker-1")
    assert "series" not in event


def test_a_notice_about_a_service_bears_its_uid(server: ApiServer, record: Record) -> None:
    web = service("web")
    web["metadata"]["uid"] = "0a9a4e46"
    server.put(web)
    record().put(on_service())
    event = the_event(server)
    assert event["regarding"] == {
        "apiVersion": "v1",
        "kind": "Service",
        "namespace": "shop",
        "name": "web",
        "uid": "0a9a4e46",
    }
    assert event["metadata"]["namespace"] == "shop"
    (asked,) = server.seen("list")
    assert asked.query == {"fieldSelector": "metadata.name=web", "limit": "1"}
    assert "as=PartialObjectMetadataList" in asked.accept


def test_a_service_that_is_gone_has_no_event(server: ApiServer, record: Record) -> None:
    recorder = record()
    recorder.put(on_service())
    recorder.put(FULL)
    assert the_event(server)["reason"] == "MapFull"
    assert posts(server) == 1


def test_repetitions_are_one_event_with_a_count(server: ApiServer, record: Record, clock: Clock) -> None:
    recorder = record()
    recorder.put(FULL)
    event = the_event(server)
    for _ in range(500):
        recorder.put(FULL)
    recorder.put(FULL)
    wait(later(clock, lambda: bool(server.seen("patch", "Event"))), "a patch")
    wait(lambda: the_event(server).get("series", {}).get("count") == 502, "the count")
    assert the_event(server)["eventTime"] == event["eventTime"]
    assert (posts(server), len(server.seen("patch", "Event"))) == (1, 1)


def test_an_event_that_expired_meanwhile_is_made_anew(
    server: ApiServer, record: Record, clock: Clock
) -> None:
    recorder = record()
    recorder.put(FULL)
    the_event(server)
    server.events.clear()
    recorder.put(FULL)
    recorder.put(FULL)
    wait(later(clock, lambda: bool(server.events)), "an event")
    assert the_event(server)["series"]["count"] == 3


def test_what_all_nodes_find_is_one_event(server: ApiServer, record: Record) -> None:
    server.put(service("web"))
    nodes = [record(f"worker-{number}") for number in range(5)]
    for one in nodes:
        one.put(on_service())
    wait(lambda: posts(server) == 5, "all of them")
    assert len(server.events) == 1
    for one in nodes:
        one.put(on_service("another text"))
    wait(lambda: len(server.events) == 2, "the second")


def test_what_a_node_finds_alone_is_its_own_event(server: ApiServer, record: Record) -> None:
    server.put(service("web"))
    for number in range(3):
        record(f"worker-{number}").put(on_service(f"node worker-{number}", everywhere=False))
    wait(lambda: len(server.events) == 3, "three Events")


def test_long_and_strange_texts_are_cut_to_what_the_api_takes(server: ApiServer, record: Record) -> None:
    record("n" * 253).put(Notice("Node", "MapFull", "Translate", "ä€\ud800" * 900))
    event = the_event(server)
    assert 1000 < len(event["note"].encode()) <= 1024
    assert len(event["reportingInstance"]) == 128


def test_a_storm_of_notices_is_a_burst_and_then_silence(
    server: ApiServer, record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = record()
    for number in range(5000):
        recorder.put(Notice("Node", "MapFull", "Translate", "full", name=f"node-{number}"))
    wait(lambda: len(server.events) == BURST, "the burst")
    recorder.put(FULL)
    assert len(server.seen("create")) <= BURST + 1
    wait(lambda: "were dropped: too many at once" in caplog.text, "a line about the rest")
    assert sum("dropped" in line for line in caplog.messages) < 5000 - MOST


def test_a_cluster_that_forbids_events_is_told_of_once(
    server: ApiServer, record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    server.fault("status", kind="Event", code=403, count=-1)
    recorder = record()
    for number in range(5):
        recorder.put(Notice("Node", "MapFull", "Translate", f"map {number}"))
    wait(lambda: posts(server) == 5, "the attempts")
    lines = [line for line in caplog.messages if "Events are not recorded" in line]
    assert lines == [
        "Events are not recorded: not allowed (403); add to the agent's ClusterRole: "
        'apiGroups: ["events.k8s.io"], resources: ["events"], verbs: ["create", "patch"]'
    ]


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_cluster_that_is_busy_gets_the_event_later(
    server: ApiServer, record: Record, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    server.fault("status", kind="Event", code=code, count=3)
    record().put(FULL)
    assert the_event(server)["reason"] == "MapFull"
    assert posts(server) == 4
    assert len([line for line in caplog.messages if "Events are not recorded" in line]) == 1


def test_an_api_server_that_is_away_gets_the_event_when_it_is_back(
    server: ApiServer, record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    server.down()
    record().put(FULL)
    wait(lambda: "Events are not recorded" in caplog.text, "the line")
    server.up()
    assert the_event(server)["reason"] == "MapFull"
    assert len([line for line in caplog.messages if "Events are not recorded" in line]) == 1


def test_a_token_that_expired_is_renewed(server: ApiServer, record: Record) -> None:
    recorder = record()
    recorder.put(FULL)
    the_event(server)
    server.rotate_token()
    recorder.put(on_service())
    server.put(service("web"))
    recorder.put(Notice("Node", "Repaired", "Repair", "connect4"))
    wait(lambda: any(e["reason"] == "Repaired" for e in server.events.values()), "the next Event")


def test_nobody_waits_for_an_api_server_that_does_not_answer(server: ApiServer, record: Record) -> None:
    server.fault("stall_early", kind="Event", count=-1)
    recorder = record()
    recorder.put(FULL)
    wait(lambda: posts(server) == 1, "the attempt")
    for number in range(1000):
        recorder.put(Notice("Node", "MapFull", "Translate", f"map {number}"))
    recorder.stop()
    assert posts(server) == 1


def test_a_recorder_that_was_never_started_takes_notices(server: ApiServer) -> None:
    access = Access(lambda: credentials_of(server))
    recorder = EventRecorder(Connection(access, Addresses(None, None, time.monotonic)), "worker-1")
    recorder.put(FULL)
    assert server.events == {}
