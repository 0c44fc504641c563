"""What happened, in one place: the loop says it, health, metrics and status read it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from pyagent.agent.facts_view import FamilyHealth, HealthPage, View, Watch
from pyagent.agent.histogram import (
    CHANGE_SECONDS,
    NETWORK_PROGRAMMING_SECONDS,
    SYNC_SECONDS,
    Histogram,
)
from pyagent.datapath.draft import Unfit
from pyagent.model.address import Family, format_address
from pyagent.model.kube_objects import Kind
from pyagent.model.service import ServicePortKey
from pyagent.model.source_events import Problem, SourceState

log = logging.getLogger(__name__)

NEEDED: frozenset[Kind] = frozenset({"Service", "EndpointSlice"})
"""Kinds without whose lists nothing is written."""

FAMILIES = (Family.IPV4, Family.IPV6)
STALE_SECONDS = 60.0
"""Twice kube-proxy's sync period: an update that waits longer makes the agent unhealthy."""


PROBLEMS_LOGGED = 50
UNFIT_LOGGED = 20
"""Of one change: a list of nothing but bad objects must not bury what else the log says."""


class Facts:
    """Thread-safe; every method is short. `now` arguments are seconds of the injected monotonic clock."""

    def __init__(
        self,
        *,
        needed: frozenset[Kind] = NEEDED,
        families: Sequence[Family] = FAMILIES,
        stale_after: float = STALE_SECONDS,
        observing: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            needed: kinds whose lists the first plan waits for.
            families: address families that this node serves.
            stale_after: seconds after which a waiting update makes the agent unhealthy.
            observing: no hooks are meant to be attached (`--observe`).
        """
        self._needed = needed
        self._stale_after = stale_after
        self._observing = observing
        self._monotonic = monotonic
        self._wall = wall
        self._lock = threading.Lock()
        self._started = monotonic()
        self._listed: set[Kind] = set()
        self._synced_at: float | None = None
        self._states: dict[Kind, SourceState] = {}
        self._current_until: dict[Kind, float] = {}
        self._disconnects: dict[Kind, int] = {}
        self._problems: dict[Problem, None] = {}
        self._planned = False
        self._queued_since: dict[Family, float] = {}
        self._updated = dict.fromkeys(families, self._started)
        self._last_queued: float | None = None
        self._services_pending = self._endpoints_pending = 0
        self._service_changes = self._endpoint_changes = 0
        self._writes = self._failures = self._repairs = 0
        self._last_error = ""
        self._hooks: dict[str, bool] = {}
        self._probe_ok = False
        self._probe_error = ""
        self._node_eligible = True
        self._node_reason = ""
        self._unfit: tuple[str, ...] = ()
        self._no_local_endpoints: dict[tuple[str, Family], int] = {}
        self._sockets_destroyed = dict.fromkeys(families, 0)
        self._answers: dict[tuple[HealthPage, int], int] = {}
        self._full_syncs = Histogram(SYNC_SECONDS)
        self._partial_syncs = Histogram(SYNC_SECONDS)
        self._changes = Histogram(CHANGE_SECONDS)
        self._network_programming = {family: Histogram(NETWORK_PROGRAMMING_SECONDS) for family in Family}
        self._reaps = Histogram(SYNC_SECONDS)

    def source_state(self, state: SourceState) -> None:
        """A source changed how it stands with a kind."""
        now = self._monotonic()
        with self._lock:
            before = self._states.get(state.kind)
            if before is not None and before.state == "watching" and state.state != "watching":
                self._current_until[state.kind] = now
            if state.state == "disconnected" and (before is None or before.state != "disconnected"):
                self._disconnects[state.kind] = self._disconnects.get(state.kind, 0) + 1
            self._states[state.kind] = state

    def listed(self, kind: Kind) -> None:
        """A whole list of this kind arrived (an API that is absent counts as an empty one)."""
        now = self._monotonic()
        with self._lock:
            self._listed.add(kind)
            self._current_until[kind] = now
            if self._synced_at is None and self._needed <= self._listed:
                self._synced_at = now

    def problems_changed(self, new: Iterable[Problem], cleared: Iterable[Problem]) -> None:
        """What cannot be used in the objects: found since the last call, and gone since. A log line each."""
        with self._lock:
            for problem in cleared:
                self._problems.pop(problem, None)
            fresh = [problem for problem in dict.fromkeys(new) if problem not in self._problems]
            self._problems.update(dict.fromkeys(fresh))
        for problem in fresh[:PROBLEMS_LOGGED]:
            log.warning("not usable: %s", problem)
        if len(fresh) > PROBLEMS_LOGGED:
            log.warning("not usable: %d more; `kubesock status` lists all", len(fresh) - PROBLEMS_LOGGED)

    def problem(self, problem: Problem) -> None:
        """One more thing that cannot be used."""
        self.problems_changed((problem,), ())

    def queued(
        self,
        now: float,
        *,
        services: int = 0,
        endpoints: int = 0,
        families: Iterable[Family] | None = None,
    ) -> None:
        """An update waits to be written.

        Args:
            services, endpoints: changed Services and EndpointSlices that this adds.
            families: those concerned; None: all of this node.
        """
        with self._lock:
            for family in self._updated if families is None else families:
                self._queued_since.setdefault(family, now)
            self._last_queued = now
            self._services_pending += services
            self._endpoints_pending += endpoints

    def applied(
        self,
        now: float,
        *,
        services: int = 0,
        endpoints: int = 0,
        duration: float = 0.0,
        waited: float | None = None,
        writes: int = 0,
        full: bool = False,
        latencies: Iterable[tuple[Family, float]] = (),
        families: Iterable[Family] | None = None,
    ) -> None:
        """A plan was carried out; it holds everything that was queued for these families.

        Args:
            services, endpoints: changes that it carried.
            duration: seconds for computing and writing it.
            waited: seconds since the first of its changes arrived; None: not known.
            full: it was computed from everything instead of from what changed.
            latencies: family, and seconds since the trigger time, of each of its EndpointSlices.
            families: those written; None: all of this node.
        """
        with self._lock:
            for family in tuple(self._updated) if families is None else families:
                self._queued_since.pop(family, None)
                self._updated[family] = now
            self._planned = True
            self._last_error = ""
            self._writes += writes
            self._service_changes += services
            self._endpoint_changes += endpoints
            self._services_pending = self._endpoints_pending = 0
            (self._full_syncs if full else self._partial_syncs).observe(duration)
            if waited is not None:
                self._changes.observe(waited)
            for family, seconds in latencies:
                self._network_programming[family].observe(seconds)

    def apply_failed(self, now: float, error: str) -> None:
        """A plan could not be carried out in full; what was queued still waits."""
        with self._lock:
            for family in self._updated:
                self._queued_since.setdefault(family, now)
            self._failures += 1
            self._last_error = error

    def hooks(self, states: Iterable[tuple[str, bool]]) -> None:
        """Which hooks there are, and whether each is attached at the right cgroup."""
        fresh = dict(states)
        with self._lock:
            self._hooks = fresh

    def repaired(self, what: str) -> None:  # noqa: ARG002  the journal is the log's
        """Somebody had detached a hook or removed a pin, and it is there again."""
        with self._lock:
            self._repairs += 1

    def probed(self, ok: bool, error: str = "") -> None:
        """What the self-probe saw: each hook answering, or which did not."""
        with self._lock:
            self._probe_ok, self._probe_error = ok, error

    def node(self, eligible: bool, reason: str = "") -> None:
        """Whether load balancers may send to this node, and why not (kube-proxy's `nodeEligible`)."""
        with self._lock:
            self._node_eligible, self._node_reason = eligible, reason

    def unfit(self, found: Iterable[Unfit]) -> None:
        """What the maps have no room for now; the rest works."""
        in_order = sorted(found, key=_services_first)
        names = tuple(dict.fromkeys(map(_unfit_text, in_order)))
        with self._lock:
            before, self._unfit = self._unfit, names
        fresh = [name for name in names if name not in set(before)]
        for name in fresh[:UNFIT_LOGGED]:
            log.warning("no room: %s", name)
        if len(fresh) > UNFIT_LOGGED:
            log.warning("no room: %d more; `kubesock diff` lists all", len(fresh) - UNFIT_LOGGED)
        if before and not names:
            log.info("there is room for everything again")

    def local_endpoints(self, without: Mapping[tuple[str, Family], int]) -> None:
        """How many service ports have endpoints but none on this node.

        Args:
            without: (`internal` or `external`, family) -> service ports whose policy is Local.
        """
        with self._lock:
            self._no_local_endpoints = dict(without)

    def sockets_destroyed(self, destroyed: Mapping[Family, int], duration: float) -> None:
        """Sockets on backends that no longer serve were looked for, and so many destroyed."""
        with self._lock:
            for family, count in destroyed.items():
                self._sockets_destroyed[family] = self._sockets_destroyed.get(family, 0) + count
            self._reaps.observe(duration)

    def sockets_kept(self, reasons: Collection[str]) -> None:
        """Sockets on backends that are gone could not be ended; the log has each."""

    def answered(self, page: HealthPage, status: int) -> None:
        """A health page was served."""
        with self._lock:
            self._answers[page, status] = self._answers.get((page, status), 0) + 1

    def healthy(self) -> bool:
        """No update waits for too long."""
        with self._lock:
            return all(health.healthy for health in self._family_health().values())

    def ready(self) -> tuple[bool, tuple[str, ...]]:
        """(true, ()) once lists are synced, a first plan is carried out, hooks are attached and seen at work.

        An API server that goes away later changes nothing: the node keeps serving.
        """
        with self._lock:
            reasons = self._not_ready()
        return not reasons, reasons

    def view(self) -> View:
        """Everything, as it is now."""
        with self._lock:
            now = self._monotonic()
            families = self._family_health()
            reasons = self._not_ready()
            return View(
                now=self._wall(),
                started=self._at(self._started),
                ready=not reasons,
                not_ready_because=reasons,
                observing=self._observing,
                synced=self._synced_at is not None,
                planned=self._planned,
                watches={kind: self._watch(kind, now) for kind in sorted(self._states)},
                problems=tuple(self._problems),
                unfit=self._unfit,
                hooks=self._hooks,
                repairs=self._repairs,
                probe_ok=self._probe_ok,
                probe_error=self._probe_error,
                node_eligible=self._node_eligible,
                node_reason=self._node_reason,
                healthy=all(health.healthy for health in families.values()),
                families=families,
                last_updated=self._at(max(self._updated.values())),
                last_queued=0.0 if self._last_queued is None else self._at(self._last_queued),
                queued_for=max((now - since for since in self._queued_since.values()), default=0.0),
                last_error=self._last_error,
                failures=self._failures,
                writes=self._writes,
                service_changes=self._service_changes,
                endpoint_changes=self._endpoint_changes,
                services_pending=self._services_pending,
                endpoints_pending=self._endpoints_pending,
                no_local_endpoints=self._no_local_endpoints,
                sockets_destroyed=self._sockets_destroyed.copy(),
                answers=self._answers.copy(),
                full_syncs=self._full_syncs.copy(),
                partial_syncs=self._partial_syncs.copy(),
                changes=self._changes.copy(),
                network_programming={
                    family: histogram.copy() for family, histogram in self._network_programming.items()
                },
                reaps=self._reaps.copy(),
            )

    def _at(self, monotonic: float) -> float:
        """Wall-clock time of a past moment; a clock that was set since does not make ages wrong."""
        return self._wall() - (self._monotonic() - monotonic)

    def _watch(self, kind: Kind, now: float) -> Watch:
        state = self._states[kind]
        age = 0.0 if state.state == "watching" else now - self._current_until.get(kind, self._started)
        return Watch(state.state, state.error, state.resource_version, age, self._disconnects.get(kind, 0))

    def _family_health(self) -> dict[Family, FamilyHealth]:
        now = self._monotonic()
        health = {}
        for family, updated in self._updated.items():
            since = self._queued_since.get(family)
            # Before the lists are there nothing may be written, so nothing is late.
            late = (
                since is not None
                and self._synced_at is not None
                and now - max(since, self._synced_at) >= self._stale_after
            )
            health[family] = FamilyHealth(self._at(updated), not late)
        return health

    def _not_ready(self) -> tuple[str, ...]:
        reasons = [f"{kind}s are not listed yet" for kind in sorted(self._needed - self._listed)]
        if not self._planned:
            failed = f": {self._last_error}" if self._last_error else ""
            reasons.append(f"the maps are not filled yet{failed}")
        if self._observing:
            return tuple(reasons)
        if not self._hooks:
            reasons.append("the hooks are not attached yet")
        reasons += [f"hook {name} is not attached" for name, attached in self._hooks.items() if not attached]
        if not self._probe_ok:
            silent = f": {self._probe_error}" if self._probe_error else " yet"
            reasons.append(f"the self-probe saw no translation{silent}")
        return tuple(reasons)


def _services_first(unfit: Unfit) -> tuple[bool, str]:
    return not isinstance(unfit.subject, ServicePortKey), str(unfit.subject)


def _unfit_text(unfit: Unfit) -> str:
    subject = unfit.subject
    name = format_address(subject) if isinstance(subject, bytes) else str(subject)
    return f"{name}: map {unfit.map} is full"
