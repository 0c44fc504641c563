"""When the audit looks at what, and what is done about what it finds; of maps that no plan writes too."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from pyagent.agent.audit import STEPS, entries_changed
from pyagent.agent.facts import Facts
from pyagent.agent.programmer import Programmer
from pyagent.agent.upkeep import tell_repaired
from pyagent.model.failures import KubesockError

log = logging.getLogger(__name__)

ROUND_SECONDS = 4.0
"""For one round over all maps."""


class Writer(Protocol):
    """Who writes maps, or parts of them, that no plan writes."""

    def altered(self) -> list[str]:
        """Names of the maps in which somebody else wrote over that."""

    def undo_others(self) -> list[str]:
        """Make those good; their names."""


class AuditRounds:
    """Called by the loop's thread.

    Args:
        besides: those who write besides plans, as they are now.
    """

    def __init__(
        self,
        programmer: Programmer,
        besides: Callable[[], Sequence[Writer]],
        facts: Facts,
        clock: Callable[[], float],
    ) -> None:
        self.due = clock() + ROUND_SECONDS
        self._programmer = programmer
        self._besides = besides
        self._facts = facts
        self._clock = clock
        self._looks = 0

    def run(self) -> bool:
        """Take a look if it is time; whether that ended a round."""
        if self._clock() < self.due:
            return False
        self.due = self._clock() + ROUND_SECONDS / len(STEPS)
        try:
            self._programmer.audit()
        except (KubesockError, OSError) as error:
            log.error("maps not audited, tried again in %.0f s: %s", ROUND_SECONDS, error)
        self._looks += 1
        if self._looks % len(STEPS):
            return False
        for writer in self._besides():
            self._undo_others(writer)
        return True

    def altered_besides_plans(self) -> list[str]:
        """Maps in which somebody else wrote, of those that no plan writes."""
        return sorted({f"map {name}" for writer in self._besides() for name in writer.altered()})

    def _undo_others(self, writer: Writer) -> None:
        try:
            undone = writer.undo_others()
        except (KubesockError, OSError) as error:
            log.error("maps not looked after, tried again in %.0f s: %s", ROUND_SECONDS, error)
        else:
            if undone:
                tell_repaired(self._facts, [entries_changed(undone)])
