"""What happened between two looks: new connections per second, by service port and by backend."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import compress
from operator import ne

from pyagent.datapath.decoded import decode_backend
from pyagent.view.live import LiveMaps, chosen_counts, words
from pyagent.view.service_table import ServiceRows
from pyagent.view.terminal.sample import HookRuns, Sample

KEPT = 60
"""Looks that are remembered of what is active; what was quiet for so long is forgotten."""


class Activity:
    """Follows the looks; bounded, for only what was active lately has a history.

    Attributes:
        ports, backends: new connections per second by service-port id and by backend id; 0 is left out.
        refused: refusals per second by service-port id.
        known: two looks were taken, so that rates mean something.
        services: rows of Services, which hardly differ from look to look.
    """

    def __init__(self) -> None:
        self.ports: dict[int, float] = {}
        self.backends: dict[int, float] = {}
        self.refused: dict[int, float] = {}
        self.known = False
        self.services = ServiceRows()
        self._histories: dict[int, array[float]] = {}
        self._chosen: list[int] = []
        self._refused: list[int] = []
        self._taken = 0.0
        self._looks = 0
        self._first_runs: dict[int, HookRuns] = {}
        self._last_runs: dict[int, tuple[float, HookRuns]] = {}
        self.run_rates: dict[int, float] = {}

    def follow(self, sample: Sample) -> None:
        """Take in the next look, which must hold `chosen`, `backends` and `refused`."""
        chosen = chosen_counts(sample.live)
        refused = words(sample.live.refused).tolist()
        seconds = sample.taken - self._taken
        if self._chosen and seconds > 0:
            self.known = True
            self.backends = _per_second(self._chosen, chosen, seconds)
            self.refused = _per_second(self._refused, refused, seconds)
            self.ports = _by_owner(sample.live, self.backends)
            self._remember()
        self._chosen, self._refused, self._taken = chosen, refused, sample.taken
        self._follow_hooks(sample)

    def history(self, port: int) -> list[float]:
        """New connections per second of a service port at the last looks, oldest first."""
        return [round(value, 2) for value in self._histories.get(port, ())]

    def nanoseconds_per_run(self, hook: HookRuns) -> float | None:
        """The average since its statistics were first seen; None before it ran."""
        first = self._first_runs.get(hook.status.program_id, hook)
        runs = hook.runs - first.runs
        return (hook.nanoseconds - first.nanoseconds) / runs if runs > 0 else None

    def _remember(self) -> None:
        self._looks = min(self._looks + 1, KEPT)
        for port in self.ports:
            if port not in self._histories:
                self._histories[port] = array("f", bytes(4 * (self._looks - 1)))
        for port in list(self._histories):
            history = self._histories[port]
            history.append(self.ports.get(port, 0.0))
            del history[:-KEPT]
            if not any(history):
                del self._histories[port]

    def _follow_hooks(self, sample: Sample) -> None:
        if not sample.hooks:
            self._first_runs, self._last_runs, self.run_rates = {}, {}, {}
            return
        for hook in sample.hooks:
            program = hook.status.program_id
            self._first_runs.setdefault(program, hook)
            if program in self._last_runs:
                taken, before = self._last_runs[program]
                if sample.taken > taken:
                    self.run_rates[program] = max(0, hook.runs - before.runs) / (sample.taken - taken)
            self._last_runs[program] = sample.taken, hook


def _per_second(before: Sequence[int], now: Sequence[int], seconds: float) -> dict[int, float]:
    """A counter that became less belongs to somebody new and began at 0."""
    padded = [*before, *[0] * (len(now) - len(before))]
    rates = {}
    for index in compress(range(len(now)), map(ne, padded, now)):
        old, count = padded[index], now[index]
        if count:
            rates[index] = (count - old if count >= old else count) / seconds
    return rates


def _by_owner(live: LiveMaps, rates: dict[int, float]) -> dict[int, float]:
    """Sums by the service port that each backend belongs to."""
    found: dict[int, float] = {}
    for backend_id, rate in rates.items():
        backend = decode_backend(live.raw.backends, backend_id)
        if backend is not None:
            found[backend.service_port] = found.get(backend.service_port, 0.0) + rate
    return found
