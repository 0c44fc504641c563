"""Facts: readiness, health and age, by an injected clock."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyagent.agent.facts import PROBLEMS_LOGGED, STALE_SECONDS, Facts
from pyagent.agent.histogram import SYNC_SECONDS, Histogram
from pyagent.datapath.draft import Unfit
from pyagent.model.address import Family, Protocol, parse_address, parse_network
from pyagent.model.kube_objects import Kind
from pyagent.model.service import ServicePortKey
from pyagent.model.source_events import Problem, SourceState


class Clock:
    def __init__(self) -> None:
        self.now = 500.0
        self.wall = 1_700_000_000.0

    def facts(self) -> Facts:
        return Facts(monotonic=lambda: self.now, wall=lambda: self.wall)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make_ready(facts: Facts, now: float) -> None:
    facts.listed("Service")
    facts.listed("EndpointSlice")
    facts.applied(now)
    facts.hooks([("connect4", True)])
    facts.probed(True)


def test_an_agent_is_ready_when_lists_plan_hooks_and_probe_are_there(clock: Clock) -> None:
    facts = clock.facts()
    make_ready(facts, clock.now)
    assert facts.ready() == (True, ())


def test_each_missing_step_is_a_reason_not_to_be_ready(clock: Clock) -> None:
    facts = clock.facts()
    assert facts.ready() == (
        False,
        (
            "EndpointSlices are not listed yet",
            "Services are not listed yet",
            "the maps are not filled yet",
            "the hooks are not attached yet",
            "the self-probe saw no translation yet",
        ),
    )
    facts.listed("EndpointSlice")
    facts.apply_failed(clock.now, "map frontends is full (16 entries)")
    facts.hooks([("connect4", True), ("connect6", False)])
    facts.probed(False, "connect6 (errno 111)")
    assert facts.ready() == (
        False,
        (
            "Services are not listed yet",
            "the maps are not filled yet: map frontends is full (16 entries)",
            "hook connect6 is not attached",
            "the self-probe saw no translation: connect6 (errno 111)",
        ),
    )


def test_a_ready_agent_stays_ready_when_the_api_server_goes_away(clock: Clock) -> None:
    facts = clock.facts()
    kinds: tuple[Kind, ...] = ("Service", "EndpointSlice")
    for kind in kinds:
        facts.source_state(SourceState(kind, "watching"))
    make_ready(facts, clock.now)
    for kind in kinds:
        facts.source_state(SourceState(kind, "disconnected", "connection refused"))
    clock.advance(7200)
    assert facts.ready() == (True, ())
    assert facts.view().watches["Service"].age == 7200


def test_a_hook_that_was_taken_away_makes_an_agent_not_ready(clock: Clock) -> None:
    facts = clock.facts()
    make_ready(facts, clock.now)
    facts.hooks([("connect4", False)])
    assert facts.ready() == (False, ("hook connect4 is not attached",))


def test_a_failed_plan_after_the_first_one_leaves_the_agent_ready(clock: Clock) -> None:
    facts = clock.facts()
    make_ready(facts, clock.now)
    facts.apply_failed(clock.now, "no room")
    assert facts.ready() == (True, ())
    assert facts.view().last_error == "no room"
    facts.applied(clock.now)
    assert facts.view().last_error == ""


def test_other_kinds_than_the_needed_ones_do_not_make_it_synced(clock: Clock) -> None:
    facts = clock.facts()
    facts.listed("Node")
    facts.listed("ServiceCIDR")
    facts.listed("Service")
    assert not facts.view().synced
    facts.listed("EndpointSlice")
    assert facts.view().synced


@pytest.mark.parametrize(("waits", "healthy"), [(0, True), (59.9, True), (60, False), (3600, False)])
def test_an_update_that_waits_for_two_sync_periods_is_unhealthy(
    clock: Clock, waits: float, healthy: bool
) -> None:
    facts = clock.facts()
    make_ready(facts, clock.now)
    facts.queued(clock.now)
    clock.advance(waits)
    assert facts.healthy() is healthy
    assert facts.view().queued_for == pytest.approx(waits)


def test_nothing_queued_for_hours_is_healthy(clock: Clock) -> None:
    facts = clock.facts()
    make_ready(facts, clock.now)
    clock.advance(36_000)
    assert facts.healthy()


def test_the_oldest_update_counts_not_the_newest(clock: Clock) -> None:
    facts = clock.facts()
    make_ready(facts, clock.now)
    for _ in range(7):
        facts.queued(clock.now)
        clock.advance(10)
    assert not facts.healthy()
    facts.applied(clock.now)
    assert facts.healthy()


def test_before_the_lists_are_there_no_update_is_late(clock: Clock) -> None:
    facts = clock.facts()
    facts.queued(clock.now)
    clock.advance(600)
    assert facts.healthy()
    facts.listed("Service")
    facts.listed("EndpointSlice")
    clock.advance(STALE_SECONDS - 1)
    assert facts.healthy()
    clock.advance(1)
    assert not facts.healthy()


def test_a_plan_that_keeps_failing_is_unhealthy_though_nobody_queued_anything(clock: Clock) -> None:
    facts = clock.facts()
    make_ready(facts, clock.now)
    facts.apply_failed(clock.now, "no room")
    clock.advance(STALE_SECONDS)
    facts.apply_failed(clock.now, "no room")
    assert not facts.healthy()


def test_only_the_family_that_lags_is_unhealthy(clock: Clock) -> None:
    facts = clock.facts()
    make_ready(facts, clock.now)
    facts.queued(clock.now, families=[Family.IPV6])
    clock.advance(STALE_SECONDS)
    facts.applied(clock.now, families=[Family.IPV4])
    health = facts.view().families
    assert (health[Family.IPV4].healthy, health[Family.IPV6].healthy) == (True, False)
    assert not facts.healthy()
    facts.applied(clock.now, families=[Family.IPV6])
    assert facts.healthy()


def test_a_wall_clock_that_is_set_changes_no_age_and_no_health(clock: Clock) -> None:
    facts = clock.facts()
    make_ready(facts, clock.now)
    facts.queued(clock.now)
    clock.wall += 86_400
    clock.advance(5)
    view = facts.view()
    assert view.healthy
    assert view.now - view.last_queued == pytest.approx(5)
    assert view.now - view.last_updated == pytest.approx(5)


def test_the_age_of_a_watch_starts_when_its_objects_cease_to_be_current(clock: Clock) -> None:
    facts = clock.facts()
    facts.source_state(SourceState("Service", "connecting"))
    clock.advance(3)
    assert facts.view().watches["Service"].age == 3  # since the start: nothing was ever known
    facts.listed("Service")
    facts.source_state(SourceState("Service", "watching", resource_version="17"))
    clock.advance(100)
    assert facts.view().watches["Service"].age == 0
    facts.source_state(SourceState("Service", "disconnected", "timed out"))
    clock.advance(4)
    facts.source_state(SourceState("Service", "connecting"))
    clock.advance(4)
    facts.source_state(SourceState("Service", "disconnected", "timed out"))
    watch = facts.view().watches["Service"]
    assert (watch.age, watch.disconnects, watch.error) == (8, 2, "timed out")
    facts.source_state(SourceState("Service", "watching"))
    assert facts.view().watches["Service"].age == 0


def test_problems_stay_until_they_are_cleared(clock: Clock) -> None:
    facts = clock.facts()
    first, second = (Problem("Service", "shop", name, "spec.ports", "bad") for name in ("a", "b"))
    facts.problems_changed([first, second], [])
    facts.problem(first)
    assert facts.view().problems == (first, second)
    facts.problems_changed([], [first])
    assert facts.view().problems == (second,)


def test_each_problem_is_logged_once_and_a_flood_is_counted(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    facts = clock.facts()
    many = [Problem("Service", "shop", f"s{i}", "spec.ports", "bad") for i in range(PROBLEMS_LOGGED + 7)]
    facts.problems_changed(many[:2], [])
    facts.problems_changed(many[:2], [])
    assert [record.message for record in caplog.records] == [f"not usable: {problem}" for problem in many[:2]]
    facts.problems_changed(many[2:], [])
    assert len(caplog.records) == 2 + PROBLEMS_LOGGED + 1
    assert "5 more" in caplog.records[-1].message


def test_what_does_not_fit_is_named(clock: Clock) -> None:
    facts = clock.facts()
    key = ServicePortKey("shop", "web", "http", Protocol.TCP, Family.IPV4)
    facts.unfit(
        [
            Unfit(key, "frontends"),
            Unfit(parse_network("10.96.0.0/12"), "service_addresses"),
            Unfit(parse_address("192.0.2.1"), "node_addresses"),
        ]
    )
    assert facts.view().unfit == (
        "shop/web:http/TCP: map frontends is full",
        "10.96.0.0/12: map service_addresses is full",
        "192.0.2.1: map node_addresses is full",
    )
    facts.unfit([])
    assert facts.view().unfit == ()


def test_a_view_does_not_change_any_more(clock: Clock) -> None:
    facts = clock.facts()
    view = facts.view()
    facts.applied(clock.now, duration=1, latencies=[(Family.IPV4, 1.0)], writes=4)
    facts.answered("healthz", 200)
    facts.sockets_destroyed({Family.IPV4: 1}, 0.1)
    assert view.partial_syncs.count == view.network_programming[Family.IPV4].count == view.reaps.count == 0
    assert (view.writes, view.answers, view.sockets_destroyed[Family.IPV4]) == (0, {}, 0)


def test_threads_that_write_at_once_lose_nothing(clock: Clock) -> None:
    facts = clock.facts()

    def work() -> None:
        for _ in range(500):
            facts.applied(clock.now, writes=2, services=1, duration=0.001)
            facts.answered("healthz", 200)
            facts.view()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    view = facts.view()
    assert (view.writes, view.service_changes, view.partial_syncs.count) == (4000, 2000, 2000)
    assert view.answers == {("healthz", 200): 2000}


@given(st.lists(st.floats(min_value=0, max_value=100)), st.lists(st.floats(min_value=0, max_value=100)))
def test_a_histogram_counts_each_value_below_each_bound_that_is_not_smaller(
    mine: list[float], theirs: list[float]
) -> None:
    first, second = Histogram(SYNC_SECONDS), Histogram(SYNC_SECONDS)
    for value in mine:
        first.observe(value)
    for value in theirs:
        second.observe(value)
    both = first.merged(second)
    assert both.cumulative() == [
        (bound, sum(value <= bound for value in mine + theirs)) for bound in (*SYNC_SECONDS, float("inf"))
    ]
    assert both.sum == pytest.approx(sum(mine) + sum(theirs))
    assert first.count == len(mine)
