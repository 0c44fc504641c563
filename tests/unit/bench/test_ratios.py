"""Statistics of the bench: quantiles, confidence, ratios of pairs, verdicts."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.ratios import Summary, block_ratios, judge, quantile, ratios, summarize

TIMES = st.integers(1, 10**9)
SAMPLES = st.lists(TIMES, min_size=1, max_size=200)


@given(SAMPLES)
def test_the_median_is_the_one_of_the_standard_library(samples: list[int]) -> None:
    assert summarize(samples).median == pytest.approx(statistics.median(samples))


@given(st.lists(TIMES, min_size=2, max_size=200))
def test_deciles_are_those_of_the_standard_library(samples: list[int]) -> None:
    deciles = statistics.quantiles(samples, n=10, method="inclusive")
    found = summarize(samples)
    assert found.p10 == pytest.approx(deciles[0])
    assert found.p90 == pytest.approx(deciles[-1])


@given(SAMPLES)
def test_figures_of_a_summary_are_in_order(samples: list[int]) -> None:
    found = summarize(samples)
    assert min(samples) <= found.p10 <= found.median <= found.p90 <= found.p99 <= max(samples)
    assert found.low <= found.median <= found.high


@given(SAMPLES, st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(samples: list[int], shuffler: random.Random) -> None:
    shuffled = list(samples)
    shuffler.shuffle(shuffled)
    assert summarize(shuffled) == summarize(samples)


def test_the_interval_holds_the_true_median_about_as_often_as_it_says() -> None:
    draw = random.Random(1)
    runs = [summarize([draw.lognormvariate(0, 1) for _ in range(101)]) for _ in range(1000)]
    covered = sum(found.low <= 1.0 <= found.high for found in runs)
    assert 930 <= covered <= 990


def test_more_samples_make_the_median_surer() -> None:
    draw = random.Random(2)
    few, many = (summarize([draw.gauss(100, 10) for _ in range(count)]) for count in (100, 10_000))
    assert (many.high - many.low) < (few.high - few.low) / 5


def test_no_samples_are_no_summary() -> None:
    with pytest.raises(ValueError, match="0 samples"):
        summarize([])


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_between_nothing_and_all(share: float) -> None:
    with pytest.raises(ValueError, match="samples"):
        quantile([1.0, 2.0], share)


@given(SAMPLES, st.floats(0.5, 2.0))
def test_a_drift_of_the_machine_leaves_ratios_of_pairs_alone(reference: list[int], factor: float) -> None:
    """Rounds may differ a thousandfold; what is measured takes `factor` of its round's reference."""
    measured = [factor * time for time in reference]
    found = summarize(ratios(measured, reference))
    assert found.median == pytest.approx(factor)
    assert found.p90 - found.p10 == pytest.approx(0, abs=1e-9)


def test_pairs_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="2 rounds against 1"):
        ratios([1, 2], [1])


def test_a_reference_without_time_is_refused() -> None:
    with pytest.raises(ValueError, match="no time"):
        ratios([1, 2], [1, 0])


def test_blocks_are_compared_by_their_medians() -> None:
    assert block_ratios([[10, 20, 9000], [3, 3]], [[10, 10, 1], [6, 6]]) == [2.0, 0.5]


def summary(median: float, low: float, high: float) -> Summary:
    return Summary(100, median, low, high, high, low, high)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (summary(1.03, 1.02, 1.04), "yes"),
        (summary(1.05, 1.05, 1.05), "yes"),
        (summary(1.04, 1.02, 1.06), "yes (within the noise)"),
        (summary(1.06, 1.04, 1.08), "no (within the noise)"),
        (summary(1.08, 1.06, 1.09), "no"),
    ],
)
def test_a_verdict_says_when_the_noise_could_turn_it(found: Summary, text: str) -> None:
    assert str(judge(found, 1.05)) == text


def test_another_figure_than_the_median_can_be_judged() -> None:
    found = Summary(100, median=1.0, p10=0.5, p90=3.0, p99=9.0, low=0.9, high=1.1)
    assert judge(found, 2.0).met
    assert not judge(found, 2.0, lambda s: s.p99).met
