"""Statistics of timings that were taken side by side. Pure.

Separate runs on one machine differ from themselves by far more than a hook costs. So calls are timed round by
round, every variant once a round, and each ratio is of two calls of one round: what disturbs the machine
disturbs both. Medians, because the rest of the distribution is the scheduler's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

Z_95 = 1.959964  # standard deviations that hold 95 % of a normal distribution


class Summary(NamedTuple):
    """Location and spread of samples.

    Attributes:
        low, high: 95 % confidence interval of the median.
    """

    samples: int
    median: float
    p10: float
    p90: float
    p99: float
    low: float
    high: float


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which a share (0 to 1) of ascending samples lies, linear between neighbours.

    Raises:
        ValueError: no samples, or no share.
    """
    if not ordered or not 0 <= share <= 1:
        raise ValueError(f"quantile {share} of {len(ordered)} samples")
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summarize(samples: Iterable[float]) -> Summary:
    """Median, spread and how sure the median is (order statistics: no distribution is assumed).

    Raises:
        ValueError: no samples.
    """
    ordered = sorted(samples)
    count = len(ordered)
    reach = Z_95 * math.sqrt(count) / 2
    lower = max(0, math.floor(count / 2 - reach))
    upper = min(count - 1, math.ceil(count / 2 + reach))
    return Summary(
        count,
        quantile(ordered, 0.5),
        quantile(ordered, 0.1),
        quantile(ordered, 0.9),
        quantile(ordered, 0.99),
        ordered[lower] if ordered else 0.0,
        ordered[upper] if ordered else 0.0,
    )


def ratios(measured: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Measured ÷ reference, round by round.

    Raises:
        ValueError: not the same number of rounds, or a reference of 0.
    """
    if len(measured) != len(reference):
        raise ValueError(f"{len(measured)} rounds against {len(reference)}")
    if not all(reference):
        raise ValueError("a reference took no time at all")
    return [m / r for m, r in zip(measured, reference, strict=True)]


def block_ratios(measured: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]) -> list[float]:
    """Ratios of the medians of blocks that followed each other, for what cannot be interleaved finer."""
    return ratios([summarize(b).median for b in measured], [summarize(b).median for b in reference])


class Verdict(NamedTuple):
    """A figure against its budget.

    Attributes:
        sure: the whole confidence interval is on one side.
    """

    met: bool
    sure: bool

    def __str__(self) -> str:
        return ("yes" if self.met else "no") + ("" if self.sure else " (within the noise)")


def judge(found: Summary, budget: float, figure: Callable[[Summary], float] | None = None) -> Verdict:
    """Whether a median, or another figure of the summary, is within a budget: at most that much."""
    if figure is not None:
        return Verdict(figure(found) <= budget, sure=True)
    return Verdict(found.median <= budget, sure=found.high <= budget or found.low > budget)
