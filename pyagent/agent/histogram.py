"""Histograms as Prometheus means them: cumulative counts below fixed bounds, and a sum."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


def exponential_bounds(start: float, factor: float, count: int) -> tuple[float, ...]:
    """`count` bounds, each `factor` times the one before."""
    return tuple(start * factor**i for i in range(count))


SYNC_SECONDS = exponential_bounds(0.001, 2, 15)
"""kube-proxy's bounds for a sync: 1 ms to 16 s."""

NETWORK_PROGRAMMING_SECONDS = (
    0.25,
    0.5,
    *map(float, range(1, 60)),
    *map(float, range(60, 120, 5)),
    *map(float, range(120, 301, 30)),
)
"""kube-proxy's bounds for the network programming latency of the Kubernetes scalability SLO."""

CHANGE_SECONDS = exponential_bounds(0.00025, 2, 16)
"""From a watch event to the kernel: 0.25 ms to 8 s."""


class Histogram:
    """Not thread-safe: whoever holds it, locks."""

    __slots__ = ("_counts", "bounds", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Args: bounds: upper bounds, rising; a last one at infinity is added."""
        self.bounds = tuple(bounds)
        self._counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self._counts)

    def cumulative(self) -> list[tuple[float, int]]:
        """(upper bound, observations not above it), the last bound being infinity."""
        rows, below = [], 0
        for bound, count in zip((*self.bounds, float("inf")), self._counts, strict=True):
            below += count
            rows.append((bound, below))
        return rows

    def below(self, part: float) -> float | None:
        """A bound that this part of the observations, 0 to 1, does not exceed; None before the first one."""
        total = self.count
        if not total:
            return None
        return next(bound for bound, seen in self.cumulative() if seen >= part * total)

    def copy(self) -> Histogram:
        twin = Histogram(self.bounds)
        twin._counts = self._counts.copy()
        twin.sum = self.sum
        return twin

    def merged(self, other: Histogram) -> Histogram:
        """What both observed together; their bounds must be the same."""
        both = self.copy()
        both._counts = [mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)]
        both.sum += other.sum
        return both
