"""Hours of trouble: what was lost, what it cost the API server, what it cost us. Nobody waits for it."""

from __future__ import annotations

import pytest

from tests.cluster.outages import SCENARIOS, Scenario, live_through

BY_NAME = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
MEMORY = 4 << 20
BURSTS = 80
"""What is allowed at once counts in a single hour; in six it is lost."""


@BY_NAME
def test_after_hours_of_trouble_everything_is_known_again(scenario: Scenario) -> None:
    """Also what was deleted meanwhile; and nobody was ever told that there is nothing."""
    course = live_through(scenario, hours=1.0)
    assert course.follower.held == set(course.server.cluster.services)
    assert "s0" not in course.follower.held
    assert not course.follower.emptied


@BY_NAME
def test_after_any_trouble_a_server_with_older_data_is_noticed(scenario: Scenario) -> None:
    """Within minutes, long before the list that comes now and then."""
    course = live_through(scenario, hours=0.2, restored=True)
    assert course.follower.held == set(course.server.older.services)
    assert not course.follower.emptied


@BY_NAME
def test_trouble_makes_nobody_impolite_or_large(scenario: Scenario) -> None:
    course = live_through(scenario, hours=1.0, seed=2, measure=True)
    assert course.requests_per_hour() <= scenario.most + BURSTS
    assert course.peak < MEMORY
    if scenario.name != "nothing is wrong" and not scenario.name.startswith("streams cut"):
        assert course.follower.complaints
        assert len(course.follower.complaints) < 10, "the same complaint is told in the same words"


@pytest.mark.parametrize("scenario", SCENARIOS[::4], ids=lambda one: one.name)
def test_a_clock_that_leaps_a_day_costs_one_more_list(scenario: Scenario) -> None:
    course = live_through(scenario, hours=1.0, leap=86_400.0)
    assert course.follower.held == set(course.server.cluster.services)
    assert not course.follower.emptied
