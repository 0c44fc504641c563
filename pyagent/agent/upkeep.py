"""Hooks and pins as they should be: attached at the start, looked after from then on, probed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from pyagent.agent.facts import Facts
from pyagent.kernel.datapath import Datapath
from pyagent.kernel.probe import silent_hooks
from pyagent.model.failures import AgentRunning, KubesockError

log = logging.getLogger(__name__)
EVERY_SECONDS = 2.0


def tell_repaired(facts: Facts, lines: Sequence[str]) -> None:
    """What somebody else had done and is made good: a line in the log for each, one Event for all."""
    for line in lines:
        log.warning("repaired %s", line)
    if lines:
        facts.repaired("; ".join(lines))


class Upkeep:
    """Called by the loop's thread.

    Args:
        reused: the maps are an earlier agent's and serve already.
        attached: our programs are attached already.
    """

    def __init__(
        self,
        datapath: Datapath,
        facts: Facts,
        *,
        reused: bool,
        attached: bool,
        clock: Callable[[], float],
    ) -> None:
        self.due = clock()
        self._datapath = datapath
        self._facts = facts
        self._reused = reused
        self._attached = attached
        self._clock = clock
        self._started = clock()
        self._probe_wanted = True
        self._planned = False
        self._failure = ""

    def run(self, planned: bool) -> bool:
        """Whatever is to be done now; whether our programs were attached just now.

        Args:
            planned: the maps were filled: new ones may be attached, and the self-probe finds its frontends.

        Raises:
            KubesockError: the programs cannot be attached, or another agent has our folder.
        """
        if planned and not self._planned:
            self._planned = True
            self.due = self._clock()
            if self._datapath.observing:
                self._datapath.show()
                log.info("observing: the maps are filled, nothing is attached")
        if self._datapath.observing:
            return False
        attaches = not self._attached and self._datapath.programs_ready and (planned or self._reused)
        if attaches:
            self._datapath.attach()
            self._attached = True
            self.due = self._clock()
            log.info("hooks attached at %s", self._datapath.cgroup)
        if self._clock() >= self.due:
            self.due = self._clock() + EVERY_SECONDS
            if self._attached:
                self._look_after(planned)
        return attaches

    def _look_after(self, planned: bool) -> None:
        try:
            repaired, failures = self._datapath.repair()
        except AgentRunning:
            raise
        except (KubesockError, OSError) as error:
            repaired, failures = [], [str(error)]
        failure = "; ".join(failures)
        if failure and failure != self._failure:
            log.error("hooks and pins not repaired, tried again every %.0f s: %s", EVERY_SECONDS, failure)
        self._failure = failure
        tell_repaired(self._facts, repaired)
        self._facts.hooks([(s.hook.name.lower(), s.attached) for s in self._datapath.link_states()])
        if planned and (self._probe_wanted or repaired):
            self._probe()

    def _probe(self) -> None:
        silent = silent_hooks(self._datapath.cgroup, self._datapath.hooks)
        if silent is None:
            unseen = self._datapath.hooks_not_effective()
            self._facts.probed(not unseen, ", ".join(unseen))
        else:
            names = [f"{hook.name.lower()} (errno {number})" for hook, number in silent.items()]
            self._facts.probed(not names, ", ".join(names))
        ready, reasons = self._facts.ready()
        if not ready:
            log.warning("not ready: %s", "; ".join(reasons))
        elif self._probe_wanted:
            self._probe_wanted = False
            log.info("ready after %.2f s", self._clock() - self._started)
