"""Which notice is told when: the same one over and over is one Event with a count, and many are slowed down.

No input makes more than `BURST` requests at once and then one in `SECONDS_BETWEEN`, nor more than
`SUBJECT_BURST` and one in `SUBJECT_SECONDS` about one object. No clock: time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pyagent.model.notice import Notice

BURST, SECONDS_BETWEEN = 25, 10.0
SUBJECT_BURST, SUBJECT_SECONDS = 5, 300.0
MOST = 200
"""Different notices that are remembered; what comes beyond is dropped and counted."""

FIRST_AGAIN, LONGEST_AGAIN = 60.0, 1800.0
"""Seconds until a repetition is told, doubled each time."""

FORGOTTEN_AFTER = 3300.0
"""Shorter than the hour for which API servers keep an Event by default: what comes later is a new one."""


class Allowance:
    """A burst, then a steady rate."""

    def __init__(self, burst: int, seconds: float, now: float) -> None:
        self._burst = burst
        self._seconds = seconds
        self._left = float(burst)
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until one may be taken."""
        self._left = min(self._burst, self._left + (now - self._at) / self._seconds)
        self._at = now
        return max(0.0, (1.0 - self._left) * self._seconds)

    def take(self) -> None:
        self._left -= 1.0

    @property
    def untouched(self) -> bool:
        return self._left >= self._burst


@dataclass
class Series:
    """One notice, and how often it came."""

    notice: Notice
    first: float  # wall-clock seconds
    last: float
    due: float  # monotonic seconds
    count: int = 0
    told: int = 0  # the count that the cluster knows
    again: float = FIRST_AGAIN
    event_name: str = ""  # once there is an Event
    noted: float = field(default=0.0)  # monotonic seconds


class EventBook:
    """What there is to tell. Not thread-safe."""

    def __init__(self, now: float) -> None:
        """Args: now: monotonic seconds."""
        self.dropped = 0
        self._series: dict[Notice, Series] = {}
        self._all = Allowance(BURST, SECONDS_BETWEEN, now)
        self._subjects: dict[tuple[str, str, str], Allowance] = {}

    def note(self, notice: Notice, now: float, wall: float, delay: float = 0.0) -> None:
        """Something happened.

        Args:
            now: monotonic seconds.
            wall: seconds since the epoch.
            delay: before it is told for the first time.
        """
        series = self._series.get(notice)
        if series is not None and now - series.noted >= FORGOTTEN_AFTER and series.told == series.count:
            series = None
        if series is None:
            if notice not in self._series and len(self._series) >= MOST and not self._make_room(now):
                self.dropped += 1
                return
            series = self._series[notice] = Series(notice, wall, wall, now + delay)
        series.count += 1
        series.last, series.noted = wall, now

    def next(self, now: float) -> tuple[Series | None, float | None]:
        """What to tell now, else the seconds until there may be something; None: not before a note."""
        untold = [series for series in self._series.values() if series.count > series.told]
        if not untold:
            return None, None
        waits = [(self._wait(series, now), series.due, at) for at, series in enumerate(untold)]
        wait, _, at = min(waits)
        return (untold[at], 0.0) if wait <= 0 else (None, wait)

    def taken(self, series: Series, now: float) -> None:
        """A request is made for it, whatever comes of it."""
        self._all.take()
        self._allowance(series.notice, now).take()

    def told(self, series: Series, count: int, now: float, event_name: str) -> None:
        """The cluster knows of `count`. A name means that more can be added to that Event."""
        series.told, series.event_name = count, event_name
        series.due = now + series.again
        series.again = min(LONGEST_AGAIN, series.again * 2)

    def _wait(self, series: Series, now: float) -> float:
        allowed = max(self._all.wait(now), self._allowance(series.notice, now).wait(now))
        return max(allowed, series.due - now)

    def _allowance(self, notice: Notice, now: float) -> Allowance:
        subject = (notice.kind, notice.namespace, notice.name)
        return self._subjects.setdefault(subject, Allowance(SUBJECT_BURST, SUBJECT_SECONDS, now))

    def _make_room(self, now: float) -> bool:
        """Forget what is told and was noted least recently; False if all are still to be told."""
        done = [series for series in self._series.values() if series.count == series.told]
        if not done:
            return False
        del self._series[min(done, key=lambda series: series.noted).notice]
        for subject, allowance in list(self._subjects.items()):
            allowance.wait(now)
            if allowance.untouched:
                del self._subjects[subject]
        return True
