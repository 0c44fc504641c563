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
    """Allows a burst of immediate resumes, then a steady rate: for proxies that cut every stream at once."""

    def __init__(self, now: float, burst: int = 10, per_second: float = 0.5) -> None:
        self._tokens = float(burst)
        self._burst = burst
        self._rate = per_second
        self._at = now

    def wait(self, now: float) -> float:
        """Take one resume; seconds until it may happen (0 within the burst).

        Args:
            now: monotonic seconds.
        """
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        self._tokens -= 1
        return max(0.0, -self._tokens / self._rate)


def jittered(seconds: float, spread: float, random: Callable[[], float]) -> float:
    """`seconds` give or take the fraction `spread`."""
    return seconds * (1 - spread + 2 * spread * random())
