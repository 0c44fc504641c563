"""How long to wait before the next request, so that a thousand nodes do not knock in step."""

from __future__ import annotations

from collections.abc import Callable

FIRST_SECONDS = 0.2
LONGEST_SECONDS = 30.0


class Backoff:
    """Exponential delays with jitter. Starts over only when told that something really worked."""

    def __init__(
        self,
        random: Callable[[], float],
        first: float = FIRST_SECONDS,
        longest: float = LONGEST_SECONDS,
    ) -> None:
        """Args:
        random: uniform in [0, 1).
        first, longest: seconds, before jitter.
        """
        self._random = random
        self._first = first
        self._longest = longest
        self._step = first

    def next(self) -> float:
        """Seconds to wait now: between half and all of a step that doubles each time."""
        step = self._step
        self._step = min(self._longest, step * 2)
        return step * (0.5 + self._random() / 2)

    def worked(self) -> None:
        """Real progress was made."""
        self._step = self._first


class ResumeBudget:
    """For proxies that cut every stream: resumes are free in a burst, then one in two seconds, and one in ten
    once that has gone on for minutes. Nothing that happens in the cluster is known later than that.
    """

    LIMITS = ((10.0, 0.5), (60.0, 0.1))
    """(burst, resumes a second); all hold."""

    def __init__(self, now: float) -> None:
        self._tokens = [burst for burst, _ in self.LIMITS]
        self._at = now

    def wait(self, now: float) -> float:
        """Take one resume; seconds until it may happen (0 within the burst).

        Args:
            now: monotonic seconds.
        """
        passed, self._at = now - self._at, now
        longest = 0.0
        for index, (burst, rate) in enumerate(self.LIMITS):
            self._tokens[index] = min(burst, self._tokens[index] + passed * rate) - 1
            longest = max(longest, -self._tokens[index] / rate)
        return longest


def jittered(seconds: float, spread: float, random: Callable[[], float]) -> float:
    """`seconds` give or take the fraction `spread`."""
    return seconds * (1 - spread + 2 * spread * random())
