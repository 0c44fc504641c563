"""Servers that come back with older data, and lists that have lost what they should have."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyagent.cluster.history import AFTER_REFUSAL, BETWEEN_CUTS, CUTS, Doubt, is_older
from pyagent.model.source_events import Replaced
from tests.cluster.conftest import QUICK, Follow
from tests.cluster.support import Recorder, node, service
from tests.fakes.api_server import ApiServer

ALL_WAYS_TO_LIST = ("yes", "invalid", "refused")
PATIENT = QUICK._replace(read=30.0)
"""Where a busy machine must not look like a dead server."""
RELISTING = PATIENT._replace(relist_after=0.1, watch=1.0)
CIDR = {"kind": "ServiceCIDR", "metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12"]}}


def version_reads(server: ApiServer, kind: str = "Service") -> int:
    return sum(request.query == {"limit": "1"} for request in server.seen("list", kind))


def list_often(server: ApiServer) -> None:
    """Plain lists, each followed by a short stream."""
    server.watch_list = "invalid"
    server.fault("cut", verb="watch", kind="Service", seconds=0.2, count=-1)


def lengths(recorder: Recorder, kind: str = "Service") -> list[int]:
    return [len(event.objects) for event in recorder.of(Replaced, kind)]


@given(st.integers(0, 10**60), st.integers(0, 10**60))
def test_versions_are_numbers_of_any_length(one: int, other: int) -> None:
    assert is_older(str(one), str(other)) == (one < other)


@pytest.mark.parametrize("opaque", ["", "01", "-1", "1.5", "abc", "²", "1\n", "1_0"])
def test_of_what_is_no_version_nothing_is_known(opaque: str) -> None:
    assert not is_older(opaque, "1000")
    assert not is_older("1", opaque)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200))
def test_streams_that_are_cut_cost_a_few_reads_and_then_one_in_five_minutes(gaps: list[float]) -> None:
    doubt, now, reads = Doubt(), 0.0, 0
    for gap in gaps:
        now += gap
        doubt.stream_cut(now)
        if not doubt.left(now):
            doubt.asking(now)
            doubt.settle()
            reads += 1
    assert 1 <= reads <= CUTS + (now - gaps[0]) / BETWEEN_CUTS


def test_after_an_outage_it_is_asked_at_once_and_a_refusal_waits_a_minute() -> None:
    doubt = Doubt()
    assert doubt.left(0.0) == math.inf
    for _ in range(CUTS):
        doubt.stream_cut(1.0)
        assert doubt.left(1.0) == 0
        doubt.asking(1.0)
        doubt.settle()
    doubt.stream_cut(1.0)
    assert doubt.left(1.0) == BETWEEN_CUTS
    doubt.no_server(2.0)
    assert doubt.left(2.0) == 0
    doubt.asking(2.0)
    doubt.refused(2.0)
    assert doubt.left(2.0) == AFTER_REFUSAL
    doubt.no_server(3.0)
    assert doubt.left(3.0) == 0


@pytest.mark.parametrize("watch_list", ALL_WAYS_TO_LIST)
@pytest.mark.parametrize("gap", ["cut", "down"])
def test_a_server_restored_from_older_data_is_listed_again(
    server: ApiServer, follow: Follow, watch_list: str, gap: str
) -> None:
    """Its watches say nothing of that: they are silent until it has caught up."""
    server.watch_list = watch_list
    server.bookmark_seconds = 0.05
    server.put(service("old"))
    backup = server.backup()
    server.store.version += 1_000_000  # what was written after the backup
    server.put(service("newer"))
    _, recorder = follow()
    recorder.wait_for_names({"old", "newer"})
    recorder.wait_for_watching()
    if gap == "cut":
        server.restore(backup)
        server.cut_all()
    else:
        server.down()
        server.restore(backup)
        server.up()
    recorder.wait_for_names({"old"})
    server.put(service("again"))
    recorder.wait_for_names({"old", "again"})


@pytest.mark.parametrize(("action", "count"), [("status", 1), ("reset", 2)])
def test_a_request_that_fails_after_a_stream_ended_in_its_time_raises_doubt_too(
    server: ApiServer, follow: Follow, action: str, count: int
) -> None:
    server.put(service("old"))
    backup = server.backup()
    server.store.version += 1_000_000
    server.put(service("newer"))
    _, recorder = follow(QUICK._replace(watch=1.0))
    recorder.wait_for_names({"old", "newer"})
    recorder.wait_for_watching()
    server.restore(backup)
    server.fault(action, verb="watch", kind="Service", code=503, count=count, watch_list=False)
    recorder.wait_for_names({"old"})


@pytest.mark.parametrize(
    ("action", "code", "at_most"),
    [
        ("status", 403, 290),
        ("status", 500, AFTER_REFUSAL),
        ("status", 429, AFTER_REFUSAL),
        ("reset", 0, 290),
    ],
)
def test_where_the_version_cannot_be_read_the_watch_is_resumed_all_the_same(
    server: ApiServer, follow: Follow, action: str, code: int, at_most: float
) -> None:
    """For its whole time, or until it may be asked again."""
    server.put(service("web"))
    _, recorder = follow()
    recorder.wait_for_watching()
    server.fault(action, verb="list", kind="Service", code=code, count=3 if action == "reset" else -1)
    server.cut_all()
    server.put(service("later"))
    recorder.wait_for_names({"web", "later"})
    assert lengths(recorder) == [1], "no list was needed"
    assert server.seen("list", "Service"), "it was tried"
    seconds = int(server.seen("watch", "Service")[-1].query["timeoutSeconds"])
    assert at_most / 2 < seconds <= at_most


def test_a_new_list_needs_no_doubt_and_its_stream_lasts_as_long_as_any(
    server: ApiServer, follow: Follow
) -> None:
    _, recorder = follow(QUICK._replace(relist_after=0.01))
    recorder.wait_for_watching()

    def listed_again() -> bool:
        server.cut_all()
        return len(recorder.of(Replaced)) >= 2

    recorder.wait(listed_again)
    lists = [r for r in server.seen("watch", "Service") if "sendInitialEvents" in r.query]
    assert {request.query["timeoutSeconds"] for request in lists} == {"290"}


def test_a_stream_that_ends_in_its_time_raises_no_doubt(server: ApiServer, follow: Follow) -> None:
    _, recorder = follow(PATIENT._replace(watch=1.0))
    recorder.wait(lambda: len(server.seen("watch", "Service")) >= 3)
    assert not version_reads(server)


def test_a_proxy_that_cuts_every_stream_costs_a_few_reads_of_the_version(
    server: ApiServer, follow: Follow
) -> None:
    server.watch_list = "invalid"
    server.fault("cut", verb="watch", kind="Service", seconds=0.05, count=-1, watch_list=False)
    _, recorder = follow(PATIENT)
    recorder.wait(lambda: len(server.seen("watch", "Service")) >= CUTS + 4)
    assert version_reads(server) == CUTS


# --- lists that are refused, forgotten, or shorter than they should be


@pytest.mark.parametrize("fault", ["error_in_stream", "status"])
def test_after_410_the_list_comes_from_a_quorum(server: ApiServer, follow: Follow, fault: str) -> None:
    """What is held says nothing about a server that does not know it."""
    server.watch_list = "invalid"
    server.fault(fault, verb="watch", kind="Service", code=410, watch_list=False)
    server.put(service("web"))
    _, recorder = follow()
    recorder.wait(lambda: len(recorder.of(Replaced)) == 2)
    again = server.seen("list", "Service")[1]
    assert again.query["limit"] == "500"
    assert not again.query.keys() & {"resourceVersion", "resourceVersionMatch"}


def test_a_server_that_does_not_have_our_version_yet_is_asked_for_what_it_has(
    server: ApiServer, follow: Follow
) -> None:
    """504, "Too large resource version": it is behind, or has older data."""
    server.watch_list = "invalid"
    server.put(service("old"))
    backup = server.backup()
    server.store.version += 1_000_000
    server.put(service("newer"))
    _, recorder = follow(RELISTING)
    recorder.wait_for_names({"old", "newer"})
    recorder.wait_for_watching()
    server.restore(backup)
    recorder.wait_for_names({"old"})


def test_an_empty_list_of_what_is_at_hand_is_confirmed_by_a_quorum(server: ApiServer, follow: Follow) -> None:
    list_often(server)
    server.put(service("web"))
    _, recorder = follow(RELISTING)
    recorder.wait_for_watching()
    server.fault("empty_list", verb="list", kind="Service", quorum=False, count=-1)
    recorder.wait(lambda: len(recorder.of(Replaced)) >= 3)
    assert set(lengths(recorder)) == {1}


def test_what_came_by_watch_is_not_taken_away_by_an_empty_list_either(
    server: ApiServer, follow: Follow
) -> None:
    list_often(server)
    _, recorder = follow(RELISTING)
    recorder.wait_for_watching()
    server.fault("empty_list", verb="list", kind="Service", quorum=False, count=-1)
    server.put(service("web"))
    recorder.wait_for_names({"web"})
    before = len(recorder.of(Replaced))
    recorder.wait(lambda: len(recorder.of(Replaced)) >= before + 2)
    assert set(lengths(recorder)[before:]) == {1}


@pytest.mark.parametrize("listed", [0, 12])
def test_a_list_of_what_is_at_hand_that_has_lost_most_is_confirmed_by_a_quorum(
    server: ApiServer, follow: Follow, listed: int
) -> None:
    """A cluster that was wiped is not empty: it has made its own `kubernetes` again."""
    list_often(server)
    names = {f"s{number}" for number in range(12)}
    for name in sorted(names)[:listed]:
        server.put(service(name))
    _, recorder = follow(RELISTING)
    recorder.wait_for_watching()
    for name in sorted(names)[listed:]:
        server.put(service(name))
    recorder.wait_for_names(names)
    server.fault("empty_list", verb="list", kind="Service", quorum=False, keep=5, count=-1)
    before = len(recorder.of(Replaced))
    recorder.wait(lambda: len(recorder.of(Replaced)) >= before + 2)
    assert set(lengths(recorder)[before:]) == {12}


def test_most_may_go_by_watch_and_the_list_after_it_is_believed(server: ApiServer, follow: Follow) -> None:
    list_often(server)
    for number in range(12):
        server.put(service(f"s{number}"))
    _, recorder = follow(RELISTING._replace(confirm_empty=3600.0))
    recorder.wait_for_watching()
    for number in range(1, 12):
        server.delete("Service", "shop", f"s{number}")
    recorder.wait_for_names({"s0"})
    before = len(recorder.of(Replaced))
    recorder.wait(lambda: len(recorder.of(Replaced)) >= before + 2)
    assert recorder.names() == {"s0"}


@pytest.mark.parametrize("nodes", ["own", "all", "auto"])
@pytest.mark.parametrize("watch_list", ["yes", "invalid"])
def test_after_a_restart_empty_first_lists_of_all_kinds_are_confirmed(
    server: ApiServer, follow: Follow, nodes: str, watch_list: str
) -> None:
    server.watch_list = watch_list
    server.put(node("node-a"))
    server.put(CIDR)
    verb = "watch" if watch_list == "yes" else "list"
    server.fault("empty_list", verb=verb, kind="ServiceCIDR")
    if nodes == "auto" and watch_list == "invalid":
        server.fault("slow", verb=verb, kind="Node")  # that one counts them
    server.fault("empty_list", verb=verb, kind="Node")
    _, recorder = follow(nodes=nodes, had_objects=True)
    for kind in ("Node", "ServiceCIDR"):
        recorder.wait_for_watching(kind)
        assert lengths(recorder, kind) == [1]


def test_after_a_restart_a_cluster_without_service_cidrs_is_served_at_once(
    server: ApiServer, follow: Follow
) -> None:
    server.absent_kinds.add("ServiceCIDR")
    _, recorder = follow(QUICK._replace(confirm_empty=3600.0), had_objects=True)
    recorder.wait(lambda: lengths(recorder, "ServiceCIDR") == [0])


def test_an_api_that_vanishes_for_a_moment_takes_nothing_away(server: ApiServer, follow: Follow) -> None:
    server.put(CIDR)
    _, recorder = follow()
    recorder.wait_for_watching("ServiceCIDR")
    server.fault("status", verb="watch", kind="ServiceCIDR", code=404, watch_list=False)
    server.cut_all()
    recorder.wait(lambda: len(lengths(recorder, "ServiceCIDR")) == 2)
    assert lengths(recorder, "ServiceCIDR") == [1, 1]


def test_a_list_forgotten_while_its_pages_are_read_is_taken_whole(server: ApiServer, follow: Follow) -> None:
    """In pages it would take as long again, and never end where the server compacts in less."""
    server.watch_list = "invalid"
    names = {f"s{number}" for number in range(1200)}
    for name in names:
        server.put(service(name))
    server.fault("status", verb="list", kind="Service", code=410, page="next", count=-1)
    _, recorder = follow(PATIENT)
    recorder.wait_for_names(names)
    pages = server.seen("list", "Service")
    assert [(request.query.get("limit"), "continue" in request.query) for request in pages] == [
        ("500", False),
        ("500", True),
        (None, False),
    ]


def test_a_server_that_forgets_every_page_is_not_knocked_at(server: ApiServer, follow: Follow) -> None:
    server.watch_list = "invalid"
    server.page_limit = 2
    for number in range(6):
        server.put(service(f"s{number}"))
    server.fault("status", verb="list", kind="Service", code=410, page="next", count=-1)
    _, recorder = follow(PATIENT._replace(backoff_first=3600.0))
    recorder.wait(lambda: bool(recorder.errors()), "a complaint")
    assert len(server.seen("list", "Service")) == 4


def test_an_outage_does_not_use_up_the_reads_of_cut_streams_for_hours() -> None:
    doubt = Doubt()
    for attempt in range(50):
        doubt.no_server(float(attempt))
        doubt.asking(float(attempt))
        doubt.settle()
    doubt.stream_cut(50.0)
    assert doubt.left(50.0) <= BETWEEN_CUTS
