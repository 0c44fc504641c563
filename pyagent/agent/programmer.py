"""One turn at a time: what changed in the objects becomes desired state, a plan, and map writes."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from pyagent.agent.audit import Audit, entries_changed
from pyagent.agent.facts import Facts
from pyagent.agent.upkeep import tell_repaired
from pyagent.datapath.counter_resets import counter_resets
from pyagent.datapath.draft import Unfit
from pyagent.datapath.held import Freed, HeldState
from pyagent.datapath.plan import Plan, plan
from pyagent.datapath.remembered import remembered
from pyagent.datapath.restored import restore
from pyagent.datapath.source_range_plan import ADMITTED, SourceRangePlan
from pyagent.datapath.writes import Put
from pyagent.desired.narrow import API_SERVER
from pyagent.desired.nodes import Settings
from pyagent.desired.snapshot import Snapshot
from pyagent.desired.state import DesiredState
from pyagent.kernel.datapath import Datapath
from pyagent.model.failures import KubesockError
from pyagent.model.service import DesiredChange

log = logging.getLogger(__name__)
RETRY_SECONDS = (0.1, 10.0)

FULL_AUDIT_SECONDS = 1800.0
"""Between two audits that trust nothing which an earlier one found right."""


class Turn(NamedTuple):
    """What was carried out."""

    change: DesiredChange
    plan: Plan
    complete: bool


class Programmer:
    """Owner of snapshot, desired state and held state; the only caller of `MapSet.apply` for plans.

    A failed write makes the held state worthless: the next turn reads the maps again and plans in full, with
    back-off, until one goes through.
    """

    def __init__(
        self,
        datapath: Datapath,
        settings: Settings,
        facts: Facts,
        *,
        reused: bool,
        free: Callable[[Freed], None],
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            reused: the maps are an earlier agent's.
            free: takes what a plan freed; it comes back by `reclaim` after a grace period.
        """
        self.snapshot = Snapshot(settings.node_name)
        self.desired = DesiredState(settings)
        self.held = HeldState(datapath.capacities)
        self.planned = False
        self.retry_at: float | None = None
        self.unfit: tuple[Unfit, ...] = ()
        self.usage: Mapping[str, tuple[int, int]] = {}
        self.before_clearing: Callable[[Sequence[Freed]], None] = lambda freed: None  # noqa: ARG005
        self._datapath = datapath
        self._settings = settings
        self._named_by_operator = settings.protected_addresses
        self._facts = facts
        self._free = free
        self._clock = clock
        self._held_is_true = not reused
        self._found = reused
        self._ranges = self._held_ranges()
        self._audit = Audit(datapath.maps)
        self._turns = 0
        self._full_audit_at = clock() + FULL_AUDIT_SECONDS
        self._retry_wait = RETRY_SECONDS[0]

    @property
    def held_is_true(self) -> bool:
        """False while a failed plan waits to be repeated."""
        return self._held_is_true

    def configure(self, **changes: Any) -> None:
        """Use other settings from the next turn on."""
        self._settings = msgspec.structs.replace(self._settings, **changes)
        self.desired.configure(self._settings)

    def reclaim(self, freed: tuple[Freed, ...]) -> bool:
        """A grace period has ended; whether something waited for the room."""
        # Tickets of a state from before a restore are worthless: their ids may be somebody's again.
        ours = [one for one in freed if one.origin is self.held]
        self.before_clearing(ours)
        self._datapath.maps.apply(counter_resets(ours, self._datapath.capacities))
        for one in ours:
            self.held.reclaim(one)
        self.usage = self._usage()
        return bool(self.held.waiting)

    def _usage(self) -> Mapping[str, tuple[int, int]]:
        ranges = len(self._ranges.entries), self._datapath.capacities.source_ranges
        return {**self.held.usage(), "source_ranges": ranges}

    def turn(self) -> Turn | None:
        """Compute, plan and carry out; None if it failed and will be repeated at `retry_at`."""
        if self.planned:
            return self._turn()
        gc.disable()  # a first plan makes a lot, and no garbage
        try:
            return self._turn()
        finally:
            gc.enable()

    def _turn(self) -> Turn | None:
        try:
            self._read_held()
        except (KubesockError, OSError) as error:
            self._failed(error)
            return None
        everything = self.snapshot.everything() if not self.planned else None
        dirty = self.snapshot.take_dirty()
        if API_SERVER in dirty.services:
            self._protect_api_server()
        change = self.desired.update(self.snapshot, everything or dirty)
        self._facts.problems_changed(change.new_problems, change.cleared_problems)
        complete = not (self.planned and self._held_is_true)
        try:
            done = self._carry_out(self.desired.full() if complete else change, complete)
        except (KubesockError, OSError) as error:
            self._failed(error)
            return None
        self.retry_at, self._retry_wait = None, RETRY_SECONDS[0]
        self.usage = self._usage()
        self._facts.unfit(self.unfit)
        if not self.planned:
            self.planned = True
            # What a first list brings stays for good: no later collection need look at it.
            gc.collect()
            gc.freeze()
        return Turn(change, done, complete)

    def _read_held(self) -> None:
        """As far as what we hold is not what the kernel holds."""
        if self._held_is_true:
            return
        self._datapath.grace.wait()
        self.held = restore(self._datapath.raw(), self._datapath.capacities)
        self._ranges = self._held_ranges()
        if self._found:
            self._found = False
            self._remember()

    def _remember(self) -> None:
        """What only Nodes and ServiceCIDRs decide stays as it was found until they are listed."""
        known = remembered(self.held, self.snapshot.node_name)
        self.snapshot.remember(known.nodes, known.service_ranges)
        for kind in sorted(self.snapshot.remembered):
            log.info("%s objects are not listed yet: what was decided by them stays as it is", kind)

    def _carry_out(self, change: DesiredChange, complete: bool) -> Plan:
        # Until it is carried out the held state is ahead of the kernel: a failure makes it worthless.
        self._held_is_true = False
        made = plan(self.held, change, complete=complete)
        ranges = self._ranges.plan(change.service_ports, self.held, complete)
        writes = (*ranges.before, *made.writes, *ranges.after)
        self._datapath.maps.apply(writes)
        self._held_is_true = True
        self._audit.distrust() if complete else self._audit.wrote(writes)
        self._turns += 1
        if made.freed:
            self._free(made.freed)
        self.unfit = (*made.unfit, *ranges.unfit)
        return made

    def _protect_api_server(self) -> None:
        """No external address may take those that the API server answers at."""
        endpoints = self.snapshot.slices_of(API_SERVER)
        addresses = {backend.address for piece in endpoints for backend in piece.endpoints.backends}
        protected = self._named_by_operator | addresses
        if protected != self._settings.protected_addresses:
            self.configure(protected_addresses=protected)

    def maps_were_exchanged(self) -> None:
        """The maps are others with the same contents and more room: read and plan anew."""
        self._held_is_true = False
        self.retry_at = self._clock()

    def audit(self) -> None:
        """Look whether some of the maps still are as written; if not, the next turn makes all of them so.

        As many looks as `audit.STEPS` make a round.
        """
        if not (self.planned and self._held_is_true):
            return
        if self._clock() >= self._full_audit_at:
            self._full_audit_at = self._clock() + FULL_AUDIT_SECONDS
            self._audit.distrust()
        altered = self._audit.look(self.held, self._ranges.entries, self._turns)
        if altered:
            tell_repaired(self._facts, [entries_changed(altered)])
            self._held_is_true = False
            self.retry_at = self._clock()

    def _held_ranges(self) -> SourceRangePlan:
        entries = self._datapath.maps.items("source_ranges")
        # A hook looks whether a range is there, not at its value: with another one it is that range, too.
        self._datapath.maps.apply(Put("source_ranges", k, ADMITTED) for k, v in entries if v != ADMITTED)
        return SourceRangePlan((key for key, _ in entries), self._datapath.capacities.source_ranges)

    def _failed(self, error: Exception) -> None:
        self._facts.apply_failed(self._clock(), str(error))
        log.error("maps not written, tried again in %.1f s: %s", self._retry_wait, error)
        self.retry_at = self._clock() + self._retry_wait
        self._retry_wait = min(self._retry_wait * 2, RETRY_SECONDS[1])
