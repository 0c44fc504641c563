"""What cannot be used in the objects: collected per object, reported once, cleared when it goes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from pyagent.model.failures import InvalidField
from pyagent.model.source_events import Problem

MAX_FINDINGS = 20


class Findings:
    """The problems of one object while it is read.

    The number is bounded: an object with ten thousand bad ports tells its first few and how many more.
    """

    __slots__ = ("_beyond", "_problems", "kind", "name", "namespace")

    def __init__(self, kind: str, namespace: str, name: str) -> None:
        self.kind = kind
        self.namespace = namespace
        self.name = name
        self._problems: dict[Problem, None] = {}
        self._beyond = 0

    def add(self, field: str, reason: str | InvalidField) -> None:
        """Note that `field` (a path such as `spec.ports[3].port`) cannot be used, and what to do."""
        if len(self._problems) >= MAX_FINDINGS:
            self._beyond += 1
            return
        self._problems[Problem(self.kind, self.namespace, self.name, field, str(reason))] = None

    def problems(self) -> tuple[Problem, ...]:
        """What was found, in the order of discovery, without repetition."""
        if not self._problems:
            return ()
        found = tuple(self._problems)
        if self._beyond:
            rest = f"{self._beyond} more problems in this object; mend the ones above first"
            found += (Problem(self.kind, self.namespace, self.name, "", rest),)
        return found


class ProblemLedger:
    """Which problems hold now, whoever found them, and what changed since the last look."""

    def __init__(self) -> None:
        self._held: dict[Hashable, tuple[Problem, ...]] = {}
        self._holders: dict[Problem, int] = {}
        self._was_held: dict[Problem, bool] = {}

    @property
    def current(self) -> tuple[Problem, ...]:
        return tuple(self._holders)

    def hold(self, source: Hashable, problems: Iterable[Problem]) -> None:
        """Replace what `source` found by `problems`; none clears it."""
        fresh = tuple(problems)
        stale = self._held.get(source, ())
        if fresh == stale:
            return
        for problem in fresh:
            self._count(problem, 1)
        for problem in stale:
            self._count(problem, -1)
        if fresh:
            self._held[source] = fresh
        else:
            del self._held[source]

    def take_changes(self) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
        """(new, cleared) since the last call."""
        touched, self._was_held = self._was_held, {}
        new = tuple(p for p, was_held in touched.items() if not was_held and p in self._holders)
        cleared = tuple(p for p, was_held in touched.items() if was_held and p not in self._holders)
        return new, cleared

    def _count(self, problem: Problem, step: int) -> None:
        held = self._holders.get(problem, 0)
        self._was_held.setdefault(problem, held > 0)
        if held + step:
            self._holders[problem] = held + step
        else:
            del self._holders[problem]
