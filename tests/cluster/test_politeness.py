"""How often a source knocks, on a clock of the test's own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyagent.cluster.backoff import Backoff, ResumeBudget, jittered
from pyagent.model.source_events import Replaced
from tests.cluster.conftest import QUICK, Follow
from tests.cluster.support import service
from tests.fakes.api_server import ApiServer


@given(st.floats(0, 1, exclude_max=True))
def test_delays_double_from_a_fifth_of_a_second_to_half_a_minute(chance: float) -> None:
    backoff = Backoff(lambda: chance)
    delays = [backoff.next() for _ in range(12)]
    steps = [0.2 * 2**i for i in range(8)] + [30.0] * 4
    assert all(step / 2 <= delay <= step for delay, step in zip(delays, steps, strict=True))
    backoff.worked()
    assert backoff.next() <= 0.2


@given(st.lists(st.floats(0, 5), min_size=30, max_size=60))
def test_resumes_are_free_in_a_burst_and_then_one_in_two_seconds(gaps: list[float]) -> None:
    now, starts = 0.0, []
    budget = ResumeBudget(now)
    for gap in gaps:
        now += gap
        now += budget.wait(now)
        starts.append(now)
    for first, last in itertools.combinations(range(len(starts)), 2):
        assert last - first <= 10 + (starts[last] - starts[first]) / 2 + 0.01


def test_the_first_resumes_do_not_wait() -> None:
    budget = ResumeBudget(0.0)
    assert [budget.wait(0.0) for _ in range(10)] == [0.0] * 10
    assert budget.wait(0.0) == 2.0


@given(st.floats(0, 1), st.floats(0, 1000))
def test_jitter_stays_within_its_spread(chance: float, seconds: float) -> None:
    assert 0.66 * seconds <= jittered(seconds, 0.33, lambda: chance) <= 1.34 * seconds


def test_retry_after_is_honoured(server: ApiServer, follow: Follow) -> None:
    server.fault("status", kind="Service", code=429, retry_after=1, count=1)
    server.put(service("web"))
    _, recorder = follow()
    recorder.wait_for_names({"web"})
    first, second = server.seen("", "Service")[:2]
    assert second.at - first.at >= 1.0


def least_waits(first: float) -> Iterator[float]:
    """What `Backoff` waits at the least, time after time; a busy machine only adds to that."""
    return (first * 2**turn / 2 for turn in itertools.count())


def test_a_proxy_that_cuts_every_stream_at_once_costs_a_bounded_rate(
    server: ApiServer, follow: Follow
) -> None:
    server.watch_list = "invalid"
    server.fault("cut", verb="watch", kind="Service", seconds=0.01, count=-1, watch_list=False)
    source, recorder = follow(QUICK._replace(backoff_first=0.2, backoff_longest=30.0))
    recorder.wait(lambda: len(server.seen("watch", "Service")) >= 5)
    watches = server.seen("watch", "Service")[1:]
    gaps = [after.at - before.at for before, after in itertools.pairwise(watches)]
    assert all(gap >= least for gap, least in zip(gaps, least_waits(0.2), strict=False)), "no progress"
    assert source.figures()["Service"].lists == 2  # the refused stream and the plain list


@pytest.mark.parametrize("watch_list", ["yes", "invalid"])
def test_a_storm_of_410_is_answered_with_ever_longer_waits(
    server: ApiServer, follow: Follow, watch_list: str
) -> None:
    server.watch_list = watch_list
    server.fault("error_in_stream", verb="watch", kind="Service", code=410, count=-1, watch_list=False)
    server.put(service("web"))
    _, recorder = follow(QUICK._replace(backoff_first=0.1, backoff_longest=30.0))
    if watch_list == "yes":
        recorder.wait_for_watching()
        server.compact()
        server.cut_all()
    recorder.wait(lambda: len(recorder.of(Replaced)) >= (2 if watch_list == "yes" else 4))
    if watch_list == "invalid":
        lists = server.seen("list", "Service")
        gaps = [after.at - before.at for before, after in itertools.pairwise(lists)]
        assert all(gap >= least for gap, least in zip(gaps, least_waits(0.1), strict=False))
